"""The training program of the bundled models: it runs, goes on, and what it writes is a checkpoint."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image as PILImage
from safetensors.torch import load_file
from support.pictures import texture

from matchrt.export.weights.network import load_network
from matchrt.families.registry import get_spec
from matchrt.models.eloftr.rescoring import Rescoring
from matchrt.runtime.bundled import bundled_path
from tools.train_lite.networks import NAMES
from tools.train_lite.rescoring import put

ROOT = Path(__file__).resolve().parents[2]
# What training leaves to `tools.train_lite.rescoring`.
RESCORED = {"eloftr-lite": ("rescoring.*",)}


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
@pytest.mark.parametrize("network", NAMES)
def test_it_trains_goes_on_and_its_weights_load(network: str, pack: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ran = _train(pack, out, "--steps", "2", "--network", network)
    assert ran.returncode == 0, ran.stderr[-2000:]
    ran = _train(pack, out, "--steps", "3", "--network", network, "--resume", str(out / "final"))
    assert ran.returncode == 0, ran.stderr[-2000:]
    weights = out / "final-average.pt"
    saved = torch.load(weights, map_location="cpu", weights_only=True)
    assert saved["step"] == 3
    # The training form, and what is shipped: half precision, branches fused.
    missing = RESCORED.get(network, ())
    left = load_network(get_spec(network), weights, allow_missing=missing).report
    assert left.complete
    shipped = tmp_path / "shipped.safetensors"
    command = [sys.executable, "-m", "tools.train_lite.export", "--network", network, str(weights), str(shipped)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    if missing:
        put(Rescoring(), shipped)
    assert load_network(get_spec(network), shipped).report.complete


@pytest.mark.slow
def test_the_scores_are_learned_from_the_shipped_network(pack: Path, tmp_path: Path) -> None:
    weights = tmp_path / "copy.safetensors"
    shutil.copy(bundled_path("eloftr-lite").with_suffix(".safetensors"), weights)
    before = load_file(weights)
    command = [sys.executable, "-m", "tools.train_lite.rescoring", str(weights), "--pack", str(pack), "--tile", "128"]
    command += ["--drawn", "2", "--pairs", "4", "--held-out", "2", "--epochs", "2", "--workers", "1"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "by score: " in ran.stdout
    after = load_file(weights)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert before.keys() == after.keys() and changed and all("rescoring" in name for name in changed)
    assert load_network(get_spec("eloftr-lite"), weights).report.complete
