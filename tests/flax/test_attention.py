"""The Flax attentions against their formulas in numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("flax", reason="the extra 'flax' is not installed")

import jax

from matchrt.models.loftr.flax.attention import FullAttention, LinearAttention

Array = npt.NDArray[np.float64]


def _tensors(width: int) -> list[Array]:
    random = np.random.default_rng(0)
    return [2 * random.standard_normal((1, length, 2, width)) for length in (7, 9, 9)]


def _similarity(query: Array, key: Array, width: int) -> Array:
    return np.exp(np.einsum("blhd,bshd->bhls", query, key) / np.sqrt(width))


def _kernel(query: Array, key: Array, width: int) -> Array:
    del width
    return np.einsum("blhd,bshd->bhls", *(np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (query, key)))


@pytest.mark.parametrize("width", [4, 16])
@pytest.mark.parametrize(("attention", "weigh"), [(FullAttention, _similarity), (LinearAttention, _kernel)])
def test_attention_is_its_formula(attention, weigh, width: int) -> None:  # type: ignore[no-untyped-def]
    query, key, value = _tensors(width)
    weights = weigh(query, key, width)
    expected = np.einsum("bhls,bshd->blhd", weights / weights.sum(axis=3, keepdims=True), value)
    with jax.default_matmul_precision("highest"):
        found = attention()(*(np.float32(x) for x in (query, key, value)))
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("attention", [FullAttention, LinearAttention])
def test_masked_source_equals_shorter_source(attention) -> None:  # type: ignore[no-untyped-def]
    query, key, value = (np.float32(x) for x in _tensors(8))
    mask = np.arange(9)[None] < 6
    with jax.default_matmul_precision("highest"):
        masked = attention()(query, key, value, np.ones((1, 7), bool), mask)
        shorter = attention()(query, key[:, :6], value[:, :6])
    assert np.abs(np.asarray(masked) - np.asarray(shorter)).max() < 1e-5
