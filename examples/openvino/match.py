"""The bundled engine in OpenVINO, without matchrt: python match.py ENGINE.onnx IMAGE0 IMAGE1

It needs openvino, opencv-python-headless and NumPy, and is for dynamic engines of grey images, such as the bundled one.
With matchrt installed, `matchrt match --backend openvino` does this for every engine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino


def prepare(path: str, contract: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The engine's input uint8 `[1, H, W, 1]`, and pixels of the image for each pixel of the input, (x, y)."""
    image = cv2.imread(path, cv2.IMREAD_COLOR)
    if image is None:
        raise SystemExit(f"{path} is no image that OpenCV reads")
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    height, width = grey.shape
    step, long_side = contract["divisor"], max(contract["profile"]["optimum"])
    factor = min(long_side / max(height, width), 2.0)
    low, high = contract["profile"]["minimum"], contract["profile"]["maximum"]
    wanted = [round(side * factor / step) * step for side in (height, width)]
    sides = [int(side) for side in np.clip(wanted, low, high)]
    # A side that shrinks is averaged, and then a side that grows is interpolated: of a strip, it may be one of each.
    grey = cv2.resize(grey, (min(width, sides[1]), min(height, sides[0])), interpolation=cv2.INTER_AREA)
    grey = cv2.resize(grey, sides[::-1], interpolation=cv2.INTER_LINEAR)
    return grey[None, :, :, None], np.array([width / sides[1], height / sides[0]])


def match(engine: str, path0: str, path1: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints `[N, 2]` in pixels of both images (the centre of the top-left pixel is (0, 0)), and scores `[N]`."""
    manifest = json.loads(Path(f"{engine}.json").read_text(encoding="utf-8"))
    # f32: OpenVINO would compute in bfloat16 on some CPUs.
    compiled = openvino.Core().compile_model(engine, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (image0, scale0), (image1, scale1) = (prepare(path, manifest["input"]) for path in (path0, path1))
    outputs = compiled({"image0": image0, "image1": image1})
    scores = outputs["scores"][0, : int(outputs["num_matches"][0])]
    count = int((scores >= manifest["matching"]["default_score"]).sum())  # sorted, best first
    points = (outputs[name][0, :count] for name in ("keypoints0", "keypoints1"))
    keypoints0, keypoints1 = (
        (found + 0.5) * scale - 0.5 for found, scale in zip(points, (scale0, scale1), strict=True)
    )
    return keypoints0, keypoints1, scores[:count]


if __name__ == "__main__":
    keypoints0, keypoints1, scores = match(*sys.argv[1:4])
    print(f"{len(scores)} matches")
    for (x0, y0), (x1, y1), score in list(zip(keypoints0, keypoints1, scores, strict=True))[:5]:
        print(f"({x0:.1f}, {y0:.1f}) - ({x1:.1f}, {y1:.1f})  {score:.3f}")
