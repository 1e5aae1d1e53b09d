"""One image that cannot be read is one failure, whatever was raised; an image that was replaced is noticed."""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage
from support.commands import CommandLine
from support.pictures import texture

from matchrt import Matcher, MatcherOptions
from matchrt.batch import pool, sources
from matchrt.batch.journal import Journal
from matchrt.batch.pool import PoolSize, match_in_pool
from matchrt.batch.results import ListedPair, unpack
from matchrt.batch.sources import SourceImage, changed_since, read_source, stamp_of
from matchrt.errors import InternalError, MatchRTError
from matchrt.runtime import adapter
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.fit import Fit
from matchrt.runtime.image import Image
from matchrt.runtime.match_data import ImageRef
from matchrt.runtime.preprocess import PreparedImage

QUICK = ("--resize", "96", "--json")


def prepared(path: Path) -> PreparedImage:
    return PreparedImage(ImageRef(path.name, 4, 6, 8), Fit(1.0, 1.0, 4, 6, 4, 6), None, None, 0.0, 0.0)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(b"one picture")
    return path


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour later: no file is young."""
    now = time.time
    monkeypatch.setattr(sources.time, "time", lambda: now() + 3600)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (PILImage.DecompressionBombError("too\nmany."), "image-failed", "DecompressionBombError: too many."),
        (RuntimeError(), "image-failed", "RuntimeError."),
        (MemoryError(), "image-failed", "MemoryError"),
        (RecursionError("deep"), "image-failed", "deep"),
        (OSError(errno.EIO, "Input/output error"), "image-unreadable", "Input/output error"),
        (OSError("decoder"), "image-unreadable", "decoder"),
        (UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates"), "image-failed", "surrogates"),
        (MatchRTError("image-truncated", "Cut off.", "Copy."), "image-truncated", "Cut off."),
    ],
)  # fmt: skip
def test_whatever_is_raised_is_one_error(image: Path, error: Exception, code: str, words: str) -> None:
    def failing(path: Path) -> PreparedImage:
        raise error

    found = read_source(failing, image)
    assert isinstance(found, MatchRTError) and found.code == code and words in found.message and found.remedy
    assert found.__traceback__ is None and "\n" not in found.message


def test_errors_of_the_engine_are_raised(image: Path) -> None:
    def failing(path: Path) -> PreparedImage:
        raise InternalError("session-failed", "No.", "Report it.")

    with pytest.raises(InternalError):
        read_source(failing, image)
    with pytest.raises(KeyboardInterrupt):
        read_source(lambda path: (_ for _ in ()).throw(KeyboardInterrupt), image)


@pytest.mark.usefixtures("later")
def test_what_is_known_of_an_image(image: Path) -> None:
    found = read_source(prepared, image)
    assert isinstance(found, SourceImage)
    facts = found.facts
    assert (facts.height, facts.width, facts.orientation, facts.stamp) == (4, 6, 8, stamp_of(image))
    assert changed_since(image, facts) == facts
    os.utime(image, (1, 1))  # a new time alone is nothing, and the stamp is renewed
    newer = changed_since(image, facts)
    assert newer is not None and newer.content == facts.content and newer.stamp == stamp_of(image) != facts.stamp
    times = image.stat()
    image.write_bytes(b"two picture")  # of the same size, and the old time is put back
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert changed_since(image, facts) is None
    image.unlink()
    assert changed_since(image, facts) == facts


def test_a_young_stamp_is_not_trusted(image: Path) -> None:
    found = read_source(prepared, image)
    assert isinstance(found, SourceImage) and found.facts.stamp == ""
    assert changed_since(image, found.facts) == found.facts
    assert changed_since(image, replace(found.facts, content="another")) is None


def test_an_image_that_changes_while_it_is_read(image: Path) -> None:
    calls: list[Path] = []

    def writing(path: Path) -> PreparedImage:
        calls.append(path)
        path.write_bytes(b"more " * len(calls))
        return prepared(path)

    found = read_source(writing, image)
    assert isinstance(found, MatchRTError) and found.code == "image-changed" and len(calls) == 2


def fault(monkeypatch: pytest.MonkeyPatch, faults: dict[str, Exception]) -> None:
    """Images of these names cannot be read."""
    prepare = PairAdapter.prepare

    def faulty(self: PairAdapter, value: Path, name: str = "array") -> object:
        if isinstance(value, Path) and value.name in faults:
            raise faults[value.name]
        return prepare(self, value, name)

    monkeypatch.setattr(PairAdapter, "prepare", faulty)


@pytest.mark.parametrize("suffix", ["h5", "db", "parquet"])
def test_bad_images_do_not_end_a_run(
    scene: Path, tmp_path: Path, suffix: str, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip({"h5": "h5py", "db": "pycolmap", "parquet": "pyarrow"}[suffix])
    names = [f"{index}.png" for index in range(5)]
    (scene / "db" / "3.png").write_bytes((scene / "db" / "2.png").read_bytes())
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("".join(f"db/{a} db/{b}\n" for i, a in enumerate(names) for b in names[i + 1 :]))
    command = ("match-many", pairs, "--root", scene, "--output", tmp_path / f"m.{suffix}", *QUICK)
    with monkeypatch.context() as patch:
        fault(patch, {"1.png": RuntimeError("broken\n\tdecoder"), "3.png": OSError(errno.EIO, "Input/output error")})
        ran = cli(*command)
        assert ran.code == 2 and (ran.json["matched"], ran.json["failed"]) == (3, 7), ran.out
        codes = {failure["error"]["code"] for failure in ran.json["failures"]}
        assert codes == {"image-failed", "image-unreadable"}
        again = cli(*command, "--retry-failed")
        assert again.code == 2 and again.json["tried_now"] == 7
    lines = (tmp_path / f"m.{suffix}.failed.txt").read_text().splitlines()
    assert len(lines) == 7 and all(len(line.split("\t")) == 4 for line in lines)
    mended = cli(*command, "--retry-failed")
    assert mended.code == 0 and mended.json["matched"] == 10 and mended.json["tried_now"] == 7


class FailingDisk(io.BytesIO):
    """A file whose second half cannot be read."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0 or self.tell() + size > len(self.getbuffer()) // 2:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


def test_a_disk_that_fails_under_one_image(
    scene: Path, tmp_path: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    opened = Path.open

    def failing(self: Path, *arguments: Any, **options: Any) -> Any:
        return FailingDisk(self.read_bytes()) if self.name == "1.png" else opened(self, *arguments, **options)

    (tmp_path / "pairs.txt").write_text("db/0.png db/1.png\ndb/0.png db/2.png\n")
    command = ("match-many", tmp_path / "pairs.txt", "--root", scene, "--output", tmp_path / "m.parquet", *QUICK)
    data = (scene / "db" / "1.png").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda self: data if self.name == "1.png" else opened(self, "rb").read())
        patch.setattr(Path, "open", failing)
        ran = cli(*command)
    assert ran.code == 2 and (ran.json["matched"], ran.json["failed"]) == (1, 1), ran.out
    assert ran.json["failures"][0]["error"]["code"].startswith("image-")
    assert cli(*command, "--retry-failed").json["matched"] == 2


def test_a_pair_that_cannot_be_stretched_together(
    scene: Path, tmp_path: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "pairs.txt").write_text("db/0.png db/1.png\ndb/0.png db/2.png\n")
    stretch = adapter.stretch_together

    def failing(first: Image, second: Image) -> tuple[Image, Image]:
        if second.name.endswith("1.png"):
            raise MemoryError
        return stretch(first, second)

    monkeypatch.setattr(adapter, "stretch_together", failing)
    command = ("match-many", tmp_path / "pairs.txt", "--root", scene, "--output", tmp_path / "m.parquet")
    ran = cli(*command, *QUICK, "--stretch", "same")
    assert ran.code == 2 and ran.json["matched"] == 1, ran.out
    (failure,) = ran.json["failures"]
    assert failure["error"]["code"] == "image-failed" and "'db/0.png' and 'db/1.png'" in failure["error"]["message"]


def test_an_image_of_little_contrast_is_named(tmp_path: Path, cli: CommandLine) -> None:
    pytest.importorskip("pyarrow")
    for index in (0, 1):
        dark = texture(120, 160, index).astype(np.uint16) * 8  # an eighth of the range of 12 bits
        PILImage.fromarray(dark // 4).save(tmp_path / f"{index}.tif")
    common = ("match-many", tmp_path, "--output", tmp_path / "m.parquet")
    ran = cli(*common, *QUICK)
    assert ran.code == 0 and len(ran.json["warnings"]) == 2 and "0.tif" in ran.json["warnings"][0]
    told = cli(*common, "--resize", 96)
    assert told.err.count("warning: ") == 2
    assert cli(*common[:2], "--output", tmp_path / "s.parquet", *QUICK, "--stretch", "each").json["warnings"] == []


def test_a_failing_image_holds_no_frames(scene: Path) -> None:
    """A cached exception that is raised for each pair would gain frames each time."""
    pairs = [ListedPair(i, f"db/none{i % 2}.png", "db/0.png") for i in range(200)]
    depths = set()
    with Matcher(options=MatcherOptions(resize=96, threads=1)) as matcher:
        for result in match_in_pool(matcher, scene, pairs, PoolSize(2, 1, 1)):
            assert isinstance(result.outcome, MatchRTError)
            depths.add(depth(result.outcome.__traceback__))
    assert depths == {0}


def depth(trace: TracebackType | None) -> int:
    return 0 if trace is None else 1 + depth(trace.tb_next)


def replaced_scene(folder: Path) -> Callable[[int, int], None]:
    """Writes image `index` as the crop of a texture at a shift."""
    whole = texture(200, 240)

    def write(index: int, shift: int) -> None:
        crop = np.ascontiguousarray(whole[shift : shift + 120, shift : shift + 160])
        PILImage.fromarray(crop).save(folder / f"{index}.bmp")  # all of one size

    return write


@pytest.mark.parametrize("retry", [(), ("--retry-failed",)])
def test_a_replaced_image_is_matched_again(tmp_path: Path, retry: tuple[str, ...], cli: CommandLine) -> None:
    h5py = pytest.importorskip("h5py")
    folder = tmp_path / "img"
    folder.mkdir()
    write = replaced_scene(folder)
    for index, shift in ((0, 0), (1, 8), (2, 16)):
        write(index, shift)
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("0.bmp 1.bmp\n0.bmp 2.bmp\n1.bmp 2.bmp\n0.bmp 3.bmp\n")
    command = ("match-many", pairs, "--root", folder, "--output", tmp_path / "m.h5", *QUICK, "--digest")
    assert cli(*command).json["failed"] == 1
    times = (folder / "0.bmp").stat()
    write(0, 40)
    os.utime(folder / "0.bmp", ns=(times.st_atime_ns, times.st_mtime_ns))
    write(3, 24)
    os.utime(folder / "1.bmp", (1, 1))
    ran = cli(*command, *retry)
    assert ran.json["images_changed"] == ["0.bmp"] and ran.json["tried_now"] == 3
    assert ran.json["matched"] == 4 and ran.code == 0 and ran.json["output_written"]
    clean = cli(*command[:4], "--output", tmp_path / "clean" / "m.h5", *QUICK, "--digest")
    assert clean.json["content_sha256"] == ran.json["content_sha256"]
    with h5py.File(tmp_path / "m.h5") as file:
        moved = file["0.bmp/1.bmp/keypoints1"][()] - file["0.bmp/1.bmp/keypoints0"][()]
        assert np.allclose(np.median(moved, axis=0), (32, 32), atol=1)
    quiet = cli(*command)
    assert quiet.json["images_changed"] == [] and quiet.json["tried_now"] == 0


def test_an_image_that_is_replaced_during_a_run(
    tmp_path: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pairs from before get another turn, so that keypoints of two pictures are not mixed."""
    pytest.importorskip("pyarrow")
    folder = tmp_path / "img"
    folder.mkdir()
    write = replaced_scene(folder)
    for index in range(4):
        write(index, 8 * index)
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("0.bmp 1.bmp\n2.bmp 3.bmp\n0.bmp 2.bmp\n")
    monkeypatch.setattr(pool, "cached", lambda *options: 1)
    prepare, read = PairAdapter.prepare, []

    def replacing(self: PairAdapter, value: Path, name: str = "array") -> object:
        if isinstance(value, Path):
            read.append(value.name)
            if read.count("0.bmp") == 2:
                write(0, 40)
        return prepare(self, value, name)

    monkeypatch.setattr(PairAdapter, "prepare", replacing)
    common = ("match-many", pairs, "--root", folder, *QUICK, "--workers", 1)
    assert cli(*common, "--output", tmp_path / "m.parquet").json["matched"] == 3
    monkeypatch.undo()
    assert cli(*common, "--output", tmp_path / "clean.parquet").json["matched"] == 3
    with Journal(tmp_path / "m.parquet.journal") as one, Journal(tmp_path / "clean.parquet.journal") as other:
        for (pair, data), (same, clean) in zip(one.matches(), other.matches(), strict=True):
            assert pair == same and all(map(np.array_equal, unpack(data), unpack(clean)))
