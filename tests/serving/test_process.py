"""The process: it ends without losing a request, refuses what it cannot do, and asks for its packages."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import CommandLine
from support.serving import Running, running

BOUNDARY = "x-boundary-x"


def body(files: tuple[bytes, bytes]) -> bytes:
    head = '--{}\r\nContent-Disposition: form-data; name="image{}"; filename="{}.jpg"\r\n\r\n'
    parts = [head.format(BOUNDARY, i, i).encode() + data + b"\r\n" for i, data in enumerate(files)]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def ask(service: Running, files: tuple[bytes, bytes]) -> Any:
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    request = urllib.request.Request(f"{service.url}/v1/match", body(files), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code


def metric(service: Running, name: str) -> float:
    with urllib.request.urlopen(f"{service.url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


def test_sigterm_finishes_what_was_taken(tmp_path: Path, pair: Any) -> None:
    with running(tmp_path, "--queue", "3") as service:
        answers: list[Any] = []
        threads = [threading.Thread(target=lambda: answers.append(ask(service, pair.files))) for _ in range(3)]
        for thread in threads:
            thread.start()
        while metric(service, "matchrt_places_taken") < 3:
            time.sleep(0.005)
        service.terminate()
        for thread in threads:
            thread.join()
        assert service.process.wait(timeout=30) == 0
        for answer in answers:
            assert np.array_equal(np.array(answer["scores"], np.float32), pair.expected.scores)
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"{service.url}/v2/health/live", timeout=5)
        assert "Traceback" not in service.log.read_text()


def test_what_it_cannot_do_is_said_at_once(cli: CommandLine, server: Running, tmp_path: Path) -> None:
    cli.fails("serve-exposed", "serve", "--host", "0.0.0.0")
    cli.fails("engine-missing", "serve", "no-such-engine")
    cli.fails("serve-nothing", "serve", "--http", -1, "--grpc", -1)
    cli.fails("token-file", "serve", "--token-file", tmp_path / "none")
    cli.fails("port-taken", "serve", "--http", server.http, "--grpc", 0)


def test_packages_that_are_missing_are_named(run_python: Any) -> None:
    code = """
import sys
sys.modules['grpc'] = None
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == 'grpc' else real(name, package)
sys.argv = ['matchrt', 'serve']
from matchrt.cli.app import main
main()
"""
    ran = run_python(code)
    assert ran.returncode == 2 and "package-missing" in ran.stderr and "matchrt[serve]" in ran.stderr
