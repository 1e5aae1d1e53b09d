"""The trained Coarse-LoFTR weights through the whole line: are they really in?"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from matchrt import BuildRequest, Matcher, build
from matchrt.store import EngineStore

pytestmark = pytest.mark.slow
CELL = 16
PAIRS = ("v_dogman/1_2", *(f"synthetic/{name}_{how}" for name in ("astronaut", "chelsea") for how in ("mild", "hard")))


@pytest.fixture(scope="module", params=["LoFTR_teacher.pt", "LoFTR_no_teacher.safetensors"])
def matcher(request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Matcher:
    checkpoint = shared / "weights" / "kolkir_coarse_loftr" / request.param
    store = EngineStore(tmp_path_factory.mktemp("store"))
    result = build(BuildRequest("coarse-loftr", checkpoint), store)
    assert result.weights == "checkpoint 177: 16 dropped, 161 loaded; network 161: 161 loaded"
    return Matcher("coarse-loftr", store=store)


@pytest.mark.parametrize("pair", PAIRS)
def test_best_matches_lie_within_a_cell(matcher: Matcher, shared: Path, pair: str) -> None:
    listed = json.loads((shared / "eval" / "homography" / "pairs.json").read_text())["pairs"]
    entry = next(item for item in listed if item["id"] == pair)
    best = matcher.match(shared / "eval" / entry["image0"], shared / "eval" / entry["image1"]).top(100)
    truth = cv2.perspectiveTransform(best.keypoints0[None].astype(np.float64), np.array(entry["H"]))[0]
    pixels = np.linalg.norm(truth - best.keypoints1, axis=1) * 640 / max(entry["width0"], entry["height0"])
    # Random weights give 0.07 to 0.15 here.
    assert len(best) == 100
    assert float((pixels <= CELL).mean()) >= 0.90
