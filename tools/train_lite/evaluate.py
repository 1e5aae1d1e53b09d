"""Scores weights on the evaluation pairs: homographies, poses, and counts on other modalities. Plain torch, slow."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from matchrt.models.loftr.config import LOFTR_LITE
from matchrt.models.loftr.network import LoFTR
from matchrt.models.parts.coarse_matching import Grid, fast_dual_softmax, select_matches
from matchrt.models.parts.config import CoarseMatchConfig

Points = NDArray[np.float64]
STRIDE = 8


@dataclass(frozen=True)
class Settings:
    """Long side of the resized images, and the confidence threshold."""

    long_side: int
    threshold: float


def load_network(path: Path) -> LoFTR:
    """The network with weights of a training checkpoint or of the shipped file."""
    if path.suffix == ".safetensors":
        state = {key.removeprefix("matcher."): value for key, value in load_file(path).items()}
        state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)["state"]
    net = LoFTR(LOFTR_LITE)
    net.load_state_dict(state)
    return net.eval()


def read(path: Path, long_side: int) -> tuple[torch.Tensor, NDArray[np.float64]]:
    """Grey image `[1,1,H,W]` resized to the long side, sides multiples of 8; factors back to the file's pixels."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError(f"{path} is not an image")
    height, width = image.shape
    scale = long_side / max(height, width)
    rows, columns = (max(STRIDE, round(side * scale / STRIDE) * STRIDE) for side in (height, width))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, (columns, rows), interpolation=method)
    return torch.from_numpy(resized)[None, None].float() / 255.0, np.array([width / columns, height / rows])


@torch.no_grad()
def match(net: LoFTR, path0: Path, path1: Path, settings: Settings) -> tuple[Points, Points, Points]:
    """Keypoints in the files' pixels and scores."""
    image0, factor0 = read(path0, settings.long_side)
    image1, factor1 = read(path1, settings.long_side)
    coarse0, fine0 = net.backbone(image0)
    coarse1, fine1 = net.backbone(image1)
    tokens0, tokens1 = net.encode_coarse(coarse0, coarse1)
    scores = net.similarity(tokens0, tokens1)
    confidence = fast_dual_softmax(scores, scores.transpose(1, 2))
    grid0, grid1 = Grid(*coarse0.shape[2:]), Grid(*coarse1.shape[2:])
    found = select_matches(confidence, grid0, grid1, CoarseMatchConfig(threshold=settings.threshold), 8192)
    keep = found.scores[0] > 0
    index0, index1 = found.index0[:, keep], found.index1[:, keep]
    if not keep.any():
        return np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0)
    offset, _ = net.refine((fine0, fine1), (tokens0, tokens1), (index0, index1), (grid0.width, grid1.width))

    def pixels(cells: torch.Tensor, width: int) -> torch.Tensor:
        return STRIDE * torch.stack([cells % width, cells // width], dim=2).double()

    points0 = pixels(index0, grid0.width)[0].numpy()
    points1 = (pixels(index1, grid1.width) + 4.0 * offset)[0].numpy()
    # Resizing keeps the outer edges: pixel centres move by half a pixel times the factor.
    points0 = (points0 + 0.5) * factor0 - 0.5
    points1 = (points1 + 0.5) * factor1 - 0.5
    return points0, points1, found.scores[0, keep].double().numpy()


def homography_row(net: LoFTR, root: Path, pair: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Share of matches within N pixels (times long side / 640) of the true place, and their number."""
    points0, points1, _ = match(net, root / pair["image0"], root / pair["image1"], settings)
    homogeneous = np.c_[points0, np.ones(len(points0))] @ np.array(pair["H"]).T
    error = np.linalg.norm(homogeneous[:, :2] / homogeneous[:, 2:] - points1, axis=1)
    unit = max(pair["width1"], pair["height1"]) / 640
    shares = {f"p{n}": round(float((error < n * unit).mean()), 4) if len(error) else 0.0 for n in (1, 3, 5)}
    return {"id": pair["id"], "matches": len(error)} | shares


def _angle(cosine: float) -> float:
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def pose_error(
    points0: Points, points1: Points, pair: dict[str, Any], cameras: tuple[Points, Points], pixels: float
) -> tuple[float, float]:
    """Errors of rotation and translation direction in degrees; 180 where no pose comes out."""
    if len(points0) < 6:
        return 180.0, 180.0
    (k0, k1) = cameras
    flat0 = cv2.undistortPoints(points0[:, None], k0, np.zeros(0))[:, 0]
    flat1 = cv2.undistortPoints(points1[:, None], k1, np.zeros(0))[:, 0]
    focal = float(np.mean([k0[0, 0], k0[1, 1], k1[0, 0], k1[1, 1]]))
    essential, inliers = cv2.findEssentialMat(
        flat0, flat1, np.eye(3), method=cv2.USAC_MAGSAC, prob=0.9999, threshold=pixels / focal, maxIters=10_000
    )
    if essential is None:
        return 180.0, 180.0
    best = (180.0, 180.0, -1)
    for candidate in np.split(essential, len(essential) // 3):
        count, rotation, translation, _ = cv2.recoverPose(candidate, flat0, flat1, np.eye(3), mask=inliers.copy())
        true_r, true_t = np.array(pair["R"]), np.ravel(pair["t"])
        angle_r = _angle((np.trace(rotation.T @ true_r) - 1) / 2)
        cosine = abs(float(translation[:, 0] @ true_t) / np.linalg.norm(true_t))
        if count > best[2]:
            best = (angle_r, _angle(cosine), count)
    return best[0], best[1]


def pose_row(net: LoFTR, root: Path, data: dict[str, Any], pair: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Errors of one pose pair."""
    first, second = (data["images"][pair[key]] for key in ("image0", "image1"))
    points0, points1, _ = match(net, root / first["file"], root / second["file"], settings)
    error_r, error_t = pose_error(points0, points1, pair, (np.array(first["K"]), np.array(second["K"])), 1.0)
    row = {"id": pair["id"], "matches": len(points0), "err_R": round(error_r, 2), "err_t": round(error_t, 2)}
    return row | {"ok": max(error_r, error_t) < 10.0}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--eval", type=Path, required=True, help="folder with homography/, pose/, multimodal/")
    parser.add_argument("--long-side", type=int, default=640)
    parser.add_argument("--pose-long-side", type=int, default=832)
    parser.add_argument("--threshold", type=float, default=0.2)
    parser.add_argument("--pose-pairs", default="reichstag", help="ids that contain this; empty: none")
    parser.add_argument("--multimodal", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cv2.setRNGSeed(0)
    net = load_network(arguments.weights)
    settings = Settings(arguments.long_side, arguments.threshold)
    result: dict[str, Any] = {"settings": {key: str(value) for key, value in vars(arguments).items()}}
    pairs = json.loads((arguments.eval / "homography/pairs.json").read_text())["pairs"]
    rows = [homography_row(net, arguments.eval, pair, settings) for pair in pairs]
    for row in rows:
        print(row)
    result["homography"] = rows
    for name in ("v_dogman", "synthetic"):
        chosen = [row for row in rows if row["id"].startswith(name)]
        print(
            name, {key: round(float(np.mean([row[key] for row in chosen])), 4) for key in ("p1", "p3", "p5", "matches")}
        )
    if arguments.pose_pairs:
        data = json.loads((arguments.eval / "pose/pairs.json").read_text())
        posed = Settings(arguments.pose_long_side, arguments.threshold)
        chosen = [pair for pair in data["pairs"] if arguments.pose_pairs in pair["id"]]
        rows = [pose_row(net, arguments.eval, data, pair, posed) for pair in chosen]
        result["pose"] = rows
        print(f"pose: {sum(row['ok'] for row in rows)} of {len(rows)} under 10 degrees")
        print("missed:", [row for row in rows if not row["ok"]])
    if arguments.multimodal:
        rows = []
        for pair in json.loads((arguments.eval / "multimodal/pairs.json").read_text())["pairs"]:
            points0, points1, _ = match(net, arguments.eval / pair["image0"], arguments.eval / pair["image1"], settings)
            inliers = 0
            if len(points0) >= 8:
                _, mask = cv2.findHomography(points0, points1, cv2.USAC_MAGSAC, 4.0)
                inliers = int(mask.sum()) if mask is not None else 0
            rows.append({"id": pair["id"], "matches": len(points0), "homography_inliers": inliers})
            print(rows[-1])
        result["multimodal"] = rows
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
