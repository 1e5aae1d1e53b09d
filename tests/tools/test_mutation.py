"""The mutation tool: what it changes, what it leaves alone, and which tests it chooses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.mutation import ROOT, Mutant, Runner, choose, mutants_of, nearest_tests

CODE = '''"""A module with 1 docstring."""
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from x import Y if 1 < 2 else None
__all__ = ["f"]


def f(a: int, b: int = 2) -> int:
    """Not 3."""
    LOGGER.info("never %s", a + 1)
    assert a != 7
    note(a)
    if a < b and not g(a, key=b):
        return min(a, b) * 5
    return None
'''.replace("    from x import Y if 1 < 2 else None\n", "    Z = 1 < 2\n")


def _mutants(folder: Path) -> list[Mutant]:
    (folder / "m.py").write_text(CODE)
    return mutants_of(folder / "m.py", folder)


def test_every_kind_of_change_once(tmp_path: Path) -> None:
    changes = {(mutant.line, mutant.what) for mutant in _mutants(tmp_path)}
    assert changes == {
        (8, "constant off by one"), (12, "call removed"), (13, "condition negated"), (13, "or for and"),
        (13, "comparison"), (13, "negation removed"), (13, "argument key dropped"), (14, "returns None"),
        (14, "arithmetic"), (14, "max for min"), (14, "constant off by one"),
    }  # fmt: skip


def test_a_mutant_is_one_change_and_the_rest_is_as_written(tmp_path: Path) -> None:
    for mutant in _mutants(tmp_path):
        changed = [line for line in mutant.diff.splitlines()[2:] if line.startswith(("+", "-"))]
        assert len(changed) == 2, mutant.diff
    sources = {mutant.what: mutant.source for mutant in _mutants(tmp_path)}
    assert "if (a <= b) and not g(a, key=b):" in sources["comparison"]
    assert "if a < b and not (g(a)):" in sources["argument key dropped"]
    assert (tmp_path / "m.py").read_text() == CODE


def test_the_sample_is_of_its_seed(tmp_path: Path) -> None:
    _mutants(tmp_path)
    first, again, other = (choose([tmp_path / "m.py"], tmp_path, 5, seed) for seed in (1, 1, 2))
    assert first == again != other and len(set(first)) == 5
    assert len(choose([tmp_path / "m.py"], tmp_path, 100, 1)) == len(_mutants(tmp_path))


def test_nearest_tests_are_those_of_the_room_importers_first() -> None:
    found = nearest_tests("src/matchrt/runtime/geometry.py", ROOT)
    assert "tests/runtime/test_geometry.py" in found[:3] and all(name.startswith("tests/runtime/") for name in found)
    assert all(
        name.startswith("tests/runtime/gpu/") for name in nearest_tests("src/matchrt/runtime/gpu/session.py", ROOT)
    )
    assert "tests/test_frame.py" in nearest_tests("src/matchrt/errors.py", ROOT)


def test_tests_that_fail_anyway_kill_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for folder in ("src/matchrt/room", "tests/room"):
        (root / folder).mkdir(parents=True)
    (root / "src/matchrt/__init__.py").write_text("")
    (root / "src/matchrt/room/m.py").write_text("def f(a: int) -> bool:\n    return a < 2\n")
    (root / "pyproject.toml").write_text("")
    test = root / "tests/room/test_m.py"
    test.write_text("from matchrt.room.m import f\ndef test_f():\n    assert f(1) and not f(2)\n")
    mutants = mutants_of(root / "src/matchrt/room/m.py", root)
    runner = Runner(root, tmp_path / "good", 1, 60.0, "not slow")
    runner.check([mutant.path for mutant in mutants])
    assert {runner.run(mutant).verdict for mutant in mutants} == {"killed"}
    test.write_text("def test_f():\n    pass\n")
    runner = Runner(root, tmp_path / "blind", 1, 60.0, "not slow")
    assert {runner.run(mutant).verdict for mutant in mutants} == {"survived"}
    test.write_text("def test_f():\n    assert False\n")
    with pytest.raises(SystemExit, match="without any mutant"):
        Runner(root, tmp_path / "broken", 1, 60.0, "not slow").check([mutants[0].path])
