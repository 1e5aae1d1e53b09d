"""A plugin of pytest for the base install: a test that needs a package of an extra is skipped, and says so.

    PYTHONPATH=tests python -m pytest -p support.base_only tests/runtime

Only an import in the tests themselves counts. Where matchrt's own code imports what the base install lacks, the test
fails: that is what such a run is for.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]


def missing_package(error: BaseException | None) -> str | None:
    """The package that an import in the tests did not find; None for any other error."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None or error.name.split(".")[0] == "matchrt":
        return None
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    inside = frames and Path(frames[-1].filename).resolve().is_relative_to(TESTS)
    return error.name.split(".")[0] if inside else None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A test whose own import fails, or that of its fixtures."""
    outcome = yield
    _skip(outcome.get_result(), None if call.excinfo is None else call.excinfo.value, item.location)  # type: ignore[attr-defined]


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """A file of tests whose own import fails."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    call = getattr(report, "call", None)
    error = None if call is None or call.excinfo is None else call.excinfo.value.__cause__
    _skip(report, error, (str(collector.path), 0, ""))


def _skip(report: pytest.TestReport | pytest.CollectReport, error: BaseException | None, place: tuple) -> None:  # type: ignore[type-arg]
    package = missing_package(error)
    if report.outcome == "failed" and package is not None:
        report.outcome = "skipped"
        report.longrepr = (str(place[0]), int(place[1] or 0), f"Skipped: the base install has no {package}")
