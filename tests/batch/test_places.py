"""No two files of a run are one, however their paths are written, and what is there stays as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.commands import CommandLine

from matchrt.batch import places
from matchrt.batch.places import Places
from matchrt.errors import MatchRTError

QUICK = ("--resize", "96")


@pytest.fixture
def done(scene: Path, tmp_path: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """A finished run of one pair in the working folder; the command without its --output."""
    pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    Path("pairs.txt").write_text("db/0.png db/1.png\n")
    command = ("match-many", "pairs.txt", "--root", scene, *QUICK)
    assert cli(*command, "--output", "m.h5").code == 0
    return command


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    "way", ["{name}", "./{name}", "sub/../{name}", "{here}/{name}", "link", "hard", "folder/{name}"]
)
@pytest.mark.parametrize("name", ["m.h5.journal", "m.h5", "pairs.txt", "images/db/0.png", "m.h5.failed.txt"])
def test_features_in_any_spelling(
    done: tuple[object, ...], tmp_path: Path, way: str, name: str, cli: CommandLine
) -> None:
    if name == "m.h5.failed.txt":
        Path(name).write_text("old")
    Path("sub").mkdir()
    Path("folder").symlink_to(tmp_path)
    Path("link").symlink_to(tmp_path / name)
    if way == "hard":
        os.link(name, "hard")
    before = files(tmp_path)
    features = way.format(name=name, here=tmp_path)
    code = "output-is-input" if name in ("pairs.txt", "images/db/0.png") else "output-twice"
    cli.fails(code, *done, "--output", "m.h5", "--features", features)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--output", "n.h5", "--journal", "n.h5"), "output-twice"),
        (("--output", "n.h5", "--journal", "feats_n.h5"), "output-twice"),
        (("--output", "n.h5", "--journal", "n.h5.failed.txt"), "output-twice"),
        (("--output", "n.h5", "--features", "n.h5.journal-wal"), "output-twice"),
        (("--output", "n.h5", "--features", ".n.h5.part"), "output-twice"),
        (("--output", "n.h5", "--journal", "pairs.txt"), "output-is-input"),
        (("--output", "n.h5", "--journal", "images/db/1.png"), "output-is-input"),
        (("--output", "e.db", "--journal", "e.h5", "--engine", "e.h5"), "output-is-input"),
    ],
)
def test_other_files_of_a_run(
    done: tuple[object, ...], tmp_path: Path, options: tuple[str, ...], code: str, cli: CommandLine
) -> None:
    if "--engine" in options:
        pytest.importorskip("pycolmap")
        from matchrt.runtime.bundled import bundled_path

        engine = bundled_path("loftr-lite")
        Path("e.h5").write_bytes(engine.read_bytes())
        Path("e.h5.json").write_bytes(engine.with_name(engine.name + ".json").read_bytes())
    before = files(tmp_path)
    cli.fails(code, *done, *options)
    assert files(tmp_path) == before


def test_an_output_that_is_a_listed_image(done: tuple[object, ...], tmp_path: Path, cli: CommandLine) -> None:
    Path("images/x.h5").write_bytes(Path("images/db/0.png").read_bytes())
    Path("list.txt").write_text("db/0.png x.h5\n")
    before = files(tmp_path)
    cli.fails("output-is-input", "match-many", "list.txt", *done[2:], "--output", "images/x.h5")
    assert files(tmp_path) == before
    Path("new.txt").write_text("db/0.png y.h5\n")  # it is not there yet: the journal would become the image
    cli.fails("output-is-input", "match-many", "new.txt", *done[2:], "--output", "z.h5", "--journal", "images/y.h5")
    assert not Path("images/y.h5").exists()


def test_different_files_are_left_alone(done: tuple[object, ...], cli: CommandLine) -> None:
    assert cli(*done, "--output", "n.h5", "--features", "images/n.h5", "--journal", "j").code == 0
    assert cli(*done, "--output", "images/db/n.h5").code == 0  # beside the images
    assert cli(*done, "--output", "N.H5", "--features", "features.h5").code == 0


def test_upper_and_lower_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, failed = tmp_path / "J", tmp_path / "f"
    Places(journal, [tmp_path / "j"], failed).require_unread(tmp_path / "F", "the list")
    monkeypatch.setattr(places, "_folds_case", lambda folder: True)
    with pytest.raises(MatchRTError) as caught:
        Places(journal, [tmp_path / "j"], failed)
    assert caught.value.code == "output-twice"
    with pytest.raises(MatchRTError) as caught:
        Places(journal, [tmp_path / "o"], failed).require_unread(tmp_path / "F", "the list")
    assert caught.value.code == "output-is-input"
    with pytest.raises(MatchRTError) as caught:
        Places(journal, [tmp_path / "o"], failed).image_check(tmp_path)("O")
    assert caught.value.code == "output-is-input"
