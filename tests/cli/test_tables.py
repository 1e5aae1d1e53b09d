"""Tables in pipes and files: whole, however narrow the terminal is said to be."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import typer
from rich.table import Table
from support.commands import CommandLine

from matchrt.bench.tables import Cells
from matchrt.cli.app import app
from matchrt.cli.output import stdout

GROUP: Any = typer.main.get_command(app)


@pytest.fixture(params=[None, "40"])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says of the terminal's width: nothing, or that it is narrow."""
    if request.param is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", request.param)


@pytest.mark.usefixtures("columns")
def test_a_row_of_a_table_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    cells = tuple(f"a cell of some length, number {index}" for index in range(12))
    stdout().print(Cells("A wide table", cells, (cells,)).rich())
    plain = Table(*cells)
    plain.add_row(*cells)
    stdout().print(plain)
    lines = [line for line in capsys.readouterr().out.splitlines() if "number 0" in line]
    assert len(lines) == 4 and all(cell in line for line in lines for cell in cells)


@pytest.mark.parametrize("arguments", [("inspect", "loftr-lite"), ("models",)])
def test_what_commands_print_does_not_depend_on_the_terminal(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    printed = []
    for width in ("40", "400"):
        monkeypatch.setenv("COLUMNS", width)
        printed.append(cli(*arguments).out)
    assert printed[0] == printed[1] and len(printed[0].splitlines()) > 5


def test_help_is_whole() -> None:
    """Every option of every command, and the list of commands."""
    variables = {name: value for name, value in os.environ.items() if name != "TERMINAL_WIDTH"}
    code = (
        "import sys\nfrom matchrt.cli.app import main\n"
        "for name in sys.argv[1:]:\n"
        "    sys.argv = ['matchrt', *([name] if name != '-' else []), '--help']\n"
        "    try: main()\n    except SystemExit: pass\n"
    )
    command = [sys.executable, "-c", code, "-", *GROUP.commands]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env={**variables, "COLUMNS": "40"})
    assert ran.returncode == 0, ran.stderr
    names = {option for command in GROUP.commands.values() for param in command.params for option in param.opts}
    printed = set(ran.stdout.replace(",", " ").split())
    assert not {name for name in names if name.startswith("--") and name not in printed}
    assert "…" not in ran.stdout.replace("ENGINE…", "")
