"""DINOv2, RoMa's second file of weights.

Files use the names of Facebook, those of timm (which are the same), either of these in chunks, or those of Hugging
Face.

Each naming is a table. For each tensor of the network, it has the full names of the file's tensors that it is made of.
Parts of names are not matched, and no tensor of a file is in a table twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matchrt.families import published_files
from matchrt.families.keymap import Drop, Keep, KeyMap
from matchrt.families.second_file import SecondFile, Translated
from matchrt.models.roma.config import DINOv2Config, RoMaConfig

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = (
    "norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight", "attn.proj.bias",
    "ls1.gamma", "norm2.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias",
    "ls2.gamma",
)  # fmt: skip
_OUTSIDE = ("cls_token", "mask_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias",
            "norm.weight", "norm.bias")  # fmt: skip
_HF_OUTSIDE = {
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
_HF_BLOCK = {
    "attn.proj.weight": "attention.output.dense.weight",
    "attn.proj.bias": "attention.output.dense.bias",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}
_CHUNKED = re.compile(r"blocks\.(\d+)\.(\d+)\.")

Table = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Naming:
    """The names that a publisher gives to DINOv2's tensors.

    name: the name of the naming, for reports.
    table: the network's tensor -> the file's tensors, which are stacked along the first axis in this order.
    """

    name: str
    table: Table


def recognise(keys: Iterable[str], config: DINOv2Config) -> Naming:
    """The naming of a file, found by its keys (prefix removed). Without signs of another, it is Facebook's."""
    names = list(keys)
    if any(name.startswith(("embeddings.", "encoder.layer.")) for name in names):
        return Naming("Hugging Face", _hugging_face(config))
    chunks = {int(found[2]): int(found[1]) for name in names if (found := _CHUNKED.match(name))}
    if chunks:
        return Naming("Facebook, in chunks of blocks", _flat(config, chunks))
    return Naming("Facebook or timm", _flat(config, {}))


def _flat(config: DINOv2Config, chunks: Mapping[int, int]) -> Table:
    """Facebook's names. chunks: the chunk of each block, if names contain it (`blocks.1.6` is block 6 in chunk 1)."""
    table: dict[str, tuple[str, ...]] = {name: (name,) for name in _OUTSIDE}
    for block in range(config.depth):
        stem = f"blocks.{chunks[block]}.{block}" if block in chunks else f"blocks.{block}"
        table.update({f"blocks.{block}.{name}": (f"{stem}.{name}",) for name in _BLOCK})
    return table


def _hugging_face(config: DINOv2Config) -> Table:
    table: dict[str, tuple[str, ...]] = {name: (other,) for name, other in _HF_OUTSIDE.items()}
    for block in range(config.depth):
        stem = f"encoder.layer.{block}"
        for name in _BLOCK:
            theirs: tuple[str, ...]
            if name.startswith("attn.qkv"):
                kind = name.rpartition(".")[2]
                theirs = tuple(f"{stem}.attention.attention.{part}.{kind}" for part in ("query", "key", "value"))
            else:
                theirs = (f"{stem}.{_HF_BLOCK.get(name, name)}",)
            table[f"blocks.{block}.{name}"] = theirs
    return table


def translate(tensors: Mapping[str, Tensor], config: DINOv2Config) -> Translated:
    """Renames tensors from the file's keys (prefix removed) to Facebook's names.

    A tensor of which a part is missing is not made, and its parts keep their keys.
    """
    naming = recognise(tensors, config)
    result, derived = dict(tensors), {}
    sources: dict[str, tuple[str, ...]] = {key: (key,) for key in tensors}
    for name, parts in naming.table.items():
        # If a file has the tensor under both names, both stay, and the account calls the second one unexpected.
        if name in tensors or not all(part in tensors for part in parts):
            continue
        stacked = _stacked([tensors[part] for part in parts])
        if stacked is None:
            continue
        for part in parts:
            del result[part], sources[part]
        result[name], sources[name] = stacked, parts
        if len(parts) > 1:
            derived[name] = f"{len(parts)} tensors stacked"
    _resize_position(result, derived, config)
    return Translated(naming.name, result, sources, derived)


def _stacked(parts: list[Tensor]) -> Tensor | None:
    import torch

    if len(parts) == 1:
        return parts[0]
    if len({(tuple(part.shape), part.dtype) for part in parts}) > 1 or not parts[0].ndim:
        return None
    return torch.cat(parts)


def _resize_position(tensors: dict[str, Tensor], derived: dict[str, str], config: DINOv2Config) -> None:
    """Resamples a position embedding that was stored for another grid, as timm does for other image sizes."""
    from matchrt.models.roma.dinov2 import resample_position

    stored = tensors.get("pos_embed")
    if stored is None or stored.ndim != 3 or stored.shape[0] != 1 or not stored.is_floating_point():
        return
    side = round(max(stored.shape[1] - 1, 0) ** 0.5)
    if side < 2 or side**2 + 1 != stored.shape[1] or side == config.grid:
        return
    tensors["pos_embed"] = resample_position(stored, (config.grid, config.grid))
    derived["pos_embed"] = f"resampled from {side}x{side} to {config.grid}x{config.grid}: the published file is better"


DINOV2_KEYS = KeyMap(
    (
        Keep("cls_token"),
        Keep("pos_embed"),
        Keep("patch_embed.proj.*"),
        Keep("blocks.**"),
        Keep("norm.*"),
        Drop("mask_token", "stands for hidden patches in training; matching hides none"),
    ),
    prefixes=("module.", "_orig_mod.", "model.", "backbone.", "dinov2.", "encoder.dinov2."),
)


def _of_roma(tensors: Mapping[str, Tensor], config: RoMaConfig) -> Translated:
    return translate(tensors, config.dinov2)


def _names(config: RoMaConfig) -> Iterable[str]:
    """The names of all tables. A chunk's number is at most that of its first block."""
    depth = config.dinov2.depth
    for table in (_flat(config.dinov2, {}), _hugging_face(config.dinov2)):
        for names in table.values():
            yield from names
    for block in range(depth):
        yield from (f"blocks.{chunk}.{block}.{name}" for chunk in range(block + 1) for name in _BLOCK)


DINOV2_FILE = SecondFile(
    module="dinov2.",
    title="DINOv2",
    code="dinov2",
    example="dinov2_vitl14_pretrain.pth",
    origin="dinov2_vitl14_pretrain.pth from github.com/facebookresearch/dinov2, "
    "or timm's vit_large_patch14_dinov2.lvd142m, or Hugging Face's facebook/dinov2-large",
    absence="DINOv2 is in none of RoMa's checkpoints",
    key_map=DINOV2_KEYS,
    names=_names,
    translate=_of_roma,
    option="--dinov2",
    published=published_files.DINOV2,
)
