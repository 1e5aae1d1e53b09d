"""`matchrt doctor ENGINE` and `matchrt inspect ENGINE`: what the self-test is, and what it says here and now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import platformdirs
import pytest
from support.commands import CommandLine
from support.machines import KINDS, Machine, make_engine, save_engine
from support.self_tests import with_self_test

from matchrt.doctor.machine import Gpus
from matchrt.doctor.stored import examine_store
from matchrt.manifest import manifest_path
from matchrt.runtime.engine_file import read_engine
from matchrt.store import EngineStore

every_machine = pytest.mark.parametrize("machine", KINDS, indirect=True)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *names, **more: str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def engine(machine: Machine, tmp_path: Path) -> Path:
    return save_engine(with_self_test(make_engine(machine, slots=40)), tmp_path)


@every_machine
def test_an_engine_that_passes(machine: Machine, engine: Path, cli: CommandLine) -> None:
    ran = cli("doctor", engine)
    assert ran.code == 0 and "self-test       passed" in ran.out and "Stub 0, compute capability 8.9" in ran.out
    machine.script.calls.clear()
    said = cli("doctor", engine, "--json").json
    assert machine.script.names().count("execute_async_v3") == 1, "it is remembered, and asked all the same"
    assert said["passed"] and said["error"] is None and said["within"] == 1.0 and said["pixels"] == 0.0
    assert said["compared"] == said["stored"] > 20 and said["limits"] == {
        "within": 0.97,
        "pixels": 0.02,
        "score": 0.005,
    }


@every_machine
def test_an_engine_that_fails(machine: Machine, engine: Path, cli: CommandLine, cache: Path) -> None:
    assert cli("doctor", engine).code == 0 and list(cache.glob("self-tests/*.json"))
    machine.script.wrong_by = 0.3
    ran = cli("doctor", engine)
    assert ran.code == 1 and "self-test       FAILED" in ran.out and "0.424 px in the median (at most 0.02)" in ran.out
    assert "error[engine-self-test]" in ran.err and "Traceback" not in ran.err
    assert not list(cache.glob("self-tests/*.json")), "what was remembered does not hold"
    machine.script.wrong_by = 300
    ran = cli("doctor", engine, "--json")
    assert ran.code == 1 and not ran.json["passed"] and ran.json["error"]["code"] == "engine-self-test"
    assert ran.json["pixels"] is None and ran.json["score"] is None and ran.json["within"] == 0.0
    assert "inf px" in cli("doctor", engine).out


@pytest.mark.parametrize("machine", ["rtx"], indirect=True)
def test_engines_that_cannot_be_tested(machine: Machine, engine: Path, cli: CommandLine, tmp_path: Path) -> None:
    cli.fails("usage", "doctor", "--device", "cuda")
    cli.fails("engine-missing", "doctor", tmp_path / "none.engine")
    cli.fails("device-backend", "doctor", engine, "--device", "cpu")
    file = read_engine(engine)
    replace(file.manifest, self_test=None).write(manifest_path(engine))
    ran = cli.fails("self-test-missing", "doctor", engine)
    assert "matchrt build loftr-outdoor --backend tensorrt_rtx" in ran.err


def test_the_bundled_engine_passes_on_the_cpu(cli: CommandLine) -> None:
    said = cli("doctor", "loftr-lite", "--json").json
    assert said["passed"] and said["compared"] == 128 and said["where"].startswith("CPU, onnxruntime 1.")


def test_inspect_shows_what_is_asked(cli: CommandLine, tmp_path: Path) -> None:
    bundled = read_engine("loftr-lite")
    path = tmp_path / "lite.onnx"
    path.write_bytes(bundled.data)
    bundled.manifest.write(manifest_path(path))
    said = " ".join(cli("inspect", path).out.split())
    assert "self-test pair 1 moved by 61,81 at contrast 96, 128 matches: at least 97.0% within 1 px" in said
    assert "judged not judged when it was built" in said
    replace(bundled.manifest, self_test=None, judged="emulation").write(manifest_path(path))
    said = " ".join(cli("inspect", path).out.split())
    assert "judged emulation self-test none: nothing checks" in said


def test_doctor_lists_stored_engines_without_one(tmp_path: Path, cli: CommandLine) -> None:
    bundled, store = read_engine("loftr-lite"), EngineStore(tmp_path / "store")
    for key, test in (("a" * 64, bundled.manifest.self_test), ("b" * 64, None)):
        store.put(bundled.data, replace(bundled.manifest, build_key=key, self_test=test), "lite.onnx")
    found = examine_store(store, (), Gpus())
    assert found.engines == 2 and len(found.untested) == 1 and "b" * 8 in found.untested[0]
    ran = cli("doctor", "--store", store.root)
    assert "no self-test  1 engines; nothing checks" in ran.out and found.untested[0] in ran.out
    assert cli("doctor", "--store", tmp_path / "empty").out.count("no self-test") == 0
