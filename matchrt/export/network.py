"""A model spec and a checkpoint to a loaded network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import torch

from matchrt.errors import MatchRTError
from matchrt.export.checkpoint import Checkpoint, read_checkpoint
from matchrt.export.loading import account, fill, shapes_of
from matchrt.export.report import LoadReport
from matchrt.export.specs import ModelSpec, model_specs
from matchrt.models.loftr import LoFTR


@dataclass(frozen=True)
class LoadedNetwork:
    """A network in evaluation mode with all its weights, and the proof."""

    spec: ModelSpec
    network: LoFTR
    report: LoadReport
    checkpoint: Checkpoint


def checkpoint_path(spec: ModelSpec, given: Path | None) -> Path:
    """The checkpoint to use: the one given, else the bundled one. Error: checkpoint-needed."""
    if given is not None:
        return given
    if spec.weights is None:
        raise MatchRTError(
            "checkpoint-needed",
            f"matchrt does not ship the weights of {spec.name}.",
            f"Download {spec.origin}, then pass --checkpoint FILE.",
        )
    return Path(str(resources.files("matchrt") / "assets" / spec.weights))


def expected_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """The network's keys and shapes, without allocating it."""
    with torch.device("meta"):
        return shapes_of(LoFTR(spec.network))


def load_network(
    spec: ModelSpec,
    path: Path | None = None,
    *,
    allow_missing: Sequence[str] = (),
    threshold: float | None = None,
    mutual: bool | None = None,
) -> LoadedNetwork:
    """Loads every tensor of the checkpoint into the network, or raises `weights-unaccounted` with what is wrong."""
    spec = _with_matching(spec, threshold, mutual)
    source = checkpoint_path(spec, path)
    checkpoint = read_checkpoint(source)
    network = LoFTR(spec.network)
    state, report = account(checkpoint.tensors, shapes_of(network), spec.key_map, spec.name, allow_missing)
    report.require_complete(str(source))
    fill(network, state)
    return LoadedNetwork(spec, network.eval(), report, checkpoint)


def _with_matching(spec: ModelSpec, threshold: float | None, mutual: bool | None) -> ModelSpec:
    match = spec.network.match
    if threshold is not None:
        if not 0.0 <= threshold < 1.0:
            raise MatchRTError("threshold-range", f"Threshold {threshold} is outside 0..1.", "Use e.g. 0.2.")
        match = replace(match, threshold=threshold)
    if mutual is not None:
        match = replace(match, mutual=mutual)
    return replace(spec, network=replace(spec.network, match=match))


def fitting_models(checkpoint: Checkpoint) -> dict[str, LoadReport]:
    """The account of the checkpoint for every known model, best fit first."""
    reports = {}
    for spec in model_specs().values():
        _, report = account(checkpoint.tensors, expected_shapes(spec), spec.key_map, spec.name)
        reports[spec.name] = report
    return dict(sorted(reports.items(), key=lambda item: len(item[1].problems)))
