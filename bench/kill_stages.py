"""Kills `matchrt match-many` in each of its stages, from descriptors to the map; compares the end with a clean run's.

    python bench/kill_stages.py IMAGES [--rounds 3] [--neighbours 6] [--resize 640] [--seed 0] [--json FILE]

The run is `match-many IMAGES --by retrieval --output database.db --map sparse --report report.html`. A cut-off copy of
one image is added, so that one fails. In every round SIGKILL strikes once in each stage, at a moment drawn from that
stage's length in the clean run, and the next run begins at once. The last run must give the clean run's pairs, failures
by name, content of the database (matches, two-view geometries), report, and models. Exits 1 at a difference.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kill_resume import conclude

from matchrt.batch.content import content_digest
from matchrt.batch.output import Output

STAGES = ("descriptors", "features", "matching", "writing", "mapping")
_POLL_SECONDS = 0.01
# Kills that strike after their stage are tried again so many times.
_TRIES = 4


@dataclass
class Tally:
    """What happened. kills: by the stage that they struck. images: that were registered, by model, in the clean run."""

    kills: dict[str, int] = field(default_factory=dict)
    rounds: int = 0
    pairs: int = 0
    verified: int = 0
    registered: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Trial:
    """One folder of images, whose map is made in a folder of its own."""

    def __init__(self, images: Path, folder: Path, options: list[str]) -> None:
        self.folder, self._images, self._options = folder, images, options
        self.database, self.map, self.report = folder / "database.db", folder / "sparse", folder / "report.html"

    def start(self) -> subprocess.Popen[bytes]:
        """The command, as a user would resume it."""
        self.folder.mkdir(exist_ok=True)
        command = ["match-many", str(self._images), "--by", "retrieval", "--output", str(self.database), *self._options]
        command += ["--map", str(self.map), "--report", str(self.report), "--json"]
        return subprocess.Popen(
            [sys.executable, "-m", "matchrt", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def stage(self) -> str | None:
        """What the run does now, from its files; None before the first stage and after the last."""
        beside = {path.name for path in self.folder.iterdir()}
        if self.map.exists():
            return None
        if any(name.startswith(".sparse.part") for name in beside):
            return "mapping"
        if any(name.startswith(".database.db.part") for name in beside):
            return "writing"
        if "database.db.journal" in beside:
            return "matching" if self._matched() else "features"
        return "descriptors" if "database.db.descriptors" in beside else None

    def _matched(self) -> int:
        """Pairs in a copy of the journal: opening the journal itself would lock it."""
        with tempfile.TemporaryDirectory() as copies:
            try:
                for path in self.folder.glob("database.db.journal*"):
                    shutil.copy(path, copies)
                with closing(sqlite3.connect(Path(copies) / "database.db.journal")) as base:
                    return int(base.execute("SELECT count(*) FROM matches").fetchone()[0])
            except (OSError, sqlite3.Error):
                return 0

    def result(self) -> dict[str, Any]:
        """What must be equal between runs."""
        facts = json.loads((self.map / "matchrt.json").read_text(encoding="utf-8"))
        output = Output(self.database)
        return {
            "pairs": self.database.with_name("database.db.pairs.txt").read_text(encoding="utf-8"),
            "failures": output.failed.read_text(encoding="utf-8") if output.failed.exists() else "",
            "database": content_digest(output),
            "report": self.report.read_text(encoding="utf-8"),
            "registered": [model["registered"] for model in facts["models"]],
            "files": sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*")),
        }


def finish(trial: Trial) -> dict[str, Any]:
    """Runs to the end; what the command says."""
    process = trial.start()
    said, printed = process.communicate()
    if process.returncode != 2 or b"error[" in printed:  # 2: one image is damaged
        raise RuntimeError(f"exit code {process.returncode}: {printed.decode()}")
    found: dict[str, Any] = json.loads(said)
    return found


def clean_run(trial: Trial) -> dict[str, float]:
    """Runs to the end; the seconds of each stage."""
    process, seconds, before = trial.start(), dict.fromkeys(STAGES, 0.0), time.monotonic()
    while process.poll() is None:
        stage = trial.stage()
        time.sleep(_POLL_SECONDS)
        now = time.monotonic()
        if stage is not None:
            seconds[stage] += now - before
        before = now
    process.communicate()
    return seconds


def kill_in(trial: Trial, stage: str, after: float) -> str | None:
    """Starts a run, and kills it so long after a stage began; the stage that it struck, None where it had ended."""
    process, began = trial.start(), None
    left = STAGES.index(stage)
    while process.poll() is None:
        now = trial.stage()
        if now is not None and STAGES.index(now) >= left:
            began = time.monotonic() if began is None else began
            if time.monotonic() - began >= after:
                process.send_signal(signal.SIGKILL)
                break
        time.sleep(_POLL_SECONDS)
    struck = trial.stage()
    process.communicate()
    return struck if process.returncode == -signal.SIGKILL else None


def rounds(images: Path, work: Path, options: list[str], count: int) -> Tally:
    """All rounds; the tally with its faults."""
    clean = Trial(images, work / "clean", options)
    seconds = clean_run(clean)
    print("clean run:", ", ".join(f"{stage} {spent:.1f} s" for stage, spent in seconds.items()), flush=True)
    said, wanted, tally = finish(clean), clean.result(), Tally()
    tally.pairs, tally.verified = said["pairs"], said["view_graph"]["verified"]
    tally.registered = wanted["registered"]
    for number in range(count):
        trial = Trial(images, work / f"killed{number}", options)
        for stage in STAGES:
            for _ in range(_TRIES):
                struck = kill_in(trial, stage, random.uniform(0, 0.9 * seconds[stage]))
                tally.kills[struck or "none"] = tally.kills.get(struck or "none", 0) + 1
                print(f"round {number}, meant for {stage}: struck {struck}", flush=True)
                if struck is None or STAGES.index(struck) >= STAGES.index(stage):
                    break
        finish(trial)
        found = trial.result()
        tally.rounds += 1
        tally.faults += [f"round {number}: {key} differs" for key in wanted if found[key] != wanted[key]]
        again = finish(trial)
        if again["tried_now"] or again["output_written"] or again["map"]["made_now"]:
            tally.faults.append(f"round {number}: a run after the last one does work again")
        if not tally.faults:
            shutil.rmtree(trial.folder)
    return tally


def copy_images(source: Path, folder: Path) -> Path:
    """The images, and a cut-off copy of the first."""
    shutil.copytree(source, folder)
    first = next(path for path in sorted(folder.iterdir()) if path.is_file())
    (folder / f"damaged{first.suffix}").write_bytes(first.read_bytes()[:5000])
    return folder


def main() -> None:
    """Prints the tally."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of photographs that give a map")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--neighbours", type=int, default=6)
    parser.add_argument("--resize", type=int, default=640)
    parser.add_argument("--option", action="append", default=[], help="a further option of match-many, as --option=--x")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the tally here too")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    options = ["--neighbours", str(arguments.neighbours), "--resize", str(arguments.resize), *arguments.option]
    with tempfile.TemporaryDirectory() as name:
        images = copy_images(arguments.images, Path(name) / "images")
        tally = rounds(images, Path(name), options, arguments.rounds)
    print(f"{tally.pairs} pairs, {tally.verified} verified, registered {tally.registered}; kills -9 {tally.kills}")
    conclude(asdict(tally), arguments.json)


if __name__ == "__main__":
    main()
