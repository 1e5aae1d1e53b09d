from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.manifest_schema import every_manifest_validates
from support.workers import once, shared_folder, take_own_cores

take_own_cores()
# An export makes millions of objects that live until it ends, and the collector would look at them over and over.
gc.set_threshold(100_000, 20, 20)

EXPORTING = {"exported", "static_graph", "dynamic_graph"}
SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever needs a fixture that exports a network of its own is slow."""
    for item in items:
        if EXPORTING & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The team's folder of reference vectors, weights and evaluation images; absent on a user's machine."""
    if not (SHARED / "FACTS.md").is_file():
        pytest.skip("the team's shared folder with reference data is not beside this checkout")
    return SHARED


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's engine store."""
    monkeypatch.setenv("MATCHRT_STORE", str(tmp_path_factory.getbasetemp() / "store"))


@pytest.fixture(scope="session", autouse=True)
def _manifests_validate() -> Iterator[None]:
    """Whatever engine a test opens, the published JSON Schema takes its manifest."""
    with every_manifest_validates():
        yield


@pytest.fixture(scope="session")
def coarse_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights that the model `coarse-loftr` accepts."""

    def fill(folder: Path) -> None:
        import torch
        from support.weights import coarse_loftr_state

        state = {f"matcher.{key}": value for key, value in coarse_loftr_state().items()}
        torch.save({"state_dict": state, "epoch": 3}, folder / "coarse.ckpt")

    return once(shared_folder(tmp_path_factory) / "checkpoints", fill) / "coarse.ckpt"


@pytest.fixture(scope="session")
def coarse_engine(tmp_path_factory: pytest.TempPathFactory, coarse_checkpoint: Path) -> Path:
    """A static 192x256 engine with random weights, built once for all workers."""

    def fill(folder: Path) -> None:
        from matchrt.building.pipeline import BuildRequest, build
        from matchrt.store import EngineStore

        request = BuildRequest(
            "coarse-loftr", coarse_checkpoint, height=192, width=256, max_matches=256, output=folder / "coarse.onnx"
        )
        build(request, EngineStore(folder / "store"))

    return once(shared_folder(tmp_path_factory) / "engines", fill) / "coarse.onnx"


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `support.exports` keeps the graphs of this run, for all workers."""
    return shared_folder(tmp_path_factory) / "exports"


@pytest.fixture
def exported_once(exports: Path) -> Iterator[None]:
    """Graphs that were exported in this run, by whatever test and worker, are not exported again."""
    from support.exports import exported_once

    with exported_once(exports):
        yield


@pytest.fixture
def run_python() -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs code in a fresh interpreter."""

    def run(code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A machine with stubs of CUDA and TensorRT; of a kind in `support.machines.KINDS`, by indirect parameter."""
    from support.machines import make_machine

    return make_machine(monkeypatch, getattr(request, "param", "rtx"))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """The command line, in this process."""
    from support.commands import CommandLine

    return CommandLine(capsys, monkeypatch)
