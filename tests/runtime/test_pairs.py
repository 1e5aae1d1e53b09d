"""Pairs from lists, folders and files."""

import os
import sys
from pathlib import Path

import pytest

from matchrt.errors import MatchRTError
from matchrt.runtime.pairs import read_pairs


@pytest.fixture
def folder(tmp_path):
    """a/ and b/ with three images each, of which two have equal names, and files that are not images."""
    for name in ("a/img2.jpg", "a/img10.JPG", "a/img1.png", "b/img2.jpg", "b/img10.JPG", "b/other.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("a/notes.txt", "a/.hidden.jpg", "a b's.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "a" / "folder.jpg").mkdir()
    return tmp_path


def names(pairs):
    return [(first.name, second.name) for first, second in pairs]


def fails(code, *args, **options):
    with pytest.raises(MatchRTError) as caught:
        read_pairs(*args, **options)
    assert caught.value.code == code
    assert caught.value.remedy
    return caught.value


def write(path, text, encoding="utf-8"):
    path.write_text(text, encoding=encoding)
    return path


def test_one_folder_gives_every_pair_in_natural_order(folder):
    expected = [("img1.png", "img2.jpg"), ("img1.png", "img10.JPG"), ("img2.jpg", "img10.JPG")]
    assert names(read_pairs(folder / "a")) == expected


def test_one_folder_as_a_sequence(folder):
    assert names(read_pairs(folder / "a", window=1)) == [("img1.png", "img2.jpg"), ("img2.jpg", "img10.JPG")]
    assert len(read_pairs(folder / "a", window=2)) == 3
    assert len(read_pairs(folder / "a", window=99)) == 3
    fails("pairs-window", folder / "a", window=0)


def test_two_folders_pair_equal_names(folder):
    error = fails("pairs-folders", folder / "a", folder / "b")
    assert "img1.png" in error.message
    assert "other.png" in error.message
    pairs = read_pairs(folder / "a", folder / "b", allow_unpaired=True)
    assert names(pairs) == [("img2.jpg", "img2.jpg"), ("img10.JPG", "img10.JPG")]
    assert all(first.parent.name == "a" and second.parent.name == "b" for first, second in pairs)


def test_two_files(folder):
    assert read_pairs(folder / "a/img2.jpg", str(folder / "b/img2.jpg")) == [
        (folder / "a/img2.jpg", folder / "b/img2.jpg")
    ]
    fails("pairs-folders", folder / "a", folder / "b/img2.jpg")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_list(folder, encoding):
    text = '# made by hand\n\na/img1.png  b/img2.jpg\r\n   \n"a b\'s.jpg"\ta/img2.jpg\n  # end\n'
    pairs = read_pairs(write(folder / "pairs.txt", text, encoding))
    assert pairs == [(folder / "a/img1.png", folder / "b/img2.jpg"), (folder / "a b's.jpg", folder / "a/img2.jpg")]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices are files of Unix")
def test_lists_that_are_no_files_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        assert "is a pipe, socket or device" in fails("pairs-missing", path).message


def test_a_line_without_end_is_refused(tmp_path):
    with (tmp_path / "zeros.txt").open("wb") as stream:
        stream.truncate(1 << 36)  # a sparse file: 64 GB of one line that take no place
    fails("pairs-line", tmp_path / "zeros.txt")


def test_list_with_a_root_and_absolute_paths(folder):
    (folder / "lists").mkdir()
    path = write(folder / "lists/pairs.txt", f'a/img1.png "{folder / "b/img2.jpg"}"')
    assert read_pairs(path, root=folder) == [(folder / "a/img1.png", folder / "b/img2.jpg")]
    error = fails("pairs-missing", path)
    assert "pairs.txt:1" in error.message
    assert "--root" in error.remedy


@pytest.mark.parametrize("line", ["a/img1.png", "a/img1.png b/img2.jpg 0 0", '"a/img1.png b/img2.jpg'])
def test_list_with_a_wrong_line(folder, line):
    error = fails("pairs-line", write(folder / "pairs.txt", f"a/img1.png b/img2.jpg\n\n{line}\n"))
    assert "pairs.txt:3" in error.message


def test_list_that_is_not_text(folder):
    (folder / "pairs.txt").write_bytes(b"\x89PNG\xff\xfe\x00")
    fails("pairs-format", folder / "pairs.txt")


def test_nothing_to_pair(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    (tmp_path / "one/a.jpg").touch()
    fails("pairs-empty", tmp_path / "empty")
    fails("pairs-empty", tmp_path / "one")
    fails("pairs-empty", tmp_path / "empty", tmp_path / "one", allow_unpaired=True)
    fails("pairs-empty", write(tmp_path / "pairs.txt", "# nothing\n"))


def test_missing_sources(folder):
    fails("pairs-missing", folder / "no")
    fails("pairs-missing", folder / "a", folder / "no")
