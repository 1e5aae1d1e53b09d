"""The documentation site: docstrings as Markdown, and every page of the repository in the navigation."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _markdown(text: str, *names: str) -> str:
    pytest.importorskip("griffe", reason="the extra docs is not installed")
    from tools.site.docstrings import SECTIONS, to_markdown

    return to_markdown(text, {*SECTIONS, *names})


def test_lines_of_names_become_a_list() -> None:
    text = "What it does.\n\nsize: in pixels, which may\ngo on here. Errors: a-code, b-code.\nother: not a parameter."
    assert _markdown(text, "size") == (
        "What it does.\n\n- **`size`**: in pixels, which may\n  go on here.\n"
        "- **Errors**: a-code, b-code.\n  other: not a parameter."
    )


def test_names_in_the_middle_of_a_line_begin_an_item() -> None:
    assert _markdown("One; two: three. height, width: of it; batch: pairs.", "height", "width", "batch") == (
        "One; two: three.\n\n- **`height`, `width`**: of it.\n- **`batch`**: pairs."
    )


def test_examples_become_code_and_small_tables_keep_their_lines() -> None:
    text = (
        ">>> a = 1\n>>> b\n\nkind: one of\n    first, 1st   the one\n    second  the other\nnext: more,\n    and more."
    )
    assert _markdown(text, "kind", "next") == (
        "```python\na = 1\nb\n```\n\n- **`kind`**: one of\n  <br>`first`, `1st`: the one\n  <br>`second`: the other\n"
        "- **`next`**: more,\n  and more."
    )


def test_plain_paragraphs_stay() -> None:
    text = "A sentence: with a colon.\n\nAnother\nparagraph."
    assert _markdown(text, "sentence") == text


def test_the_site_is_built_strictly_without_dead_links(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    import sys

    from tools.check_links import check

    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    result = check(tmp_path / "site")
    assert result.dead == [] and result.followed > 1000
    text = (tmp_path / "site" / "docs" / "api" / "matching" / "index.html").read_text(encoding="utf-8")
    assert 'id="matchrt.Matcher.match_on_gpu"' in text and "<code>min_score</code>" in text
