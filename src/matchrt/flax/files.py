"""Files of weights in Flax's layout: arrays by dotted name, and a description of them.

The suffix decides the kind of file: `.npz` (which NumPy alone can read), `.safetensors`, or an Orbax checkpoint, which
is a folder. Nothing is unpickled. A file describes its weights (`About`), because names and shapes do not tell the
attention type and the number of heads.
"""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from matchrt._util import atomic
from matchrt._util.npz import read_npz
from matchrt._util.reading import read_regular
from matchrt._util.strict_json import read_json
from matchrt.errors import MatchRTError, missing_package
from matchrt.export.weights.files.opening import open_regular
from matchrt.flax.ifvit import from_ifvit, is_ifvit, to_ifvit
from matchrt.flax.layout import Array, Arrays

# LoFTR's weights are 46 MB.
_MOST_BYTES = 4 << 30
_ABOUT = "__about__"
_CONVERT = "Convert the checkpoint first: matchrt convert-flax CHECKPOINT --output FILE.npz"


@dataclass(frozen=True)
class About:
    """What a file of weights says about them. Empty values and 0 stand for what is not known.

    model: the name of the model that they were converted as.
    part: which part of the network they are: `transformer`, `backbone` or `all`.
    prefix: what preceded the keys in torch's file.
    attention: attention type of the coarse transformer: `linear` or `full`.
    n_heads: number of heads of the coarse transformer.
    layers: kinds of the coarse transformer's layers: `self` or `cross`.
    tensors_sha256: hex digest of the tensors in torch's file.
    """

    model: str = ""
    part: str = "all"
    prefix: str = ""
    attention: str = ""
    n_heads: int = 0
    layers: tuple[str, ...] = ()
    tensors_sha256: str = ""


@dataclass(frozen=True)
class WeightFile:
    """A file of weights in Flax's layout.

    path: the file or folder.
    arrays: by dotted name.
    about: the description; None if the file has none because another program wrote it.
    """

    path: Path
    arrays: Arrays
    about: About | None


def require_kind(path: Path) -> None:
    """Raises `flax-format` for a name that is of none of the three kinds."""
    if path.suffix.lower() not in (".npz", ".safetensors", ".orbax", ""):
        raise MatchRTError(
            "flax-format",
            f"Flax's layout cannot be written as '{path}'.",
            "Use .npz, .safetensors, or .orbax (a folder).",
        )


def write_ifvit(path: Path, arrays: Arrays) -> None:
    """Writes the transformer of `arrays` as IFViT-JAX's guide has it, atomically: a .npz file of its arrays alone.

    Errors: flax-format for another suffix, output-unwritable.
    """
    if path.suffix.lower() != ".npz":
        raise MatchRTError("flax-format", f"IFViT's layout cannot be written as '{path}'.", "Name a .npz file.")
    with atomic.atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **to_ifvit(arrays))


def write_weights(path: Path, arrays: Arrays, about: About) -> None:
    """Writes the file or folder atomically. Errors: flax-format, output-unwritable, package-missing."""
    require_kind(path)
    if path.suffix.lower() == ".npz":
        odd = [name for name, array in arrays.items() if array.dtype.kind == "V"]
        if odd:
            raise MatchRTError(
                "flax-format",
                f"A .npz file cannot hold bfloat16, the type of {odd[0]}.",
                "Write .safetensors or .orbax instead.",
            )
        with atomic.atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **{**arrays, _ABOUT: np.array(_to_json(about))})
    elif path.suffix.lower() == ".safetensors":
        with atomic.atomic_path(path) as temporary:
            temporary.write_bytes(_safetensors().save(dict(arrays), metadata={_ABOUT: _to_json(about)}))
    else:
        _write_orbax(path, arrays, about)


def read_weights(path: Path) -> WeightFile:
    """Reads a file that `write_weights` wrote, a .npz file in IFViT's layout, or another program's .safetensors file.

    Errors: checkpoint-missing, checkpoint-format, checkpoint-truncated, flax-layout, package-missing.
    """
    if not path.exists():
        raise MatchRTError("checkpoint-missing", f"'{path}' does not exist.", f"Check the path. {_CONVERT}")
    if path.is_dir():
        arrays, about = _read_orbax(path)
    else:
        with open_regular(path) as stream:
            head = stream.read(9)
        if head[:4] == b"PK\x03\x04":
            arrays, about = _read_npz(path)
        elif head[8:9] == b"{":
            arrays, about = _read_safetensors(path)
        else:
            raise _not_ours(path)
    if is_ifvit(arrays):
        return WeightFile(path, from_ifvit(arrays, str(path)), About(part="transformer"))
    return WeightFile(path, arrays, None if about is None else _from_json(about, path))


def _not_ours(path: Path) -> MatchRTError:
    return MatchRTError("checkpoint-format", f"'{path}' holds no weights in Flax's layout.", _CONVERT)


def _damaged(path: Path, error: Exception) -> MatchRTError:
    return MatchRTError("checkpoint-truncated", f"'{path}' is damaged or cut short: {error}.", _CONVERT)


def _to_json(about: About) -> str:
    return json.dumps(dataclasses.asdict(about))


def _from_json(text: str, path: Path) -> About:
    try:
        fields = read_json(text)
        return About(**{**fields, "layers": tuple(fields.get("layers", ()))})
    except (ValueError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise missing_package("safetensors", "flax", "Files of type .safetensors") from error
    return safetensors.numpy


def _read_npz(path: Path) -> tuple[dict[str, Array], str | None]:
    try:
        data = read_regular(path)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
        if not all(name.endswith(".npy") for name in names):
            raise _not_ours(path)  # a file of PyTorch, which is a zip archive too
        arrays = read_npz(data, _MOST_BYTES)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error
    about = arrays.pop(_ABOUT, None)
    return arrays, None if about is None else str(about)


def _read_safetensors(path: Path) -> tuple[dict[str, Array], str | None]:
    _safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            return {key: file.get_tensor(key) for key in file.keys()}, metadata.get(_ABOUT)  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise _damaged(path, error) from error


def _orbax() -> Any:
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise missing_package("orbax-checkpoint", "flax", "Orbax checkpoints") from error
    return ocp


def _write_orbax(path: Path, arrays: Arrays, about: About) -> None:
    ocp = _orbax()
    target = path.absolute()
    if target.exists() and not _is_orbax(target):
        raise MatchRTError(
            "output-unwritable", f"'{path}' exists already and is no Orbax checkpoint.", "Choose another name."
        )
    if (reason := atomic.why_unwritable(target.parent)) is not None:
        raise _unwritable(path, reason)
    target.parent.mkdir(parents=True, exist_ok=True)
    # On a full disk, Orbax's threads go on after the error and write tracebacks, so it is not begun.
    if shutil.disk_usage(target.parent).free < sum(array.nbytes for array in arrays.values()):
        raise _unwritable(path, "the disk has no room for it")
    folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
    fresh = folder / target.name
    try:
        items = ocp.args.Composite(
            weights=ocp.args.PyTreeSave(dict(arrays)), about=ocp.args.JsonSave(dataclasses.asdict(about))
        )
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            checkpointer.save(fresh, items)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    except (OSError, ValueError, RuntimeError) as error:  # Orbax passes on errors of its storage as ValueError
        raise _unwritable(path, (str(error).splitlines() or ["the storage failed"])[0]) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unwritable(path: Path, reason: str) -> MatchRTError:
    return MatchRTError(
        "output-unwritable", f"Cannot write '{path}': {reason}.", "Choose a folder with space that you may write to."
    )


def _is_orbax(path: Path) -> bool:
    return (path / "weights").is_dir()


def _read_orbax(path: Path) -> tuple[dict[str, Array], str | None]:
    ocp = _orbax()
    if not _is_orbax(path):
        raise _not_ours(path)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            # Arrays are read as NumPy arrays, so that the devices of the writer do not matter.
            handlers = ocp.args.Composite(weights=ocp.args.PyTreeRestore(), about=ocp.args.JsonRestore())
            restored = checkpointer.restore(path.absolute(), handlers)
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error
    weights = {name: np.asarray(value) for name, value in restored["weights"].items()}
    return weights, json.dumps(restored["about"])
