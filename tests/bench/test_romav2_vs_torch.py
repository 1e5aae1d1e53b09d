"""The weights that `bench/romav2_vs_torch.py` takes out of a graph come back to the last bit."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.romav2 import TINY
from support.scripts import bench_script

from matchrt.building.parity import run_onnx
from matchrt.export.precision.emulation import emulate

pytestmark = pytest.mark.slow


def test_weights_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench_script("roma_rtx")  # which the script imports from beside it
    script = bench_script("romav2_vs_torch")
    monkeypatch.setattr(script, "RoMaV2Config", lambda symmetric: TINY)
    monkeypatch.setattr(script, "SMALL", 256)
    whole: list[bytes] = []
    strip = script.strip

    def kept(model: onnx.ModelProto, graph: object) -> int:
        whole.append(model.SerializeToString())
        return int(strip(model, graph))

    monkeypatch.setattr(script, "strip", kept)
    options = Namespace(graph=tmp_path / "a.onnx", size=64, both_ways=False, flow="smooth", precision="fp16")
    script.prepare(options)
    stripped = onnx.load(str(options.graph))
    before = onnx.load_model_from_string(whole[0])
    assert stripped.ByteSize() < 0.6 * len(whole[0])
    network = script.random_network(False, "smooth")
    script.refill(stripped, script.RoMaV2Graph(network, script.MATCHES, (64, 64), None))
    weights = {weight.name: weight for weight in stripped.graph.initializer}
    assert all(weights[weight.name] == weight for weight in before.graph.initializer)
    images = {f"image{i}": image.numpy() for i, image in enumerate(script.textures(64))}
    warp = run_onnx(emulate(stripped), images)["warp"]
    # The smooth flow: no pixel is moved by more than a tenth of the image, beside what the refiners add.
    assert np.isfinite(warp).all() and np.abs(warp[..., :2] - warp[..., 2:]).max() < 0.5
