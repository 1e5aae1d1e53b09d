"""Docstrings are complete: fields of dataclasses are described, and functions of the runtime name their errors."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "matchrt"
ERRORS = {"MatchRTError", "InternalError"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def classes(tree: ast.AST) -> Iterator[ast.ClassDef]:
    """The public dataclasses of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            decorators = (d.func if isinstance(d, ast.Call) else d for d in node.decorator_list)
            if any(isinstance(d, ast.Name | ast.Attribute) and _last(d) == "dataclass" for d in decorators):
                yield node


def fields(node: ast.ClassDef) -> list[str]:
    """The names of a dataclass's public fields, without those that it inherits."""
    declared = (item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name))
    names = [item.target.id for item in declared if "ClassVar" not in ast.unparse(item.annotation)]  # type: ignore[union-attr]
    return [name for name in names if not name.startswith("_")]


def described(docstring: str) -> set[str]:
    """The names that a line of the docstring describes, as in `name: …` or `name0, name1: …`."""
    found: set[str] = set()
    for line in docstring.splitlines():
        if match := re.match(r"\s*(\w+(?:, \w+)*): \S", line):
            found.update(match[1].split(", "))
    return found


def raising(tree: ast.AST) -> Iterator[Function]:
    """The public functions and methods of public classes that raise one of our errors in their own body."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from raising(node)
        if isinstance(node, Function) and not node.name.startswith("_") and _raises(node):
            yield node


def _raises(function: Function) -> bool:
    raised = (node.exc for node in _own_nodes(function) if isinstance(node, ast.Raise))
    calls = (error.func for error in raised if isinstance(error, ast.Call))
    return any(_last(call) in ERRORS for call in calls)


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below a function, without those of functions inside it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.Lambda | ast.ClassDef):
            yield child
            yield from _own_nodes(child)


def _last(expression: ast.expr) -> str:
    return expression.attr if isinstance(expression, ast.Attribute) else getattr(expression, "id", "")


def test_finders_find() -> None:
    """The functions above see what they must see: otherwise the tests below could not fail."""
    tree = ast.parse(
        '''
@dataclass(frozen=True)
class Pair:
    """Two.

    first, second: pixels.
        third is not described here: it only occurs.
    fourth: seconds; None for
        no limit.
    """

    KIND: ClassVar[str] = "pair"
    first: int
    second: int
    third: int
    fourth: float | None = None
    _hidden: int = 0

    def check(self) -> None:
        """No word about what it raises."""
        if self.first:
            raise errors.MatchRTError("a", "b", "c")

    def quiet(self) -> None:
        """Only a function inside raises."""
        def inner() -> None:
            raise MatchRTError("a", "b", "c")

class Plain:
    first: int
'''
    )
    (pair,) = classes(tree)
    assert fields(pair) == ["first", "second", "third", "fourth"]
    assert described(ast.get_docstring(pair) or "") == {"first", "second", "fourth"}
    assert [function.name for function in raising(tree)] == ["check"]


def _modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


@pytest.mark.parametrize("room", sorted(path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"))
def test_every_field_is_described(room: str) -> None:
    path = PACKAGE / room
    missing = []
    for module in [path] if path.suffix == ".py" else _modules(path):
        for node in classes(ast.parse(module.read_text(encoding="utf-8"))):
            undescribed = set(fields(node)) - described(ast.get_docstring(node) or "")
            missing += [f"{module.relative_to(PACKAGE)}: {node.name}.{name}" for name in sorted(undescribed)]
    assert not missing


def test_the_runtime_names_its_errors() -> None:
    silent, seen = [], 0
    for module in _modules(PACKAGE / "runtime"):
        for function in raising(ast.parse(module.read_text(encoding="utf-8"))):
            seen += 1
            if not re.search(r"\bErrors?\b|\bRaises `", ast.get_docstring(function) or ""):
                silent.append(f"{module.relative_to(PACKAGE)}:{function.lineno} {function.name}")
    assert not silent and seen > 10
