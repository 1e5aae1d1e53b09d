"""An engine's two parts on a real GPU (`pytest -m gpu`): features stay there, and pairs are matched from them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from matchrt import Matcher, Matches, MatchRTError
from matchrt.bench.scene import image_pair
from matchrt.building.pipeline import BuildRequest, build
from matchrt.runtime.gpu.kept import KeptMaps
from matchrt.store import EngineStore

pytestmark = pytest.mark.gpu
BACKENDS = ("tensorrt_rtx", "tensorrt")
SIZE = (480, 640)


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from matchrt.nvidia.device import find_gpus
    from matchrt.nvidia.modules import open_dialect

    if not find_gpus():
        pytest.skip("there is no NVIDIA GPU here")
    for backend in BACKENDS:
        try:
            open_dialect(backend)
        except MatchRTError:
            continue
        folder = tmp_path_factory.mktemp("split")
        wanted = BuildRequest(
            "loftr-lite",
            height=SIZE[0],
            width=SIZE[1],
            backend=backend,
            precision=request.param,
            split=True,
            output=folder / "lite.engine",
        )
        return build(wanted, EngineStore(folder / "store")).path
    pytest.skip("neither tensorrt_rtx nor tensorrt is installed")


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    first, second = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in image_pair(*SIZE)[:2])
    return first, second


def _near(expected: Matches, actual: Matches) -> float:
    known = {tuple(point): index for index, point in enumerate(actual.keypoints0.tolist())}
    rows = [known.get(tuple(point)) for point in expected.keypoints0.tolist()]
    near = [
        row is not None and np.abs(actual.keypoints1[row] - expected.keypoints1[index]).max() <= 1.0
        for index, row in enumerate(rows)
    ]
    return float(np.mean(near))


def _same(one: Matches, other: Matches) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("keypoints0", "keypoints1", "scores")
    )


def test_matches_from_features_are_those_of_the_whole_engine(engine: Path, pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Within a pixel: the vendor chooses kernels for each part anew. Of the best, since 2048 slots are not enough."""
    with Matcher(engine) as matcher:
        features = [matcher.features(image) for image in pair]
        assert all(isinstance(item.maps, KeptMaps) for item in features)
        whole, found = matcher.match(*pair), matcher.match_features(*features)
    assert len(whole) > 1000
    assert _near(whole.top(1000), found) >= 0.99
    assert 0.98 <= len(found) / len(whole) <= 1.02


def test_features_kept_for_long_change_no_bit(engine: Path, pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Whatever ran in between, features of other images too; and features of the host give the same bits."""
    with Matcher(engine) as matcher, matcher.fork() as fork:
        first, second = (matcher.features(image) for image in pair)
        expected = matcher.match_features(first, second)
        for seed in range(8):
            other = matcher.features(np.roll(pair[0], 16 * seed, axis=1))
            matcher.match_features(other, second)
            matcher.match(*pair)
            assert _same(matcher.match_features(first, second), expected)
            assert _same(fork.match_features(first, second), expected)
        host = [matcher.features(image, on_host=True) for image in pair]
        assert _same(matcher.match_features(*host), expected)


def test_memory_does_not_grow(engine: Path, pair: tuple[np.ndarray, np.ndarray]) -> None:
    from matchrt.nvidia.cuda import call, cuda_runtime

    with Matcher(engine) as matcher:
        for _ in range(3):
            matcher.match_features(*(matcher.features(image) for image in pair))
        before = call(cuda_runtime().cudaMemGetInfo)[0]
        for _ in range(200):
            matcher.match_features(*(matcher.features(image) for image in pair))
        assert before - call(cuda_runtime().cudaMemGetInfo)[0] < 64 << 20
