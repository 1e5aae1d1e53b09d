"""Lists and folders as names below a root."""

from __future__ import annotations

from pathlib import Path

import pytest

from matchrt.batch.journal import Journal
from matchrt.batch.listing import PairSource
from matchrt.batch.names import one_line, readable, unfit
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
    outside = [name for pair in other.pairs() for name in pair if unfit(name)]
    assert outside == [f"{tmp_path}/f.jpg"]


def test_a_list_that_changes_after_it_was_read_is_refused(tmp_path: Path) -> None:
    """A second run with other options writes its list at the same place, while the first one is reading it."""
    listing = tmp_path / "pairs.txt"
    listing.write_text("a.jpg b.jpg\na.jpg c.jpg\n")
    source = PairSource(listing)
    read = source.digest()
    assert list(source.unchanged(read)) == list(source.pairs())
    listing.write_text("a.jpg b.jpg\n")
    plan = {"pairs": read}
    with Journal(tmp_path / "j") as journal:
        with pytest.raises(MatchRTError) as caught:
            journal.begin(plan, source.unchanged(read))
        assert caught.value.code == "pairs-changed" and journal.plan() is None and journal.counts().pairs == 0


def test_one_image_has_one_name(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "sub"
    folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for name in ("a.png", "b.png"):
        (folder / name).touch()
    listing = tmp_path / "pairs.txt"
    listing.write_text(
        f"sub/a.png sub/b.png\nsub/../sub/a.png {tmp_path}/in/sub/b.png\n"
        f"../in/sub/a.png {tmp_path}/link/sub/b.png\n../pairs.txt sub/b.png\nsub/../none.png sub/b.png\n"
    )
    names = list(PairSource(listing, tmp_path / "link").pairs())
    assert names[:3] == [("sub/a.png", "sub/b.png")] * 3
    assert [unfit(first) is None for first, _ in names[3:]] == [False, False]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    listing = tmp_path / "pairs.txt"
    listing.write_bytes(b"caf\xe9.png b.png\n")
    ((first, second),) = PairSource(listing).pairs()
    assert first.encode("utf-8", "surrogateescape") == b"caf\xe9.png" and unfit(second) is None
    error = unfit(first)
    assert error is not None and error.code == "matches-name"
    assert readable(first) == one_line(first) == "caf\\xe9.png"
    assert len(PairSource(listing).digest()) == 64


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a\tb\nc\r.png", "a\\tb\\nc\\r.png"),
        ("a\\n.png", "a\\\\n.png"),
        ("\x1c\x85\u2028\u2029\x0b", "\\x1c\\x85\\u2028\\u2029\\x0b"),
        ("größe 中.png", "größe 中.png"),
    ],
)
def test_a_field_is_one_line(name: str, line: str) -> None:
    assert one_line(name) == line and len(one_line(name).splitlines()) == 1


def test_names_that_begin_with_a_hash(tmp_path: Path) -> None:
    listing = tmp_path / "pairs.txt"
    listing.write_text(
        '#1.jpg #2.jpg\n# 1.jpg 2.jpg\n#a comment\n"#3.jpg" "#4.jpg"\n#1.jpg #none.jpg\n#off.jpg on.jpg\n'
    )
    source = PairSource(listing)
    assert list(source.pairs()) == [("#3.jpg", "#4.jpg")]
    (left_out,) = source.skipped()
    assert left_out.count == 3 and "line 1, 5, 6" in left_out.reason
    for name in ("#1.jpg", "#2.jpg", "on.jpg", "off.jpg"):
        (tmp_path / name).touch()
    assert list(source.pairs()) == [("#1.jpg", "#2.jpg"), ("#3.jpg", "#4.jpg"), ("#1.jpg", "#none.jpg")]
    (left_out,) = source.skipped()
    assert left_out.count == 1 and "line 6" in left_out.reason


def test_what_a_folder_holds_beside_images(tmp_path: Path) -> None:
    for name in ("1.JPG", "2.jfif", "3.jpe", "4.Png", "n.txt", "o.txt", "x.cr2", ".hidden.png", "bare"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere")
    source = PairSource(tmp_path, None, 1)
    assert list(source.pairs()) == [("1.JPG", "2.jfif"), ("2.jfif", "3.jpe"), ("3.jpe", "4.Png")]
    counted = {skipped.what: skipped.count for skipped in source.skipped()}
    assert counted.pop(".txt files") == 2 and set(counted.values()) == {1}
    assert set(counted) == {".cr2 files", "hidden files", "files without a suffix", "folders", ".png entries"}
    assert all(skipped.reason for skipped in source.skipped())
    (tmp_path / "raw").mkdir()
    for name in ("1.nef", "2.nef"):
        (tmp_path / "raw" / name).touch()
    assert "2 .nef files" in fails("pairs-empty", tmp_path / "raw")


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
    for text, code in (("a b\na b c\n", "pairs-line"), ('a "b\n', "pairs-line"), ("a b\nc ./c\n", "pairs-same")):
        listing.write_text(text)
        assert ":" in fails(code, listing)
    listing.write_text("#1.jpg #2.jpg\n")
    assert "comments that name two images" in fails("pairs-empty", listing)
    listing.write_bytes(b"\xff\xfe\x00")
    fails("pairs-format", listing)
    fails("pairs-window", listing, None, 3)
    fails("pairs-window", tmp_path, None, 0)
