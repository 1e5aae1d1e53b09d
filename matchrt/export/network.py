"""A model spec and a checkpoint to a loaded network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from matchrt.errors import MatchRTError
from matchrt.export.checkpoint import Checkpoint, read_checkpoint
from matchrt.export.loading import Constants, account, fill
from matchrt.export.report import LoadReport
from matchrt.export.specs import ModelSpec, model_specs
from matchrt.models.config import LoFTRConfig
from matchrt.models.loftr import LoFTR
from matchrt.models.position import sine_encoding, sine_frequencies


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


def expected_tensors(spec: ModelSpec) -> dict[str, Tensor]:
    """The network's tensors by key, without allocating them."""
    with torch.device("meta"):
        return dict(LoFTR(spec.network).state_dict())


def constants(config: LoFTRConfig) -> Constants:
    """What the network computes and some checkpoints hold all the same."""

    def position_encoding(shape: tuple[int, ...]) -> Tensor:
        frequencies = sine_frequencies(config.coarse.d_model, config.fixed_position_divisor)
        return sine_encoding(shape[-2], shape[-1], frequencies) if len(shape) > 1 else frequencies

    return {"position encoding": position_encoding}


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
    with torch.random.fork_rng(devices=[]):
        # What --allow-missing leaves untrained is at least the same in every build.
        torch.manual_seed(0)
        network = LoFTR(spec.network)
    state, report = account(
        checkpoint.tensors, network.state_dict(), spec.key_map, spec.name, allow_missing, constants(spec.network)
    )
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
        expected, computed = expected_tensors(spec), constants(spec.network)
        _, report = account(checkpoint.tensors, expected, spec.key_map, spec.name, (), computed)
        reports[spec.name] = report
    return dict(sorted(reports.items(), key=lambda item: len(item[1].problems)))
