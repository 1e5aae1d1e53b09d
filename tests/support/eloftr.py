"""The team's EfficientLoFTR weights, as tests need them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from matchrt.export.weights.account import account, fill
from matchrt.export.weights.report import LoadReport
from matchrt.families.base import Family
from matchrt.families.eloftr import ELOFTR_KEYS


def manifest_state(shared: Path, name: str) -> dict[str, Tensor]:
    """The deterministic random weights of a manifest, by the manifest's own keys."""
    spec = importlib.util.spec_from_file_location("make_checkpoint", shared / "make_checkpoint.py")
    assert spec is not None and spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    manifest = json.loads((shared / "manifests" / f"{name}.json").read_text())
    return {key: torch.as_tensor(value) for key, value in maker.state_dict(manifest).items()}


def filled(family: Family, tensors: dict[str, Tensor]) -> tuple[nn.Module, LoadReport]:
    """A network with these weights, and their account."""
    network = family.create()
    state, report = account(tensors, network.state_dict(), ELOFTR_KEYS, "eloftr")
    report.require_complete("test")
    fill(network, state)
    return network.eval(), report
