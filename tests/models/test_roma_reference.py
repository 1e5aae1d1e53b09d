"""Our RoMa against outputs of the official code with the same weights, stage by stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from support.eloftr import manifest_state

from matchrt.families.roma import MATCHANYTHING_ROMA, ROMA
from matchrt.models.roma.dinov2 import resample_position
from matchrt.models.roma.network import RoMa

pytestmark = pytest.mark.slow
RELATIVE = 1e-3  # to the stage's largest value
COARSE, FINE = (280, 280), (448, 448)
CASE = "real_280_448"


class Reference:
    """One file of vectors, and the network with its weights."""

    def __init__(self, shared: Path, name: str, dinov2: dict[str, torch.Tensor]) -> None:
        self.vectors = np.load(shared / "reference" / f"{name}.npz")
        official = name == "roma_outdoor"
        with torch.device("meta"):
            self.network = RoMa(ROMA if official else MATCHANYTHING_ROMA)
        own = {k.removeprefix("matcher.model."): v for k, v in manifest_state(shared, name).items()}
        self.network.load_state_dict({**own, **dinov2}, strict=True, assign=True)
        self.network.eval()
        self.resize = _pillow if official else _antialiased

    def images(self, size: tuple[int, int]) -> torch.Tensor:
        return torch.cat([self.resize(self.vectors[f"real/rgb{i}"], size) for i in (0, 1)])

    def check(self, name: str, actual: torch.Tensor) -> None:
        """Every value that the file has of this stage; stages that it does not have are not checked."""
        key, values = f"{CASE}/{name}", actual.detach().float().numpy()
        if f"{key}.shape" in self.vectors:
            assert values.shape == tuple(self.vectors[f"{key}.shape"])
            values = values.ravel()[self.vectors[f"{key}.idx"]]
            expected, largest = self.vectors[f"{key}.val"], self.vectors[f"{key}.stats"][2]
        elif key in self.vectors:
            expected = self.vectors[key]
            largest = np.abs(expected).max()
        else:
            return
        assert np.abs(values - expected).max() / largest <= RELATIVE, name


def _antialiased(rgb: np.ndarray, size: tuple[int, int], antialias: bool = True) -> torch.Tensor:
    image = torch.from_numpy(rgb).permute(2, 0, 1).float()[None] / 255
    return F.interpolate(image, size=size, mode="bicubic", antialias=antialias, align_corners=False)


def _pillow(rgb: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    resized = np.array(Image.fromarray(rgb).resize(size[::-1], Image.Resampling.BICUBIC))
    return torch.from_numpy(resized).permute(2, 0, 1).float()[None] / 255


@pytest.fixture(scope="module")
def dinov2(shared: Path) -> dict[str, torch.Tensor]:
    weights = manifest_state(shared, "dinov2_vitl14")
    return {f"dinov2.{key}": value for key, value in weights.items() if key != "mask_token"}


@pytest.fixture(scope="module", params=["matchanything_roma", "roma_outdoor"])
def reference(request: pytest.FixtureRequest, shared: Path, dinov2: dict[str, torch.Tensor]) -> Reference:
    return Reference(shared, request.param, dinov2)


@torch.inference_mode()
def test_every_stage_and_the_warp(reference: Reference) -> None:
    network = reference.network

    def probe(name: str, value: torch.Tensor) -> None:
        if name == "gm_logits":
            argmax = reference.vectors[f"{CASE}/gm_argmax"]
            assert np.array_equal(value.argmax(dim=2).reshape(argmax.shape).numpy(), argmax)
            value = value.transpose(1, 2).reshape(2, -1, *argmax.shape[1:])
        names = {"features": "vgg", "proj": "proj"}
        stem = name.rstrip("0123456789")
        scale = name[len(stem) :]
        suffix = "_im0" if stem == "proj" else ""
        reference.check(f"{names[stem]}{scale}{suffix}" if stem in names else name, value)

    coarse, fine = network.normalised(reference.images(COARSE)), network.normalised(reference.images(FINE))
    reference.check("encoder_in_pass0", coarse)
    reference.check("encoder_in_pass1", fine)
    factors = network.scale_factors(COARSE, FINE)
    first = network.coarse_pass(coarse, factors[0], probe=probe)
    second = network.upsample_pass(fine, first[1], factors[1])
    for index, results in enumerate((first, second)):
        for scale, result in results.items():
            reference.check(f"pass{index}_scale{scale}_flow", result.flow)
            reference.check(f"pass{index}_scale{scale}_certainty", result.certainty)
    dense = network.finish(second[1], first[16].certainty)
    reference.check("certainty", dense.certainty[0])
    warp = dense.warp[0].numpy().ravel()[reference.vectors[f"{CASE}/warp.idx"]]
    error = np.abs(warp - reference.vectors[f"{CASE}/warp.val"])
    assert error.mean() * FINE[0] / 2 <= 1e-3  # pixels


@pytest.mark.parametrize("grid", [(20, 20), (30, 40), (32, 32), (37, 37), (40, 40), (60, 60)])
def test_position_embedding(shared: Path, dinov2: dict[str, torch.Tensor], grid: tuple[int, int]) -> None:
    vectors = np.load(shared / "reference" / "matchanything_roma.npz")
    name = f"pos_embed_{grid[0]}x{grid[1]}"
    actual = resample_position(dinov2["dinov2.pos_embed"], grid)
    assert actual.shape == tuple(vectors[f"{name}.shape"])
    error = np.abs(actual.numpy().ravel()[vectors[f"{name}.idx"]] - vectors[f"{name}.val"]).max()
    assert error <= 1e-6


@pytest.mark.parametrize(("kernel", "antialias"), [("bicubic", 1), ("bicubic-aliased", 0)])
def test_resize_kernels_are_the_official_ones_in_8_bits(shared: Path, kernel: Any, antialias: int) -> None:
    """MatchAnything resizes in floating point; engines take bytes: rounded, and cut off outside 0..255."""
    from matchrt.manifest import InputContract
    from matchrt.runtime.fit import apply_fit, fit_image

    vectors = np.load(shared / "reference" / "matchanything_roma.npz")
    name = f"resize280_bicubic_antialias{antialias}"
    image = vectors["real/rgb0"]
    contract = InputContract(3, 8, "stretch", kernel, height=280, width=280)
    resized = apply_fit(image, fit_image(image.shape[:2], contract, 280), kernel)
    actual = np.moveaxis(resized, 2, 0).ravel()[vectors[f"{name}.idx"]] / 255
    expected = np.clip(vectors[f"{name}.val"], 0, 1)
    assert np.abs(actual - expected).max() <= 1.5 / 255
    assert np.abs(actual - expected).mean() <= 0.3 / 255
