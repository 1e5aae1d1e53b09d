"""Writes a Triton model repository for an engine, for more machines than `matchrt serve` is made for.

Triton serves the engine's own tensors (docs/engine-contract.md), as the model `NAME-engine` of `matchrt serve` does.
The client resizes images and converts keypoints to pixels. The configuration follows Triton's model_config.proto
(github.com/triton-inference-server/common, protobuf/model_config.proto).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matchrt._util.text import is_model_name, printable, shortened
from matchrt.errors import MatchRTError, missing_package
from matchrt.manifest import EngineManifest, TensorSpec
from matchrt.runtime.backend import get_backend
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.runtime.self_test.pair import self_test_shapes
from matchrt.store import EngineStore

Kind = Literal["auto", "cpu", "gpu"]
_TYPES = {"uint8": "TYPE_UINT8", "int32": "TYPE_INT32", "int64": "TYPE_INT64", "float32": "TYPE_FP32"}


@dataclass(frozen=True)
class TritonOptions:
    """How Triton is to run an engine. Error: option-range.

    name: of the model; None for the engine's own.
    instances: copies that run side by side on each device.
    kind: where they run: `cpu`, `gpu`, or `auto` for Triton's choice.
    queue_delay: microseconds that a request may wait for others to share a run with, if the engine takes several pairs.
    """

    name: str | None = None
    instances: int = 1
    kind: Kind = "auto"
    queue_delay: int = 2000

    def __post_init__(self) -> None:
        limits = (
            ("instances", 1 <= self.instances <= 64, "1 to 64"),
            ("queue_delay", 0 <= self.queue_delay <= 10_000_000, "0 to 10000000 microseconds"),
            ("kind", self.kind in ("auto", "cpu", "gpu"), "auto, cpu or gpu"),
        )
        for name, good, wanted in limits:
            if not good:
                raise MatchRTError("option-range", f"{name} is {getattr(self, name)!r}.", f"It must be {wanted}.")


def export_triton(
    engine: str | Path,
    repository: Path,
    options: TritonOptions | None = None,
    store: EngineStore | None = None,
    backend: str | None = None,
) -> Path:
    """Writes REPOSITORY/NAME with config.pbtxt, the engine as version 1, and its manifest, and returns that folder.

    An ONNX engine that was built with --batch N gets a first dimension of any size up to N, so that Triton can batch.
    Errors: those of `read_engine`, triton-backend, triton-name, output-exists, output-unwritable, package-missing.
    """
    options = options or TritonOptions()
    file = read_engine(engine, store, backend)
    manifest = file.manifest
    platform = get_backend(manifest.backend).triton
    if platform is None:
        raise MatchRTError(
            "triton-backend",
            f"Triton does not run engines for the backend {manifest.backend}.",
            f"Build one for it: matchrt build {manifest.model} --backend tensorrt (or onnxruntime).",
        )
    name = options.name or manifest.model
    if not is_model_name(name):
        raise MatchRTError(
            "triton-name",
            f"'{shortened(name)}' cannot name a model.",
            "Use at most 100 letters of ASCII, digits, '-', '_' and '.'.",
        )
    target = repository / name
    model = _model(file)
    with _new_folder(target) as folder:
        (folder / "1").mkdir()
        (folder / "1" / platform.file).write_bytes(model)
        (folder / "config.pbtxt").write_text(config(manifest, name, options), encoding="utf-8")
        (folder / "matchrt.json").write_text(manifest.to_json(), encoding="utf-8")
    return target


def batches(manifest: EngineManifest) -> int:
    """Triton's max_batch_size: the engine's batch, or 0 for no batching.

    Triton's batcher needs a first dimension of any size. Engines that were built with --batch 1..N have it; of the
    others, only those of some backends can get it. Raises nothing.
    """
    platform = get_backend(manifest.backend).triton
    if platform is None or not (platform.batches or manifest.input.any_batch) or manifest.input.batch == 1:
        return 0
    return manifest.input.batch


def config(manifest: EngineManifest, name: str, options: TritonOptions) -> str:
    """The text of config.pbtxt. Raises nothing for a backend that Triton serves."""
    largest, platform = batches(manifest), get_backend(manifest.backend).triton
    assert platform is not None
    kind = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "gpu": "KIND_GPU"}[options.kind]
    fields: dict[str, Any] = {
        "name": name,
        "backend": platform.backend,
        "max_batch_size": largest,
        "input": [_tensor(spec, largest) for spec in manifest.inputs],
        "output": [_tensor(spec, largest) for spec in manifest.outputs],
        "instance_group": [{"count": options.instances, "kind": _Word(kind)}],
        "model_warmup": [_warm_up(manifest, largest)],
        "parameters": [{"key": "matchrt_engine_sha256", "value": {"string_value": manifest.engine_sha256}}],
    }
    if largest:
        fields["dynamic_batching"] = {
            "preferred_batch_size": [largest],
            "max_queue_delay_microseconds": options.queue_delay,
        }
    head = printable(f"# {manifest.model}, {manifest.precision}, written by matchrt {manifest.matchrt_version}.")
    return f"{head}\n{_text(fields, '')}"


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder that gets its name when it is complete, so that a Triton that watches the repository reads no half."""
    if target.exists():
        raise MatchRTError("output-exists", f"'{target}' is there already.", "Remove it, or give --name.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
        temporary.chmod(0o755)
    except OSError as error:
        raise MatchRTError(
            "output-unwritable", f"Cannot write '{target}': {error.strerror}.", "Choose another folder."
        ) from error
    try:
        yield temporary
        temporary.rename(target)
    except OSError as error:
        raise MatchRTError(
            "output-unwritable", f"Cannot write '{target}': {error.strerror}.", "Make room, or choose another folder."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Word(str):
    """Text that is written without quotes: a name of an enumeration."""


def _tensor(spec: TensorSpec, largest: int) -> dict[str, Any]:
    sizes = [-1 if isinstance(size, str) else size for size in spec.shape]
    fields = {"name": spec.name, "data_type": _Word(_TYPES[spec.dtype]), "dims": sizes[1:] if largest else sizes}
    if fields["dims"]:
        return fields
    # Triton needs at least one size besides the batch; `reshape` says that the model has none.
    return {**fields, "dims": [1], "reshape": {"shape": []}}


def _warm_up(manifest: EngineManifest, largest: int) -> dict[str, Any]:
    """One run on blank images of the best size, so that the first request is not slower than the rest."""
    profile, frames = manifest.input.profile, manifest.input.frames
    ranged = frames is not None and frames.sizes is None
    shapes = self_test_shapes(manifest)
    inputs = []
    for spec in manifest.inputs:
        entry = _tensor(spec, largest)
        if profile is not None and spec.name.startswith("image"):
            entry["dims"] = [spec.shape[0], *profile.optimum, spec.shape[3]]
        if ranged:
            entry["dims"] = list(shapes[spec.name])
        name = entry.pop("name")
        inputs.append({"key": name, "value": {**entry, "zero_data": True}})
    return {"name": "blank", "batch_size": max(largest, 1), "inputs": inputs}


def _text(fields: dict[str, Any], indent: str) -> str:
    """Protobuf's text format."""
    lines = []
    for name, value in fields.items():
        for one in value if isinstance(value, list) and name not in ("dims", "shape") else [value]:
            if isinstance(one, dict):
                lines.append(f"{indent}{name} {{\n{_text(one, indent + '  ')}{indent}}}\n")
            else:
                lines.append(f"{indent}{name}: {_scalar(one)}\n")
    return "".join(lines)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _Word):
        return value
    return _quoted(value) if isinstance(value, str) else str(value if isinstance(value, int) else list(value))


def _quoted(text: str) -> str:
    """A string of protobuf's text format: what is no printable ASCII, and the quote and the backslash, are octal bytes.

    The only place where strings get into config.pbtxt, besides its comment.
    """
    plain = (chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\{byte:03o}" for byte in _bytes(text))
    return f'"{"".join(plain)}"'


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _model(file: EngineFile) -> bytes:
    if not batches(file.manifest) or file.manifest.input.any_batch:
        return file.data
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise missing_package("onnx", "onnx", "Giving an engine a batch of any size") from error
    from matchrt.export.rows import any_rows

    return any_rows(file.data, file.manifest.input.batch)
