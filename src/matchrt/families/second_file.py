"""A second file of weights, for families whose checkpoints lack a part of the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matchrt.families.keymap import KeyMap

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Translated:
    """A file's tensors under the names that the key map knows.

    naming: which publisher's names the file has, for reports.
    sources: for each name, the keys of the file. derived: how, for those that were computed. Tensors that no table
    knows keep their keys.
    """

    naming: str
    tensors: Mapping[str, Tensor]
    sources: Mapping[str, tuple[str, ...]]
    derived: Mapping[str, str]


@dataclass(frozen=True)
class SecondFile:
    """What the file is.

    option: how the command line's `--second-file` is called in messages; `--dinov2` is a second name of it.
    module: beginning of the keys of the network's part that it fills, with the dot. title: what that part is called.
    code: beginning of the error code `CODE-needed`.
    example: the file's usual name. origin: where to get it. absence: says which checkpoints lack the part.
    key_map: from translated keys to the part's keys.
    translate: the file's tensors (prefix removed) and the network's configuration to `Translated`.
    """

    module: str
    title: str
    code: str
    example: str
    origin: str
    absence: str
    key_map: KeyMap
    translate: Callable[[Mapping[str, Tensor], Any], Translated]
    option: str = "--second-file"
