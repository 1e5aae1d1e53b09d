"""Weights that a model takes from a second file, as its family defines them (`SecondFile`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from matchrt.downloads.find import second_downloaded
from matchrt.errors import MatchRTError
from matchrt.export.weights.account import account, outside_entry
from matchrt.export.weights.locate import Located, Selection, locate
from matchrt.export.weights.read import Checkpoint, read_checkpoint
from matchrt.export.weights.report import Entry, LoadReport
from matchrt.families.definition import ModelSpec
from matchrt.families.registry import family_of
from matchrt.families.second_file import SecondFile, Translated


def second_file_of(spec: ModelSpec) -> SecondFile | None:
    """What the model's second file is; None if its checkpoint holds everything. Error: family-unknown."""
    return family_of(spec.family.name).second_file


def read_second(spec: ModelSpec, path: Path | None) -> Checkpoint | None:
    """Reads the second file, which must be given or downloaded for models that take one, and given only for them.

    Errors: `CODE-needed` by the family's `SecondFile.code`, dinov2-unused, those of `read_checkpoint`.
    """
    second = second_file_of(spec)
    if path is None and second is not None:
        path = second_downloaded(spec)
    if path is None and second is not None:
        raise MatchRTError(
            f"{second.code}-needed",
            f"{spec.name} takes its {second.title} from a second file: the checkpoint holds none of it.",
            f"Run: matchrt download {spec.name} — or pass {second.option} FILE; it is {second.origin}.",
        )
    if path is not None and second is None:
        # The code's name is older than the option's general one.
        raise MatchRTError(
            "dinov2-unused",
            f"{spec.name} takes no second file of weights.",
            "Leave --second-file (or --dinov2) out.",
        )
    return None if path is None else read_checkpoint(path)


def own_tensors(expected: Mapping[str, Tensor], second: SecondFile | None) -> dict[str, Tensor]:
    """The network's tensors that its checkpoint holds: all but those of the second file's part. Raises nothing."""
    return {key: t for key, t in expected.items() if second is None or not key.startswith(second.module)}


def account_second(
    checkpoint: Checkpoint, expected: Mapping[str, Tensor], second: SecondFile, config: Any, model: str
) -> tuple[dict[str, Tensor], LoadReport]:
    """Accounts for the second file in the part of the network that it fills.

    expected: the whole network's tensors by key.

    The report's network entries are those of that part only; its file entries have the file's own keys. Errors:
    checkpoint-ambiguous, those of `account`.
    """
    wanted = {key[len(second.module) :]: tensor for key, tensor in expected.items() if key.startswith(second.module)}
    located = _locate(checkpoint, wanted, second, config)
    keys: dict[str, str] = {}
    beside = [
        outside_entry(key, tensor, located) for key, tensor in checkpoint.tensors.items() if key not in located.names
    ]
    for key, name in located.names.items():
        if keys.setdefault(name, key) != key:
            shape = tuple(checkpoint.tensors[key].shape)
            beside.append(Entry(key, shape, "duplicated", f"has the same name as {keys[name]}"))
    translated = second.translate({name: checkpoint.tensors[key] for name, key in keys.items()}, config)
    bare = Selection(prefix="")
    state, report = account(translated.tensors, wanted, second.key_map, model, selection=bare)
    names = _Names(second.module, keys, translated, checkpoint.path.name)
    file = tuple(entry for found in report.file for entry in names.file_entries(found))
    network = tuple(names.network_entry(entry) for entry in report.network)
    state = {second.module + key: value for key, value in state.items()}
    return state, LoadReport(model, located.prefix, (*file, *beside), network)


def _locate(checkpoint: Checkpoint, wanted: Mapping[str, Tensor], second: SecondFile, config: Any) -> Located:
    """Where the part's tensors are in the second file. Error: checkpoint-ambiguous."""
    try:
        return locate(
            checkpoint.tensors,
            wanted,
            second.key_map,
            source=str(checkpoint.path),
            known=dict.fromkeys(second.names(config)),
        )
    except MatchRTError as error:
        if error.code != "checkpoint-ambiguous":
            raise
        # --prefix is about the first file.
        raise MatchRTError(error.code, error.message, "Save the one that you mean in a file of its own.") from error


@dataclass(frozen=True)
class _Names:
    """Gives entries the names that the network and the file have.

    The account of the second file uses names of the part alone, and of the translated file.

    keys: the file's keys by their names without prefix.
    """

    module: str
    keys: Mapping[str, str]
    translated: Translated
    file: str

    def file_entries(self, entry: Entry) -> list[Entry]:
        """One entry for each tensor of the file that went into the translated tensor of `entry`."""
        keys = self.translated.sources[entry.key]
        if entry.fate != "loaded":
            return [replace(entry, key=self.keys[key]) for key in keys]
        shape = entry.shape if len(keys) == 1 else (entry.shape[0] // len(keys), *entry.shape[1:])
        how = self.translated.derived.get(entry.key)
        detail = self.module + entry.detail + (f" ({how})" if how else "")
        return [Entry(self.keys[key], shape, "derived" if how else "loaded", detail) for key in keys]

    def network_entry(self, entry: Entry) -> Entry:
        """The network's tensor, with the tensors of the file that it was made of."""
        if entry.fate != "loaded":
            return replace(entry, key=self.module + entry.key)
        keys = ", ".join(self.keys[key] for key in self.translated.sources[entry.detail])
        how = self.translated.derived.get(entry.detail)
        detail = f"{keys} of {self.file}" + (f" ({how})" if how else "")
        return Entry(self.module + entry.key, entry.shape, "supplemented", detail)
