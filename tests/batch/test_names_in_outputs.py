"""Names that are not UTF-8, that break lines, or that no output can hold: in every output the others are written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.commands import CommandLine

from matchrt import Matches

QUICK = ("--resize", "96")
SUFFIXES = {"h5": "h5py", "db": "pycolmap", "parquet": "pyarrow"}
LATIN = b"caf\xe9.png"
BROKEN = "a\nb\tc.png"


@pytest.fixture
def folder(scene: Path, tmp_path: Path) -> Path:
    """0.png, 1.png, a name with a line break and a tab, and one in Latin-1."""
    target = tmp_path / "names"
    target.mkdir()
    for index, name in enumerate((b"0.png", b"1.png", BROKEN.encode(), LATIN)):
        path = os.fsencode(target) + b"/" + name
        try:
            shutil.copy(os.fsencode(scene / "db" / f"{(0, 1, 2, 4)[index]}.png"), path)
        except OSError:
            pytest.skip("this file system has no such names")
    return target


def written(output: Path) -> set[str]:
    """The names of images in the output, as its users' reader gives them."""
    if output.suffix == ".h5":
        import h5py

        with h5py.File(output.with_name(f"feats_{output.name}")) as file:
            names: set[str] = set()
            file.visit(lambda name: names.add(name.removesuffix("/keypoints")) if name.endswith("keypoints") else None)
            return names
    if output.suffix == ".db":
        import pycolmap

        with pycolmap.Database.open(output) as base:
            return {image.name for image in base.read_all_images()}
    import pyarrow.parquet

    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(output).to_pylist()
    return {row[side] for row in rows if row["error"] is None for side in ("image0", "image1")}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("listed", [False, True])
def test_the_others_are_written(folder: Path, tmp_path: Path, suffix: str, listed: bool, cli: CommandLine) -> None:
    pytest.importorskip(SUFFIXES[suffix])
    output, source = tmp_path / f"m.{suffix}", folder
    others = {"0.png", "1.png"} if listed else {"0.png", "1.png", BROKEN}
    if listed:
        source = folder / "list.txt"
        source.write_bytes(b"0.png 1.png\n0.png " + LATIN + b"\n1.png " + LATIN + b"\n")
    ran = cli("match-many", source, "--output", output, *QUICK, "--json")
    assert ran.code == 2, ran.err
    failed = 2 if listed else 3
    assert (ran.json["matched"], ran.json["failed"]) == (1 if listed else 3, failed)
    assert {failure["error"]["code"] for failure in ran.json["failures"]} == {"matches-name"}
    assert written(output) == others
    lines = output.with_name(output.name + ".failed.txt").read_text(encoding="utf-8").splitlines()
    fields = [line.split("\t") for line in lines]
    assert len(fields) == failed and all(len(line) == 4 and r"caf\xe9.png" in line for line in fields)
    assert all("'caf\\xe9.png' is not UTF-8" in line[3] for line in fields)
    if not listed:
        assert sum(r"a\nb\tc.png" in line for line in fields) == 1
    told = cli("match-many", source, "--output", output, *QUICK, "--retry-failed")
    assert told.code == 2 and r"caf\xe9.png" in told.err and "up to date" in told.out
    (Path(os.fsdecode(os.fsencode(folder) + b"/" + LATIN))).rename(folder / "other.png")


def test_match_saves_pairs_of_such_names(folder: Path, tmp_path: Path, cli: CommandLine) -> None:
    ran = cli("match", folder, "--save", tmp_path / "out", *QUICK, "--json")
    assert ran.code == 0 and len(ran.json["pairs"]) == 6, ran.err
    saved = list((tmp_path / "out").iterdir())
    assert len(saved) == 6
    names = {Matches.load(path).image1.name for path in saved}
    assert any(os.fsencode(name).endswith(LATIN) for name in names)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_outside_of_the_root(scene: Path, tmp_path: Path, suffix: str, cli: CommandLine) -> None:
    pytest.importorskip(SUFFIXES[suffix])
    shutil.copy(scene / "db" / "0.png", tmp_path / "out.png")
    listing = tmp_path / "list.txt"
    listing.write_text(
        f"db/0.png db/1.png\ndb/0.png ../out.png\n{tmp_path}/out.png db/1.png\n{scene}/db/../db/1.png db/4.png\n"
        "DB/0.png db/1.png\n"
    )
    command = ("match-many", listing, "--root", scene, "--output", tmp_path / f"m.{suffix}", *QUICK)
    ran = cli(*command, "--json")
    assert ran.code == 2 and (ran.json["matched"], ran.json["failed"]) == (2, 3), ran.err
    codes = [failure["error"]["code"] for failure in ran.json["failures"]]
    assert codes == ["matches-name", "matches-name", "image-missing"]
    assert written(tmp_path / f"m.{suffix}") == {"db/0.png", "db/1.png", "db/4.png"}
    assert cli(*command, "--retry-failed", "--json").json["tried_now"] == 1


def test_if_no_name_fits_the_run_does_not_begin(scene: Path, tmp_path: Path, cli: CommandLine) -> None:
    pytest.importorskip("pyarrow")
    listing = tmp_path / "list.txt"
    listing.write_text(f"{scene}/db/0.png {scene}/db/1.png\n")
    ran = cli.fails("matches-name", "match-many", listing, "--root", scene / "none", "--output", tmp_path / "m.parquet")
    assert "--root" in ran.err and not (tmp_path / "m.parquet").exists()
    assert cli("match-many", listing, "--root", scene, "--output", tmp_path / "n.parquet", *QUICK).code == 0


def test_match_says_what_it_leaves_out(scene: Path, cli: CommandLine) -> None:
    (scene / "db" / "3.png").unlink()
    (scene / "db" / "IMG_1.CR2").touch()
    ran = cli("match", scene / "db", *QUICK, "--window", 1, "--json")
    assert ran.code == 0 and ran.json["skipped"][0]["what"] == ".cr2 files" and ran.json["skipped"][0]["count"] == 1
    assert "left out: 1 .cr2 files (" in cli("match", scene / "db", *QUICK, "--window", 1).out
