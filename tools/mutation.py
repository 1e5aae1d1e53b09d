"""Mutation testing: changes the code in small ways, one at a time, and asks whether the nearest tests notice.

    python tools/mutation.py runtime/geometry.py batch/merging.py --count 20 --seed 1
    python tools/mutation.py serving --json mutants.json

Everything happens in copies of the tree in a temporary folder, one copy a process; the user's files are only read. A
mutant is killed when its nearest tests fail, and survives when they pass: then a line of code can be wrong unnoticed.
How to read the result: docs/contributing/mutation-testing.md.
"""

from __future__ import annotations

import argparse
import ast
import copy
import difflib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "src/matchrt"
# What the tests need of the tree.
COPIED = ("src", "tests", "bench", "tools", "examples", "docs", "pyproject.toml", "constraints.txt", "README.md")
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum"}
# Calls whose loss no test should have to notice: logging, warnings, and what keeps NumPy's warnings quiet.
UNWATCHED = ("debug", "info", "warning", "exception", "log", "warn", "print", "errstate")


@dataclass(frozen=True)
class Mutant:
    """One change. path: below the package; line: of the original file; source: the whole changed file."""

    path: str
    line: int
    what: str
    source: str
    diff: str


@dataclass(frozen=True)
class Outcome:
    """verdict: killed, survived or timeout (which counts as killed: an endless loop is noticed)."""

    path: str
    line: int
    what: str
    verdict: str
    seconds: float
    tests: list[str]
    diff: str


# ------------------------------------------------------------------------------------------- making mutants


def mutants_of(path: Path, root: Path) -> list[Mutant]:
    """Every mutant of a file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    lines = text.splitlines(keepends=True)
    found = []
    for node, what, replacement in _changes(tree):
        source = _replaced(lines, node, replacement)
        if source is None or source == text:
            continue
        relative = path.relative_to(root).as_posix()
        diff = "".join(difflib.unified_diff(lines, source.splitlines(keepends=True), relative, relative, n=1))
        found.append(Mutant(relative, node.lineno, what, source, diff))
    return found


def _changes(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.stmt, str, ast.AST]]:
    """What may be changed: the node, in words, and what takes its place."""
    for node in _code(tree):
        if isinstance(node, ast.expr):
            for what, replacement in _expression(node):
                yield node, what, replacement
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _watched(node.value):
            yield node, "call removed", ast.Pass()
        elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
            yield node, "returns None", ast.Return(ast.Constant(None))
        elif isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
            changed = copy.deepcopy(node)
            changed.op = ARITHMETIC[type(node.op)]()
            yield node, "arithmetic", changed
        elif isinstance(node, ast.If | ast.While):
            # The condition's own node is changed, so that the body stays as it is written.
            yield node.test, "condition negated", ast.UnaryOp(ast.Not(), node.test)


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run: no docstrings, annotations, `__all__`, code for type checkers, logging or messages."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _unwatched(child):
                continue
            yield child
            yield from _code(child)


def _unwatched(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True  # a docstring
    if isinstance(node, ast.JoinedStr | ast.Assert):
        return True  # a message, and what holds anyway
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        return "__all__" in names or "LOGGER" in names
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name | ast.Attribute):
        return "TYPE_CHECKING" in ast.dump(node.test)
    return isinstance(node, ast.Call) and not _watched(node)


def _watched(call: ast.Call) -> bool:
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name not in UNWATCHED


def _expression(node: ast.expr) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        changed = copy.deepcopy(node)
        changed.ops[0] = COMPARISONS[type(node.ops[0])]()
        yield "comparison", changed
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not _text(node):
        changed = copy.deepcopy(node)
        changed.op = ARITHMETIC[type(node.op)]()
        yield "arithmetic", changed
    elif isinstance(node, ast.BoolOp):
        changed = copy.deepcopy(node)
        changed.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and for or" if isinstance(node.op, ast.Or) else "or for and", changed
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "negation removed", node.operand
    elif isinstance(node, ast.Constant):
        yield from _constant(node)
    elif isinstance(node, ast.Call):
        yield from _call(node)


def _constant(node: ast.Constant) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node.value, bool):
        yield "constant negated", ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield "constant off by one", ast.Constant(node.value + 1)
    elif isinstance(node.value, float):
        yield "constant doubled", ast.Constant(2 * node.value if node.value else 1.0)


def _call(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in SWAPPED:
        changed = copy.deepcopy(node)
        if isinstance(changed.func, ast.Attribute):
            changed.func.attr = SWAPPED[name]
        elif isinstance(changed.func, ast.Name):
            changed.func.id = SWAPPED[name]
        yield f"{SWAPPED[name]} for {name}", changed
    for index, keyword in enumerate(node.keywords):
        if keyword.arg is not None:
            changed = copy.deepcopy(node)
            del changed.keywords[index]
            yield f"argument {keyword.arg} dropped", changed


def _text(node: ast.BinOp) -> bool:
    """Whether an operator joins text or paths, where another one is only an error."""
    return any(isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
               for side in (node.left, node.right))  # fmt: skip


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _replaced(lines: Sequence[str], node: ast.expr | ast.stmt, replacement: ast.AST) -> str | None:
    """The file with the node's own text replaced, all else as it is written; None where that is no Python."""
    new = ast.unparse(ast.fix_missing_locations(replacement))
    if isinstance(replacement, ast.expr):
        new = f"({new})"
    assert node.end_lineno is not None and node.end_col_offset is not None
    first, last = lines[node.lineno - 1].encode(), lines[node.end_lineno - 1].encode()
    changed = first[: node.col_offset] + new.encode() + last[node.end_col_offset :]
    source = "".join([*lines[: node.lineno - 1], changed.decode(), *lines[node.end_lineno :]])
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return None
    return source


# ------------------------------------------------------------------------------------------- nearest tests


def nearest_tests(path: str, root: Path) -> list[str]:
    """Tests of a file of the package: those of its room that name its module first, then the room's others.

    A file without a room of its own in tests/ has the tests at the top and all that import it.
    """
    inside = Path(path).relative_to(PACKAGE)
    module = ".".join(["matchrt", *inside.with_suffix("").parts]).removesuffix(".__init__")
    room = _room(root / "tests", inside)
    candidates = sorted(room.rglob("test_*.py")) if room is not None else sorted((root / "tests").rglob("test_*.py"))
    imports = re.compile(rf"\b{re.escape(module)}\b|from {re.escape(module.rpartition('.')[0])} import .*"
                         rf"\b{re.escape(module.rpartition('.')[2])}\b")  # fmt: skip
    first = [test for test in candidates if imports.search(test.read_text(encoding="utf-8"))]
    others = [] if room is None else [test for test in candidates if test not in first]
    return [test.relative_to(root).as_posix() for test in (*first, *others)]


def _room(tests: Path, inside: Path) -> Path | None:
    """The deepest folder of tests/ that mirrors the file's folder."""
    for depth in range(len(inside.parts) - 1, 0, -1):
        folder = tests.joinpath(*inside.parts[:depth])
        if folder.is_dir():
            return folder
    return None


# ------------------------------------------------------------------------------------------- running them


class Runner:
    """Runs tests in copies of the tree, of which each process has one."""

    def __init__(self, root: Path, folder: Path, processes: int, timeout: float, marker: str) -> None:
        self._timeout, self._marker = timeout, marker
        self._copies: SimpleQueue[Path] = SimpleQueue()
        for index in range(processes):
            made = folder / f"{index}" / "tree"
            made.mkdir(parents=True)
            for name in COPIED:
                if (root / name).is_dir():
                    shutil.copytree(
                        root / name, made / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
                    )
                elif (root / name).exists():
                    shutil.copy2(root / name, made / name)
            if (root.parent / "shared").is_dir():
                (made.parent / "shared").symlink_to(root.parent / "shared")
            self._copies.put(made)

    def run(self, mutant: Mutant) -> Outcome:
        """Puts the mutant into a copy, runs its nearest tests, and takes it out again."""
        tree = self._copies.get()
        file = tree / mutant.path
        original = file.read_text(encoding="utf-8")
        tests = nearest_tests(mutant.path, tree)
        start = time.monotonic()
        try:
            file.write_text(mutant.source, encoding="utf-8")
            verdict = self.verdict(tree, tests)
        finally:
            file.write_text(original, encoding="utf-8")
            self._copies.put(tree)
        seconds = round(time.monotonic() - start, 1)
        return Outcome(mutant.path, mutant.line, mutant.what, verdict, seconds, tests, mutant.diff)

    def check(self, paths: Sequence[str]) -> None:
        """Runs the nearest tests of the files as they are. Tests that fail without a mutant would kill every mutant."""
        tree = self._copies.get()
        try:
            chosen = {tuple(nearest_tests(path, tree)) for path in paths}
            for tests in sorted(chosen):
                if (verdict := self.verdict(tree, tests)) != "survived":
                    raise SystemExit(f"These tests end as '{verdict}' without any mutant: {' '.join(tests)}")
        finally:
            self._copies.put(tree)

    def verdict(self, tree: Path, tests: Sequence[str]) -> str:
        """Of one run: killed, survived or timeout. Error of the tool: no test was there to run."""
        if not tests:
            return "survived"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-n0",
            "-p",
            "no:cacheprovider",
            "-m",
            self._marker,
            *tests,
        ]
        environment = {
            **os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
        }  # fmt: skip
        process = subprocess.Popen(command, cwd=tree, env=environment, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, start_new_session=True)  # fmt: skip
        try:
            output, _ = process.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return "timeout"
        if process.returncode in {0, 5}:  # all passed, or none was chosen
            return "survived"
        # 1: a test failed. 2: a file of tests could not be imported any more, which is noticed as well.
        if process.returncode in (1, 2):
            return "killed"
        raise RuntimeError(f"pytest ended with {process.returncode}:\n{output[-2000:]}")


def files_of(names: Sequence[str], root: Path) -> list[Path]:
    """Files of rooms (folders) or files, named below src/matchrt."""
    found: list[Path] = []
    for name in names:
        place = root / PACKAGE / name
        if not place.exists():
            raise SystemExit(f"There is no '{name}' below {PACKAGE}.")
        found += sorted(place.rglob("*.py")) if place.is_dir() else [place]
    return found


def choose(files: Sequence[Path], root: Path, count: int, seed: int) -> list[Mutant]:
    """So many mutants, drawn without replacement: first a file, then a kind of change, then one of that kind.

    Else the constants of one long table would be most of the sample.
    """
    generator = random.Random(seed)
    pools: dict[Path, dict[str, list[Mutant]]] = {}
    for file in files:
        for mutant in mutants_of(file, root):
            kind = "argument" if mutant.what.startswith("argument") else mutant.what
            pools.setdefault(file, {}).setdefault(kind, []).append(mutant)
    chosen: list[Mutant] = []
    while pools and len(chosen) < count:
        file = generator.choice(sorted(pools))
        kind = generator.choice(sorted(pools[file]))
        of_kind = pools[file][kind]
        chosen.append(of_kind.pop(generator.randrange(len(of_kind))))
        if not of_kind:
            del pools[file][kind]
        if not pools[file]:
            del pools[file]
    return chosen


def report(outcomes: Sequence[Outcome], seed: int) -> str:
    """The survivors' diffs and the score."""
    survivors = [outcome for outcome in outcomes if outcome.verdict == "survived"]
    parts = [f"\n{outcome.path}:{outcome.line}: {outcome.what}: SURVIVED\n{outcome.diff}" for outcome in survivors]
    noticed = len(outcomes) - len(survivors)
    late = sum(outcome.verdict == "timeout" for outcome in outcomes)
    share = 100 * noticed / max(1, len(outcomes))
    parts.append(f"\n{noticed} of {len(outcomes)} mutants killed ({late} by timeout), {share:.0f} %, seed {seed}")
    return "\n".join(parts)


def main() -> int:
    """Returns 1 where less was killed than `--require` asks."""
    parser = argparse.ArgumentParser(description="Mutation testing with the nearest tests only.")
    parser.add_argument("where", nargs="+", help="rooms or files below src/matchrt, e.g. serving runtime/fit.py")
    parser.add_argument("--count", type=int, default=20, help="mutants to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds a mutant")
    parser.add_argument("--marker", default="not slow and not gpu", help="pytest's -m")
    parser.add_argument("--json", type=Path, help="write every outcome here")
    parser.add_argument("--require", type=float, default=0.0, help="percent that must be killed")
    parser.add_argument("--list", action="store_true", help="show the mutants and run nothing")
    options = parser.parse_args()
    mutants = choose(files_of(options.where, ROOT), ROOT, options.count, options.seed)
    if options.list:
        print("\n".join(mutant.diff for mutant in mutants))
        return 0
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="matchrt-mutation-") as folder:
        runner = Runner(ROOT, Path(folder), options.processes, options.timeout, options.marker)
        runner.check([mutant.path for mutant in mutants])
        with ThreadPoolExecutor(options.processes) as pool:
            try:
                for outcome in pool.map(runner.run, mutants):
                    outcomes.append(outcome)
                    where = f"{outcome.path}:{outcome.line}  {outcome.what}"
                    print(f"{outcome.verdict:8} {outcome.seconds:6.1f} s  {where}", flush=True)
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                print("stopped; what was done so far:", file=sys.stderr)
    print(report(outcomes, options.seed))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
    noticed = sum(outcome.verdict != "survived" for outcome in outcomes)
    return 1 if 100 * noticed < options.require * len(outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
