"""The second file of weights, for families whose checkpoints lack a part of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matchrt.families.keymap import KeyMap
from matchrt.families.published import PublishedFile

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Translated:
    """A file's tensors under the names that the key map knows.

    naming: whose names the file uses, for reports.
    tensors: by the known names; tensors that no table knows keep their keys.
    sources: for each name, the keys of the file that the tensor comes from.
    derived: for tensors that were computed, how, in words.
    """

    naming: str
    tensors: Mapping[str, Tensor]
    sources: Mapping[str, tuple[str, ...]]
    derived: Mapping[str, str]


@dataclass(frozen=True)
class SecondFile:
    """A description of the second file.

    module: beginning of the network's keys that the file fills, with the dot.
    title: the name of that part of the network.
    code: beginning of the error codes about the file, such as `CODE-needed`.
    example: the file's usual name.
    origin: where to get the file.
    absence: the sentence that says which checkpoints lack the part.
    key_map: the rules from translated keys to the part's keys.
    names: gives the names that the part's tensors have in files, in all namings, for the network's configuration.
    translate: makes a `Translated` from the file's tensors (prefix removed) and the network's configuration.
    option: the name of the command line's option in messages: `--second-file`, or an alias of it such as `--dinov2`.
    published: the files that can be the second file; `matchrt download` takes the first.
    """

    module: str
    title: str
    code: str
    example: str
    origin: str
    absence: str
    key_map: KeyMap
    names: Callable[[Any], Iterable[str]]
    translate: Callable[[Mapping[str, Tensor], Any], Translated]
    option: str = "--second-file"
    published: tuple[PublishedFile, ...] = ()
