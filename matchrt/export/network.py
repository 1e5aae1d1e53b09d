"""A model spec and a checkpoint to a loaded network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from matchrt.errors import MatchRTError
from matchrt.export.checkpoint import Checkpoint, read_checkpoint
from matchrt.export.loading import account, fill
from matchrt.export.report import LoadReport
from matchrt.export.specs import ModelSpec, model_specs


@dataclass(frozen=True)
class LoadedNetwork:
    """A network in evaluation mode with all its weights, and the proof."""

    spec: ModelSpec
    network: nn.Module
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
        return dict(spec.family.create().state_dict())


def load_network(
    spec: ModelSpec,
    path: Path | None = None,
    *,
    allow_missing: Sequence[str] = (),
    threshold: float | None = None,
    mutual: bool | None = None,
    size: tuple[int, int] | None = None,
) -> LoadedNetwork:
    """Loads every tensor of the checkpoint into the network, or raises `weights-unaccounted` with what is wrong.

    size: (height, width) that the network is built for, None for the model's default.
    """
    family = spec.family.with_matching(threshold, mutual).at(*(size or (spec.height, spec.width)))
    spec = replace(spec, family=family)
    source = checkpoint_path(spec, path)
    checkpoint = read_checkpoint(source)
    with torch.random.fork_rng(devices=[]):
        # What --allow-missing leaves untrained is at least the same in every build.
        torch.manual_seed(0)
        network = family.create()
    state, report = account(
        checkpoint.tensors, network.state_dict(), spec.key_map, spec.name, allow_missing, family.constants()
    )
    report.require_complete(str(source))
    fill(network, state)
    return LoadedNetwork(spec, network.eval(), report, checkpoint)


def fitting_models(checkpoint: Checkpoint) -> dict[str, LoadReport]:
    """The account of the checkpoint for every known model, best fit first."""
    reports = {}
    known: dict[object, LoadReport] = {}
    for spec in model_specs().values():
        expected, constants = expected_tensors(spec), spec.family.constants()
        # Variants that differ in nothing that a file holds have the same account.
        same = (spec.key_map, tuple((key, tuple(tensor.shape)) for key, tensor in expected.items()))
        if constants or same not in known:
            _, known[same] = account(checkpoint.tensors, expected, spec.key_map, spec.name, (), constants)
        reports[spec.name] = replace(known[same], model=spec.name)
    return dict(sorted(reports.items(), key=lambda item: len(item[1].problems)))
