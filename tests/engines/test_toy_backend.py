"""A backend is one class and one line of the table: the class below, and the line that `toy` puts there.

docs/contributing/add-a-backend.md shows the same.
"""

from __future__ import annotations

import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy.typing as npt
import pytest
from support.commands import CommandLine
from support.pictures import shifted_pair
from support.small import small_engine

from matchrt.engines.onnxruntime import OnnxRuntimeBuilder
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, InputContract, read_manifest
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.runtime.backend import Backend, BuiltEngine, Tell, get_backend
from matchrt.runtime.backends import BACKENDS, DEFAULT_BACKEND, backend_names, require_backend
from matchrt.runtime.calling import CallingSession
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.onnxruntime import OnnxRuntimeSession
from matchrt.runtime.session import Arrays, Session, SessionOptions


@dataclass(frozen=True)
class ToyBuilder:
    """Engines are compressed graphs."""

    name: str = "toy"
    suffix: str = ".toy"
    version: str | None = None
    tf32: bool = False
    rounds_products: bool = False
    fuses_reductions: bool = False

    def runs_here(self) -> bool:
        return False

    def identity(self) -> str:
        return "toy 1"

    def build(self, model: bytes, contract: InputContract | None, tell: Tell) -> BuiltEngine:
        tell("compressing", 0.5)
        checked = OnnxRuntimeBuilder().build(model, contract, tell)
        return replace(checked, data=zlib.compress(model), backend_version="1.0")


class ToySession(CallingSession):
    """Decompresses, and lets ONNX Runtime do the rest."""

    def __init__(self, engine: EngineFile, options: SessionOptions) -> None:
        self._session = OnnxRuntimeSession(replace(engine, data=zlib.decompress(engine.data)), options)

    @property
    def manifest(self) -> EngineManifest:
        return self._session.manifest

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        return self._session.run(inputs)

    def close(self) -> None:
        self._session.close()


class ToyBackend(Backend):
    """Its facts, its builder and its sessions."""

    name = "toy"
    title = "Toy"
    suffix = ToyBuilder.suffix
    devices = ("cpu",)

    def builder(self, options: BuilderOptions) -> ToyBuilder:
        return ToyBuilder()

    def open(self, engine: EngineFile, options: SessionOptions) -> Session:
        return ToySession(engine, options)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(BACKENDS, "toy", f"{__name__}:ToyBackend")
    assert sys.modules[__name__].ToyBackend is ToyBackend
    return "toy"


def test_it_builds_lists_and_matches_by_the_command_line(toy: str, tmp_path: Path, cli: CommandLine) -> None:
    source = small_engine(tmp_path)
    store = ("--store", tmp_path / "store")
    ran = cli("build", source.path, "--backend", toy, *store, "--json")
    assert ran.code == 0, ran.err
    engine = Path(ran.json["path"])
    assert engine.suffix == ".toy" and zlib.decompress(engine.read_bytes()) == source.data
    manifest = read_manifest(engine.with_name(engine.name + ".json"))
    assert (manifest.backend, manifest.backend_version, manifest.onnx_sha256) == (
        toy, "1.0", source.manifest.onnx_sha256,
    )  # fmt: skip
    assert cli("build", source.path, "--backend", toy, *store, "--json").json["cached"]

    listed = cli("engines", *store, "--json").json
    assert [entry["path"] for entry in listed] == [str(engine)] and "toy 1.0" in cli("engines", *store).out

    images = [tmp_path / f"{index}.png" for index in (0, 1)]
    for path, pixels in zip(images, shifted_pair(120, 160, (16, 8)), strict=True):
        cv2.imwrite(str(path), pixels)
    with_toy, with_source = (
        cli("match", *images, "--engine", name, *chosen, *store, "--save", tmp_path / f"{number}.json", "--json")
        for number, (name, chosen) in enumerate([("loftr-lite", ("--backend", toy)), (source.path, ())])
    )
    assert with_toy.code == with_source.code == 0, with_toy.err
    assert with_toy.json["matches"] == with_source.json["matches"] > 10

    assert cli("inspect", engine, "--json").json["manifest"]["backend"] == toy
    cli.fails("engine-backend", "match", *images, "--engine", engine, "--backend", DEFAULT_BACKEND)
    cli.fails("device-backend", "match", *images, "--engine", engine, "--device", "cuda")
    cli.fails("triton-backend", "export-triton", engine, tmp_path / "repository")
    cli.fails("precision-backend", "build", source.path, "--backend", toy, "--precision", "int8", *store)


def test_doctor_lists_it(toy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from matchrt.doctor.ask import Answer
    from matchrt.doctor.machine import Gpus
    from matchrt.doctor.packages import Packages
    from matchrt.doctor.verdicts import judge

    answers = {"matching": Answer({"matches": 40, "providers": []})}
    states = {state.name: state for state in judge(Packages({}), answers, Gpus())}
    assert states[toy].runs.works and "jax" not in states
    monkeypatch.setattr(ToyBackend, "distributions", ("toy-runtime",))
    absent = {state.name: state for state in judge(Packages({}), answers, Gpus())}[toy].runs
    assert not absent.works and absent.remedy == "pip install toy-runtime"
    assert judge(Packages({toy: "1.0"}), answers, Gpus())[-1].runs.works


def test_without_its_line_there_is_no_such_backend() -> None:
    assert backend_names() == ("onnxruntime", "tensorrt", "tensorrt_rtx", "openvino", "jax")
    for ask in (get_backend, require_backend):
        with pytest.raises(MatchRTError) as caught:
            ask("toy")
        assert caught.value.code == "backend-unknown" and "tensorrt_rtx" in caught.value.remedy
