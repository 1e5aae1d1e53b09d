"""Kills `matchrt match-many` with SIGKILL at random moments, resumes it, and compares the output with a clean run's.

    python bench/kill_resume.py [--kills 20] [--images 40] [--format h5] [--seed 0] [--json FILE]

The images are crops of one computed texture, and one of them is damaged, so that pairs fail too. Every third kill
waits for the output's temporary file, to strike while the output is written; the others come at a moment drawn from the
length of the clean run. After each kill a copy of the journal is opened: a pair that was done before must be done with
the same bytes. A run that ends before its kill is compared, and the next one begins anew. Exits 1 at a difference.
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

import cv2
import numpy as np

from matchrt.batch.content import content_digest
from matchrt.batch.output import Output

_FORMATS = ("h5", "db", "parquet")
_WRITING_EVERY = 3
_POLL_SECONDS = 0.002


@dataclass
class Tally:
    """What happened. phases: of the kills, by what was on the disk right after them."""

    kills: int = 0
    compared: int = 0
    pairs: int = 0
    phases: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def make_images(folder: Path, count: int, seed: int) -> Path:
    """Overlapping crops of a texture, one of them cut off, and the list of all their pairs."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    whole = np.zeros((400, 520), np.float32)
    for scale in (2, 4, 8, 16, 32):
        noise = generator.random((400 // scale + 2, 520 // scale + 2), dtype=np.float32)
        whole += cv2.resize(noise, (520, 400), interpolation=cv2.INTER_CUBIC) * scale**-0.5
    whole = cv2.normalize(whole, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    names = [f"part/{index:03}.png" for index in range(count)]
    (folder / "part").mkdir()
    for name in names:
        y, x = generator.integers(0, 80), generator.integers(0, 80)
        cv2.imwrite(str(folder / name), whole[y : y + 120, x : x + 160])
    damaged = folder / names[count // 2]
    damaged.write_bytes(damaged.read_bytes()[:500])
    pairs = [f"{first} {second}\n" for i, first in enumerate(names) for second in names[i + 1 :]]
    (folder / "pairs.txt").write_text("".join(pairs), encoding="utf-8")
    return folder / "pairs.txt"


class Trial:
    """One list, matched into one output of a folder that can be emptied."""

    def __init__(self, pairs: Path, folder: Path, kind: str) -> None:
        self.folder, self._pairs = folder, pairs
        self.output = Output(folder / f"out.{kind}")
        self.journal = folder / f"out.{kind}.journal"

    def start(self) -> subprocess.Popen[bytes]:
        """The command, as a user would resume it."""
        self.folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "matchrt", "match-many", str(self._pairs), "--output", str(self.output.path)]
        return subprocess.Popen(
            [*command, "--resize", "96", "--json"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def content(self) -> str:
        """The digest of output, and of the list of failed pairs."""
        return content_digest(self.output) + self.output.failed.read_text(encoding="utf-8")

    def temporary(self) -> list[Path]:
        """Files of an output that is being written."""
        return [path for path in self.folder.glob(".*") if ".part" in path.name]

    def leftovers(self) -> list[str]:
        """What a finished run should have removed."""
        expected = {path.name for path in (*self.output.files, self.output.failed, self.journal)}
        return sorted({path.name for path in self.folder.iterdir()} - expected)

    def done(self) -> dict[tuple[str, int], bytes]:
        """Results in a copy of the journal, by table and pair: opening the journal itself would tidy it up."""
        with tempfile.TemporaryDirectory() as copies:
            for path in self.folder.glob(f"{self.journal.name}*"):
                if not path.name.endswith(".scratch"):
                    shutil.copy(path, copies)
            copy = Path(copies) / self.journal.name
            if not copy.exists():
                return {}
            with closing(sqlite3.connect(copy)) as base:
                if base.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
                    raise RuntimeError("the journal is damaged")
                if not base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    return {}
                tables = {"matches": "data", "failures": "error"}
                queries = {table: f"SELECT pair, {column} FROM {table}" for table, column in tables.items()}
                return {(table, pair): data for table, sql in queries.items() for pair, data in base.execute(sql)}


def kill_once(trial: Trial, moment: float, writing: bool) -> str | None:
    """Starts a run and kills it; the phase that it was in, None where it ended by itself before."""
    process = trial.start()
    started = time.monotonic()
    while process.poll() is None:
        struck = trial.temporary() if writing else time.monotonic() - started > moment
        if struck:
            time.sleep(random.uniform(0, 0.05) if writing else 0)
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(_POLL_SECONDS)
    _, printed = process.communicate()
    if process.returncode == -signal.SIGKILL:
        if trial.temporary():
            return "writing the output"
        return "matching" if trial.done() else "before the first commit"
    require_finished(process.returncode, printed)
    return None


def require_finished(code: int, printed: bytes) -> None:
    """Raises RuntimeError where a run did not end as it should: with 2, because one image is damaged."""
    if code != 2 or b"error[" in printed:
        raise RuntimeError(f"exit code {code}: {printed.decode()}")


def finish(trial: Trial) -> float:
    """Runs to the end; seconds."""
    started = time.monotonic()
    process = trial.start()
    _, printed = process.communicate()
    require_finished(process.returncode, printed)
    return time.monotonic() - started


def compare(trial: Trial, wanted: str, tally: Tally) -> None:
    """Notes a fault where a finished run is not equal to the clean one."""
    tally.compared += 1
    if trial.content() != wanted:
        tally.faults.append("the output differs from the clean run's")
    if trial.leftovers():
        tally.faults.append(f"left behind: {trial.leftovers()}")


def kill_and_resume(kills: int, images: int, kind: str, seed: int, work: Path) -> Tally:
    """All kills; the tally with its faults."""
    random.seed(seed)
    pairs = make_images(work / "images", images, seed)
    clean = Trial(pairs, work / "clean", kind)
    length = finish(clean)
    wanted, tally = clean.content(), Tally(pairs=len(clean.done()))
    trial, before = Trial(pairs, work / "killed", kind), {}
    while tally.kills < kills:
        writing = tally.kills % _WRITING_EVERY == _WRITING_EVERY - 1
        phase = kill_once(trial, random.uniform(0, length), writing)
        if phase is None:
            compare(trial, wanted, tally)
            shutil.rmtree(trial.folder)
            before = {}
            continue
        tally.kills += 1
        print(f"kill {tally.kills}: {phase}", flush=True)
        tally.phases[phase] = tally.phases.get(phase, 0) + 1
        now = trial.done()
        if any(now.get(key) != value for key, value in before.items()):
            tally.faults.append(f"kill {tally.kills}: a committed result is lost or changed")
        before = now
    finish(trial)
    compare(trial, wanted, tally)
    return tally


def conclude(tally: dict[str, Any], target: Path | None) -> None:
    """Prints the faults, writes the tally, and ends the process: with 1 if there are faults."""
    for fault in tally["faults"]:
        print(f"FAULT: {fault}")
    print("equal to the clean run" if not tally["faults"] else "NOT equal to the clean run")
    if target is not None:
        target.write_text(json.dumps(tally, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if tally["faults"] else 0)


def main() -> None:
    """Prints the tally."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=40, help="of 160x120; all their pairs are matched")
    parser.add_argument("--format", choices=_FORMATS, default="h5")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the tally here too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        tally = kill_and_resume(arguments.kills, arguments.images, arguments.format, arguments.seed, Path(work))
    print(f"{tally.pairs} pairs, {tally.kills} kills -9 {tally.phases}, {tally.compared} finished runs compared")
    conclude(asdict(tally), arguments.json)


if __name__ == "__main__":
    main()
