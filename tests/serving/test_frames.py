"""The service takes engines for frames: files of the frames' size, and the engine's own tensors."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import requests
from support.serving import running
from support.tiny_engines import tiny_frames_engine

from matchrt.manifest import FrameContract

pytestmark = pytest.mark.slow
SIZES = ((80, 64), (64, 96))


def test_frames_are_served(tmp_path: Path) -> None:
    engine = tiny_frames_engine(tmp_path, FrameContract("bgr", SIZES))
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*size, 3)).astype(np.uint8) for size in SIZES]
    files = [cv2.imencode(".png", image)[1].tobytes() for image in images]
    with running(tmp_path, str(engine)) as service:
        parts = {f"image{side}": (f"{side}.png", files[side]) for side in (0, 1)}
        found = requests.post(f"{service.url}/v1/match", files=parts, timeout=60)
        assert found.status_code == 200, found.text
        swapped = {f"image{side}": (f"{side}.png", files[1 - side]) for side in (0, 1)}
        refused = requests.post(f"{service.url}/v1/match", files=swapped, timeout=60)
        assert 400 <= refused.status_code < 500 and "frames-size" in refused.text, refused.text
        engines = requests.get(f"{service.url}/v1/engines", timeout=60).text
        body = {
            "inputs": [
                {"name": f"frame{side}", "shape": [1, *SIZES[side], 3], "datatype": "UINT8",
                 "data": images[side].ravel().tolist()}
                for side in (0, 1)
            ]
        }  # fmt: skip
        name = "loftr-lite-engine"
        assert "loftr-lite" in engines
        raw = requests.post(f"{service.url}/v2/models/{name}/infer", data=json.dumps(body), timeout=60)
        assert raw.status_code == 200, raw.text
        assert {"keypoints0", "num_matches"} <= {output["name"] for output in raw.json()["outputs"]}
