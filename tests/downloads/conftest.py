from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faulty_server import FaultyServer, faulty_server

from matchrt.downloads.folder import WeightsFolder


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but this machine is asked, whatever the user's environment says."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server() as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> WeightsFolder:
    return WeightsFolder(tmp_path / "weights")
