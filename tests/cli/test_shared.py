"""What several commands share: sizes, reports, and the extras that bring packages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from matchrt._util.packages import packages_for
from matchrt.cli.report_file import check_report, write_report
from matchrt.cli.sizes import parse_profile, parse_size
from matchrt.errors import MatchRTError
from matchrt.manifest import Profile


@pytest.mark.parametrize(("text", "size"), [("480x640", (480, 640)), ("480X640", (480, 640)), ("560", (560, 560))])
def test_sizes(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text, "--size") == size


@pytest.mark.parametrize("text", ["", "x", "480x", "1x2x3", "0x640", "-480x640", "31x640", "480x31"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(MatchRTError) as caught:
        parse_size(text, "--size", 32)
    assert caught.value.code == "size-syntax" and f"--size '{text}'" in caught.value.message
    assert "int()" not in caught.value.message and "unpack" not in caught.value.message


def test_profiles() -> None:
    assert parse_profile("64,480x640,1280x1024") == Profile((64, 64), (480, 640), (1280, 1024))
    for text in ("64,480x640", "64,480x640,big", "0,1,2"):
        with pytest.raises(MatchRTError) as caught:
            parse_profile(text)
        assert caught.value.code == "profile-syntax"


def test_reports_are_of_the_kind_that_the_suffix_says(tmp_path: Path) -> None:
    text, data = tmp_path / "r.md", tmp_path / "r.JSON"
    for path in (text, data):
        check_report(path)
        write_report(path, "# table\n\n", {"figure": 1.5})
    assert text.read_text(encoding="utf-8") == "# table\n"
    assert json.loads(data.read_text(encoding="utf-8")) == {"figure": 1.5}
    with pytest.raises(MatchRTError) as caught:
        check_report(tmp_path / "r.txt")
    assert caught.value.code == "output-format"
    with pytest.raises(MatchRTError) as caught:
        check_report(text / "r.md")
    assert caught.value.code == "output-unwritable"


@pytest.mark.parametrize(("package", "extra"), [("jax", "flax"), ("ml_dtypes", "flax"), ("torch", "export")])
def test_a_missing_package_is_named_with_its_extra(package: str, extra: str) -> None:
    with pytest.raises(MatchRTError) as caught, packages_for("This command"):
        raise ModuleNotFoundError(name=package)
    assert caught.value.code == "package-missing"
    assert package in caught.value.message and f"matchrt[{extra}]" in caught.value.remedy
