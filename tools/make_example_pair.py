"""Makes the two images that the README matches: a public-domain photograph and a computed second view of it.

The photograph is scikit-image's `coffee` (Rachel Michetti, CC0 1.0). The second view is seen from the side, closer, in
other light and slightly out of focus; the homography between the two is written beside them, so that matches can be
checked. Run: python tools/make_example_pair.py examples/images
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
from skimage import data

SEED = 7


def second_view(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RGB [H,W,3] -> the other view, and the homography that takes pixels of the first to pixels of the second."""
    height, width = image.shape[:2]
    seen = np.float32([[60, 20], [560, 55], [585, 380], [25, 350]])
    corners = np.float32([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]])
    homography = cv2.getPerspectiveTransform(seen, corners)
    view = cv2.warpPerspective(image, homography, (width, height), flags=cv2.INTER_CUBIC).astype(np.float32) / 255
    light = np.linspace(0.65, 1.15, width)[None, :, None]
    view = np.clip(view * light, 0, 1) ** 1.25
    view = cv2.GaussianBlur(view, (0, 0), 0.8)
    view += np.random.default_rng(SEED).normal(0, 0.01, view.shape)
    return (np.clip(view, 0, 1) * 255).round().astype(np.uint8), homography


def main(folder: Path) -> None:
    """Writes cup_0.jpg, cup_1.jpg and homography.json."""
    image = data.coffee()
    view, homography = second_view(image)
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in (("cup_0.jpg", image), ("cup_1.jpg", view)):
        cv2.imwrite(str(folder / name), picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    (folder / "homography.json").write_text(json.dumps({"H": homography.tolist()}, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
