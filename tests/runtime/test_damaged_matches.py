"""Files of matches that are damaged, lie about their arrays, or are no files: `matches-format` or `matches-missing`."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matchrt.errors import MatchRTError
from matchrt.runtime.matches import Matches

Arrays = dict[str, Any]


def refused(path: Path, code: str = "matches-format") -> None:
    with pytest.raises(MatchRTError) as caught:
        Matches.load(path)
    assert caught.value.code == code, caught.value


def rewritten(source: Path, path: Path, change: Callable[[Arrays, dict[str, Any]], object]) -> Path:
    """An .npz with other arrays or another description."""
    with np.load(source) as archive:
        arrays = {name: archive[name] for name in archive.files}
    meta = json.loads(str(arrays.pop("meta")))
    change(arrays, meta)
    stream = io.BytesIO()
    np.savez_compressed(stream, meta=np.array(json.dumps(meta)), **arrays)
    path.write_bytes(stream.getvalue())
    return path


CHANGES: dict[str, Callable[[Arrays, dict[str, Any]], object]] = {
    "text": lambda a, m: a.update(scores=a["scores"].astype(str)),
    "booleans": lambda a, m: a.update(scores=np.ones(len(a["scores"]), bool)),
    "complex": lambda a, m: a.update(keypoints0=a["keypoints0"].astype(complex)),
    "times": lambda a, m: a.update(keypoints0=np.zeros_like(a["keypoints0"], "datetime64[s]")),
    "NaN": lambda a, m: a.update(keypoints0=a["keypoints0"] * np.nan),
    "shape": lambda a, m: a.update(keypoints0=a["keypoints0"].T),
    "lengths": lambda a, m: a.update(scores=a["scores"][:-1]),
    "inliers": lambda a, m: a.update(inliers=np.arange(len(a["scores"]))),
    "matrix": lambda a, m: a.update(matrix=np.full((3, 3), np.inf)),
    "structured": lambda a, m: a.update(scores=np.zeros(len(a["scores"]), [("x", "f4")])),
    "missing": lambda a, m: a.pop("keypoints1"),
    "height": lambda a, m: m["image0"].update(height=-1),
    "huge": lambda a, m: m["image0"].update(width=10**30),
    "name": lambda a, m: m["image0"].update(name=7),
    "time": lambda a, m: m["timings_ms"].update(inference="fast"),
    "not finite": lambda a, m: m["timings_ms"].update(inference=float("nan")),
    "size": lambda a, m: m["provenance"].update(network_size0=[1, 2, 3]),
    "model": lambda a, m: m["provenance"].update(model=None),
    "image": lambda a, m: m.update(image0=[]),
    "geometry": lambda a, m: m["geometry"].update(threshold_px="1"),
    "version": lambda a, m: m.update(version=[2]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_content_is_refused(tmp_path: Path, matches: Matches, change: str) -> None:
    matches.verify("homography").save(tmp_path / "good.npz")
    assert len(Matches.load(rewritten(tmp_path / "good.npz", tmp_path / "same.npz", lambda a, m: None))) == len(matches)
    refused(rewritten(tmp_path / "good.npz", tmp_path / "bad.npz", CHANGES[change]))


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_every_damaged_byte(tmp_path: Path, matches: Matches, suffix: str) -> None:
    """A file with damage is refused by name, or is read, where the damage means nothing or another number."""
    path = tmp_path / f"m{suffix}"
    matches.top(5).save(path)
    data = path.read_bytes()
    for at in range(0, len(data), 3):
        for value in (data[at] ^ 0x80, data[at] ^ 0x07, 0):
            path.write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
            try:
                Matches.load(path)
            except MatchRTError as error:
                assert error.code == "matches-format"
    for length in range(0, len(data), 5):
        path.write_bytes(data[:length])
        if length < len(data) - 1:
            refused(path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "NaN", '{"version": ' + "1" * 400 + "}", "\ufeff{}", "", "[]", '"x"']
)
def test_json_that_does_harm(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.json").write_text(text)
    refused(tmp_path / "m.json")
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        stream = io.BytesIO()
        np.lib.format.write_array(stream, np.array(text))
        archive.writestr("meta.npy", stream.getvalue())
    refused(tmp_path / "m.npz")


def test_pickles_and_bombs(tmp_path: Path, matches: Matches) -> None:
    np.savez(tmp_path / "pickled.npz", meta=np.array({"a": print}, object))
    refused(tmp_path / "pickled.npz")
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w") as entry,
    ):
        for _ in range(1200):
            entry.write(bytes(1 << 20))
    refused(tmp_path / "bomb.npz")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices are files of Unix")
def test_what_is_no_file(tmp_path: Path) -> None:
    for suffix in (".npz", ".json"):
        os.mkfifo(tmp_path / f"pipe{suffix}")
        (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
        (tmp_path / f"folder{suffix}").mkdir()
        for name in ("pipe", "zero", "folder", "missing", "a" * 5000, "a\0b"):
            refused(tmp_path / f"{name}{suffix}", "matches-missing")
