"""Runs every command of README.md, CONTRIBUTING.md and the pages of docs/ and examples/, word for word.

    python -m tools.check_commands                       # all pages
    python -m tools.check_commands --only docs/flax.md   # some
    python -m tools.check_commands --list                # what would run, and what is left out and why

Each page's commands run in order in a fresh copy of the tree, with the files that the pages name (a.jpg, pairs.txt,
outdoor_ds.ckpt …) and a fresh environment. Commands that need what is not there are marked in the page (blocks.py);
they are counted and listed. A command that is not marked and fails makes the script exit with 1.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tools.check_commands.blocks import NEEDS, Command, MarkError, commands_of
from tools.check_commands.files import CHECKPOINTS, copy_tree, make_checkpoint, make_files
from tools.check_commands.place import Place, make_place

ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 600.0
_AT_ONCE = 2  # pages; most commands keep one core busy
_TAIL = 30
_NO_EXTRA = re.compile(r"does not provide the extra '([^']+)'")


def pages(root: Path) -> list[Path]:
    """The pages whose commands are run, as paths from `root`."""
    found = [root / "README.md", root / "CONTRIBUTING.md"]
    found += sorted((root / "docs").rglob("*.md")) + sorted((root / "examples").rglob("*.md"))
    return [page for page in found if page.is_file() and not {"node_modules", "build"} & set(page.parts)]


def run_page(
    commands: Iterable[Command], place: Place, shared: Path
) -> tuple[list[tuple[Command, str]], list[Command]]:
    """Runs a page's commands: those that failed with their output, and those that were left out."""
    failed, left = [], []
    try:
        for command in commands:
            needs = command.needs or _missing_files(command, place, shared)
            if needs:
                left.append(replace(command, needs=needs))
                continue
            begin = time.perf_counter()
            code, output = place.run(command.text, command.language, _SECONDS)
            lost = _NO_EXTRA.search(output)
            verdict = "ok" if code == 0 and not lost else f"FAILED ({code})"
            print(f"{verdict:>10} {time.perf_counter() - begin:6.1f} s  {_short(command)}", flush=True)
            if verdict != "ok":
                failed.append((command, f"no extra '{lost[1]}'" if lost else output))
    finally:
        place.close()
    return failed, left


def _missing_files(command: Command, place: Place, shared: Path) -> str:
    """`weights` if the command names a checkpoint whose keys are not known here; makes those that it names."""
    named = [name for name in CHECKPOINTS if name in command.text]
    return "" if all(make_checkpoint(name, place.folder, shared) for name in named) else "weights"


def _short(command: Command) -> str:
    text = command.text.splitlines()[0]
    more = " …" if "\n" in command.text or len(text) > 100 else ""
    return f"{_name(command)}:{command.line}: {text[:100]}{more}"


def _name(command: Command) -> str:
    page = command.page
    return str(page.relative_to(ROOT) if page.is_relative_to(ROOT) else page)


def _report(failed: list[tuple[Command, str]], left: list[Command], ran: int) -> int:
    for command, output in failed:
        print(f"\n{_name(command)}:{command.line}: failed\n+ {command.text}")
        print("\n".join(output.rstrip().splitlines()[-_TAIL:]))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    counts = Counter(command.needs for command in left)
    print(
        f"\n{ran - len(failed)} commands passed, {len(failed)} failed, {len(left)} are marked and were left out; "
        f"{used.ru_utime + used.ru_stime:.0f} s of CPU time:"
    )
    for need, count in sorted(counts.items()):
        print(f"  {count:3d}  {need}: {NEEDS[need]}")
    return 1 if failed or not ran else 0


def main() -> int:
    """Runs what the arguments say; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=Path, nargs="+", metavar="FILE", help="pages, instead of all")
    parser.add_argument("--list", action="store_true", help="list the commands and what they need, and run nothing")
    arguments = parser.parse_args()
    chosen = pages(ROOT) if arguments.only is None else [path.resolve() for path in arguments.only]
    try:
        found = {page: commands for page in chosen if (commands := commands_of(page))}
    except (MarkError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.list:
        for command in (command for commands in found.values() for command in commands):
            print(f"{command.needs or 'runs':>10}  {_short(command)}")
        return 0
    with tempfile.TemporaryDirectory(prefix="commands-") as work:
        template = Path(work, "template")
        copy_tree(ROOT, template)
        make_files(template)
        port = threading.Lock()  # services of two pages would want the same port

        def check(item: tuple[int, list[Command]]) -> tuple[list[tuple[Command, str]], list[Command]]:
            index, commands = item
            runs = [command.text for command in commands if not command.needs]
            with port if any("matchrt serve" in text for text in runs) else contextlib.nullcontext():
                place = make_place(template, Path(work, str(index)), any("pip" in text for text in runs))
                return run_page(commands, place, ROOT.parent / "shared")

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            results = list(pool.map(check, enumerate(found.values())))
    failed, left = [one for wrong, _ in results for one in wrong], [one for _, marked in results for one in marked]
    ran = sum(map(len, found.values())) - len(left)
    return _report(failed, left, ran)


if __name__ == "__main__":
    sys.exit(main())
