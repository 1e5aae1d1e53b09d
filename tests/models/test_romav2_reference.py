"""Our RoMa v2 against outputs of the official code with the same weights, stage by stage."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.romav2 import published_state

from matchrt.models.romav2.config import RoMaV2Config
from matchrt.models.romav2.dense import dense_matches
from matchrt.models.romav2.network import RoMaV2
from matchrt.models.romav2.refiner import Estimate
from matchrt.models.romav2.rotary import periods, rotation

pytestmark = pytest.mark.slow
RELATIVE = 1e-3  # to the stage's largest value
DIRECTIONS = ("AB", "BA")
# The reference has these with channels last, where ours come before the pixels.
CHANNELS_LAST = ("dpt_out", "_warp", "_conf")


@pytest.fixture(scope="module")
def vectors(shared: Path) -> np.lib.npyio.NpzFile:
    return np.load(shared / "reference" / "romav2.npz")


@pytest.fixture(scope="module")
def network(shared: Path) -> RoMaV2:
    with torch.device("meta"):
        network = RoMaV2(RoMaV2Config())
    network.load_state_dict(published_state(shared), strict=True, assign=True)
    return network.eval()


class Case:
    """One case of the vectors. Calling it compares a stage, which may have several calls in the official code."""

    def __init__(self, vectors: np.lib.npyio.NpzFile, name: str) -> None:
        self.vectors, self.name = vectors, name
        self.calls: Counter[str] = Counter()
        self.worst: dict[str, float] = {}

    def __call__(self, stage: str, value: torch.Tensor) -> None:
        if stage.startswith("mv_"):
            self.compare(f"{stage}.0", value)
            return
        for row in value.split(1):
            number = self.calls[stage]
            self.calls[stage] += 1
            last = stage.startswith("vgg") or stage.endswith(CHANNELS_LAST)
            self.compare(f"{stage}.{number}", row.permute(0, 2, 3, 1) if last else row)

    def compare(self, name: str, value: torch.Tensor) -> None:
        key = f"{self.name}/{name}"
        actual = value.detach().float().numpy()
        if f"{key}.shape" in self.vectors:
            assert actual.size == np.prod(self.vectors[f"{key}.shape"]), name
            actual = actual.ravel()[self.vectors[f"{key}.idx"]]
            expected, largest = self.vectors[f"{key}.val"], self.vectors[f"{key}.stats"][2]
        elif key in self.vectors:
            expected = self.vectors[key]
            assert actual.shape == expected.shape, name
            largest = np.abs(expected).max()
        else:
            return
        self.worst[name] = float(np.abs(actual - expected).max() / largest)

    def sure(self, overlap: torch.Tensor) -> torch.Tensor:
        """The official code has a threshold in this case, above which an overlap becomes 1."""
        return torch.where(overlap > 0.05, 1.0, overlap) if self.name == "two" else overlap

    def values(self, name: str, value: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The sampled values of a result, and those that the file has."""
        key = f"{self.name}/{name}"
        return value.numpy().ravel()[self.vectors[f"{key}.idx"]], self.vectors[f"{key}.val"]


def official_resize(rgb: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    image = torch.from_numpy(rgb).permute(2, 0, 1).float()[None] / 255
    return F.interpolate(image, size=size, mode="bicubic", antialias=True, align_corners=False)


def images(vectors: np.lib.npyio.NpzFile, size: tuple[int, int]) -> torch.Tensor:
    return torch.cat([official_resize(vectors[f"pair/rgb{i}"], size) for i in (0, 1)])


@pytest.mark.parametrize(
    ("name", "coarse", "fine", "stages"),
    [
        ("rect", (128, 192), None, 90),
        ("two", (144, 112), (192, 160), 130),
        ("turbo", (320, 320), None, 60),
    ],
)
@torch.inference_mode()
def test_every_stage_and_the_results(
    vectors: np.lib.npyio.NpzFile,
    network: RoMaV2,
    name: str,
    coarse: tuple[int, int],
    fine: tuple[int, int] | None,
    stages: int,
) -> None:
    case = Case(vectors, name)
    network.config = RoMaV2Config(symmetric=name != "turbo")
    tables = network.tables(coarse)
    pair = network.normalised(images(vectors, coarse))
    estimate = network.refine(pair, network.coarse_match(pair, tables, case), case)
    if fine is not None:
        again = network.normalised(images(vectors, fine))
        estimate = network.refine(again, Estimate(estimate.warp, estimate.logit), case)
    results(case, estimate)
    assert len(case.worst) >= stages
    assert max(case.worst.values()) <= RELATIVE, {k: v for k, v in case.worst.items() if v > RELATIVE}
    for row, direction in enumerate(DIRECTIONS[: len(estimate.warp)]):
        warp = case.values(f"warp_{direction}", estimate.warp[row].permute(1, 2, 0))
        assert np.abs(warp[0] - warp[1]).mean() * max(estimate.warp.shape[2:]) / 2 <= 1e-3  # pixels
        overlap = case.values(f"overlap_{direction}", case.sure(estimate.overlap[row]).permute(1, 2, 0))
        assert np.abs(overlap[0] - overlap[1]).max() <= 1e-3


def results(case: Case, estimate: Estimate) -> None:
    """Compares what the network returns."""
    assert estimate.precision is not None
    p00, p10, p11 = estimate.precision.unbind(1)
    matrix = torch.stack([torch.stack([p00, p10], dim=3), torch.stack([p10, p11], dim=3)], dim=4)
    confidence = torch.cat([estimate.logit, estimate.precision], dim=1)
    last = {"warp": estimate.warp, "confidence": confidence, "overlap": case.sure(estimate.overlap)}
    for row, direction in enumerate(DIRECTIONS[: len(estimate.warp)]):
        for name, value in last.items():
            case.compare(f"{name}_{direction}", value[row].permute(1, 2, 0))
        case.compare(f"precision_{direction}", matrix[row])


@torch.inference_mode()
def test_dense_outputs_are_the_official_ones(vectors: np.lib.npyio.NpzFile, network: RoMaV2) -> None:
    """Both directions side by side; warps are clamped and certainties 0 outside, precisions are as they are."""
    network.config = RoMaV2Config(symmetric=True)
    pair = images(vectors, (128, 192))
    dense, precision = dense_matches(network(pair[:1], pair[1:]), True)
    assert dense.warp.shape == (1, 128, 384, 4) and precision.shape == (1, 128, 384, 3)
    case = Case(vectors, "rect")
    for direction, half in zip(DIRECTIONS, precision[0].split(192, dim=1), strict=True):
        matrix = torch.stack([half[..., [0, 1]], half[..., [1, 2]]], dim=-2)
        case.compare(f"precision_{direction}", matrix)
    assert len(case.worst) == 2 and max(case.worst.values()) <= RELATIVE


@torch.inference_mode()
def test_the_correlation_of_the_first_release_gives_another_warp(
    vectors: np.lib.npyio.NpzFile, network: RoMaV2
) -> None:
    """Version 2.0.0 correlates with features that are warped twice: its warp must be told apart from ours."""
    network.config = RoMaV2Config(symmetric=True)
    estimate = network(*images(vectors, (128, 192)).split(1))
    # Every fourth pixel of both axes, from the third on.
    ours, theirs = estimate.warp[0, :, 2::4, 2::4].permute(1, 2, 0).numpy(), vectors["rect_v200/warp_AB_sub"]
    right = vectors["rect/warp_AB_sub"]
    assert np.abs(ours - right).mean() * 192 / 2 <= 1e-3  # pixels
    assert np.abs(ours - theirs).mean() * 192 / 2 > 0.1


@torch.inference_mode()
def test_one_direction_is_the_first_of_both(vectors: np.lib.npyio.NpzFile, network: RoMaV2) -> None:
    pair = images(vectors, (64, 96)).split(1)
    network.config = RoMaV2Config(symmetric=True)
    both = network(*pair)
    network.config = RoMaV2Config(symmetric=False)
    one = network(*pair)
    assert one.warp.shape == (1, 2, 64, 96)
    assert (one.warp - both.warp[:1]).abs().max() <= 1e-5


@torch.inference_mode()
def test_pairs_of_a_batch_do_not_mix(vectors: np.lib.npyio.NpzFile, network: RoMaV2) -> None:
    network.config = RoMaV2Config(symmetric=True)
    first, second = images(vectors, (64, 96)).split(1)
    both = network(torch.cat([first, second]), torch.cat([second, second.flip(3)]))
    alone = network(first, second)
    assert (both.warp[[0, 2]] - alone.warp).abs().max() <= 1e-5
    assert (both.logit[[0, 2]] - alone.logit).abs().max() <= 1e-3


@pytest.mark.parametrize(("name", "precision"), [("dino", torch.float32), ("mv", torch.bfloat16)])
@pytest.mark.parametrize("grid", [(8, 12), (9, 7), (20, 20), (50, 50)])
def test_rotations_are_the_official_ones(
    shared: Path, name: str, precision: torch.dtype, grid: tuple[int, int]
) -> None:  # fmt: skip
    vectors = np.load(shared / "reference" / "romav2.npz")
    turn = rotation(grid, 64, precision)
    for part, value in (("sin", turn.sine), ("cos", turn.cosine)):
        key = f"rope/{name}_{part}_{grid[0]}x{grid[1]}"
        assert np.abs(value.numpy().ravel()[vectors[f"{key}.idx"]] - vectors[f"{key}.val"]).max() <= 1e-6
    assert np.array_equal(periods(64).float().numpy(), vectors[f"rope/{name}_periods"])
