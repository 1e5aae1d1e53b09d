"""`matchrt inspect` of an engine: what its manifest says, and with --layers what it consists of."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from matchrt._util.packages import packages_for
from matchrt.cli.inspect_onnx import counts, print_graph
from matchrt.cli.output import error_json, facts, megabytes, print_error, print_json, stdout
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, SelfTest

if TYPE_CHECKING:
    from matchrt.runtime.engine_file import EngineFile
    from matchrt.runtime.gpu.inspection.opened import OpenedEngine


def inspect_engine(path: Path, layers: bool, as_json: bool, backend: str | None = None) -> int:
    """Prints an engine. Returns the exit code: 2 if layers were requested and cannot be shown, else 0.

    backend: the engine's, if it must be of that one; None for any.
    Errors: those of `read_engine`.
    """
    from matchrt.runtime.backend import get_backend
    from matchrt.runtime.engine_file import read_engine

    file = read_engine(path, backend=backend)
    document: dict[str, Any] = {"kind": "engine", "path": str(path), "manifest": asdict(file.manifest)}
    if not as_json:
        _print_manifest(path, file.manifest)
    if not layers:
        if as_json:
            print_json(document)
        return 0
    try:
        document |= _graph(path, as_json) if get_backend(file.manifest.backend).onnx_engines else _opened(file, as_json)
    except MatchRTError as error:
        if as_json:
            print_json(document | {"layers": None, "layers_error": error_json(error)})
        else:
            print_error(error, f"[{error.code}] layers cannot be shown: ")
        return 2
    if as_json:
        print_json(document)
    return 0


def _graph(path: Path, quiet: bool) -> dict[str, Any]:
    """The graph of an ONNX engine as JSON values, which is also printed unless `quiet`. Error: package-missing."""
    with packages_for("Showing the nodes of an ONNX engine"):
        from matchrt.export.inspect_onnx import inspect_onnx
    graph = inspect_onnx(path)
    if not quiet:
        print_graph(graph, operators=True)
    return {"graph": graph}


def _opened(file: EngineFile, quiet: bool) -> dict[str, Any]:
    """The layers of an opened engine as JSON values, which are also printed unless `quiet`.

    Errors: those of `inspection.opened.open_engine`.
    """
    from matchrt.runtime.gpu.inspection.opened import open_engine
    from matchrt.runtime.gpu.inspection.summary import summarise_layers

    opened = open_engine(file)
    summary = summarise_layers(opened.layers)
    if not quiet:
        _print_opened(opened)
    return {
        "gpu": opened.gpu,
        "aux_streams": opened.aux_streams,
        "memory": asdict(opened.memory),
        "profiles": [[asdict(shapes) for shapes in profile] for profile in opened.profiles],
        "summary": asdict(summary),
        "layers": [asdict(layer) | {"precision": layer.precision} for layer in opened.layers],
    }


def _print_manifest(path: Path, manifest: EngineManifest) -> None:
    contract, matching = manifest.input, manifest.matching
    size = f"{contract.height}x{contract.width}"
    if contract.profile is not None:
        sizes = (contract.profile.minimum, contract.profile.optimum, contract.profile.maximum)
        size = " … ".join(f"{height}x{width}" for height, width in sizes)
    rows = [
        ("engine", path),
        ("model", f"{manifest.model} ({manifest.family})"),
        ("runs on", f"{manifest.backend} {manifest.backend_version}, {manifest.precision}"),
        *_portability(manifest),
        ("input", f"{size}, {contract.channels} channel(s), sides multiples of {contract.divisor}"),
        *([("frames", str(contract.frames))] if contract.frames is not None else []),
        ("tensors in", _tensors(manifest, "inputs")),
        ("tensors out", _tensors(manifest, "outputs")),
        (
            "matches",
            f"at most {matching.max_matches}, confidence above {matching.threshold}, "
            f"by default from {matching.default_score}",
        ),
        ("weights", f"{manifest.source.name}, tensors {manifest.source.tensors_sha256[:16]}…"),
        ("licence", manifest.source.licence),
        ("judged", manifest.judged or "not judged when it was built"),
        ("self-test", _self_test(manifest.self_test)),
        ("size", f"{manifest.engine_bytes / 1e6:.2f} MB"),
        ("sha256", f"{manifest.engine_sha256} (checked)"),
    ]
    facts(rows)


def _self_test(test: SelfTest | None) -> str:
    if test is None:
        return "none: nothing checks the engine's results where it runs"
    pair, kind = test.pair, "matches of a warp" if test.kind == "warp" else "matches"
    rows, columns = pair.shift
    return (
        f"pair {pair.seed} moved by {rows},{columns} at contrast {pair.contrast}, {test.matches} {kind}: "
        f"at least {test.within:.1%} within 1 px, median at most {test.pixels:g} px, scores within {test.score:g}"
    )


def _tensors(manifest: EngineManifest, which: str) -> str:
    return ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in getattr(manifest, which))


def _portability(manifest: EngineManifest) -> list[tuple[str, str]]:
    """Rows about the GPUs and versions that the engine runs on, and the builder's options; none for ONNX engines."""
    where, rows = manifest.portability, []
    if where.compute_capabilities:
        later = " and later" if where.newer_gpus else ""
        rows.append(("GPUs", f"compute capability {', '.join(where.compute_capabilities)}{later}"))
    if where.version != "any":
        rule = {"exact": "this version only", "newer": "this version and later ones"}[where.version]
        rows.append(("versions", f"{manifest.backend_version}: {rule}"))
    if manifest.options:
        rows.append(("builder", ", ".join(f"{name} {value}" for name, value in manifest.options.items())))
    return rows


def _print_opened(opened: OpenedEngine) -> None:
    from matchrt.runtime.gpu.inspection.summary import summarise_layers

    memory, summary = opened.memory, summarise_layers(opened.layers)
    weights = "unknown" if memory.weights is None else megabytes(memory.weights)
    rows: list[tuple[str, Any]] = [("opened on", f"{opened.gpu}, {opened.aux_streams} auxiliary streams")]
    rows.append(
        ("memory", f"weights {weights}, scratch {megabytes(memory.scratch)}, tensors {megabytes(memory.tensors)}")
    )
    for index, profile in enumerate(opened.profiles):
        shapes = ", ".join(
            f"{tensor.name} " + " … ".join(str(list(s)) for s in (tensor.minimum, tensor.optimum, tensor.maximum))
            for tensor in profile
        )
        rows.append((f"profile {index}", shapes))
    rows.append(("layers", f"{len(opened.layers)}: {counts(summary.by_precision)}"))
    rows.append(("kinds", counts(summary.by_kind)))
    facts(rows)
    table = Table("part", "layers that compute it, by the types that they read and write")
    for part, found in summary.by_part.items():
        table.add_row(part, counts(found))
    stdout().print(table)
    table = Table("layer", "kind", "types", "nodes")
    for layer in opened.layers:
        table.add_row(layer.name, layer.kind, layer.precision, _shortened(layer.nodes))
    stdout().print(table)


def _shortened(nodes: tuple[str, ...], most: int = 3) -> str:
    return ", ".join(nodes[:most]) + (f" and {len(nodes) - most} more" if len(nodes) > most else "")
