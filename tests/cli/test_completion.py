"""Shell completion, as the shells ask for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from matchrt.cli.completion import engine_names, model_names


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program called `matchrt`, as pip installs it, for a shell to find."""
    script = tmp_path / "bin" / "matchrt"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom matchrt.cli.app import main\nmain()\n")
    script.chmod(0o755)
    return script


def _offered(program: Path, line: str) -> list[str]:
    """What bash offers at the end of `line`: typer's own script is loaded and its function called."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    words = line.split(" ")
    script = (
        'eval "$(matchrt --show-completion bash)"; '
        f"COMP_WORDS=({' '.join(f'{word!r}' for word in words)}); COMP_CWORD={len(words) - 1}; "
        '$(complete -p matchrt | sed "s/.*-F \\([^ ]*\\).*/\\1/") matchrt; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    variables = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "SHELL": bash}
    ran = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=False, env=variables)
    assert ran.returncode == 0 and ran.stderr == "", ran.stderr
    return ran.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("matchrt bu", ["build"]),
        ("matchrt match-", ["match-many"]),
        ("matchrt build loftr-ou", ["loftr-outdoor"]),
        ("matchrt download eloftr-o", ["eloftr-opt"]),
        ("matchrt match a.jpg b.jpg --engine lof", ["loftr-lite"]),
        ("matchrt match a.jpg b.jpg --backend open", ["openvino"]),
        ("matchrt match a.jpg b.jpg --verify homo", ["homography"]),
        ("matchrt build loftr-lite --prec", ["--precision"]),
        ("matchrt doctor no-such", []),
    ],
)
def test_bash_offers_commands_options_and_names(program: Path, line: str, offered: list[str]) -> None:
    assert _offered(program, line) == offered


def test_every_model_is_offered_and_every_engine_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"loftr-lite", "romav2", "minima-xoftr"} <= set(model_names(""))
    assert model_names("zzz") == []
    monkeypatch.setenv("MATCHRT_STORE", str(tmp_path / "none"))
    assert engine_names("") == ["eloftr-lite", "loftr-lite"]
    (tmp_path / "file").touch()
    monkeypatch.setenv("MATCHRT_STORE", str(tmp_path / "file"))  # no store can be there, and the shell is not told
    assert engine_names("lo") == ["loftr-lite"]


def _completion(option: str, home: Path) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "HOME": str(home), "SHELL": "/bin/bash"}
    return subprocess.run(
        ["bash", "-c", f'"$0" -m matchrt {option} bash', sys.executable],
        capture_output=True, text=True, check=False, env=variables,
    )  # fmt: skip


def test_the_script_of_python_m_is_that_of_the_program(tmp_path: Path) -> None:
    ran = _completion("--show-completion", tmp_path)
    assert ran.returncode == 0 and "_MATCHRT_COMPLETE=complete_bash" in ran.stdout
    assert ran.stdout.rstrip().endswith(" matchrt") and "python" not in ran.stdout


def test_a_home_that_cannot_be_written_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = _completion("--install-completion", tmp_path / "file")
    assert ran.returncode == 2 and "error[output-unwritable]" in ran.stderr and "--show-completion" in ran.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_that_is_named_is_meant_where_none_is_found(shell: str) -> None:
    """As in a container's build: the parent is no shell, and $SHELL names none."""
    variables = {name: value for name, value in os.environ.items() if name != "SHELL"}
    command = [sys.executable, "-m", "matchrt", "--show-completion", shell]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=variables, start_new_session=True)
    assert ran.returncode == 0 and "_MATCHRT_COMPLETE" in ran.stdout, ran.stderr
    assert {"bash": "complete -o", "zsh": "#compdef", "fish": "complete --command"}[shell] in ran.stdout
