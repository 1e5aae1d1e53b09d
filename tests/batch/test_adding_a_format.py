"""What docs/contributing/add-an-output-format.md says: a class and a line of the table make an output format."""

from __future__ import annotations

import csv
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import CommandLine

from matchrt._util.atomic import atomic_path
from matchrt.batch import output
from matchrt.batch.format import OutputFormat
from matchrt.batch.journal import Journal
from matchrt.batch.options import OutputOptions
from matchrt.batch.results import unpack
from matchrt.errors import MatchRTError
from matchrt.runtime.matcher import Matcher

PAGE = Path(__file__).parents[2] / "docs" / "contributing" / "add-an-output-format.md"


class CsvOutput(OutputFormat):
    """One row a match."""

    def write(self, journal: Journal, path: Path, root: Path, options: OutputOptions) -> None:
        """Writes the rows atomically. Error: output-unwritable."""
        with atomic_path(path, f".{path.name}.part") as part, part.open("w", encoding="utf-8", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(["image0", "image1", "x0", "y0", "x1", "y1", "score"])
            for pair, data in journal.matches():
                for point0, point1, score in zip(*unpack(data), strict=True):
                    rows.writerow([pair.first, pair.second, *point0, *point1, score])


class PickyOutput(CsvOutput):
    """One that has something to say before the work, and makes a second file."""

    def files(self, path: Path, options: OutputOptions) -> list[Path]:
        return [path.with_suffix(".names"), path]

    def check(self, options: OutputOptions) -> None:
        if options.layout == "sparse":
            raise MatchRTError("csv-layout", "There is no sparse .csv.", "Leave --layout out.")

    def write(self, journal: Journal, path: Path, root: Path, options: OutputOptions) -> None:
        names = sorted(row.name for row in journal.images())
        path.with_suffix(".names").write_text("\n".join(names), encoding="utf-8")
        super().write(journal, path, root, options)

    def content(self, path: Path) -> Iterator[bytes]:
        yield path.suffix.encode()


@pytest.fixture
def two_pairs(scene: Path) -> Path:
    path = scene.parent / "two.txt"
    path.write_text("db/0.png db/1.png\ndb/0.png db/4.png\n", encoding="utf-8")
    return path


@pytest.fixture
def with_csv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "FORMATS", {**output.FORMATS, ".csv": CsvOutput()})


@pytest.mark.usefixtures("with_csv")
def test_a_class_and_a_line_of_the_table(cli: CommandLine, two_pairs: Path, scene: Path, tmp_path: Path) -> None:
    path = tmp_path / "matches.csv"
    arguments = ("match-many", two_pairs, "--root", scene, "--output", path, "--digest", "--json")
    ran = cli(*arguments)
    assert ran.code == 0
    assert ran.json["outputs"] == [str(path)] and ran.json["matched"] == 2 and ran.json["output_written"]
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    with Matcher() as matcher:
        for first, second in (("db/0.png", "db/1.png"), ("db/0.png", "db/4.png")):
            matches = matcher.match(scene / first, scene / second)
            written = [row for row in rows if (row["image0"], row["image1"]) == (first, second)]
            assert len(written) == len(matches) > 20
            for row, point0, point1, score in zip(
                written, matches.keypoints0, matches.keypoints1, matches.scores, strict=True
            ):
                assert [float(row[key]) for key in ("x0", "y0", "x1", "y1")] == pytest.approx([*point0, *point1])
                assert float(row["score"]) == pytest.approx(score)
    again = cli(*arguments)  # the journal knows that the file is there
    assert again.code == 0 and not again.json["output_written"]
    assert again.json["content_sha256"] == ran.json["content_sha256"]


@pytest.mark.usefixtures("with_csv")
def test_the_new_suffix_is_named_where_another_is_unknown(
    cli: CommandLine, two_pairs: Path, scene: Path, tmp_path: Path
) -> None:
    ran = cli("match-many", two_pairs, "--root", scene, "--output", tmp_path / "m.tsv")
    assert ran.code == 2 and "output-format" in ran.err and ".csv" in ran.err


def test_a_format_checks_before_the_work_and_may_have_more_files(
    cli: CommandLine, two_pairs: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "FORMATS", {".csv": PickyOutput()})
    path = tmp_path / "matches.csv"
    arguments = ("match-many", two_pairs, "--root", scene, "--output", path)
    cli.fails("csv-layout", *arguments, "--layout", "sparse")
    assert not list(tmp_path.glob("matches.csv*"))
    ran = cli(*arguments, "--digest", "--json")
    assert ran.code == 0 and ran.json["outputs"] == [str(path.with_suffix(".names")), str(path)]
    assert path.with_suffix(".names").read_text(encoding="utf-8").split() == ["db/0.png", "db/1.png", "db/4.png"]


def test_content_is_the_files_bytes_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(b"x" * (1 << 20) + b"y")
    assert b"".join(CsvOutput().content(path)) == path.read_bytes()
    assert CsvOutput().files(path, OutputOptions()) == [path]


def test_the_page_shows_the_class_that_is_tested_here() -> None:
    assert inspect.getsource(CsvOutput) in PAGE.read_text(encoding="utf-8")
