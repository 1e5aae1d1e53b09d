"""Lists and folders as names below a root."""

from __future__ import annotations

from pathlib import Path

import pytest

from matchrt.batch.listing import PairSource
from matchrt.errors import MatchRTError


def fails(code: str, source: Path, root: Path | None = None, window: int | None = None) -> str:
    with pytest.raises(MatchRTError) as caught:
        list(PairSource(source, root, window).pairs())
    assert caught.value.code == code
    return caught.value.message


def test_names_are_what_the_list_says(tmp_path: Path) -> None:
    listing = tmp_path / "pairs.txt"
    listing.write_text(f'# a comment\n\na/b.jpg\t./c.jpg\r\n"d e.jpg" {tmp_path}/f.jpg\na//b.jpg it\'s.jpg\n')
    source = PairSource(listing)
    assert source.base == tmp_path
    assert list(source.pairs()) == [("a/b.jpg", "c.jpg"), ("d e.jpg", "f.jpg"), ("a/b.jpg", "it's.jpg")]
    other = PairSource(listing, tmp_path / "elsewhere")
    with pytest.raises(MatchRTError) as caught:
        list(other.pairs())
    assert caught.value.code == "matches-name"


def test_digest_tells_lists_apart(tmp_path: Path) -> None:
    one, two = tmp_path / "1.txt", tmp_path / "2.txt"
    one.write_text("a b\nc d\n")
    two.write_text("# the same\na   ./b\nc d")
    assert PairSource(one).digest() == PairSource(two).digest()
    two.write_text("c d\na b\n")
    assert PairSource(one).digest() != PairSource(two).digest()


@pytest.mark.parametrize("root", [None, "."])
def test_folders(tmp_path: Path, root: str | None) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("2.png", "10.png", "1.png"):
        (folder / name).touch()
    source = PairSource(folder, tmp_path / root if root else None, 1)
    before = "in/" if root else ""
    wanted = [(f"{before}1.png", f"{before}2.png"), (f"{before}2.png", f"{before}10.png")]
    assert list(source.pairs()) == wanted
    assert all((source.base / name).is_file() for pair in wanted for name in pair)


@pytest.mark.parametrize(
    ("folder", "root"), [("in", "{here}"), ("{here}/in", "."), ("in", "."), ("{here}/in", "{here}")]
)
def test_folder_and_root_may_each_be_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, root: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).touch()
    source = PairSource(Path(folder.format(here=tmp_path)), Path(root.format(here=tmp_path)))
    assert list(source.pairs()) == [("in/a.png", "in/b.png")]


def test_absolute_paths_below_a_relative_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.txt").write_text(f"{tmp_path}/in/a.png in/b.png\n")
    assert list(PairSource(Path("pairs.txt"), Path()).pairs()) == [("in/a.png", "in/b.png")]
    assert list(PairSource(Path("pairs.txt")).pairs()) == [("in/a.png", "in/b.png")]


def test_what_is_no_list(tmp_path: Path) -> None:
    listing = tmp_path / "pairs.txt"
    fails("pairs-missing", listing)
    for text, code in (("a b\na b c\n", "pairs-line"), ('a "b\n', "pairs-line"), ("a b\nc ./c\n", "pairs-same"),
                       ("a ../b\n", "matches-name")):  # fmt: skip
        listing.write_text(text)
        message = fails(code, listing)
        assert code == "matches-name" or ":" in message
    listing.write_bytes(b"\xff\xfe\x00")
    fails("pairs-format", listing)
    fails("pairs-window", listing, None, 3)
    fails("pairs-window", tmp_path, None, 0)
