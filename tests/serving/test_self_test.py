"""A service opens its engines like everybody else: one that fails its self-test is refused at the start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import platformdirs
import pytest
from support.commands import CommandLine
from support.machines import KINDS, Machine, make_engine, save_engine
from support.self_tests import with_self_test
from support.serving_stub import StubSession

from matchrt.errors import MatchRTError
from matchrt.runtime import opening
from matchrt.runtime.engine_file import read_engine
from matchrt.serving.options import ServeOptions
from matchrt.serving.service import Service


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *names, **more: str(tmp_path / "cache"))


class OnGpu(StubSession):
    """The stub finds one match a pair, which is no answer to any self-test."""

    def device(self) -> str:
        return "A GPU, driver 1"

    def circumstances(self) -> str | None:
        return self.device()


def test_the_service_refuses_it_and_closes_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    session = OnGpu()
    stored = read_engine("loftr-lite").manifest.self_test
    assert stored is not None
    session.manifest = replace(session.manifest, self_test=stored)

    class Backend:
        devices = ("cpu", "cuda")

        def open(self, engine: object, options: object) -> OnGpu:
            return session

    monkeypatch.setattr(opening, "get_backend", lambda name: Backend())
    with pytest.raises(MatchRTError) as caught:
        Service(["loftr-lite"], ServeOptions())
    assert caught.value.code == "engine-self-test" and "A GPU, driver 1" in caught.value.message
    assert "0.0% of 128 matches within 1 px" in caught.value.message
    assert session.closed == 1 and session.entered == 1


@pytest.mark.parametrize("machine", KINDS, indirect=True)
def test_the_command_says_why(machine: Machine, tmp_path: Path, cli: CommandLine) -> None:
    path = save_engine(with_self_test(make_engine(machine, slots=40)), tmp_path)
    machine.script.wrong_by = 0.3
    ran = cli.fails("engine-self-test", "serve", path, "--http", 0, "--grpc", -1)
    assert "median distance 0.424 px (limit 0.02)" in ran.err and "matchrt doctor ENGINE" in ran.err
    assert machine.cuda.held() == 0
