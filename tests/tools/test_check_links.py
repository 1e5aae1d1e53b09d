"""tools/check_links.py: dead pages, files and anchors are found, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_links import check, main


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Two pages that refer to each other, and a style."""
    (tmp_path / "guide").mkdir()
    (tmp_path / "style.css").write_text("")
    (tmp_path / "index.html").write_text('<link href="style.css"><a href="guide/#how%20to">guide</a><a href="#">x</a>')
    (tmp_path / "guide" / "index.html").write_text('<h2 id="how to">How</h2><a href="..">up</a><a href="#how to">h</a>')
    (tmp_path / "404.html").write_text('<a href="/nowhere/">made for any folder</a>')
    return tmp_path


def _add(site: Path, link: str) -> None:
    page = site / "guide" / "index.html"
    page.write_text(page.read_text() + link)


def test_a_site_without_dead_links(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _add(site, '<a href="https://example.org/x">there</a><a href="mailto:a@example.org">mail</a>')
    result = check(site)
    assert (result.dead, result.followed, result.elsewhere) == ([], 5, 1)
    assert main([str(site)]) == 0 and "5 links followed, 0 dead" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ('<a href="../missing/">x</a>', "no such file"),
        ('<img src="missing.png">', "no such file"),
        ('<script src="../missing.js"></script>', "no such file"),
        ('<a href="../#missing">x</a>', "no such anchor"),
        ('<a href="#missing">x</a>', "no such anchor"),
        ('<a href="../../elsewhere.html">x</a>', "leaves the site"),
        ('<a href="/guide/">x</a>', "root of the host"),
    ],
)
def test_dead_links(site: Path, link: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    _add(site, link)
    ((page, _, found),) = check(site).dead
    assert page == "guide/index.html" and reason in found
    assert main([str(site)]) == 1 and "guide/index.html" in capsys.readouterr().out


def test_an_empty_folder_is_no_site(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 1
    assert main([str(tmp_path / "missing")]) == 2
