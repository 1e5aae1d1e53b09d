"""The example notebook runs from its first cell to its last, and shows what it says."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOK = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def _run(source: str, names: dict[str, Any]) -> Any:
    """Runs a cell; the value of its last expression, as a notebook shows it."""
    *body, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        body.append(last)
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None


def test_it_is_kept_without_outputs() -> None:
    assert NOTEBOOK["nbformat"] == 4 and len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CELLS)


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(EXAMPLES / "images", tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    shown = [_run("".join(cell["source"]), names) for cell in CELLS]
    sketch, points, picture, truth, best, closed = shown
    assert "<svg" in sketch._repr_html_() and len(sketch) > 1000
    assert [array.shape for array in points] == [(3, 2), (3, 2), (3,)]
    assert picture._repr_png_().startswith(b"\x89PNG") and len(picture._repr_png_()) < 1_000_000
    assert truth["median"] < 1 and truth["share within 3 px"] > 0.9
    assert 0 < len(best) <= 500 and (tmp_path / "matches.npz").is_file() and closed is None
