"""The bundled model on real images with known truth: the figures of the model card, with room for rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from matchrt import Matcher, MatcherOptions
from matchrt.bench.accuracy import AccuracyOptions, AccuracyReport, evaluate
from matchrt.bench.folder import read_folder

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "images"


def _report(shared: Path, resize: int, *sets: str) -> AccuracyReport:
    folder = read_folder(shared / "eval").only(sets)
    with Matcher("loftr-lite", MatcherOptions(resize=resize, apply_exif=False)) as matcher:
        return evaluate(matcher.match, folder, AccuracyOptions("magsac", 3.0), name="loftr-lite")


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


def test_homographies(shared: Path) -> None:
    figures = _report(shared, 640, "v_dogman", "synthetic").summary()
    assert figures["v_dogman"]["p3"] >= 0.80
    assert figures["synthetic"]["p3"] >= 0.95


def test_poses(shared: Path) -> None:
    assert _report(shared, 832, "reichstag").summary()["reichstag"]["under_10"] >= 36
