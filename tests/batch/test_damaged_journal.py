"""A journal that a disk or a stray write has changed: its pairs are matched again, or a named error says so."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from matchrt.batch.content import content_digest
from matchrt.batch.journal import Journal
from matchrt.batch.listing import PairSource
from matchrt.batch.output import Output
from matchrt.batch.results import Found, ListedPair, Result
from matchrt.batch.run import BatchReport, BatchRun, match_pairs
from matchrt.batch.sources import SourceImage, read_source
from matchrt.errors import MatchRTError
from matchrt.runtime.fit import Fit
from matchrt.runtime.match_data import ImageRef
from matchrt.runtime.preprocess import PreparedImage

NAMED = {"journal-damaged", "journal-format", "journal-failed", "output-exists"}
PLAN = {"pairs": "digest", "engine": "e"}
IMAGES = 24


class Work:
    """A run over files that hold only their names, with matches that follow from the pair's names."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder, self.images = folder, folder / "img"
        self.images.mkdir(parents=True)
        names = [f"{index:02}.png" for index in range(IMAGES)]
        for name in names[:-1]:  # the last one is missing, so that there are failures
            (self.images / name).write_text(name)
        pairs = folder / "pairs.txt"
        pairs.write_text("".join(f"{a} {b}\n" for i, a in enumerate(names) for b in names[i + 1 : i + 8]))
        self.run = BatchRun(PairSource(pairs, self.images), Output(folder / f"m.{suffix}"))
        self.matched = 0

    def match(self, pairs: Iterable[ListedPair]) -> Iterator[Result]:
        for pair in pairs:
            images = [read_source(prepared, self.images / name) for name in pair[1:]]
            bad = next((image for image in images if isinstance(image, MatchRTError)), None)
            facts = [image.facts for image in images if isinstance(image, SourceImage)]
            self.matched += 1
            yield Result(pair, bad or found(pair, *facts))

    def go(self) -> BatchReport:
        self.matched = 0
        return match_pairs(self.run, PLAN | {"pairs": self.run.source.digest()}, self.match)[0]

    def content(self) -> str:
        return content_digest(self.run.output) + self.run.output.failed.read_text()


def prepared(path: Path) -> PreparedImage:
    if not path.is_file():
        raise MatchRTError("image-missing", f"No '{path.name}'.", "Look.")
    return PreparedImage(ImageRef(path.name, 90, 70, 6), Fit(1.0, 1.0, 90, 70, 90, 70), None, None, 0.0, 0.0)


def found(pair: ListedPair, *facts: object) -> Found:
    generator = np.random.default_rng([ord(char) for char in pair.first + pair.second])
    points = generator.uniform(1, 60, (2, 20, 2)).astype(np.float32)
    scores = np.sort(generator.uniform(0.2, 1, 20).astype(np.float32))[::-1]
    return Found(points[0], points[1], scores, *facts)  # type: ignore[arg-type]


@pytest.fixture(params=["parquet", "h5"])
def work(tmp_path: Path, request: pytest.FixtureRequest) -> Work:
    pytest.importorskip({"h5": "h5py", "parquet": "pyarrow"}[request.param])
    return Work(tmp_path / "work", request.param)


def flip(data: bytearray, generator: np.random.Generator) -> None:
    for place in generator.integers(0, len(data), generator.integers(1, 4)):
        data[place] ^= 1 << int(generator.integers(0, 8))


def wipe(data: bytearray, generator: np.random.Generator) -> None:
    start = int(generator.integers(0, len(data) // 512)) * 512
    data[start : start + 512] = bytes(512)


def cut(data: bytearray, generator: np.random.Generator) -> None:
    del data[int(generator.integers(0, len(data))) :]


def swap(data: bytearray, generator: np.random.Generator) -> None:
    """Two blocks change places, as if the disk had written them to each other's."""
    one, two = (int(n) * 4096 for n in generator.choice(len(data) // 4096, 2, replace=False))
    data[one : one + 4096], data[two : two + 4096] = data[two : two + 4096], data[one : one + 4096]


@pytest.mark.parametrize("damage", [flip, wipe, cut, swap])
def test_damage_is_mended_or_named(
    work: Work, damage: Callable[[bytearray, np.random.Generator], None], tmp_path: Path
) -> None:
    first = work.go()
    wanted, whole = work.content(), work.run.journal_path.read_bytes()
    ends: Counter[str] = Counter()
    for seed in range(60):
        shutil.copy(work.run.output.path, tmp_path / "kept")
        data = bytearray(whole)
        damage(data, np.random.default_rng(seed))
        for side in work.folder.glob("m.*.journal-*"):
            side.unlink()
        work.run.journal_path.write_bytes(data)
        try:
            report = work.go()
        except MatchRTError as error:
            assert error.code in NAMED and error.remedy, error
            ends[error.code] += 1
            shutil.copy(tmp_path / "kept", work.run.output.path)
            continue
        assert work.content() == wanted, seed
        assert report.counts == first.counts
        ends["mended" if report.mended or work.matched else "harmless"] += 1
    assert sum(ends.values()) == 60 and (damage is not flip or ends["mended"] > 10), ends


def test_each_damaged_row_is_matched_again(work: Work) -> None:
    first = work.go()
    wanted = work.content()
    changes = {
        "UPDATE matches SET data = zeroblob(length(data)) WHERE pair = 3": 1,
        "UPDATE matches SET pair = 100000 WHERE pair = 4": 1,
        "UPDATE matches SET data = (SELECT data FROM matches WHERE pair = 6) WHERE pair = 5": 1,
        "DELETE FROM matches WHERE pair IN (7, 8)": 2,
        "UPDATE failures SET error = replace(error, 'No', 'On') WHERE pair IN (SELECT max(pair) FROM failures)": 1,
        "UPDATE files SET facts = replace(facts, '6', '1') WHERE image = 2": None,
        "DELETE FROM files WHERE image = 9": None,
        "UPDATE facts SET value = '0' WHERE key = 'revision'": 0,
        "UPDATE facts SET value = '9' WHERE key = 'listed'": 0,
    }
    for change, again in changes.items():
        with closing(sqlite3.connect(work.run.journal_path)) as base, base:
            assert base.execute(change).rowcount
        report = work.go()
        assert work.content() == wanted and report.counts == first.counts, change
        assert work.matched == again if again is not None else work.matched > 5, change


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE images SET name = X'30302E706E67' || X'00' WHERE id = 2",
        "DELETE FROM pairs WHERE id = 3",
        "UPDATE pairs SET second = 1 WHERE id = 3",
        "UPDATE facts SET value = replace(value, 'engine', 'enigne') WHERE key = 'plan'",
        "DELETE FROM facts WHERE key = 'list'",
    ],
)
def test_a_damaged_list_is_named(work: Work, change: str) -> None:
    work.go()
    with closing(sqlite3.connect(work.run.journal_path)) as base, base:
        assert base.execute(change).rowcount
    with pytest.raises(MatchRTError) as caught:
        work.go()
    assert caught.value.code == "journal-damaged" and "remove the journal" in caught.value.remedy


def test_damage_during_a_run_is_no_output(work: Work) -> None:
    work.go()
    with Journal(work.run.journal_path) as journal:
        journal._base.execute("UPDATE matches SET data = zeroblob(length(data)) WHERE pair = 3")
        before = work.run.output.path.read_bytes()
        with pytest.raises(MatchRTError) as caught:
            work.run.output.write(journal, work.images)
    assert caught.value.code == "journal-damaged" and work.run.output.path.read_bytes() == before


def test_journals_of_the_first_layout_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.begin(PLAN, [("a", "b")])
    with closing(sqlite3.connect(path)) as base:
        base.execute("PRAGMA user_version=1")
    before = path.read_bytes()
    with pytest.raises(MatchRTError) as caught:
        Journal(path)
    assert caught.value.code == "journal-format" and "another version" in caught.value.message
    assert path.read_bytes() == before
