"""Dockerfile.trt and its script, as far as they can be checked without Docker.

The image itself is not built here; the script's steps run in a fresh environment in the place of the image.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "docker" / "install_runtime.sh"
PURE = sysconfig.get_paths()["purelib"]

pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or sys.version_info < (3, 11), reason="the script is for bash and Python 3.11"
)


def _run(step: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, **settings}
    return subprocess.run(
        ["bash", str(SCRIPT), step], capture_output=True, text=True, check=False, env=environment, cwd="/"
    )


def _instructions() -> list[tuple[str, str]]:
    """Keyword and arguments; continued lines joined, comments gone."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile.trt").read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines()]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line and not line.startswith("#")]


def _arguments(keyword: str) -> list[str]:
    return [value for name, value in _instructions() if name == keyword]


# ------------------------------------------------------------------------------------------ Dockerfile


def test_it_starts_from_nvidias_image_with_a_fixed_tag() -> None:
    (tag,) = (value for value in _arguments("ARG") if value.startswith("TENSORRT_TAG="))
    assert re.fullmatch(r"TENSORRT_TAG=\d\d\.\d\d-py3", tag)
    assert _arguments("FROM") == ["nvcr.io/nvidia/tensorrt:${TENSORRT_TAG} AS runtime", "runtime AS serve"]


def test_it_runs_as_a_user_who_is_not_root() -> None:
    # Each stage ends as that user, by number; the second is 0 for the time of an installation.
    assert _arguments("USER") == ["10001:10001", "0", "10001:10001"]
    assert any("useradd --create-home --uid 10001 matchrt" in command for command in _arguments("RUN"))


def test_it_copies_only_what_is_in_the_repository_and_in_no_ignored_place() -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")
    }
    sources = [source for value in _arguments("COPY") for source in value.split()[:-1]]
    assert not _arguments("ADD")
    for source in sources:
        assert (ROOT / source).exists()
        assert any(source == name or source.startswith(f"{name}/") for name in allowed), source
        assert source != "." and "shared" not in source and not source.startswith((".git", ".."))
    assert "*" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def test_what_changes_often_is_copied_after_the_dependencies() -> None:
    steps = [f"{name} {value}" for name, value in _instructions()]

    def position(text: str) -> int:
        return next(index for index, step in enumerate(steps) if text in step)

    assert position("install_runtime.sh dependencies") < position("COPY src src")
    assert position("COPY src src") < position("install_runtime.sh package") < position("USER 10001")


def test_health_check_and_entry_point() -> None:
    assert _arguments("ENTRYPOINT") == ['["/opt/nvidia/nvidia_entrypoint.sh", "matchrt"]']
    (check,) = _arguments("HEALTHCHECK")
    assert '["python", "/usr/local/src/matchrt/tools/docker/health.py"]' in check
    assert any("tools/docker/health.py tools/docker/" in value for value in _arguments("COPY"))
    assert _arguments("CMD") == ['["doctor"]', '["serve", "loftr-lite", "--host", "0.0.0.0"]']


def test_the_compose_file_names_what_there_is() -> None:
    yaml = pytest.importorskip("yaml")
    folder = ROOT / "tools" / "docker"
    services = yaml.safe_load((folder / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert set(services) == {"build", "serve", "prometheus"}
    for name in ("build", "serve"):
        assert services[name]["build"]["target"] == "serve"
        assert (folder / services[name]["build"]["context"] / services[name]["build"]["dockerfile"]).is_file()
    metrics = yaml.safe_load((folder / "prometheus.yaml").read_text(encoding="utf-8"))
    assert metrics["scrape_configs"][0]["static_configs"][0]["targets"] == ["serve:8000"]
    # Both commands are commands of ours, with options that exist.
    from typer.testing import CliRunner

    from matchrt.cli.app import app

    for name in ("build", "serve"):
        command, *options = services[name]["command"]
        said = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
        assert all(option.split("=")[0] in said for option in options if option.startswith("--")), name


def test_each_step_that_it_names_is_one_of_the_scripts() -> None:
    steps = re.findall(r"tools/docker/install_runtime\.sh ([\w-]+)", "\n".join(_arguments("RUN")))
    known = re.search(r"^([\w |-]+)\) \"\$1\"", SCRIPT.read_text(encoding="utf-8"), re.M)
    assert known is not None
    assert set(steps) == set(known[1].split(" | ")) - {"requirements"}
    assert os.access(SCRIPT, os.X_OK)


# ---------------------------------------------------------------------------------------------- script


def test_the_script_is_sound_bash() -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0
    text = SCRIPT.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n") and "set -euo pipefail" in text
    assert "sudo" not in text and "curl" not in text and "wget" not in text
    ran = _run("nonsense")
    assert ran.returncode == 1 and "environment" in ran.stderr


def test_requirements_are_the_runtime_without_torch_and_without_another_tensorrt() -> None:
    ran = _run("requirements")
    names = [re.split(r"[<>=\[ ]", line)[0] for line in ran.stdout.splitlines()]
    assert {"onnxruntime", "numpy", "opencv-python-headless", "cuda-python", "onnx"} <= set(names), ran.stderr
    assert not {"torch", "matchrt", "tensorrt"} & set(names)


def test_dependencies_are_installed_into_the_environment_under_the_constraints(tmp_path: Path) -> None:
    """pip is only listened to: the packages themselves are large, and are the same that these tests run with."""
    log, spy = tmp_path / "log", tmp_path / "python"
    spy.write_text(
        f'#!/usr/bin/env bash\nif [[ "$2" != pip ]]; then exec "{sys.executable}" "$@"; fi\n'
        f'printf "%s\\n" "$@" >"{log}"\n'
    )
    spy.chmod(0o755)
    ran = _run("dependencies", PYTHON=str(spy), PREFIX=str(tmp_path / "env"), PIP_FLAGS="--dry-run --quiet")
    assert ran.returncode == 0, ran.stderr
    words = log.read_text().splitlines()
    assert words[:4] == ["-m", "pip", "--python", str(tmp_path / "env" / "bin" / "python")]
    assert str(ROOT / "constraints.txt") in words and "--dry-run" in words and "--quiet" in words
    wanted = _run("requirements").stdout.splitlines()
    assert len(wanted) > 8 and words[-len(wanted) :] == wanted
    ran = _run("serve", PYTHON=str(spy), PREFIX=str(tmp_path / "env"))
    assert ran.returncode == 0 and any(word.startswith("fastapi") for word in log.read_text().splitlines())


def test_environment_package_and_verify_in_a_fresh_environment(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    prefix = tmp_path / "env"
    ran = _run("environment", PREFIX=str(prefix))
    assert ran.returncode == 0, ran.stderr
    own = next(prefix.glob("lib/python*/site-packages"))
    # The dependencies, without a download: those that these tests run with.
    (own / "outside.pth").write_text(f"{PURE}\n")
    shutil.copytree(ROOT / "src", tmp_path / "source" / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tools" / "docker", tmp_path / "source" / "tools" / "docker")
    for name in ("pyproject.toml", "constraints.txt", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "source" / name)
    script = tmp_path / "source" / "tools" / "docker" / "install_runtime.sh"
    environment = {**os.environ, "PYTHON": sys.executable, "PREFIX": str(prefix)}
    environment |= {"PIP_FLAGS": "--no-build-isolation --no-index"}
    environment.pop("PYTHONPATH", None)

    def run(step: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([script, step], capture_output=True, text=True, check=False, env=environment, cwd="/")

    ran = run("package")
    assert ran.returncode == 0, ran.stderr
    assert (own / "matchrt" / "assets" / "loftr-lite.onnx").is_file()
    if not (Path(PURE) / "tensorrt").exists():
        ran = run("verify")
        assert ran.returncode == 1 and "no Python module tensorrt" in ran.stderr
        (own / "tensorrt.py").write_text("")  # a broken one: verify looks for the module, doctor says what is wrong
    ran = run("verify")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "onnxruntime" in ran.stdout and "the bundled engine was run" in ran.stdout
    assert "fp16" in ran.stdout and "bundled" in ran.stdout  # an engine was converted
    ran = run("verify-serve")
    assert ran.returncode == 0 and "the service is ready" in ran.stdout, ran.stdout + ran.stderr
    (own / "torch").mkdir()
    assert "torch was installed" in run("verify").stderr
