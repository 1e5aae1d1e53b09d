"""Files of weights in Flax's layout: arrays by dotted name, and what they are.

`.npz` (NumPy alone reads it), `.safetensors`, or an Orbax checkpoint (a folder), by the name's suffix. Nothing is
unpickled. A file says what it is of (`About`): names and shapes tell neither attention type nor number of heads.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from matchrt._util import atomic
from matchrt.errors import MatchRTError, missing_package
from matchrt.flax.layout import Array, Arrays

_ABOUT = "__about__"
_CONVERT = "Convert the checkpoint first: matchrt convert-flax CHECKPOINT --output FILE.npz"


@dataclass(frozen=True)
class About:
    """What a file of weights holds.

    model: the spec that it was converted as. part: see `layout.Part`. prefix: what stood before the keys in torch's
    file. attention, n_heads, layers: of the coarse transformer, which shapes do not tell; empty and 0 where unknown.
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
    """arrays: by name. about: None where the file does not say, as files that others wrote."""

    path: Path
    arrays: Arrays
    about: About | None


def require_kind(path: Path) -> None:
    """Raises `flax-format` for a name that is none of the three kinds."""
    if path.suffix.lower() not in (".npz", ".safetensors", ".orbax", ""):
        raise MatchRTError(
            "flax-format",
            f"'{path}' is of no kind that the Flax layout is written in.",
            "Use .npz, .safetensors, or .orbax (a folder).",
        )


def write_weights(path: Path, arrays: Arrays, about: About) -> None:
    """Writes the file or folder, whole or not at all. Errors: flax-format, output-unwritable, package-missing."""
    require_kind(path)
    if path.suffix.lower() == ".npz":
        odd = [name for name, array in arrays.items() if array.dtype.kind == "V"]
        if odd:
            raise MatchRTError(
                "flax-format", f".npz holds no bfloat16, which {odd[0]} is.", "Write .safetensors or .orbax instead."
            )
        with atomic.atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **{**arrays, _ABOUT: np.array(_to_json(about))})
    elif path.suffix.lower() == ".safetensors":
        with atomic.atomic_path(path) as temporary:
            temporary.write_bytes(_safetensors().save(dict(arrays), metadata={_ABOUT: _to_json(about)}))
    else:
        _write_orbax(path, arrays, about)


def read_weights(path: Path) -> WeightFile:
    """Reads what `write_weights` wrote, or a .safetensors file that somebody else did.

    Errors: checkpoint-missing, checkpoint-format, checkpoint-truncated, package-missing.
    """
    if not path.exists():
        raise MatchRTError("checkpoint-missing", f"'{path}' does not exist.", f"Check the path. {_CONVERT}")
    if path.is_dir():
        arrays, about = _read_orbax(path)
    else:
        with path.open("rb") as stream:
            head = stream.read(9)
        if head[:4] == b"PK\x03\x04":
            arrays, about = _read_npz(path)
        elif head[8:9] == b"{":
            arrays, about = _read_safetensors(path)
        else:
            raise _not_ours(path)
    return WeightFile(path, arrays, None if about is None else _from_json(about, path))


def _not_ours(path: Path) -> MatchRTError:
    return MatchRTError("checkpoint-format", f"'{path}' holds no weights in Flax's layout.", _CONVERT)


def _damaged(path: Path, error: Exception) -> MatchRTError:
    return MatchRTError("checkpoint-truncated", f"'{path}' is damaged or cut short: {error}.", _CONVERT)


def _to_json(about: About) -> str:
    return json.dumps(dataclasses.asdict(about))


def _from_json(text: str, path: Path) -> About:
    try:
        fields = json.loads(text)
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
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if not all(name.endswith(".npy") for name in names):
            raise _not_ours(path)  # PyTorch's files are zip archives too
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
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
            "output-unwritable", f"'{path}' is there already and is no Orbax checkpoint.", "Choose another name."
        )
    fresh = target.with_name(f".{target.name}-new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        items = ocp.args.Composite(
            weights=ocp.args.PyTreeSave(dict(arrays)), about=ocp.args.JsonSave(dataclasses.asdict(about))
        )
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            checkpointer.save(fresh, items)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    except OSError as error:
        raise MatchRTError(
            "output-unwritable", f"Cannot write '{path}': {error}.", "Choose a place with room that you may write to."
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _is_orbax(path: Path) -> bool:
    return (path / "weights").is_dir()


def _read_orbax(path: Path) -> tuple[dict[str, Array], str | None]:
    ocp = _orbax()
    if not _is_orbax(path):
        raise _not_ours(path)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            # As NumPy arrays: a checkpoint must not depend on the devices that it was written on.
            handlers = ocp.args.Composite(weights=ocp.args.PyTreeRestore(), about=ocp.args.JsonRestore())
            restored = checkpointer.restore(path.absolute(), handlers)
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error
    weights = {name: np.asarray(value) for name, value in restored["weights"].items()}
    return weights, json.dumps(restored["about"])
