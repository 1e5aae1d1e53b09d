"""What is different in GIM's RoMa, against outputs of the authors' code: images in, certainty and warp out.

`tools/gim_oracle.py` has run that code and written the figures; it says how to do so again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.roma import TINY

from matchrt.errors import MatchRTError
from matchrt.families.presets import configure
from matchrt.families.registry import get_spec
from matchrt.families.roma import GIM_INPUT, GIM_ROMA
from matchrt.manifest import InputContract
from matchrt.models.roma.decoder import Flow
from matchrt.models.roma.network import RoMa
from matchrt.runtime.fit import LARGE_SIDE, apply_fit, fit_coarse, fit_image

SIDE, COARSE = 56, 28
CONTRACT = InputContract(
    3, 8, GIM_INPUT.static, GIM_INPUT.kernel, height=SIDE, width=SIDE, coarse=(COARSE, COARSE)
)  # fmt: skip


@pytest.fixture(scope="module")
def vectors() -> Any:
    return np.load(Path(__file__).parents[1] / "data" / "gim.npz")


def _fits(image: np.ndarray) -> tuple[Any, Any]:
    size = (image.shape[0], image.shape[1])
    small = fit_coarse(size, CONTRACT)
    assert small is not None
    return fit_image(size, CONTRACT, SIDE), small


def test_images_are_padded_to_squares_and_resized_as_the_authors_do(vectors: Any) -> None:
    for index in (0, 1):
        image = vectors[f"image{index}"]
        for fit, name in zip(_fits(image), ("fine", "coarse"), strict=True):
            ours = apply_fit(image, fit, CONTRACT.kernel).astype(np.float32)
            theirs = vectors[f"{name}{index}"][0].transpose(1, 2, 0) * 255
            # Ours are bytes, rounded by OpenCV; the authors resize floats.
            assert np.abs(ours - theirs).max() <= 1.0 and np.abs(ours - theirs).mean() <= 0.3


def test_scale_factors_are_the_authors(vectors: Any) -> None:
    with torch.device("meta"):
        network = RoMa(GIM_ROMA)
    assert network.scale_factors((COARSE, COARSE), (SIDE, SIDE)) == (1.0, float(vectors["fine_factor"]))
    assert network.scale_factors((672, 672), (1344, 1344)) == (1.0, 2.0)


@torch.inference_mode()
def test_certainty_is_zero_where_the_image_is_black(vectors: Any) -> None:
    with torch.device("meta"):
        network = RoMa(GIM_ROMA)
    canvases = [apply_fit(vectors[f"image{i}"], _fits(vectors[f"image{i}"])[0], CONTRACT.kernel) for i in (0, 1)]
    images = torch.from_numpy(np.stack(canvases)).permute(0, 3, 1, 2).float() / 255
    black = network.black_pixels(images)
    assert black is not None and bool(black[0, 10:14, 20:29].all()) and not bool(black[1, 10:14, 20:29].any())
    assert bool(black[0, 40:].all()) and bool(black[1, :, 30:].all())
    flow = Flow(*(torch.from_numpy(vectors[f"fine_{part}1"]) for part in ("flow", "certainty")))
    found = network.finish(flow, torch.from_numpy(vectors["coarse_certainty16"]), black)
    assert np.abs(found.certainty[0].numpy() - vectors["certainty"]).max() <= 1e-6
    assert np.abs(found.warp[0, ::8].numpy() - vectors["warp"]).max() <= 1e-6
    assert float((found.certainty == 0).float().mean()) > 0.3


def test_one_way_looks_at_the_first_image_only() -> None:
    with torch.device("meta"):
        one_way, plain = RoMa(replace(TINY, black=1 / 32, symmetric=False)), RoMa(TINY)
    images = torch.zeros(4, 3, 8, 8)
    found = one_way.black_pixels(images)
    assert found is not None and found.shape == (2, 8, 8) and plain.black_pixels(images) is None


class _Plain:
    """A request that sets nothing but a preset."""

    height = width = mutual = None
    dense = False
    family_options: dict[str, object] = {}  # noqa: RUF012

    def __init__(self, preset: str | None) -> None:
        self.preset = preset


@pytest.mark.parametrize(
    ("model", "preset", "size", "coarse"),
    [
        ("gim-roma", None, 1344, (672, 672)),
        ("gim-roma", "official", 1344, (672, 672)),
        ("gim-roma", "fast", 672, None),
        ("minima-roma", None, 864, (560, 560)),
        ("roma-outdoor", None, 864, (560, 560)),
    ],
)
def test_sizes_are_the_authors(model: str, preset: str | None, size: int, coarse: tuple[int, int] | None) -> None:
    configured = configure(get_spec(model), _Plain(preset))
    assert (configured.height, configured.width, configured.spec.family.coarse) == (size, size, coarse)
    if model == "gim-roma":
        assert configured.spec.family.config.black == 0.03125 and not configured.spec.family.config.imagenet
        assert configured.spec.key_map.common_prefix(["model.decoder.proj.16.0.weight"]) == "model."
    else:
        assert configured.spec.family.config.imagenet and configured.spec.preprocess.kernel == "bicubic"


def test_narrow_images_do_not_take_all_memory() -> None:
    assert fit_image((LARGE_SIDE, 10), CONTRACT, SIDE).original_hw == (LARGE_SIDE, 10)
    with pytest.raises(MatchRTError) as caught:
        fit_image((10, 100_000), CONTRACT, SIDE)
    assert caught.value.code == "fit-size" and "narrow" in caught.value.message
