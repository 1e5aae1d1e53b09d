"""The IFViT example in a tiny form: what it trains on, what it starts from, that it trains and resumes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flax", reason="the example needs the extra 'flax' and optax")
pytest.importorskip("optax", reason="the example needs the extra 'flax' and optax")

import cv2
import jax
from flax import nnx

from examples.ifvit.compare import steps_to_reach
from examples.ifvit.config import Config, read_config
from examples.ifvit.dataset import OwnPrints
from examples.ifvit.evaluate import draw, equal_error_rate, matches_of, verify
from examples.ifvit.fingerprints import make_pairs
from examples.ifvit.matcher import Verifier, inherit, restore
from examples.ifvit.model import DenseRegistration, create_model
from examples.ifvit.train import Point, train
from examples.ifvit.train_match import train as train_match
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
    train(replace(TINY, steps=2), tmp_path, resume_from=tmp_path)  # nothing is left to do, and nothing is lost
    with pytest.raises(ValueError, match="is not empty"):
        train(replace(TINY, steps=2), tmp_path)


def test_steps_to_reach() -> None:
    curve = [Point(step, loss, 0.0, loss, 0.0) for step, loss in ((0, 3.0), (50, 2.0), (100, 1.0))]
    assert steps_to_reach(curve, 2.5) == 50 and steps_to_reach(curve, 0.5) is None


@pytest.fixture(scope="module")
def prints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of prints as the example describes it: seven fingers, two prints each, of different sizes."""
    root = tmp_path_factory.mktemp("prints")
    pairs = make_pairs(jax.random.key(7), 7, 96)
    for finger in range(7):
        (root / f"finger-{finger}").mkdir()
        for number, images in enumerate((pairs.image0, pairs.image1)):
            image = (255 * np.asarray(images[finger, : 80 + 16 * number, :, 0])).astype(np.uint8)
            assert cv2.imwrite(str(root / f"finger-{finger}" / f"{number}.png"), image)
    (root / "notes.txt").write_text("not a print")
    return root


def test_own_prints(prints: Path) -> None:
    own = OwnPrints.read(prints, 64)
    assert own.prints.shape == (14, 64, 64) and own.finger.tolist() == [f for f in range(7) for _ in range(2)]
    key = jax.random.key(1)
    genuine, judged = own.genuine(key, 5), own.genuine(key, 2, validation=True)
    # Every fifth finger is for validation, and neighbours in a batch are of different fingers.
    assert set(np.asarray(genuine.finger)) == {1, 2, 3, 4, 6} and set(np.asarray(judged.finger)) == {0, 5}
    assert not genuine.valid.any() and genuine.image0.shape == (5, 64, 64, 1)
    assert set(np.asarray(own.registered(key, 40).finger)) == {1, 2, 3, 4, 6}
    assert np.array_equal(own.genuine(key, 5).image1, genuine.image1)


def test_true_places_of_own_prints_are_true(prints: Path) -> None:
    pairs = OwnPrints.read(prints, 64).registered(jax.random.key(5), 8)
    image0, image1 = np.asarray(pairs.image0)[..., 0], np.asarray(pairs.image1)[..., 0]
    here, there, elsewhere = [], [], []
    for index in range(8):
        x, y = np.clip(np.round(np.asarray(pairs.target[index])), 0, 63).astype(int).T
        use = np.asarray(pairs.valid[index])
        here += list(image0[index].reshape(8, 8, 8, 8)[:, 0, :, 0].reshape(-1)[use])
        there += list(image1[index][y, x][use])
        elsewhere += list(image1[index][y, np.clip(x + 3, 0, 63)][use])
    right, wrong = (np.corrcoef(here, other)[0, 1] for other in (there, elsewhere))
    assert right > 0.4 and right > wrong + 0.2


def test_a_folder_that_is_not_as_described(prints: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder"):
        OwnPrints.read(tmp_path / "none", 64)
    with pytest.raises(ValueError, match="0 fingers"):
        OwnPrints.read(tmp_path, 64)
    shutil.copytree(prints, tmp_path / "prints")
    (tmp_path / "prints" / "finger-3" / "1.png").unlink()
    with pytest.raises(ValueError, match="finger-3' has one print only"):
        OwnPrints.read(tmp_path / "prints", 64)
    (tmp_path / "prints" / "finger-3" / "1.png").write_bytes(b"not an image")
    with pytest.raises(MatchRTError):
        OwnPrints.read(tmp_path / "prints", 64)


def test_equal_error_rate() -> None:
    rate, threshold = equal_error_rate(np.array([3.0, 4.0, 5.0]), np.array([0.0, 1.0]))
    assert rate == 0 and 1 < threshold <= 3
    assert equal_error_rate(np.array([0.0, 2.0, 3.0, 4.0]), np.array([-2.0, -1.0, 0.5, 2.5]))[0] == pytest.approx(0.25)
    assert equal_error_rate(np.zeros(4), np.ones(4))[0] > 0.5


def test_matches_of_cells() -> None:
    certain = np.zeros((16, 16), np.float32)
    certain[5, 6], certain[1, 2], certain[3, 2] = 0.9, 0.5, 0.4  # the last is not the best of its column
    found = matches_of(certain, 32, "test")
    assert found.keypoints0.tolist() == [[8, 8], [8, 0]] and found.keypoints1.tolist() == [[16, 8], [16, 0]]


@pytest.mark.slow
def test_module_2_inherits_trains_and_is_judged(tmp_path: Path, prints: Path) -> None:
    train(replace(TINY, steps=2), tmp_path / "run", source=OwnPrints.read(prints, 32))
    verifier, config, report = inherit(tmp_path / "run")
    assert config == replace(TINY, steps=2)
    assert all(name.startswith("registration.") for name in report.loaded)
    assert sorted(report.fresh) == ["embedding.bias", "embedding.kernel", "weights"]
    module1 = DenseRegistration(config, rngs=nnx.Rngs(9))
    restore(tmp_path / "run", module1)
    before = {name: np.asarray(value) for name, value in arrays_of(module1).items()}
    have = arrays_of(verifier.registration)
    assert before.keys() == have.keys() and all(np.array_equal(before[name], have[name]) for name in before)
    source = OwnPrints.read(prints, 32)
    found = train_match(verifier, config, source, tmp_path / "run2")
    assert len(found) == 2 and 0 <= found[-1].eer <= 1 and found[-1].genuine and found[-1].impostors
    assert not np.array_equal(
        before["backbone.conv1.kernel"], arrays_of(verifier)["registration.backbone.conv1.kernel"]
    )
    again = Verifier(config, rngs=nnx.Rngs(9))
    restore(tmp_path / "run2", again)
    assert verify(again, config, source).eer == pytest.approx(found[-1].eer)
    assert all(path.is_file() for path in draw(again, config, source, tmp_path))
    with pytest.raises(ValueError, match="another network"):
        restore(tmp_path / "run2", module1)
    with pytest.raises(FileNotFoundError):
        restore(tmp_path / "empty", module1)
