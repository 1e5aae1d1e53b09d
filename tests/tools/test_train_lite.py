"""The training program of the bundled model: it runs, and what it writes is a checkpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image as PILImage
from support.pictures import texture

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    for split, count in (("train", 4), ("validation", 2)):
        for index in range(count):
            picture = PILImage.fromarray(texture(160, 200, index + (split == "train") * 100)).convert("RGB")
            picture.save(folder / f"{split}-photo-{index:012x}.webp")
    return folder


def _train(pack: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    small = ["--recipe", "tiny", "--tile", "128", "--drawn", "2", "--workers", "1"]
    command = [
        sys.executable,
        "-m",
        "tools.train_lite.train",
        "--pack",
        str(pack),
        "--out",
        str(out),
        *small,
        *arguments,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_it_trains_and_its_weights_load(pack: Path, tmp_path: Path) -> None:
    ran = _train(pack, tmp_path / "a", "--steps", "2")
    assert ran.returncode == 0, ran.stderr[-2000:]
    weights = tmp_path / "a" / "final-average.pt"
    saved = torch.load(weights, map_location="cpu", weights_only=True)
    assert saved["step"] == 2
    from matchrt.export.weights.network import load_network
    from matchrt.families.registry import get_spec

    assert load_network(get_spec("loftr-lite"), weights).report.complete
