"""doctor, inspect and bench on a GPU with TensorRT-RTX (`pytest -m gpu`)."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import CommandLine

from matchrt.building.pipeline import BuildRequest, build
from matchrt.runtime.engine_file import engine_path
from matchrt.store import EngineStore

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def rtx_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tensorrt_rtx")
    folder = tmp_path_factory.mktemp("rtx")
    request = BuildRequest(str(engine_path("loftr-lite")), backend="tensorrt_rtx", output=folder / "lite.engine")
    return build(request, EngineStore(folder / "store")).path


def test_doctor_sees_the_gpu_and_runs_rtx(cli: CommandLine) -> None:
    pytest.importorskip("tensorrt_rtx")
    found = cli("doctor", "--json").json
    assert found["gpus"]["found"][0]["cuda"] and found["gpus"]["cuda_driver"]
    rtx = next(entry for entry in found["backends"] if entry["name"] == "tensorrt_rtx")
    assert rtx["runs"]["works"], rtx["runs"]


def test_layers_of_a_real_engine(cli: CommandLine, rtx_engine: Path) -> None:
    found = cli("inspect", rtx_engine, "--layers", "--json").json
    assert len(found["layers"]) > 5 and found["memory"]["scratch"] > 0 and found["memory"]["tensors"] > 0
    assert found["profiles"][0][0]["name"] == "image0"
    # What TensorRT says is understood: most layers have a type, and fp32 is among them.
    known = [layer for layer in found["layers"] if layer["precision"] != "unknown"]
    assert len(known) > len(found["layers"]) / 2
    assert any("fp32" in layer["precision"] for layer in known)
    assert any(part.startswith("loftr_coarse") for part in found["summary"]["by_part"])


def test_bench_compares_launches_and_streams(cli: CommandLine, rtx_engine: Path) -> None:
    ran = cli("bench", rtx_engine, "--compare-launch", "--size", "128x160", "--runs", 5, "--streams", 2,
              "--stream-seconds", 0.2, "--json")  # fmt: skip
    document = ran.json
    graph, plain = document["engines"]
    assert plain["launch"].startswith("enqueue (switched off")
    assert graph["launch"] == "graph" or "(" in graph["launch"]
    assert graph["memory"]["scratch"] > 0
    stages = document["latency"]["subjects"]["lite.engine"]["stages_ms"]
    assert {"upload", "gpu", "download", "overhead", "total"} <= set(stages)
    assert len(document["throughput"]["engines"]["lite.engine"]) == 2
    assert document["machine"]["gpu"]["name"]
