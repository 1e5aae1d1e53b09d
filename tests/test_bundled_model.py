"""The bundled models on real images with known truth: the figures of their cards, with room for rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from matchrt import Matcher, MatcherOptions
from matchrt.bench.accuracy import AccuracyOptions, AccuracyReport, evaluate
from matchrt.bench.folder import EvalFolder, read_folder

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "images"


def _report(folder: EvalFolder, resize: int, model: str = "loftr-lite") -> AccuracyReport:
    with Matcher(model, MatcherOptions(resize=resize, apply_exif=False)) as matcher:
        return evaluate(matcher.match, folder, AccuracyOptions("magsac", 3.0), name=model)


def test_example_pair_of_the_readme() -> None:
    import json

    import cv2

    homography = np.array(json.loads((EXAMPLES / "homography.json").read_text())["H"])
    with Matcher() as matcher:
        matches = matcher.match(EXAMPLES / "cup_0.jpg", EXAMPLES / "cup_1.jpg").verify("homography")
    truth = cv2.perspectiveTransform(matches.keypoints0[None].astype(np.float64), homography)[0]
    errors = np.linalg.norm(truth - matches.keypoints1, axis=1)
    assert len(matches) > 1000
    assert float((errors < 3).mean()) > 0.95
    assert float(matches.inliers.mean()) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("model", "dogman"), [("eloftr-lite", 0.85), ("loftr-lite", 0.80)])
def test_homographies(model: str, dogman: float, shared: Path) -> None:
    figures = _report(read_folder(shared / "eval").only(("v_dogman", "synthetic")), 640, model).summary()
    assert figures["v_dogman"]["p3"] >= dogman
    assert figures["synthetic"]["p3"] >= 0.95


@pytest.mark.slow
def test_poses(shared: Path) -> None:
    folder = read_folder(shared / "eval").only(("reichstag",))
    figures = _report(folder, 832).summary()
    assert figures["reichstag"]["pairs"] == 45 and figures["reichstag"]["under_10"] >= 36
