"""The IFViT example in a tiny form: what it trains on, what it starts from, that it trains and resumes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flax", reason="the example needs the extra 'flax' and optax")
pytest.importorskip("optax", reason="the example needs the extra 'flax' and optax")

import jax
from flax import nnx

from examples.ifvit.compare import steps_to_reach
from examples.ifvit.config import Config, read_config
from examples.ifvit.fingerprints import make_pairs
from examples.ifvit.model import create_model
from examples.ifvit.train import Point, train
from matchrt.errors import MatchRTError
from matchrt.flax.weights import arrays_of, load_loftr_weights

CONFIGS = Path(__file__).parents[2] / "examples" / "ifvit" / "configs"
# Small enough to compile on a CPU in seconds.
TINY = Config(
    transformer_layers=2, num_heads=2, hidden_dim=16, image_size=32, batch_size=2, steps=4, warmup_steps=1,
    validate_every=2, validation_batches=1,
)  # fmt: skip


def test_configs(tmp_path: Path) -> None:
    for path in CONFIGS.glob("*.json"):
        assert read_config(path).use_loftr
    (tmp_path / "x.json").write_text('{"lofter": 1}')
    with pytest.raises(ValueError, match="lofter"):
        read_config(tmp_path / "x.json")
    for wrong in (
        {"attention_type": "both"},
        {"image_size": 100},
        {"image_size": 24},
        {"transformer_layers": 3},
        {"hidden_dim": 30, "num_heads": 2},  # position codes come in fours
        {"hidden_dim": 36, "num_heads": 8},
        {"loftr_pretrained_ckpt": "loftr-lite", "use_loftr": False},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Config(**wrong)  # type: ignore[arg-type]
    assert Config(hidden_dim=36, num_heads=6, image_size=32).transformer.d_model == 36


def test_the_true_places_are_true() -> None:
    """Image 1 looked up at the true places is image 0, but for what the two sensors did."""
    size = 64
    pairs = make_pairs(jax.random.key(3), 4, size)
    again = make_pairs(jax.random.key(3), 4, size)
    assert np.array_equal(pairs.image0, again.image0)
    image0, image1 = np.asarray(pairs.image0)[..., 0], np.asarray(pairs.image1)[..., 0]
    target, valid = np.asarray(pairs.target), np.asarray(pairs.valid)
    assert image0.min() >= 0 and image0.max() <= 1 and 0.3 < valid.mean() < 1
    there, here, elsewhere = [], [], []
    cells = size // 8
    for index in range(4):
        x, y = np.clip(np.round(target[index]), 0, size - 1).astype(int).T
        use = valid[index]
        here += list(image0[index].reshape(cells, 8, cells, 8)[:, 0, :, 0].reshape(-1)[use])
        there += list(image1[index][y, x][use])
        elsewhere += list(image1[index][y, np.clip(x + 4, 0, size - 1)][use])
    right, wrong = (np.corrcoef(here, other)[0, 1] for other in (there, elsewhere))
    assert right > 0.5 and right > wrong + 0.2


@pytest.mark.slow
def test_the_transformer_starts_from_loftr() -> None:
    config = read_config(CONFIGS / "tiny.json")
    abstract = nnx.eval_shape(lambda: create_model(replace(config, loftr_pretrained_ckpt=None)))
    weights = load_loftr_weights("loftr-lite", config.transformer)
    from matchrt.flax.weights import initialize_with_loftr

    found = arrays_of(initialize_with_loftr(abstract.transformer, weights))
    assert len(found) == 80
    assert all(
        np.array_equal(np.asarray(found[name]), array.astype(np.float32)) for name, array in weights.arrays.items()
    )
    with pytest.raises(MatchRTError) as caught:
        create_model(replace(TINY, loftr_pretrained_ckpt="loftr-lite"))
    assert caught.value.code == "flax-shape" and "width" in caught.value.message


@pytest.mark.slow
def test_it_trains_and_resumes(tmp_path: Path) -> None:
    curve = train(replace(TINY, steps=2), tmp_path)
    assert [point.step for point in curve] == [0, 2] and np.isfinite([point.loss for point in curve]).all()
    assert curve[0].loss != curve[1].loss
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 2
    # Evaluated before it goes on, a resumed model is the one that was saved.
    resumed = train(replace(TINY, steps=2), resume_from=tmp_path)
    assert [point.step for point in resumed] == [2] and resumed[0].loss == pytest.approx(curve[1].loss, rel=1e-6)


def test_steps_to_reach() -> None:
    curve = [Point(step, loss, 0.0, loss, 0.0) for step, loss in ((0, 3.0), (50, 2.0), (100, 1.0))]
    assert steps_to_reach(curve, 2.5) == 50 and steps_to_reach(curve, 0.5) is None
