"""Running the command line inside the test process."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from matchrt.cli.app import main


@dataclass(frozen=True)
class Ran:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """`cli("match", a, b)` as a user would type it."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: object) -> Ran:
        self._monkeypatch.setattr(sys, "argv", ["matchrt", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = self._capsys.readouterr()
        return Ran(int(stopped.value.code or 0), printed.out, printed.err)

    def fails(self, code: str, *arguments: object) -> Ran:
        """Runs, and checks that it fails as the user's mistake with that error code, a remedy and no traceback."""
        ran = self(*arguments)
        assert ran.code == 2, ran.err
        assert f"error[{code}]" in ran.err
        remedy = ran.err.split("\n", 1)[1].strip()
        assert len(remedy) > 10
        assert "Traceback" not in ran.err + ran.out
        return ran
