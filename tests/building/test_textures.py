"""The pairs that judge fp16: an engine's own preprocessing makes of them what parity runs on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from matchrt.building.parity import sample_inputs
from matchrt.building.textures import texture_pairs
from matchrt.manifest import EngineManifest, InputContract, Profile, TensorSpec
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.engine_file import read_engine


def manifest_with(contract: InputContract) -> EngineManifest:
    """Of an engine with that input; padded ones take sizes."""
    manifest = read_engine("loftr-lite").manifest
    sizes = contract.profile is None and contract.fitting != "stretch"
    inputs = tuple(TensorSpec(name, "int32", (1, 2)) for name in ("size0", "size1") if sizes)
    return replace(manifest, input=contract, inputs=inputs)


def engine_inputs(contract: InputContract, stride: int, seed: int) -> list[dict[str, npt.NDArray[Any]]]:
    """What the engine gets of all pairs of one seed."""
    adapter = PairAdapter(manifest_with(contract))
    pairs = texture_pairs(contract, stride, seed + 1)
    ours = [pair for pair in pairs if pair.truth.id.startswith(f"texture/{seed}/")]
    return [adapter.inputs(pair.image0, pair.image1) for pair in ours]


@pytest.mark.parametrize(
    "contract",
    [
        InputContract(1, 8, "letterbox", "area-linear", height=128, width=192),
        InputContract(3, 32, "letterbox", "area-linear", batch=3, height=160, width=192),
        InputContract(1, 32, "pad-square", "lanczos", height=192, width=192),
        InputContract(1, 32, "pad-square", "lanczos", batch=2, height=192, width=192),
        InputContract(3, 14, "stretch", "bicubic", height=112, width=140),
    ],
)
@pytest.mark.parametrize("seed", [0, 2])
def test_static_engines_get_the_inputs_of_parity(contract: InputContract, seed: int) -> None:
    rows = engine_inputs(contract, 8, seed)
    assert len(rows) == contract.batch
    (expected,) = sample_inputs(contract, 8, seed)
    assert set(rows[0]) == set(expected)
    for name, value in expected.items():
        found = np.concatenate([row[name] for row in rows])
        assert found.dtype == value.dtype and (found == value).all(), name


def test_coarse_copies_are_the_engines_own() -> None:
    contract = InputContract(3, 14, "stretch", "bicubic", height=112, width=112, coarse=(56, 56))
    (row,), (expected,) = engine_inputs(contract, 14, 0), sample_inputs(contract, 14, 0)
    assert (row["image1"] == expected["image1"]).all() and row["coarse1"].shape == expected["coarse1"].shape
    assert np.abs(row["coarse1"].astype(int) - expected["coarse1"]).mean() < 20  # another filter, the same picture


@pytest.mark.parametrize("best", [(160, 224), (224, 160), (192, 192)])
def test_dynamic_engines_get_textures_unscaled_in_three_shapes(best: tuple[int, int]) -> None:
    contract = InputContract(1, 8, "aspect", "area-linear", profile=Profile((64, 64), best, best))
    pairs = texture_pairs(contract, 8, 1)
    adapter = PairAdapter(manifest_with(contract))
    for pair in pairs:
        for image in (pair.image0, pair.image1):
            prepared = adapter.prepare(image)
            assert prepared.pixels is not None and (prepared.pixels == image).all()
    assert len({image.shape for pair in pairs for image in (pair.image0, pair.image1)}) == 3
    whole, expected = pairs[0], sample_inputs(contract, 8)[0]
    assert (whole.image0 == expected["image0"][0]).all() and (whole.image1 == expected["image1"][0]).all()


def test_every_seed_is_another_texture() -> None:
    contract = InputContract(1, 8, "letterbox", "area-linear", height=64, width=96)
    first, second, third = (pair.image0 for pair in texture_pairs(contract, 8))
    assert (first != second).any() and (second != third).any()
