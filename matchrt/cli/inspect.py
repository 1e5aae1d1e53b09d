"""`matchrt inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from matchrt.cli.output import print_json, stdout
from matchrt.errors import MatchRTError, missing_package

EPILOG = "Example: matchrt inspect outdoor_ds.ckpt"


def inspect(
    file: Annotated[Path, typer.Argument(help="Checkpoint, ONNX file, or engine.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a file is: the models it fits, tensors by part, digest and size."""
    if not file.is_file():
        raise MatchRTError("inspect-missing", f"'{file}' is not a file.", "Name a checkpoint, ONNX file or engine.")
    found = _engine(file) if _is_engine(file) else _needs_export(file)
    if as_json:
        print_json(found)
    else:
        {"engine": _print_engine, "onnx": _print_onnx, "checkpoint": _print_checkpoint}[found["kind"]](found)


def _is_engine(file: Path) -> bool:
    """Whether the .json beside the file is a manifest; any other .json may lie there by chance."""
    from matchrt.manifest import manifest_path

    try:
        return '"engine_sha256"' in manifest_path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _engine(file: Path) -> dict[str, Any]:
    from dataclasses import asdict

    from matchrt.runtime.engine_file import read_engine

    return {"kind": "engine", "path": str(file), "manifest": asdict(read_engine(file).manifest)}


def _needs_export(file: Path) -> dict[str, Any]:
    try:
        from matchrt.export.inspection import inspect_checkpoint, inspect_onnx
    except ModuleNotFoundError as error:
        raise missing_package(str(error.name), "export", "Inspecting checkpoints and ONNX files") from error
    # An ONNX file begins with the field of its IR version. So may the length that safetensors begins with, but there
    # a brace follows.
    with file.open("rb") as stream:
        head = stream.read(9)
    onnx = file.suffix.lower() == ".onnx" or (head[:1] == b"\x08" and head[8:] != b"{")
    return inspect_onnx(file) if onnx else inspect_checkpoint(file)


def _facts(rows: list[tuple[str, Any]]) -> None:
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(Text(name, style="bold"), str(value))
    stdout().print(table)


def _print_engine(found: dict[str, Any]) -> None:
    manifest = found["manifest"]
    contract, matching = manifest["input"], manifest["matching"]
    profile = contract["profile"]
    size = f"{contract['height']}x{contract['width']}"
    if profile:
        size = " … ".join("x".join(map(str, profile[key])) for key in ("minimum", "optimum", "maximum"))
    flavor = f"{manifest['flavor']} {manifest['flavor_version']}"
    _facts(
        [
            ("engine", found["path"]),
            ("model", f"{manifest['model']} ({manifest['family']})"),
            ("runs on", f"{flavor}, {manifest['precision']}"),
            ("input", f"{size}, {contract['channels']} channel(s), sides multiples of {contract['divisor']}"),
            (
                "matches",
                f"at most {matching['max_matches']}, confidence above {matching['threshold']}, "
                f"by default from {matching['default_score']}",
            ),
            ("weights", f"{manifest['source']['name']}, tensors {manifest['source']['tensors_sha256'][:16]}…"),
            ("licence", manifest["source"]["licence"]),
            ("size", f"{manifest['engine_bytes'] / 1e6:.2f} MB"),
            ("sha256", manifest["engine_sha256"] + " (checked)"),
        ]
    )


def _print_onnx(found: dict[str, Any]) -> None:
    values = {
        key: ", ".join(f"{v['name']} {v['dtype']} {v['shape']}" for v in found[key]) for key in ("inputs", "outputs")
    }
    operators = ", ".join(f"{name} {count}" for name, count in list(found["operators"].items())[:12])
    _facts(
        [
            ("ONNX", found["path"]),
            ("opset", found["opset"]),
            ("inputs", values["inputs"]),
            ("outputs", values["outputs"]),
            ("nodes", f"{found['nodes']}: {operators}"),
            ("weights", found["weights"]),
            ("size", f"{found['bytes'] / 1e6:.2f} MB"),
            ("sha256", found["sha256"]),
        ]
    )


def _print_checkpoint(found: dict[str, Any]) -> None:
    models = ", ".join(found["models"]) or f"none completely; closest is {found['closest']}"
    if len(found["models"]) > 1:
        models += " (the same tensors: the file does not tell them apart, its publisher does)"
    wrapper = found["wrapper"] or "none"
    _facts(
        [
            ("checkpoint", found["path"]),
            ("fits", models),
            ("account", found["account"]),
            ("format", f"{found['format']}, wrapper {wrapper}, key prefix '{found['prefix']}'"),
            ("tensors", f"{found['tensors']} with {found['elements']:,} values ({found['dtypes']})"),
            ("beside them", ", ".join(found["ignored"]) or "nothing"),
            ("size", f"{found['bytes'] / 1e6:.2f} MB"),
            ("sha256", found["sha256"]),
            ("weights", found["tensors_sha256"]),
        ]
    )
    table = Table("part", "tensors", "values")
    for part in found["parts"]:
        table.add_row(part["name"], str(part["tensors"]), f"{part['elements']:,}")
    stdout().print(table)
    if not found["models"]:
        for problem in found["problems"][:10]:
            stdout().print(f"  {problem['fate']}: {problem['key']} {problem['shape']} {problem['detail']}")
