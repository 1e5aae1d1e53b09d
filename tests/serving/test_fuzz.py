"""The short form of `bench/serve_fuzz.py`: malformed messages on all ways in; the service still gives its answer."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest
from support.serving import ROOT, Running


@pytest.fixture(scope="module")
def tool() -> Any:
    spec = importlib.util.spec_from_file_location("serve_fuzz", ROOT / "bench" / "serve_fuzz.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["serve_fuzz"] = module
    spec.loader.exec_module(module)
    return module


def test_malformed_messages(server: Running, tool: Any) -> None:
    seen = tool.fuzz(server.http, server.grpc, 150, seed=7)
    assert sum(seen.values()) == 150
    for kind in ("http 400", "grpc INVALID_ARGUMENT", "grpc OK"):
        assert seen[kind] > 0
    assert server.process.poll() is None and "Traceback" not in server.log.read_text()
