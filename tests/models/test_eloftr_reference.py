"""Our EfficientLoFTR against outputs of the official code with the same weights, stage by stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.eloftr import filled, manifest_state
from torch import Tensor

from matchrt.families.eloftr import ELOFTR, MATCHANYTHING_ELOFTR, ELoFTRFamily
from matchrt.models.eloftr.config import ELoFTRConfig
from matchrt.models.eloftr.network import ELoFTR
from matchrt.models.eloftr.rotary import rotary_axis, rotary_table
from matchrt.models.parts.config import CoarseMatchConfig

FEATURES = 1e-4  # relative to the stage's largest value
PIXELS = 1e-2
# Two runs of the official code chose different pixels where the two best differed by less than this (relative).
TIE = 1e-4


@pytest.fixture(scope="module")
def vectors(shared: Path) -> Any:
    return np.load(shared / "reference" / "eloftr_outdoor.npz")


@pytest.fixture(scope="module")
def anything(shared: Path) -> Any:
    return np.load(shared / "reference" / "matchanything_eloftr.npz")


@pytest.fixture(scope="module")
def tensors(shared: Path) -> dict[str, Tensor]:
    return manifest_state(shared, "eloftr_outdoor")


@pytest.fixture(scope="module")
def weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return filled(ELoFTRFamily(ELOFTR), tensors)[0].state_dict()


def _network(config: ELoFTRConfig, weights: dict[str, Tensor]) -> ELoFTR:
    network = ELoFTR(config)
    network.load_state_dict(weights, strict=True)
    return network.eval()


def _config(case: str) -> ELoFTRConfig:
    config = replace(ELOFTR, match=CoarseMatchConfig(threshold=1e-5))
    if case == "shift_npe1024":
        return replace(config, built_side=1024)
    if case == "shift_opt_thr0":
        return replace(config, softmax=False, match=CoarseMatchConfig(threshold=0.0))
    return config


def _grey(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(Image.fromarray(pixels).convert("L"))).float()[None, None] / 255


def _inputs(vectors: Any, case: str) -> tuple[Tensor, Tensor]:
    source = "real" if case == "real" else "shift"
    image0, image1 = _grey(vectors[f"{source}/rgb0"]), _grey(vectors[f"{source}/rgb1"])
    return image0, image1[:, :, :224, :288] if case == "uneven" else image1


def _assert_close(vectors: Any, name: str, actual: Tensor) -> None:
    assert tuple(actual.shape) == tuple(vectors[f"{name}.shape"])
    difference = np.abs(actual.numpy().ravel()[vectors[f"{name}.idx"]] - vectors[f"{name}.val"]).max()
    assert difference / vectors[f"{name}.stats"][2] <= FEATURES, name


def _cells(vectors: Any, case: str) -> tuple[Tensor, Tensor]:
    first, second = (torch.from_numpy(vectors[f"{case}/{name}_ids"]).long()[None] for name in "ij")
    return first, second


@pytest.mark.parametrize("case", ["shift", "real"])
@torch.inference_mode()
def test_stages(vectors: Any, weights: dict[str, Tensor], case: str) -> None:
    network = _network(_config(case), weights)
    stages = network.features(*_inputs(vectors, case))
    for name, features in zip(("x1", "x2", "c"), stages[0], strict=True):
        _assert_close(vectors, f"{case}/backbone_feats_{name}", features)
    x0, x1 = network.coarse(stages)
    transformer = network.loftr_coarse
    after = transformer._self_layer(transformer.layers[0], x0, x1, *_lattices(x0, x1))
    _assert_close(vectors, f"{case}/layer0_first_call", after[0].permute(0, 3, 1, 2))
    crossed = transformer.layers[1](after[0], after[1], *_lattices(x0, x1), None)
    _assert_close(vectors, f"{case}/layer1_first_call", crossed.permute(0, 3, 1, 2))
    x0, x1 = transformer(x0, x1)
    _assert_close(vectors, f"{case}/coarse0", x0.permute(0, 3, 1, 2))
    _assert_close(vectors, f"{case}/coarse1", x1.permute(0, 3, 1, 2))
    _assert_close(vectors, f"{case}/conf", _values(network, x0.flatten(1, 2), x1.flatten(1, 2))[0])
    windows = network.windows(x0, x1, stages, _cells(vectors, case))
    for index in (0, 1):
        _assert_close(vectors, f"{case}/fine_unfold{index}", windows[index][0])


def _lattices(x0: Tensor, x1: Tensor) -> tuple[Any, Any]:
    from matchrt.models.eloftr.aggregated_attention import lattice

    return tuple(lattice(*x.shape[1:3], 4, None, x.device) for x in (x0, x1))  # type: ignore[return-value]


@pytest.mark.parametrize("case", ["shift", "real", "uneven", "shift_deploy", "shift_npe1024", "shift_opt_thr0"])
@torch.inference_mode()
def test_whole_network(vectors: Any, weights: dict[str, Tensor], case: str) -> None:
    network = _network(_config(case), weights)
    image0, image1 = _inputs(vectors, case)
    out = network(image0, image1, None, None, 1024)
    count = int(out.num_matches[0])
    _assert_matches(out, count, *(vectors[f"{case}/mkpts{i}_f"] for i in (0, 1)))
    confidence = vectors[f"{case}/mconf"]
    if case == "shift_opt_thr0":
        confidence = confidence / (confidence + 25.0)
    expected = np.sort(confidence)[::-1]
    assert np.abs(out.scores[0, :count].numpy() - expected).max() <= 1e-3 * expected.max()
    assert not out.keypoints0[0, count:].any() and not out.scores[0, count:].any()


def _assert_matches(out: Any, count: int, points0: np.ndarray, points1: np.ndarray) -> None:
    """The same matches as sets; at most one in 50 has another fine pixel, and only by a tie."""
    expected = np.concatenate([points0, points1], axis=1)
    actual = np.concatenate([out.keypoints0[0, :count].numpy(), out.keypoints1[0, :count].numpy()], axis=1)
    assert actual.shape == expected.shape
    gaps = np.abs(expected[:, None] - actual[None]).max(axis=2).min(axis=0)
    wrong, tied = gaps > PIXELS, out.margin[0, :count].numpy() < TIE
    assert not (wrong & ~tied).any() and wrong.mean() <= 0.02, gaps.max()


@pytest.mark.parametrize("case", ["shift", "odd", "shift_npe1024"])
@torch.inference_mode()
def test_matchanything(anything: Any, weights: dict[str, Tensor], case: str) -> None:
    """Padded squares, masks, and one-to-many matches, from the official wrapper's own network input."""
    side = 1024 if case == "shift_npe1024" else 832
    match = replace(MATCHANYTHING_ELOFTR.match, threshold=0.001)
    network = _network(replace(MATCHANYTHING_ELOFTR, built_side=side, match=match), weights)
    images = [torch.from_numpy(anything[f"{case}/net_in{i}"]).float()[None, None] / 255 for i in (0, 1)]
    masks = [anything[f"{case}/mask{i}_c"] for i in (0, 1)]
    sizes = [torch.tensor([[8 * int(m.any(1).sum()), 8 * int(m.any(0).sum())]]) for m in masks]
    if case != "shift_npe1024":
        _check_masked_stages(anything, network, case, images, sizes)
    out = network(*images, *sizes, 1024)
    count = int(out.num_matches[0])
    scales = [
        np.array([w, h]) / [int(size[0, 1]), int(size[0, 0])]
        for (h, w), size in zip((_shape(anything, case, i) for i in (0, 1)), sizes, strict=True)
    ]
    points = [anything[f"{case}/keypoints{i}"] / scales[i] for i in (0, 1)]
    _assert_matches(out, count, *points)
    assert np.abs(out.scores[0, :count].numpy() - np.sort(anything[f"{case}/mconf"])[::-1]).max() <= 1e-4


def _shape(anything: Any, case: str, index: int) -> tuple[int, int]:
    name = "odd" if case == "odd" else "shift"
    height, width, _ = anything[f"{name}/rgb{index}"].shape
    return height, width


def _values(network: Any, *cells_and_masks: Any) -> Tensor:
    """The confidence of all pairs of cells; the grids' widths have no part in it."""
    cells, masks = cells_and_masks[:2], cells_and_masks[2:]
    found = network.coarse_matching(*cells, (1, 1), *masks)
    return found.value_of(found.order)


def _check_masked_stages(
    anything: Any, network: ELoFTR, case: str, images: list[Tensor], sizes: list[Tensor]
) -> None:  # fmt: skip
    stages = network.features(*images)
    x0, x1 = network.coarse(stages)
    grids = [network.grid(x, size) for x, size in zip((x0, x1), sizes, strict=True)]
    x0, x1 = network.loftr_coarse(x0, x1, grids[0].valid(), grids[1].valid())
    _assert_close(anything, f"{case}/coarse0", x0.permute(0, 3, 1, 2))
    _assert_close(anything, f"{case}/coarse1", x1.permute(0, 3, 1, 2))
    cells = (x.flatten(1, 2) for x in (x0, x1))
    confidence = _values(network, *cells, *(grid.mask() for grid in grids))
    # Two runs of the official code differ by 1e-4 here.
    name = f"{case}/conf"
    gap = np.abs(confidence[0].numpy().ravel()[anything[f"{name}.idx"]] - anything[f"{name}.val"]).max()
    assert gap / anything[f"{name}.stats"][2] <= 1e-3
    windows = network.windows(x0, x1, stages, _cells(anything, case))
    for index in (0, 1):
        _assert_close(anything, f"{case}/fine_unfold{index}", windows[index][0])


@pytest.mark.parametrize("side", [832, 1024])
def test_rotary_tables(vectors: Any, side: int) -> None:
    for name, axis in zip(("sin", "cos"), rotary_axis(256, 832 / side), strict=True):
        _assert_close(vectors, f"rope_{name}_npe{side}", rotary_table(axis, 48, 48).reshape(1, 48, 48, 256))


@pytest.mark.parametrize("block", ["layer0", "layer3.5"])
def test_fused_kernels_are_the_official_ones(vectors: Any, weights: dict[str, Tensor], block: str) -> None:
    for name in ("weight", "bias"):
        key = f"backbone.{block}.rbr_reparam.{name}"
        actual, expected = weights[key].numpy().ravel()[vectors[f"deploy/{key}.idx"]], vectors[f"deploy/{key}.val"]
        assert np.abs(actual - expected).max() <= 1e-6 * np.abs(expected).max()
