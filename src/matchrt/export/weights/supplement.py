"""Weights that a model takes from a second file: RoMa's DINOv2, which no RoMa checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from matchrt.errors import MatchRTError
from matchrt.export.weights.account import account
from matchrt.export.weights.dinov2_names import Translated, translate
from matchrt.export.weights.read import Checkpoint
from matchrt.export.weights.report import Entry, LoadReport
from matchrt.families.keymap import KeyMap
from matchrt.models.roma.config import DINOv2Config

# The network's module that the file fills.
MODULE = "dinov2."
DINOV2_ORIGIN = (
    "dinov2_vitl14_pretrain.pth from github.com/facebookresearch/dinov2, "
    "or timm's vit_large_patch14_dinov2.lvd142m, or Hugging Face's facebook/dinov2-large"
)


def needs_supplement(expected: Mapping[str, Tensor]) -> bool:
    """Whether the network has a part that its own checkpoint lacks."""
    return any(key.startswith(MODULE) for key in expected)


def require_supplement(model: str) -> MatchRTError:
    """The error when the second file is not given."""
    return MatchRTError(
        "dinov2-needed",
        f"{model} takes its DINOv2 from a second file: the checkpoint holds none of it.",
        f"Pass --dinov2 FILE; it is {DINOV2_ORIGIN}.",
    )


def unwanted_supplement(model: str) -> MatchRTError:
    """The error when a second file is given to a model that needs none."""
    return MatchRTError("dinov2-unused", f"{model} has no DINOv2.", "Leave --dinov2 out.")


def account_supplement(
    checkpoint: Checkpoint, expected: Mapping[str, Tensor], key_map: KeyMap, config: DINOv2Config, model: str
) -> tuple[dict[str, Tensor], LoadReport]:
    """The second file into the network's module `dinov2`; `expected` are the whole network's tensors.

    The report's network entries are those of that module only, its file entries have the file's own keys.
    """
    prefix = key_map.common_prefix(checkpoint.tensors)
    translated = translate({key[len(prefix) :]: value for key, value in checkpoint.tensors.items()}, config)
    wanted = {key[len(MODULE) :]: value for key, value in expected.items() if key.startswith(MODULE)}
    bare = KeyMap(key_map.rules, ())
    state, report = account(translated.tensors, wanted, bare, model)
    file = tuple(entry for found in report.file for entry in _sources(found, prefix, translated))
    network = tuple(_sourced(entry, prefix, translated, checkpoint.path.name) for entry in report.network)
    state = {MODULE + key: value for key, value in state.items()}
    return state, LoadReport(model, prefix, file, network)


def _sources(entry: Entry, prefix: str, translated: Translated) -> list[Entry]:
    """One entry for each tensor of the file that went into the entry's one."""
    keys = translated.sources[entry.key]
    if entry.fate != "loaded":
        return [replace(entry, key=prefix + key) for key in keys]
    shape = entry.shape if len(keys) == 1 else (entry.shape[0] // len(keys), *entry.shape[1:])
    how = translated.derived.get(entry.key)
    detail = MODULE + entry.detail + (f" ({how})" if how else "")
    return [Entry(prefix + key, shape, "derived" if how else "loaded", detail) for key in keys]


def _sourced(entry: Entry, prefix: str, translated: Translated, file: str) -> Entry:
    if entry.fate != "loaded":
        return replace(entry, key=MODULE + entry.key)
    keys = ", ".join(prefix + key for key in translated.sources[entry.detail])
    how = translated.derived.get(entry.detail)
    return Entry(MODULE + entry.key, entry.shape, "supplemented", f"{keys} of {file}" + (f" ({how})" if how else ""))
