"""Our XoFTR against outputs of the authors' code with the same weights, stage by stage.

`tools/xoftr_oracle.py` has run that code and written the figures; it says how to do so again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.xoftr import random_xoftr
from torch import Tensor

from matchrt.models.parts.coarse_matching import Grid
from matchrt.models.parts.match_tensors import MatchTensors
from matchrt.models.xoftr.backbone import ImageNormalisation, run_backbone
from matchrt.models.xoftr.deployed import deployed
from matchrt.models.xoftr.network import XoFTR

FEATURES = 1e-4  # relative to the stage's largest value
PIXELS = 1e-3
# Valid (height, width) of both images in pixels, and whether the rest of 96 x 128 is padding.
CASES = {
    "shift": ((96, 128), (96, 128), False),
    "uneven": ((96, 128), (80, 104), False),
    "masked": ((80, 128), (96, 104), True),
}
every_case = pytest.mark.parametrize("case", CASES)
Inputs = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


@pytest.fixture(scope="module")
def vectors() -> Any:
    return np.load(Path(__file__).parents[1] / "data" / "xoftr.npz")


@pytest.fixture(scope="module")
def network() -> XoFTR:
    return random_xoftr()


def _inputs(vectors: Any, case: str) -> Inputs:
    *sizes, padded = CASES[case]
    images = []
    for index, (height, width) in enumerate(sizes):
        image = torch.from_numpy(vectors[f"image{index}"]).float()[None, None, :height, :width] / 255
        # Padding of any value: the network must not see it.
        images.append(torch.nn.functional.pad(image, (0, 128 - width, 0, 96 - height), value=0.7) if padded else image)
    valid = [torch.tensor([size]) if padded else None for size in sizes]
    return images[0], images[1], valid[0], valid[1]


def _assert_close(vectors: Any, name: str, actual: Tensor) -> None:
    assert tuple(actual.shape) == tuple(vectors[f"{name}.shape"])
    difference = np.abs(actual.numpy().ravel()[vectors[f"{name}.idx"]] - vectors[f"{name}.val"]).max()
    assert difference / vectors[f"{name}.most"] <= FEATURES, name


def _grids(network: XoFTR, coarse: tuple[Tensor, Tensor], inputs: Inputs) -> tuple[Grid, Grid]:
    return network.grid(coarse[0], inputs[2]), network.grid(coarse[1], inputs[3])


def test_it_has_the_tensors_of_the_checkpoints(vectors: Any, network: XoFTR) -> None:
    ours = [f"{key} {tuple(value.shape)}" for key, value in network.state_dict().items()]
    assert len(ours) == 247 and sorted(ours) == sorted(vectors["keys"])
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_091_722


@every_case
@torch.inference_mode()
def test_stages(vectors: Any, network: XoFTR, case: str) -> None:
    inputs = _inputs(vectors, case)
    taps = run_backbone(network.backbone, *(network.normalisation(inputs[i], inputs[i + 2]) for i in (0, 1)))
    for level, first, second in zip(("coarse", "middle", "fine"), *taps, strict=True):
        _assert_close(vectors, f"{case}/{level}", second if case == "uneven" else torch.cat([first, second]))
    grids = _grids(network, (taps[0][0], taps[1][0]), inputs)
    masks = grids[0].mask(), grids[1].mask()
    tokens = network.encode_coarse(taps[0][0], taps[1][0], *masks)
    found = network.selection(network.coarse_matching(*tokens, *masks), *grids, network.config.match, 600)
    count = int((found.scores > 0).sum())
    chosen = zip(found.index0[0, :count].tolist(), found.index1[0, :count].tolist(), strict=True)
    theirs = vectors[f"{case}/cells"]
    assert sorted(chosen) == sorted(map(tuple, theirs.tolist()))
    cells = torch.from_numpy(theirs[:, 0])[None].long(), torch.from_numpy(theirs[:, 1])[None].long()
    windows = network.fine_process(taps, tokens, cells)
    for index in (0, 1):
        _assert_close(vectors, f"{case}/tokens{index}", tokens[index])
        _assert_close(vectors, f"{case}/windows{index}", windows[index])
    _assert_close(vectors, f"{case}/confidence", network.fine_matching.confidence(*windows))


def _rows(out: MatchTensors) -> np.ndarray:
    """x0, y0, x1, y1 and the score of each match."""
    count = int(out.num_matches[0])
    parts = out.keypoints0[0, :count], out.keypoints1[0, :count], out.scores[0, :count, None]
    return torch.cat(parts, dim=1).numpy()


def _assert_same_matches(theirs: np.ndarray, ours: np.ndarray) -> None:
    assert len(ours) == len(theirs) > 50
    gaps = np.abs(ours[:, None, :4] - theirs[None, :, :4]).max(axis=2)
    nearest = gaps.argmin(axis=1)
    assert sorted(nearest) == list(range(len(theirs))) and gaps.min(axis=1).max() <= PIXELS
    assert np.abs(ours[:, 4] - theirs[nearest, 4]).max() <= 1e-4


@every_case
@torch.inference_mode()
def test_matches_and_the_deployed_form(vectors: Any, network: XoFTR, case: str) -> None:
    for form in (network, deployed(network)):
        out = form(*_inputs(vectors, case), max_matches=600)
        assert bool((out.scores.diff(dim=1) <= 0).all())
        _assert_same_matches(vectors[f"{case}/matches"], _rows(out))


@torch.inference_mode()
def test_one_cell_may_have_several_matches(vectors: Any) -> None:
    cells = vectors["shift/cells"]
    assert max(np.bincount(cells[:, 0]).max(), np.bincount(cells[:, 1]).max()) > 1


@torch.inference_mode()
def test_an_image_of_one_grey_gives_finite_outputs(network: XoFTR) -> None:
    grey = torch.full((1, 1, 64, 64), 0.5)
    assert not network.normalisation(grey, None).isnan().any()
    out = network(grey, grey, max_matches=64)
    assert all(bool(values.isfinite().all()) for values in (out.keypoints0, out.keypoints1, out.scores))


def test_mean_and_deviation_are_of_the_valid_part() -> None:
    image = torch.rand(2, 1, 24, 32, generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor([[16, 24], [24, 8]])
    normalisation = ImageNormalisation()
    out = normalisation(image, sizes)
    for index, (height, width) in enumerate(sizes.tolist()):
        inside = out[index, 0, :height, :width]
        assert abs(float(inside.mean())) < 1e-5 and abs(float(inside.std()) - 1.0) < 1e-4
        alone = normalisation(image[index : index + 1, :, :height, :width], None)
        assert torch.allclose(inside, alone[0, 0], atol=1e-5)
        assert float(out[index].abs().sum()) == pytest.approx(float(inside.abs().sum()))
