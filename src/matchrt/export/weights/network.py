"""A model spec and a checkpoint become a loaded network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from matchrt._util.digest import sha256_json
from matchrt.downloads.find import checkpoint_of
from matchrt.errors import MatchRTError
from matchrt.export.weights.account import account, fill
from matchrt.export.weights.averaged import is_averaged, state_dict_is_averaged
from matchrt.export.weights.locate import Selection
from matchrt.export.weights.read import Checkpoint, digest_tensors, read_checkpoint
from matchrt.export.weights.report import Entry, LoadReport
from matchrt.export.weights.second_file import account_second, own_tensors, read_second, second_file_of
from matchrt.families.definition import ModelSpec
from matchrt.families.registry import model_specs
from matchrt.models.parts.engine_graph import EngineGraph


@dataclass(frozen=True)
class LoadedNetwork:
    """A network in evaluation mode with all its weights.

    spec: the model that was loaded.
    network: the torch module.
    report: the fate of every tensor.
    checkpoint: what the file holds, without the tensors beside the network.
    supplement: what the second file holds; None for models that take none.
    """

    spec: ModelSpec
    network: nn.Module
    report: LoadReport
    checkpoint: Checkpoint
    supplement: Checkpoint | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what else the checkpoint holds than the network, and how to take it."""
        return notes(self.spec, self.checkpoint, self.report)

    @property
    def weights_sha256(self) -> str:
        """Digest of the network's tensors in the checkpoint, by the file's keys, and of those in the second file.

        So it differs for two networks of one file, and what stands beside the network does not count.
        """
        first = self.checkpoint.tensors_sha256
        return first if self.supplement is None else sha256_json([first, self.supplement.tensors_sha256])


def published_graph(loaded: LoadedNetwork, max_matches: int) -> EngineGraph:
    """The engine graph of the network as published, without the changes of the deployed form.

    It is torch's side in comparisons of speed. max_matches: K, the match slots of each pair. Raises nothing.
    """
    return loaded.spec.family.graph(loaded.network, max_matches, published=True).eval()


def checkpoint_path(spec: ModelSpec, given: Path | None) -> Path:
    """The checkpoint to use: the given one, or else the bundled or downloaded one. Error: checkpoint-needed."""
    return checkpoint_of(spec) if given is None else given


def expected_tensors(spec: ModelSpec) -> dict[str, Tensor]:
    """The network's tensors by key, on the device meta, so that no memory is allocated. Raises nothing."""
    with torch.device("meta"):
        return dict(spec.family.create().state_dict())


def load_network(
    spec: ModelSpec,
    path: Path | None = None,
    *,
    second_file: Path | None = None,
    sha256: str | None = None,
    selection: Selection | None = None,
    allow_missing: Sequence[str] = (),
    threshold: float | None = None,
    mutual: bool | None = None,
    size: tuple[int, int] | None = None,
) -> LoadedNetwork:
    """Loads every tensor of the checkpoint into the network, or raises `weights-unaccounted` with what is wrong.

    path: of the checkpoint; None for the bundled one, or for what was downloaded.
    second_file: for models that take one; None for what was downloaded.
    sha256: the digest that `LoadedNetwork.weights_sha256` must have. Names and shapes cannot tell whether two tensors
        of the same shape were swapped, but a digest can.
    selection: which network to take, if the file holds several.
    allow_missing: patterns of network keys that the checkpoint may lack; these stay untrained.
    threshold, mutual: rules of the matching; None for the model's own.
    size: (height, width) in pixels that the network is built for; None for the model's default.
    Errors: checkpoint-needed, weights-unaccounted, checkpoint-digest, allow-missing-unused, those of `read_selected`,
    `locate` and `read_second`.
    """
    family = spec.family.with_matching(threshold, mutual).at(*(size or (spec.height, spec.width)))
    spec = replace(spec, family=family)
    source = checkpoint_path(spec, path)
    checkpoint, selection = read_selected(source, selection)
    with torch.random.fork_rng(devices=[]):
        # Tensors that --allow-missing leaves untrained are then the same in every build.
        torch.manual_seed(0)
        network = family.create()
    second = read_second(spec, second_file)
    state, report = account_files(spec, network.state_dict(), checkpoint, second, allow_missing, selection)
    report.require_complete(str(source))
    checkpoint = own_part(checkpoint, report.file)
    second = None if second is None else own_part(second, report.supplement)
    loaded = LoadedNetwork(spec, network, report, checkpoint, second)
    if sha256 is not None and loaded.weights_sha256 != sha256:
        raise MatchRTError(
            "checkpoint-digest",
            f"The tensors of '{source}' have the digest {loaded.weights_sha256}, not {sha256}.",
            "Download the file again, or correct --sha256.",
        )
    fill(network, state)
    network.eval()
    return loaded


def read_selected(path: Path, selection: Selection | None) -> tuple[Checkpoint, Selection]:
    """Reads a checkpoint, and with `ema` the entry of it that holds averaged weights, if there is one.

    The second result is what is then left to select among the tensors. Errors: those of `read_checkpoint`.
    """
    selection = selection or Selection()
    if not selection.ema:
        return read_checkpoint(path), selection
    checkpoint = read_checkpoint(path, averaged=True)
    return checkpoint, replace(selection, ema=not checkpoint.averaged)


def own_part(checkpoint: Checkpoint, entries: Iterable[Entry]) -> Checkpoint:
    """The checkpoint without the tensors beside the network, and with the digest of the others.

    entries: the fates of its tensors. Raises nothing.
    """
    beside = {entry.key for entry in entries if entry.fate == "neighbour"}
    if not beside:
        return checkpoint
    tensors = {key: tensor for key, tensor in checkpoint.tensors.items() if key not in beside}
    return Checkpoint(**{**vars(checkpoint), "tensors": tensors, "tensors_sha256": digest_tensors(tensors)})


def notes(spec: ModelSpec, checkpoint: Checkpoint, report: LoadReport) -> tuple[str, ...]:
    """Sentences about what else the file holds than the network, how to take it, and what names cannot tell of it.

    Raises OSError if the file is gone.
    """
    said = (*report.notes(), *_unpublished(spec, checkpoint, report))
    if state_dict_is_averaged((checkpoint.wrapper, *checkpoint.ignored)):
        return (*said, "The entry 'state_dict' holds the running average of the weights; the last ones are in another.")
    averaged = [name for name in checkpoint.ignored if is_averaged(name)]
    if not averaged or checkpoint.averaged:
        return said
    return (*said, f"The entry '{averaged[0]}' may hold a running average of the weights; --ema takes it.")


def _unpublished(spec: ModelSpec, checkpoint: Checkpoint, report: LoadReport) -> tuple[str, ...]:
    if not spec.unless_published or not report.complete:
        return ()
    sha256 = checkpoint.file_sha256
    if any(sha256 == file.sha256 for file in spec.published):
        return ()
    known = " or ".join(file.name for file in spec.published)
    return (f"The file has sha256 {sha256}, which is not that of {known}. {spec.unless_published}",)


def account_files(
    spec: ModelSpec,
    expected: Mapping[str, Tensor],
    checkpoint: Checkpoint,
    second: Checkpoint | None = None,
    allow_missing: Sequence[str] = (),
    selection: Selection | None = None,
    strict: bool = True,
) -> tuple[dict[str, Tensor], LoadReport]:
    """`account` for all files that a model takes.

    expected: the network's tensors by key.
    second: the second file; None if there is none. selection, strict: as in `locate`. Errors: those of `account`.
    """
    definition = None if second is None else second_file_of(spec)
    own, constants = own_tensors(expected, definition), spec.family.constants()
    state, report = account(
        checkpoint.tensors,
        own,
        spec.key_map,
        spec.name,
        allow_missing,
        constants,
        selection,
        strict,
        str(checkpoint.path),
    )
    if second is None or definition is None:
        return state, report
    more, other = account_second(second, expected, definition, spec.family.config, spec.name)
    joined = replace(report, network=(*report.network, *other.network), supplement=other.file)
    return {**state, **more}, joined


def fitting_models(checkpoint: Checkpoint, selection: Selection | None = None) -> dict[str, LoadReport]:
    """The account of the checkpoint for every known model, best fit first.

    Models that it fits completely are first. The others are in the order of the number of tensors that fit by name and
    shape. selection: which network of the file to take, where it has one of the model's form; None for the first.
    Error: keymap-ambiguous.
    """
    reports = {}
    known: dict[object, LoadReport] = {}
    for spec in model_specs().values():
        # For a model of two files, this file is the first. Tensors of the second file are not missing from it.
        expected = own_tensors(expected_tensors(spec), second_file_of(spec))
        # Variants with the same tensors and rules have the same account.
        same = (spec.key_map, tuple((key, tuple(tensor.shape)) for key, tensor in expected.items()))
        if spec.family.constants() or same not in known:
            known[same] = _fit(spec, expected, checkpoint, selection)
        reports[spec.name] = replace(known[same], model=spec.name)
    return dict(sorted(reports.items(), key=lambda item: _distance(item[1])))


def _fit(
    spec: ModelSpec, expected: Mapping[str, Tensor], checkpoint: Checkpoint, selection: Selection | None
) -> LoadReport:
    try:
        return account_files(spec, expected, checkpoint, selection=selection, strict=False)[1]
    except MatchRTError as error:
        if error.code != "checkpoint-prefix":
            raise
        return account_files(spec, expected, checkpoint, strict=False)[1]


def _distance(report: LoadReport) -> tuple[bool, int, int]:
    return not report.complete, -report.matched, len(report.problems)
