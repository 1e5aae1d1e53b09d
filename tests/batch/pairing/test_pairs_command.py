"""`matchrt pairs`, and the same choice in `match-many`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from support.commands import CommandLine
from support.pictures import texture

ENGINE = ("--engine", "loftr-lite")
# The photographs that come with the package are the views of one thing, and textures those of others.
CROPS = ((0, 0), (40, 12), (16, 30))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three crops of each of three textures: `0 a.png` (a name with a blank) to `2 c.png`."""
    place = tmp_path / "images"
    place.mkdir()
    for number in range(3):
        whole = np.roll(texture(300, 400), 97 * number, axis=1)[:, ::-1] if number else texture(300, 400)
        whole = whole if number < 2 else (255 - whole.swapaxes(0, 1)[:300, :300]).repeat(2, 0).repeat(2, 1)
        for letter, (x, y) in zip("abc", CROPS, strict=True):
            crop = np.ascontiguousarray(whole[y : y + 200, x : x + 240])
            PILImage.fromarray(crop).save(place / f"{number} {letter}.png")
    return place


def test_retrieval_goes_on_where_it_was(cli: CommandLine, folder: Path, tmp_path: Path) -> None:
    listing = tmp_path / "pairs.txt"
    command = ("pairs", folder, "--output", listing, *ENGINE, "--neighbours", 2, "--json")
    ran = cli(*command)
    assert ran.code == 0, ran.err
    assert ran.json["images"] == ran.json["described_now"] == 9 and ran.json["without_pair"] == []
    lines = listing.read_text(encoding="utf-8").splitlines()
    assert ran.json["pairs"] == len(lines) and '"0 a.png" "0 b.png"' in lines
    same = sum(line.split('"')[1][0] == line.split('"')[3][0] for line in lines)
    assert same >= 8  # of the nine true pairs
    again = cli(*command)
    assert again.json["described_now"] == 0 and listing.read_text(encoding="utf-8").splitlines() == lines
    # Another picture under the same name, and one that is damaged.
    (folder / "1 a.png").write_bytes((folder / "0 a.png").read_bytes())
    (folder / "1 b.png").write_bytes((folder / "1 b.png").read_bytes()[:300])
    changed = cli(*command)
    assert changed.code == 2 and changed.json["described_now"] == 2
    assert [failure["error"]["code"] for failure in changed.json["failures"]] == ["image-truncated"]
    assert "1 b.png" in changed.json["without_pair"]
    assert '"0 a.png" "1 a.png"' in listing.read_text(encoding="utf-8")


def test_a_killed_run_gives_what_a_whole_one_gives(cli: CommandLine, folder: Path, tmp_path: Path) -> None:
    rest = ("--neighbours", "2", "--json", *ENGINE)
    command = ("pairs", folder, *rest, "--output")
    cli(*command, tmp_path / "whole.txt")
    kept = tmp_path / "killed.txt.descriptors"
    child = subprocess.Popen(
        [sys.executable, "-m", "matchrt", *map(str, (*command, tmp_path / "killed.txt"))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not kept.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.2)
    child.kill()
    child.wait()
    ran = cli(*command, tmp_path / "killed.txt")
    assert ran.code == 0, ran.err
    assert (tmp_path / "killed.txt").read_bytes() == (tmp_path / "whole.txt").read_bytes()


def test_window_and_mistakes(cli: CommandLine, folder: Path, tmp_path: Path) -> None:
    listing = tmp_path / "p.txt"
    ran = cli("pairs", folder, "--by", "window", "--window", 1, "--loop", "--output", listing, "--json")
    assert ran.json["pairs"] == 9 and '"0 a.png" "2 c.png"' in listing.read_text(encoding="utf-8")
    assert not (tmp_path / "p.txt.descriptors").exists()
    cli.fails("pairs-exif", "pairs", folder, "--by", "gps", "--output", listing)
    cli.fails("pairs-exif", "pairs", folder, "--by", "time", "--output", listing)
    cli.fails("pairs-missing", "pairs", tmp_path / "none", "--output", listing)
    cli.fails("pairs-folders", "pairs", folder / "0 a.png", "--output", listing)
    cli.fails("output-is-input", "pairs", folder, "--output", folder / "0 a.png")
    cli.fails("output-twice", "pairs", folder, "--output", listing, "--descriptors", listing)
    (tmp_path / "text").write_text("no database of ours, and long enough to be looked at" * 9, encoding="utf-8")
    cli.fails("journal-format", "pairs", folder, "--output", listing, *ENGINE, "--descriptors", tmp_path / "text")
    assert "Example: matchrt pairs" in cli("pairs", "--help").out


def test_why_no_pair_is_left(cli: CommandLine, folder: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for name in ("0 a.png", "1 a.png"):
        (few / name).write_bytes((folder / name).read_bytes())
    command = ("pairs", few, "--output", tmp_path / "p.txt", *ENGINE)
    assert "--min-similarity" in cli.fails("pairs-empty", *command, "--min-similarity", "1").err
    (few / "2 a.png").write_bytes((few / "1 a.png").read_bytes())
    assert cli(*command, "--min-similarity", 1, "--json").json["pairs"] == 1  # equal images
    for path in sorted(few.iterdir())[1:]:
        path.write_bytes(path.read_bytes()[:300])
    assert "2 of its 3 images" in cli.fails("pairs-empty", *command).err


def test_names_that_are_not_utf8_are_valid_json(cli: CommandLine, folder: Path, tmp_path: Path) -> None:
    strange = os.fsencode(folder) + b"/\xff.png"
    try:
        Path(os.fsdecode(strange)).write_bytes((folder / "0 a.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    ran = cli("pairs", folder, "--by", "window", "--output", tmp_path / "p.txt", "--json")
    assert ran.code == 2 and "\\ud" not in ran.out
    ran.json["failures"][0]["error"]["message"].encode()


def test_match_many_chooses_and_reports(cli: CommandLine, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    output, page = tmp_path / "m.h5", tmp_path / "report.html"
    start = ("match-many", folder, *ENGINE, "--output", output, "--resize", 96)
    more = ("--by", "retrieval", "--retrieval-engine", "loftr-lite", "--neighbours", 2, "--report", page)
    ran = cli(*start, *more, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["pairs"] == ran.json["chosen"]["pairs"] < 36
    graph = ran.json["view_graph"]
    assert graph["images"] == 9 and sum(bar["pairs"] for bar in graph["inliers_histogram"]) == graph["verified"]
    assert sum(graph["components"]) + len(graph["images_without_partner"]) == 9
    text = page.read_text(encoding="utf-8")
    assert text.count("<circle") == sum(graph["components"]) and "data:image/jpeg;base64," in text
    assert str(page) in ran.json["outputs"] and "http" not in text
    again = cli(*start, *more, "--json")
    assert again.json["tried_now"] == again.json["chosen"]["described_now"] == 0
    cli.fails("usage", *start, "--by", "retrieval", "--window", 3)
    cli.fails("usage", *start, "--map", tmp_path / "sparse")
    cli.fails("output-format", *start, "--report", tmp_path / "report.pdf")
    cli.fails("pairs-folders", "match-many", tmp_path / "m.h5.pairs.txt", "--by", "window", "--output", output)
    # A root above the folder: names begin with the folder's.
    other = ("match-many", folder, *ENGINE, "--output", tmp_path / "n.h5", "--resize", 96, "--json")
    looped = cli(*other, "--root", tmp_path, "--window", 1, "--loop")
    assert looped.json["pairs"] == 9 and looped.json["view_graph"]["images"] == 9, looped.err
    assert all(name.startswith("images/") for name in looped.json["view_graph"]["images_without_partner"])
