"""The checks that an engine is what its manifest says and may run here, each with the code that it raises.

| check                    | code             | checks                                           |
| ------------------------ | ---------------- | ------------------------------------------------ |
| `require_wanted_backend` | `engine-backend` | the manifest, before the engine is read          |
| `require_known_backend`  | `engine-backend` | the manifest, before the engine is read          |
| `require_contract`       | `manifest-invalid` | the manifest, before the engine is read        |
| `require_digest`         | `engine-digest`  | the bytes, before a runtime gets them            |
| `require_self_contained` | `engine-external` | the bytes, before a runtime gets them           |
| `require_device`         | `device-backend` | the manifest, before a runtime gets the bytes    |
| `require_version`        | `engine-version` | the manifest, before a runtime gets the bytes    |
| `require_lean_runtime`   | `engine-version` | the manifest, before a runtime gets the bytes    |
| `require_gpu`            | `engine-gpu`     | the manifest, before a runtime gets the bytes    |
| `require_tensors`        | `engine-graph`   | the loaded engine                                |
| `require_known_shapes`   | `engine-graph`   | the loaded engine, when shapes are known         |
| `require_single_pair`    | `engine-batch`   | the manifest, for callers that match single pairs |

The sessions raise `engine-refused` and `engine-rejected` if a vendor's own loader does not take an engine.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from matchrt._util.digest import sha256_bytes
from matchrt._util.onnx_wire import external_tensors
from matchrt._util.text import shortened
from matchrt.errors import MatchRTError
from matchrt.manifest import Dimension, EngineManifest, FrameContract, Portability, TensorSpec, manifest_path
from matchrt.manifest.contract import check_contract
from matchrt.runtime.backends import DEFAULT_BACKEND, backend_names, built_for
from matchrt.runtime.bundled import BUNDLED

# Options of the builder that belong to the engine and not to the machine, by their names in the manifest.
_OPTIONS = (("tf32", "--tf32"), ("version_compatible", "--version-compatible"))
# The name of a dimension of which nothing is known before an engine is loaded.
UNTOLD = "untold"
# Tensors that a message names.
_SHOWN = 10


def require_wanted_backend(manifest: EngineManifest, path: Path, wanted: str | None) -> None:
    """Raises `engine-backend` if the engine is for another backend than `wanted`; None allows any."""
    if wanted not in (None, manifest.backend):
        raise MatchRTError(
            "engine-backend",
            f"'{path}' is for backend {manifest.backend}, not {wanted}.",
            "Leave --backend out, or name an engine of that backend.",
        )


def require_known_backend(manifest: EngineManifest, path: Path) -> None:
    """Raises `engine-backend` if this matchrt does not have the engine's backend."""
    known = [name for name in backend_names() if built_for(name) == name]
    if manifest.backend not in known:
        raise MatchRTError(
            "engine-backend",
            f"'{path}' is for backend '{manifest.backend}'; this matchrt runs {', '.join(known)}.",
            f"Build it again: matchrt build {manifest.model}.",
        )


def require_contract(manifest: EngineManifest, path: Path) -> None:
    """Raises `manifest-invalid` if the manifest's parts contradict one another or the engine's contract.

    path: of the engine.
    """
    try:
        check_contract(manifest)
    except ValueError as error:
        raise MatchRTError(
            "manifest-invalid",
            f"'{manifest_path(path)}': {error}.",
            f"Build the engine again: {build_command(manifest)}.",
        ) from error


def require_digest(manifest: EngineManifest, path: Path, data: bytes) -> None:
    """Raises `engine-digest` if the bytes are not those that the manifest was written for."""
    rebuild = f"Build it again: matchrt build {manifest.model}."
    if len(data) != manifest.engine_bytes:
        message = f"'{path}' has {len(data)} bytes; its manifest says {manifest.engine_bytes}."
        raise MatchRTError("engine-digest", message, rebuild)
    if sha256_bytes(data) != manifest.engine_sha256:
        raise MatchRTError("engine-digest", f"'{path}' is not the file that its manifest describes.", rebuild)


def require_self_contained(manifest: EngineManifest, path: Path, data: bytes) -> None:
    """Raises an error if an ONNX engine's tensors are in other files, wherever in the graph they stand.

    The digest covers the engine's bytes only, and a runtime would take whatever such a file holds. 10 ms for 5 MB.
    Errors: engine-external; engine-rejected, if the bytes are no ONNX graph.
    """
    rebuild = f"Build it again: {build_command(manifest)}."
    try:
        outside = external_tensors(data)
    except ValueError as error:
        raise MatchRTError("engine-rejected", f"'{path}' is not an ONNX graph: {error}.", rebuild) from error
    if outside:
        first = outside[0]
        place = f" in '{shortened(first.location)}'" if first.location else ""
        raise MatchRTError(
            "engine-external",
            f"'{path}' keeps tensors in other files, which its digest does not cover: '{shortened(first.name)}'{place}"
            f"{f' and {len(outside) - 1} more' if len(outside) > 1 else ''}.",
            "Build it again, or save the graph with all its data inside (onnx.save of the loaded model).",
        )


def require_device(manifest: EngineManifest, devices: tuple[str, ...], asked: str | None) -> None:
    """Raises `device-backend` if the engine's backend does not run on the device `asked`; None allows any.

    devices: those that the backend runs on.
    """
    if asked is None or asked in devices:
        return
    raise MatchRTError(
        "device-backend",
        f"An engine for backend {manifest.backend} does not run on {'the CPU' if asked == 'cpu' else 'a GPU'}.",
        f"Leave --device out, or use an engine for backend {DEFAULT_BACKEND}.",
    )


def require_version(manifest: EngineManifest, version: str) -> None:
    """Raises `engine-version` if the installed version of the backend, `version`, cannot run the engine."""
    rule = manifest.portability.version
    same = manifest.backend_version == version
    if rule == "any" or same or (rule == "newer" and _numbers(version) >= _numbers(manifest.backend_version)):
        return
    need = "that version" if rule == "exact" else "that version or a later one"
    raise MatchRTError(
        "engine-version",
        f"The engine's backend_version is {manifest.backend_version}, and it needs {need}; "
        f"{manifest.backend} {version} is installed.",
        f"Build it with what is installed: {build_command(manifest)}.",
    )


def require_lean_runtime(manifest: EngineManifest, version: str, lean: str | None, variable: str) -> str:
    """The library that runs an engine of an earlier version than the installed one. Error: engine-version.

    version: of the installed backend.
    lean: the value of the environment variable `variable`; None if it is not set, which is the error.
    """
    if lean is not None:
        return lean
    raise MatchRTError(
        "engine-version",
        f"The engine's backend_version is {manifest.backend_version}; {manifest.backend} {version} runs it with "
        "NVIDIA's lean runtime of that version. The engine does not contain it, because matchrt loads no host code.",
        f"Set {variable} to its libnvinfer_lean.so, or build it here: {build_command(manifest)}.",
    )


def require_gpu(manifest: EngineManifest, capability: str, name: str) -> None:
    """Raises `engine-gpu` if the engine was built for other GPUs.

    capability: this GPU's compute capability, such as `8.9`.
    name: this GPU's name.
    """
    where = manifest.portability
    if fits_gpu(where, capability):
        return
    listed = where.compute_capabilities
    later = " and later" if where.newer_gpus else ""
    raise MatchRTError(
        "engine-gpu",
        f"The engine's compute_capabilities are {', '.join(listed)}{later}; this GPU, {name}, has {capability}.",
        f"Build it for this GPU: {build_command(manifest)}.",
    )


def fits_gpu(where: Portability, capability: str) -> bool:
    """Whether engines that run in these places run on a GPU of this compute capability, such as `8.9`."""
    listed = where.compute_capabilities
    if not listed or capability in listed:
        return True
    return where.newer_gpus and _numbers(capability) > min(_numbers(entry) for entry in listed)


def require_tensors(
    manifest: EngineManifest, path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> None:
    """Raises `engine-graph` if the loaded engine's tensors are not those of the manifest: names, types and shapes.

    inputs, outputs: of the loaded engine. A dimension that is not known there is a string, whatever its name. One that
        the manifest does not know either (`UNTOLD`), as those of an engine's parts may be, is any.
    """
    for what, loaded, told in (("inputs", inputs, manifest.inputs), ("outputs", outputs, manifest.outputs)):
        found, wanted = _by_name(loaded), _by_name(told)
        if set(found) != set(wanted):
            message = f"'{path}' has the {what} {_listed(found)}; its manifest says {_listed(wanted)}."
            raise MatchRTError("engine-graph", message, f"Build it again: {build_command(manifest)}.")
        for name, spec in wanted.items():
            if not _agree(found[name], spec):
                message = f"'{path}' has the tensor {_shown(found[name])}; its manifest says {_shown(spec)}."
                raise MatchRTError("engine-graph", message, f"Build it again: {build_command(manifest)}.")


def _agree(loaded: TensorSpec, told: TensorSpec) -> bool:
    return (
        loaded.dtype == told.dtype
        and len(loaded.shape) == len(told.shape)
        and all(want in (UNTOLD, have) for have, want in zip(loaded.shape, told.shape, strict=True))
    )


def _by_name(specs: Sequence[TensorSpec]) -> dict[str, TensorSpec]:
    """The tensors by name, with one name for all dimensions that depend on the images."""
    return {spec.name: replace(spec, shape=tuple(map(_plain, spec.shape))) for spec in specs}


def _plain(side: Dimension) -> Dimension:
    return side if isinstance(side, int) or side == UNTOLD else "any"


def _listed(names: Iterable[str]) -> str:
    """Names of an engine's tensors in a message, which may be a stranger's."""
    chosen = sorted(names)
    more = f" and {len(chosen) - _SHOWN} more" if len(chosen) > _SHOWN else ""
    return ", ".join(map(shortened, chosen[:_SHOWN])) + more


def _shown(spec: TensorSpec) -> str:
    return f"{shortened(spec.name)} {shortened(spec.dtype)} {list(spec.shape)}"


def require_known_shapes(shapes: Mapping[str, tuple[int, ...]], inferred: bool) -> None:
    """Raises `engine-graph` if the shapes of outputs depend on data.

    shapes: of the outputs, by name; a side below 0 is not known.
    inferred: whether the runtime found all shapes from those of the inputs.
    """
    if not inferred or any(side < 0 for shape in shapes.values() for side in shape):
        raise MatchRTError(
            "engine-graph",
            f"The engine's outputs {dict(shapes)} depend on data, not on the inputs' sizes.",
            "Build it again with matchrt, whose engines have a fixed number of match slots.",
        )


def require_single_pair(manifest: EngineManifest) -> None:
    """Raises `engine-batch` if the engine matches several pairs in a run."""
    if manifest.input.batch != 1 and not manifest.input.any_batch:
        raise MatchRTError(
            "engine-batch",
            f"This engine matches {manifest.input.batch} pairs a run; Matcher matches pair after pair.",
            "Build an engine without --batch, or run this one through open_session.",
        )


def build_command(manifest: EngineManifest) -> str:
    """The command that builds the same engine on this machine. Raises nothing."""
    parts = [f"matchrt build {manifest.model} --backend {manifest.backend} --precision {manifest.precision}"]
    contract = manifest.input
    if contract.profile is not None:
        sizes = (contract.profile.minimum, contract.profile.optimum, contract.profile.maximum)
        parts.append("--dynamic " + ",".join(f"{height}x{width}" for height, width in sizes))
    else:
        parts.append(f"--height {contract.height} --width {contract.width}")
    if contract.frames is not None:
        parts.append(_frames_options(contract.frames))
    if contract.batch != 1:
        parts.append(f"--batch {'1..' if contract.any_batch else ''}{contract.batch}")
    if manifest.dense:
        parts.append("--dense")
    parts += [option for name, option in _OPTIONS if name in manifest.options]
    if manifest.model not in BUNDLED:
        # People copy this command into a shell, and the name may be a stranger's.
        parts.append(f"--checkpoint {shlex.quote(manifest.source.name)}")
    return " ".join(parts)


def _frames_options(frames: FrameContract) -> str:
    between = "," if frames.sizes is not None else ".."
    sizes = frames.sizes or (frames.minimum, frames.maximum)
    told = [f"{size[0]}x{size[1]}" for size in sizes if size is not None]
    same = frames.sizes is not None and told[0] == told[1]
    return f"--frames {told[0] if same else between.join(told)} --pixels {frames.pixels}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
