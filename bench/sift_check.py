"""Runs OpenCV's SIFT through matchrt's accuracy harness and compares it with stored figures of SIFT.

A check of the harness: matcher and settings are known, so that the shares of correct matches should agree to about
0.01; estimates by RANSAC (inliers, corner and pose errors) scatter more.

    python bench/sift_check.py EVAL --baseline EVAL/baselines/sift.json [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from matchrt.bench.accuracy import AccuracyReport, evaluate
from matchrt.bench.compare import Baseline, compare, read_baseline
from matchrt.bench.folder import read_folder
from matchrt.bench.tables import comparison_table
from matchrt.runtime.image import read_image

FloatArray = npt.NDArray[np.float64]
FEATURES = 4096
RATIO = 0.8
LONG_SIDE = 1024
# Figures that do not depend on a random estimator.
EXACT = ("p3", "p8", "p16", "epi_precision")


class Sift:
    """SIFT with the ratio test, on images of at most `LONG_SIDE`; gives pixels of the stored files."""

    def __init__(self) -> None:
        self._features: dict[Path, tuple[FloatArray, Any]] = {}

    def __call__(self, image0: Path, image1: Path) -> tuple[FloatArray, FloatArray]:
        """Two [N, 2] arrays."""
        (points0, words0), (points1, words1) = self._extract(image0), self._extract(image1)
        if words0 is None or words1 is None or len(words1) < 2:
            return np.zeros((0, 2)), np.zeros((0, 2))
        nearest = cv2.BFMatcher().knnMatch(words0, words1, k=2)
        kept = [first for first, second in nearest if first.distance < RATIO * second.distance]
        return points0[[m.queryIdx for m in kept]], points1[[m.trainIdx for m in kept]]

    def _extract(self, path: Path) -> tuple[FloatArray, Any]:
        if path not in self._features:
            grey = read_image(path, apply_exif=False).grey()
            height, width = grey.shape
            factor = min(1.0, LONG_SIDE / max(height, width))
            if factor < 1:
                size = round(width * factor), round(height * factor)
                grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
            found, words = cv2.SIFT.create(FEATURES).detectAndCompute(grey, None)
            points = np.array([k.pt for k in found], np.float64).reshape(-1, 2)
            scale = np.array([width / grey.shape[1], height / grey.shape[0]])
            self._features[path] = (points + 0.5) * scale - 0.5, words
        return self._features[path]


def largest_differences(report: AccuracyReport, baseline: Baseline) -> dict[str, dict[str, float]]:
    """By set: the largest difference of any pair in the figures without randomness, and the mean one."""
    ours = report.by_id()
    result = {}
    for name, pairs in report.sets().items():
        differences = [
            abs(ours[pair.id][figure] - baseline.pairs[pair.id][figure])
            for pair in pairs
            for figure in EXACT
            if figure in ours[pair.id] and figure in baseline.pairs.get(pair.id, {})
        ]
        if differences:
            largest, mean = max(differences), math.fsum(differences) / len(differences)
            result[name] = {"largest": round(largest, 4), "mean": round(mean, 4), "figures": len(differences)}
    return result


def main() -> None:
    """Prints the comparison as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="evaluation folder")
    parser.add_argument("--baseline", type=Path, required=True, help="figures of SIFT by pair id (.json)")
    parser.add_argument("--json", type=Path, help="write everything here too")
    arguments = parser.parse_args()
    baseline = read_baseline(arguments.baseline)
    report = evaluate(Sift(), read_folder(arguments.folder), name="SIFT here")
    comparison, differences = compare(report, baseline), largest_differences(report, baseline)
    print(comparison_table(comparison).markdown())
    for name, values in differences.items():
        print(f"{name}: largest difference {values['largest']}, mean {values['mean']} over {values['figures']} shares")
    if arguments.json is not None:
        document = {"differences": differences, "comparison": comparison.to_json(), "run": report.to_json()}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
