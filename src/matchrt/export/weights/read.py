"""Reads checkpoints safely: tensors by key and nothing else, whatever the wrapper.

`.ckpt/.pth/.pt` are read with `weights_only=True`, `.safetensors` with its own reader. The format is recognised by the
file's first bytes, not by its name. No other way of unpickling is used.
"""

from __future__ import annotations

import hashlib
import pickle
import pickletools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from matchrt._util.digest import sha256_file
from matchrt.errors import MatchRTError, missing_package
from matchrt.export.weights.averaged import averaged_entry

Format = Literal["torch", "torch-legacy", "safetensors"]

_SCALARS = (int, float, str, bool)
_NO_WRAPPER: tuple[None, tuple[str, ...]] = (None, ())
# Where frameworks put the network inside a training checkpoint, in order of preference.
WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "weights")


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds, before anything is assumed about it.

    path: of the file.
    format: `torch`, `torch-legacy` or `safetensors`.
    tensors: by the file's own keys. If the file has a state dict for each of several modules, none under a known name,
        these are their keys after the names of the entries, as in `student.backbone.conv1.weight`.
    wrapper: the entry that the tensors were found under; None if they are at the top.
    ignored: the other entries.
    metadata: of a safetensors file; else empty.
    tensors_sha256: digest of keys, types, shapes and bytes; it is the same for the same weights in another file or
        format.
    averaged: whether the entry holds a running average of weights, which was asked for.
    """

    path: Path
    format: Format
    tensors: Mapping[str, torch.Tensor]
    wrapper: str | None
    ignored: tuple[str, ...]
    metadata: Mapping[str, str]
    tensors_sha256: str
    averaged: bool = False

    @property
    def file_sha256(self) -> str:
        """Digest of the file, which is read again for it. Raises OSError if it is gone."""
        return sha256_file(self.path)

    @property
    def elements(self) -> int:
        """The number of values in all tensors."""
        return sum(tensor.numel() for tensor in self.tensors.values())


def read_checkpoint(path: Path, averaged: bool = False) -> Checkpoint:
    """Reads a checkpoint file.

    averaged: whether to take the entry that holds a running average of the weights, if there is one.
    Errors: checkpoint-missing, checkpoint-format, checkpoint-truncated, checkpoint-unsafe (it holds code),
    checkpoint-empty (no tensors), checkpoint-tensor (sparse, quantized or empty ones), checkpoint-nonfinite,
    package-missing.
    """
    kind = _format(path)
    metadata: dict[str, str] = {}
    average = None
    if kind == "safetensors":
        tensors, metadata = _read_safetensors(path)
        wrapper, ignored = _NO_WRAPPER
    else:
        loaded = _read_torch(path)
        average = averaged_entry(loaded, _is_state) if averaged else None
        tensors, wrapper, ignored = _unwrap(loaded, path) if average is None else _unwrap_entry(loaded, *average)
    if not tensors:
        raise MatchRTError(
            "checkpoint-empty", f"'{path}' holds no tensors.", "Check that it is the network's checkpoint."
        )
    _require_plain(tensors, path)
    _require_finite(tensors, path)
    digest = digest_tensors(tensors)
    return Checkpoint(path, kind, tensors, wrapper, ignored, metadata, digest, average is not None)


def digest_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 over key, type, shape and little-endian bytes of every tensor, in the order of the keys.

    Raises nothing.
    """
    digest = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].detach().contiguous()
        digest.update(f"{key}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _format(path: Path) -> Format:
    try:
        with path.open("rb") as stream:
            head = stream.read(9)
    except FileNotFoundError as error:
        raise MatchRTError("checkpoint-missing", f"'{path}' does not exist.", "Check the path.") from error
    except OSError as error:
        raise MatchRTError(
            "checkpoint-missing", f"'{path}' cannot be read: {error.strerror}.", "Name a readable file."
        ) from error
    if head[:4] == b"PK\x03\x04":
        return "torch"
    if head[8:9] == b"{":
        return "safetensors"
    if head[:1] == b"\x80":
        return "torch-legacy"
    raise MatchRTError(
        "checkpoint-format",
        f"'{path}' is neither a PyTorch checkpoint nor a safetensors file (it begins with {head[:8]!r}).",
        "Name the .ckpt, .pth, .pt or .safetensors file; if it was downloaded, download it again.",
    )


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise missing_package("safetensors", "export", "Reading .safetensors") from error
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise _truncated(path, str(error)) from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # On unusual files torch warns before it fails; the error has all that the warning says.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if unsafe := _unsafe_names(path):
            raise MatchRTError(
                "checkpoint-unsafe",
                f"'{path}' holds Python objects besides tensors ({unsafe}), which could run code when read.",
                "If you trust the file, load it and save only the state dict, best as .safetensors; then use that.",
            ) from error
        raise _truncated(path, str(error)) from error
    except Exception as error:
        # On damaged bytes the reader may raise any error: RuntimeError, EOFError, struct.error, …
        raise _truncated(path, str(error) or type(error).__name__) from error


def _unsafe_names(path: Path) -> str:
    """Classes and functions that the pickle names and that do not belong to tensors; empty if there are none."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:
        # Not a zip archive: a bare pickle, or one cut short.
        names = sorted(n for n in _pickle_globals(path) if not n.startswith(("torch.", "collections.")))
    return ", ".join(names)


def _pickle_globals(path: Path) -> set[str]:
    names: set[str] = set()
    strings: list[str] = []
    try:
        with path.open("rb") as stream:
            while True:  # torch's old format is several pickles in a row, then raw bytes, which end this
                for operation, argument, _ in pickletools.genops(stream):
                    if operation.name == "GLOBAL":
                        names.add(str(argument).replace(" ", "."))
                    elif operation.name == "STACK_GLOBAL" and len(strings) > 1:
                        names.add(f"{strings[-2]}.{strings[-1]}")
                    elif isinstance(argument, str):
                        strings.append(argument)
    except Exception:
        # This is the end of the pickles, or damage. Nothing more can be read.
        return names


def _truncated(path: Path, reason: str) -> MatchRTError:
    sentence = reason.split(". ", 1)[0].splitlines()[0] if reason else "unreadable"
    return MatchRTError(
        "checkpoint-truncated",
        f"'{path}' is damaged or cut short: {sentence.rstrip('.')}.",
        "Download or copy it again and compare its size and digest with the publisher's.",
    )


def _is_state(value: Any) -> bool:
    """Whether this is tensors by name. Numbers and texts may be among them, such as a step count."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return False
    tensors = sum(isinstance(entry, torch.Tensor) for entry in value.values())
    scalars = sum(entry is None or isinstance(entry, _SCALARS) for entry in value.values())
    return tensors > 0 and tensors + scalars == len(value)


def _unwrap(loaded: Any, path: Path) -> tuple[dict[str, torch.Tensor], str | None, tuple[str, ...]]:
    if _is_state(loaded):
        tensors = {key: value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
        return tensors, None, tuple(key for key in loaded if key not in tensors)
    if not isinstance(loaded, Mapping):
        raise MatchRTError(
            "checkpoint-empty",
            f"'{path}' holds a {type(loaded).__name__}, not a state dict.",
            "Save the network's state_dict() and use that.",
        )
    states = [key for key, value in loaded.items() if isinstance(key, str) and _is_state(value)]
    chosen = next((name for name in WRAPPERS if name in states), states[0] if len(states) == 1 else None)
    nested = next((name for name in WRAPPERS if isinstance(loaded.get(name), Mapping)), None)
    if chosen is None and nested is not None and not states and loaded[nested] is not loaded:
        tensors, inner, ignored = _unwrap(loaded[nested], path)
        return tensors, f"{nested}.{inner}", (*ignored, *(str(key) for key in loaded if key != nested))
    if chosen is None and states:
        return _joined(loaded, states)
    if chosen is None:
        raise MatchRTError(
            "checkpoint-empty",
            f"'{path}' has no state dict under a known name; it holds only {', '.join(map(str, list(loaded)[:8]))}.",
            f"Save the one you mean under one of: {', '.join(WRAPPERS)}.",
        )
    tensors, _, inside = _unwrap(loaded[chosen], path)
    return tensors, chosen, (*inside, *(str(key) for key in loaded if key != chosen))


def _joined(loaded: Mapping[Any, Any], states: list[str]) -> tuple[dict[str, torch.Tensor], None, tuple[str, ...]]:
    """Several state dicts as one, as the module that holds them all would name the tensors: `student.`, `teacher.`."""
    tensors = {
        f"{name}.{key}": tensor
        for name in states
        for key, tensor in loaded[name].items()
        if isinstance(tensor, torch.Tensor)
    }
    return tensors, None, tuple(str(key) for key in loaded if key not in states)


def _unwrap_entry(
    loaded: Mapping[Any, Any], name: str, state: Mapping[str, Any]
) -> tuple[dict[str, torch.Tensor], str, tuple[str, ...]]:
    """As `_unwrap`, for the entry of that name."""
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    return tensors, name, tuple(str(key) for key in loaded if str(key) != name)


def _require_plain(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    odd = [key for key, tensor in tensors.items() if not _is_plain(tensor)]
    if odd:
        raise MatchRTError(
            "checkpoint-tensor",
            f"'{path}' holds {len(odd)} sparse, quantised, expanded or empty (meta) tensors: {', '.join(odd[:5])}.",
            "Save ordinary dense weights.",
        )


def _is_plain(tensor: torch.Tensor) -> bool:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        return False
    # An expanded tensor is larger than what it stores: a small file could ask for all of the memory.
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _require_finite(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    bad = [k for k, t in tensors.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if bad:
        raise MatchRTError(
            "checkpoint-nonfinite",
            f"'{path}' holds NaN or infinity in {len(bad)} tensors: {', '.join(bad[:5])}.",
            "The training diverged or the file is damaged; use another checkpoint.",
        )
