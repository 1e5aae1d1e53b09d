"""The made pair: the same bytes everywhere, as the inputs of every kind of engine."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.self_tests import DIGESTS, PAIR

from matchrt.manifest import (
    EngineManifest,
    InputContract,
    Profile,
    SelfTestPair,
    TensorSpec,
    manifest_path,
    read_manifest,
)
from matchrt.runtime.engine_file import engine_path
from matchrt.runtime.self_test.pair import nearest, self_test_inputs, self_test_shapes, view


def engine_manifest(contract: InputContract, *specs: TensorSpec) -> EngineManifest:
    return replace(read_manifest(manifest_path(engine_path("loftr-lite"))), input=contract, inputs=specs)


def images(batch: int, height: int | str, width: int | str, channels: int) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(f"image{i}", "uint8", (batch, height, width, channels)) for i in (0, 1))


STATIC = InputContract(1, 8, "letterbox", "area-linear", height=48, width=64)
SIZES = tuple(TensorSpec(f"size{i}", "int32", (1, 2)) for i in (0, 1))


def hashed(row: int, column: int, seed: int) -> int:
    """As docs/engine-contract.md has it, in whole numbers."""
    mask = 0xFFFFFFFF
    mixed = (row * 0x9E3779B1 + column * 0x85EBCA77 + seed * 0xC2B2AE3D) & mask
    mixed = (mixed ^ mixed >> 15) * 0x2C1B3C6D & mask
    mixed = (mixed ^ mixed >> 12) * 0x297A2D39 & mask
    return (mixed ^ mixed >> 15) >> 24


def pixel(y: int, x: int, seed: int, shift: tuple[int, int], contrast: int) -> int:
    y, x, total = y + shift[0], x + shift[1], 0
    for power, weight in ((2, 2), (3, 3), (4, 4), (5, 6)):
        step = 2**power
        (row, down), (column, right) = divmod(y, step), divmod(x, step)
        corners = [[hashed(row + j, column + i, seed + 1000 * power) for i in (0, 1)] for j in (0, 1)]
        upper, lower = (left * (step - right) + other * right for left, other in corners)
        total += weight * ((upper * (step - down) + lower * down) // step**2)
    return min(max(128 + (total - 1912) // 8 * contrast // 256, 0), 255)


@pytest.mark.parametrize("image", DIGESTS)
def test_bytes_are_pinned(image: Any) -> None:
    made = view(*image)
    assert made.dtype == np.uint8 and made.shape == image[:3]
    assert hashlib.sha256(made.tobytes()).hexdigest() == DIGESTS[image]


def test_bytes_are_those_of_the_definition() -> None:
    for seed, shift, contrast in ((1, (0, 0), 256), (7, (-13, 1029), 96), (2**31 - 1, (-(2**20), 2**20), 3000)):
        made = view(9, 40, 2, seed, shift, contrast)
        for y, x, channel in [(0, 0, 0), (8, 39, 1), (3, 17, 0), (5, 31, 1), (7, 32, 0)]:
            assert made[y, x, channel] == pixel(y, x, seed + channel, shift, contrast)


def test_the_second_image_is_the_first_one_moved() -> None:
    whole = view(120, 160, 1, 3, (-40, -50), 256)
    for shift in ((-40, -50), (-7, 2), (0, 0), (31, 33)):
        moved = view(40, 48, 1, 3, shift, 256)
        assert np.array_equal(moved, whole[shift[0] + 40 :, shift[1] + 50 :][:40, :48])
    assert 30 < whole.std() < 70 and 100 < whole.mean() < 156, "it has the contrast of a photograph"


def test_static_engines_get_images_and_sizes() -> None:
    made = self_test_inputs(engine_manifest(STATIC, *images(1, 48, 64, 1), *SIZES), PAIR)
    assert list(made) == ["image0", "image1", "size0", "size1"]
    assert made["image0"].shape == (1, 48, 64, 1) and made["image0"].dtype == np.uint8
    assert made["size1"].tolist() == [[48, 64]] and made["size1"].dtype == np.int32
    assert np.array_equal(made["image0"][0], view(48, 64, 1, 1, (0, 0), 256))
    assert np.array_equal(made["image1"][0], view(48, 64, 1, 1, PAIR.shift, PAIR.contrast))


def test_dynamic_engines_see_their_best_size() -> None:
    contract = InputContract(1, 8, "aspect", "area-linear", profile=Profile((32, 32), (48, 64), (128, 128)))
    manifest = engine_manifest(contract, *images(1, "h", "w", 1))
    assert {name: array.shape for name, array in self_test_inputs(manifest, PAIR).items()} == {
        "image0": (1, 48, 64, 1), "image1": (1, 48, 64, 1),
    }  # fmt: skip
    assert self_test_shapes(manifest) == {"image0": (1, 48, 64, 1), "image1": (1, 48, 64, 1)}


def test_every_row_of_a_batch_is_the_pair() -> None:
    manifest = engine_manifest(replace(STATIC, batch=3, channels=3), *images(3, 48, 64, 3))
    made = self_test_inputs(manifest, PAIR)
    assert made["image1"].shape == (3, 48, 64, 3) and made["image1"].flags["C_CONTIGUOUS"]
    assert all(np.array_equal(row, made["image1"][0]) for row in made["image1"])
    assert not np.array_equal(made["image1"][0, ..., 0], made["image1"][0, ..., 1]), "channels differ"
    assert self_test_shapes(manifest) == {name: array.shape for name, array in made.items()}


def test_coarse_images_are_picked_pixels() -> None:
    coarse = tuple(TensorSpec(f"coarse{i}", "uint8", (1, 20, 28, 3)) for i in (0, 1))
    contract = replace(STATIC, channels=3, coarse=(20, 28), fitting="stretch")
    made = self_test_inputs(engine_manifest(contract, *images(1, 48, 64, 3), *coarse), PAIR)
    assert made["coarse0"].shape == (1, 20, 28, 3)
    for y, x in ((0, 0), (19, 27), (7, 11)):
        assert np.array_equal(made["coarse1"][0, y, x], made["image1"][0, y * 48 // 20, x * 64 // 28])
    assert np.array_equal(nearest(made["image0"][0], (48, 64)), made["image0"][0])


def test_inputs_that_no_engine_has() -> None:
    for spec in (TensorSpec("depth", "uint8", (1, 2)), TensorSpec("image2", "uint8", (1, 48, 64, 1)),
                 TensorSpec("coarse0", "uint8", (1, 8, 8, 1)), TensorSpec("", "uint8", (1,))):  # fmt: skip
        with pytest.raises(ValueError, match="has nothing for the input"):
            self_test_inputs(engine_manifest(STATIC, *images(1, 48, 64, 1), spec), PAIR)
    odd = engine_manifest(STATIC, TensorSpec("image0", "uint8", ("a", "b", "c", "d", "e")))
    assert self_test_shapes(odd) == {"image0": (48, 64, 1, 1, 1)}


@pytest.mark.parametrize("change", [{"seed": -1}, {"seed": 2**31}, {"shift": (0, 2**20 + 1)}, {"shift": (-(2**70), 0)},
                                    {"contrast": -1}, {"contrast": 2**16 + 1}])  # fmt: skip
def test_numbers_beyond_32_bit_arithmetic(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(SelfTestPair(1, (0, 0), 256), **change)
