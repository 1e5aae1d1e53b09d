"""The tool that runs Dockerfile.trt's lines without Docker, and the containers' health check."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / "docker" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


health, run_lines = _tool("health"), _tool("run_lines")


# ------------------------------------------------------------------------------------------ lines


def test_instructions_are_joined_and_comments_left_out() -> None:
    text = '# a\nFROM x AS y\nRUN one \\\n    && two\n# b\nCMD ["c"]\n'
    assert list(run_lines.instructions(text)) == [("FROM", "x AS y"), ("RUN", "one && two"), ("CMD", '["c"]')]


def test_the_images_folders_are_ours_and_only_they(tmp_path: Path) -> None:
    image = run_lines.Image(tmp_path)
    assert image.here("/data x /opt/matchrt/bin") == f"{tmp_path}/data x {tmp_path}/opt/matchrt/bin"
    assert image.here("/database /opt/matchrt-2 a/data") == "/database /opt/matchrt-2 a/data"


def test_lines_run_where_the_dockerfile_says_and_what_needs_the_image_is_named(tmp_path: Path) -> None:
    image = run_lines.Image(tmp_path, {"PATH": "/usr/bin:/bin"})
    for keyword, arguments in (
        ("ENV", "PREFIX=/opt/matchrt"),
        ("WORKDIR", "/usr/local/src/matchrt"),
        ("COPY", "LICENSE pyproject.toml ./"),
        ("COPY", "tools/docker/health.py tools/docker/"),
        ("RUN", "test -s LICENSE && cp pyproject.toml /usr/local/src/matchrt/copy && echo $PREFIX > prefix"),
        ("RUN", "useradd somebody"),
    ):
        image.follow(keyword, arguments)
    folder = tmp_path / "usr" / "local" / "src" / "matchrt"
    assert (folder / "copy").is_file() and (folder / "tools" / "docker" / "health.py").is_file()
    assert (folder / "prefix").read_text().strip() == str(tmp_path / "opt" / "matchrt")
    assert len(image.ran) == 1 and image.left_out[0][0] == "useradd somebody"
    with pytest.raises(run_lines.subprocess.CalledProcessError):
        image.follow("RUN", "false")


def test_every_line_of_the_dockerfile_is_run_or_has_a_reason() -> None:
    lines = [value for name, value in run_lines.instructions((ROOT / "Dockerfile.trt").read_text()) if name == "RUN"]
    assert len(lines) == 6
    left_out = [line for line in lines if any(line.startswith(start) for start in run_lines._LEFT_OUT)]
    assert len(left_out) == 1 and all("install_runtime.sh" in line for line in lines if line not in left_out)


# ------------------------------------------------------------------------------------------ health


def _process(folder: Path, number: int, *words: str) -> None:
    (folder / str(number)).mkdir(parents=True)
    (folder / str(number) / "cmdline").write_bytes("\0".join((*words, "")).encode())


def test_the_service_is_found_among_the_processes(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    _process(tmp_path, 1, "/sbin/tini", "--", "sleep")
    assert health.serving(tmp_path) is None
    _process(tmp_path, 20, "python", "/opt/matchrt/bin/matchrt", "match", "serve")
    assert health.serving(tmp_path) is None
    _process(tmp_path, 7, "/opt/matchrt/bin/python", "/opt/matchrt/bin/matchrt", "serve", "lite", "--http", "9000")
    assert health.serving(tmp_path) == ["lite", "--http", "9000", ""]


def test_options_are_read_in_both_forms() -> None:
    assert health.option(["--http", "9000", "--http=9001"], "http", "8000") == "9001"
    assert health.option(["--host=0.0.0.0", ""], "http", "8000") == "8000"


@pytest.fixture
def service() -> Iterator[tuple[int, list[int]]]:
    """A port, and the status that is answered there."""
    status = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0] if self.path == "/v2/health/ready" else 404)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, status
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_asks_the_service_where_it_listens(service: tuple[int, list[int]]) -> None:
    port, status = service
    words = ["loftr-lite", "--host", "0.0.0.0", "--http", str(port)]
    assert health.healthy(words) is None
    status[0] = 503
    assert health.healthy(words) == "the service answers 503"
    assert "does not answer" in health.healthy(["--http", "9"])  # nothing listens there
    assert health.healthy(["--http=-1", f"--grpc={port}"]) is None
    assert "does not answer" in health.healthy(["--http=-1", "--grpc=9"])
    assert health.healthy(["--http=0", "--grpc=0"]) is None
