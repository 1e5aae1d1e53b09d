"""The forms that `bench/roma_stages.py` compares compute what the deployed network computes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.roma import tiny_roma
from support.scripts import bench_script
from torch import Tensor

from matchrt.models.roma.deployed import deployed
from matchrt.models.roma.network import RoMa

FORMS = sorted(bench_script("roma_variants").VARIANTS)


def _run(network: RoMa) -> tuple[Tensor, Tensor]:
    whole = F.interpolate(torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)), size=(120, 120))
    images = whole[:, :, :112, :112], whole[:, :, 8:, 8:]
    with torch.no_grad():
        dense = network(*images)
    return dense.warp, dense.certainty


@pytest.fixture(scope="module")
def expected() -> tuple[Tensor, Tensor]:
    return _run(deployed(tiny_roma()))


@pytest.mark.parametrize("form", FORMS)
def test_a_form_computes_the_same(form: str, expected: tuple[Tensor, Tensor]) -> None:
    network = deployed(tiny_roma())
    undo = bench_script("roma_variants").VARIANTS[form].change(network)
    try:
        actual = _run(network)
    finally:
        if undo is not None:
            undo()
    for one, other in zip(actual, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-4)
