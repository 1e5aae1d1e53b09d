"""Servers and files that go wrong: every scenario has one right outcome, and the next run always gets the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.download_faults import SCENARIOS, play


def test_there_are_at_least_fifty() -> None:
    assert len(SCENARIOS) >= 50


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str, tmp_path: Path) -> None:
    play(name, 0, tmp_path)
