"""The short form of `bench/serve_fuzz.py`: malformed messages on all ways in; the service still gives its answer."""

from __future__ import annotations

from typing import Any

import pytest
from support.scripts import bench_script
from support.serving import Running


@pytest.fixture(scope="module")
def tool() -> Any:
    return bench_script("serve_fuzz")


def test_malformed_messages(server: Running, tool: Any) -> None:
    seen = tool.fuzz(server.http, server.grpc, 150, seed=7)
    assert sum(seen.values()) == 150
    for kind in ("http 400", "grpc INVALID_ARGUMENT", "grpc OK"):
        assert seen[kind] > 0
    assert server.process.poll() is None and "Traceback" not in server.log.read_text()
