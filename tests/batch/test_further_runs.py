"""`match-many` with turns: images are read once, and results are in pixels of the images as given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from support.turning import MarkSession, dynamic_manifest, marked

from matchrt import Matcher, MatcherOptions, MatchRTError
from matchrt.batch.feature_pool import require_features
from matchrt.batch.pool import PoolSize, match_in_pool
from matchrt.batch.results import Found, ListedPair


def test_turned_images_of_a_list(tmp_path: Path) -> None:
    for name, turned in (("a", 0), ("b", 90), ("c", 180)):
        PILImage.fromarray(marked(320, 320, turned, seed=turned)).save(tmp_path / f"{name}.png")
    pairs = [ListedPair(1, "a.png", "b.png"), ListedPair(2, "a.png", "c.png"), ListedPair(3, "b.png", "c.png")]
    with Matcher(MarkSession(dynamic_manifest()), MatcherOptions(rotate="auto")) as matcher:
        results = list(match_in_pool(matcher, tmp_path, pairs, PoolSize(2, 1, 1)))
    for result, turned in zip(results, (90, 180, 90), strict=True):
        found = result.outcome
        assert isinstance(found, Found) and len(found.scores) == 300
        assert found.judged is not None and found.judged.turned1 == 360 - turned
        x, y = (found.keypoints0.astype(float) - 159.5).T
        wanted = np.stack({90: (-y, x), 180: (-x, -y)}[turned], 1) + 159.5
        assert np.abs(wanted - found.keypoints1).max() < 1e-3


def test_further_runs_need_the_images() -> None:
    with Matcher("loftr-lite", MatcherOptions(rotate="auto")) as matcher:
        with pytest.raises(MatchRTError) as refused:
            require_features(matcher)
        assert refused.value.code == "option-range" and "--rotate" in refused.value.remedy
        with pytest.raises(MatchRTError) as refused:
            matcher.features(np.zeros((64, 64), np.uint8))
        assert refused.value.code == "option-range"
