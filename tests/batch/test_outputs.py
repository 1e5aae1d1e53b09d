"""What is written, read by the readers of those that it is for.

hloc is not on PyPI: its files are read here by code of ours that does what its reader documents: matches of a pair from
`name0/name1` or, turned round, from `name1/name0`, as indices where `matches0` is not -1.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PILImage
from support.pictures import texture

from matchrt.batch.colmap import reason_of
from matchrt.batch.content import content_digest
from matchrt.batch.journal import Journal
from matchrt.batch.merging import MergeOptions
from matchrt.batch.options import ColmapOptions, Layout, OutputOptions
from matchrt.batch.output import Output
from matchrt.batch.results import Found, ImageFacts, Result, unpack
from matchrt.errors import MatchRTError

Filled = Callable[[], Journal]
SIZE = (120, 160)


def hloc_matches(path: Path, name0: str, name1: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """[K, 2] indices of keypoints, and [K] scores."""
    import h5py

    with h5py.File(path) as file:
        straight, turned = ("/".join(n.replace("/", "-") for n in names) for names in ((name0, name1), (name1, name0)))
        group = file[straight if straight in file else turned]
        matches0, scores = group["matches0"][()], group["matching_scores0"][()]
    indices = np.flatnonzero(matches0 != -1)
    found = np.column_stack([indices, matches0[indices]])
    return (found if straight in _groups(path) else found[:, ::-1]), scores[indices]


def _groups(path: Path) -> set[str]:
    import h5py

    with h5py.File(path) as file:
        return {f"{one}/{two}" for one in file for two in file[one]}


def write(journal: Journal, path: Path, root: Path | None = None, **options: object) -> Output:
    output = Output(path, OutputOptions(**options))  # type: ignore[arg-type]
    output.check()
    output.refuse_names(journal)
    output.write(journal, root or path.parent)
    assert output.is_written(journal)
    return output


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_hloc_finds_keypoints_and_matches(tmp_path: Path, filled: Filled, layout: Layout) -> None:
    h5py = pytest.importorskip("h5py")
    with filled() as journal:
        output = write(journal, tmp_path / "m.h5", layout=layout, merge=MergeOptions(1.0, None))
        raw = {(pair.first, pair.second): unpack(data) for pair, data in journal.matches()}
    assert output.files[0] == tmp_path / "feats_m.h5"
    with h5py.File(output.files[0]) as features:
        keypoints = {name: features[name]["keypoints"][()] for name in ("a.png", "sub/b.png", "c.png")}
        fields = set(features["sub/b.png"])
        assert fields == ({"keypoints", "score"} if layout == "dense" else {"keypoints", "scores", "image_size"})
        if layout == "sparse":
            assert features["sub/b.png/image_size"][()].tolist() == [160, 120]
    for name0, name1, shift in (("a.png", "sub/b.png", 1), ("c.png", "sub/b.png", -1), ("a.png", "c.png", 2)):
        matches, scores = hloc_matches(output.path, name0, name1)
        assert len(matches) > 50 and len(scores) == len(matches) and scores.min() > 0.1
        moved = keypoints[name1][matches[:, 1]] - keypoints[name0][matches[:, 0]]
        # Points of one cell are averaged: two of them may move by less than a cell.
        assert np.allclose(moved, shift * np.array([8, 4]), atol=1.0)
    with h5py.File(output.path) as file:
        group = file["a.png/sub-b.png"]
        assert group["matches0"].dtype == np.int32 and group["matching_scores0"].dtype == np.float16
        if layout == "sparse":
            assert set(group) == {"matches0", "matching_scores0"} and len(group["matches0"]) == len(keypoints["a.png"])
        else:
            for key, wanted in zip(("keypoints0", "keypoints1", "scores"), raw["a.png", "sub/b.png"], strict=True):
                assert np.array_equal(group[key][()], wanted)


def test_hloc_names_that_would_fall_together(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    pytest.importorskip("pyarrow")
    points, facts = np.full((3, 2), 9, np.float32), ImageFacts(*SIZE, 1, "content")
    same = Found(points, points, np.ones(3, np.float32), facts, facts)
    with Journal(tmp_path / "j") as journal:
        journal.begin({}, [("a/b.png", "c.png"), ("a-b.png", "c.png")])
        for pair in list(journal.waiting()):
            journal.commit([Result(pair, same)])
        output = write(journal, tmp_path / "m.h5")
        (failure,) = journal.failures()
        assert failure.code == "matches-name" and failure.pair.first == "a/b.png"  # images come sorted by name
        assert journal.counts()[2:4] == (1, 1) and "a/b.png\tc.png\tmatches-name\t" in output.failed.read_text()
        with h5py.File(output.path) as file:
            assert set(file) == {"a-b.png"}
    with Journal(tmp_path / "j") as journal:  # another output refuses none of them
        write(journal, tmp_path / "m.parquet")
        assert journal.counts()[2:4] == (2, 0)


def test_colmap_reads_its_database(tmp_path: Path, filled: Filled) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png", "c.png"):
        PILImage.fromarray(texture(*SIZE)).save(tmp_path / name)
    with filled() as journal:
        options = ColmapOptions("SIMPLE_PINHOLE", "single")
        output = write(journal, tmp_path / "c.db", tmp_path, colmap=options, merge=MergeOptions(1.0, None))
        bare = write(journal, tmp_path / "bare.db", tmp_path, colmap=ColmapOptions(verify=False))
        again = write(journal, tmp_path / "again.db", tmp_path, colmap=options, merge=MergeOptions(1.0, None))
    assert content_digest(output) == content_digest(again) != content_digest(bare)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("c.db-", ".", "filled.journal."))]
    with pycolmap.Database.open(output.path) as base:
        images = {image.name: image for image in base.read_all_images()}
        assert set(images) == {"a.png", "sub/b.png", "c.png"} and base.num_cameras() == base.num_rigs() == 1
        assert base.num_frames() == 3 and all(image.frame_id != 2**32 - 1 for image in images.values())
        camera = base.read_all_cameras()[0]
        assert (camera.model.name, camera.width, camera.height) == ("SIMPLE_PINHOLE", 160, 120)
        first, second = images["a.png"].image_id, images["sub/b.png"].image_id
        points = [base.read_keypoints(number) for number in (first, second)]
        matches = base.read_matches(first, second)
        assert len(matches) > 50
        assert np.allclose(points[1][matches[:, 1]] - points[0][matches[:, 0]], (8, 4), atol=1.0)
        geometry = base.read_two_view_geometry(first, second)
        assert len(geometry.inlier_matches) > 40 and geometry.config > 1
        assert base.num_verified_image_pairs() == 3
    with pycolmap.Database.open(bare.path) as base:
        assert base.num_matched_image_pairs() == 3 and base.num_verified_image_pairs() == 0


def test_colmap_origin_is_the_corner(tmp_path: Path, filled: Filled) -> None:
    pytest.importorskip("pycolmap")
    h5py = pytest.importorskip("h5py")
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png", "c.png"):
        PILImage.fromarray(texture(*SIZE)).save(tmp_path / name)
    with filled() as journal:
        output = write(journal, tmp_path / "c.db", tmp_path, colmap=ColmapOptions(verify=False))
        features = write(journal, tmp_path / "m.h5").files[0]
    with h5py.File(features) as file, closing(sqlite3.connect(output.path)) as base:
        (data,) = base.execute(
            "SELECT data FROM keypoints JOIN images USING (image_id) WHERE name = 'a.png'"
        ).fetchone()
        stored = np.frombuffer(data, np.float32).reshape(len(file["a.png/keypoints"]), -1)
        assert np.allclose(stored[:, :2], file["a.png/keypoints"][()] + 0.5)


@pytest.mark.parametrize("size", [(160, 120), None])
def test_colmap_refuses_what_is_not_its_image_alone(
    tmp_path: Path, filled: Filled, size: tuple[int, int] | None
) -> None:
    """(160, 120): another picture by now. None: not there at all."""
    pycolmap = pytest.importorskip("pycolmap")
    (tmp_path / "sub").mkdir()
    for name in ("sub/b.png", "c.png"):
        PILImage.fromarray(texture(*SIZE)).save(tmp_path / name)
    if size is not None:
        PILImage.fromarray(texture(*size)).save(tmp_path / "a.png")
    with filled() as journal:
        output = write(journal, tmp_path / "c.db", tmp_path)
        failures = list(journal.failures())
        assert [(f.code, f.pair.first) for f in failures] == [("colmap-image", "a.png")] * 2
        assert all("a.png" in failure.message for failure in failures)
        assert output.failed.read_text().count("colmap-image") == 2
    with pycolmap.Database.open(output.path) as base:
        assert {image.name for image in base.read_all_images()} == {"sub/b.png", "c.png"}
        assert base.num_matched_image_pairs() == 1
    with filled() as journal:  # nothing to do, and the failures are still told
        assert output.is_written(journal) and len(list(journal.failures())) == 2
        output.forget_refusals(journal)
        PILImage.fromarray(texture(*SIZE)).save(tmp_path / "a.png")
        assert not output.is_written(journal)
    with filled() as journal:
        write(journal, tmp_path / "c.db", tmp_path)
        assert journal.counts().matched == 3 and not output.failed.exists()


def test_a_camera_for_images_that_colmap_does_not_read(tmp_path: Path, filled: Filled) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png", "c.png"):
        PILImage.fromarray(texture(*SIZE)).save(tmp_path / name, "WEBP")
    with filled() as journal:
        output = write(journal, tmp_path / "c.db", tmp_path)
        assert journal.counts().matched == 3
    with pycolmap.Database.open(output.path) as base:
        cameras = base.read_all_cameras()
        assert {(camera.width, camera.height) for camera in cameras} == {(160, 120)} and len(cameras) == 3


def test_colmap_that_ends_its_process_is_an_error(
    tmp_path: Path, filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COLMAP ends its process where the disk is full, or as here files may not grow."""
    pytest.importorskip("pycolmap")
    resource = pytest.importorskip("resource")
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png", "c.png"):
        PILImage.fromarray(texture(*SIZE)).save(tmp_path / name)
    starts, limits = subprocess.Popen, (60_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])

    def limited(*command: Any, **options: Any) -> Any:
        return starts(*command, **options, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits))

    with filled() as journal:
        monkeypatch.setattr(subprocess, "Popen", limited)
        with pytest.raises(MatchRTError) as caught:
            write(journal, tmp_path / "c.db", tmp_path)
        monkeypatch.undo()
        assert caught.value.code in ("colmap-failed", "output-unwritable"), caught.value
        assert not [path for path in tmp_path.iterdir() if "c.db" in path.name]
        write(journal, tmp_path / "c.db", tmp_path)


@pytest.mark.parametrize(
    "said",
    [
        "W20261127 23:26:29.306156 14058 database.cc:53] Failed to open, because: [database_sqlite.cc:2012] {}.",
        "terminate called after throwing\n  what():  [database_sqlite.cc:1737] {}",
        "F20261127 23:26:29.306156 14058 database_sqlite.cc:1021] {}.\n*** Check failure stack trace: ***\n    @ 0x7f",
    ],
)
def test_the_reason_is_told_without_places_in_the_source(said: str) -> None:
    assert reason_of(said.format("SQLite error: database or disk is full").encode()) == (
        "SQLite error: database or disk is full"
    )
    assert reason_of(b"") == "it gave no reason"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
def test_colmaps_logger_prints_no_stack_at_sigterm() -> None:
    pytest.importorskip("pycolmap")
    code = """
import os, signal
from matchrt.batch.colmap import ColmapOptions, require_pycolmap
require_pycolmap(ColmapOptions())
os.kill(os.getpid(), signal.SIGTERM)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == -signal.SIGTERM and not ran.stderr


def test_unknown_camera_model(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    with pytest.raises(MatchRTError) as caught:
        Output(tmp_path / "c.db", OutputOptions(colmap=ColmapOptions("PINHOLY"))).check()
    assert caught.value.code == "colmap-camera" and "SIMPLE_RADIAL" in caught.value.remedy


def test_parquet_has_every_pair_exactly(tmp_path: Path, filled: Filled) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with filled() as journal:
        *_, last = [pair for pair, _ in journal.matches()]
        journal.commit([Result(last, MatchRTError("image-missing", "No such file.", "Look."))])
        raw = {(pair.first, pair.second): unpack(data) for pair, data in journal.matches()}
        output = write(journal, tmp_path / "m.parquet")
    rows = parquet.read_table(output.path).to_pylist()
    assert [(row["image0"], row["error"]) for row in rows] == [
        ("a.png", None), ("a.png", None), ("sub/b.png", "image-missing")
    ]  # fmt: skip
    for row in rows[:2]:
        wanted = raw[row["image0"], row["image1"]]
        for key, values in zip(("keypoints0", "keypoints1", "scores"), wanted, strict=True):
            assert np.array_equal(np.array(row[key], np.float32), values)
    assert rows[2]["scores"] is None and "No such file" in output.failed.read_text()


def test_a_changed_output_is_written_again(tmp_path: Path, filled: Filled) -> None:
    pytest.importorskip("h5py")
    with filled() as journal:
        output = write(journal, tmp_path / "m.h5")
        assert not Output(tmp_path / "m.h5", OutputOptions(MergeOptions(8.0))).is_written(journal)
        pair = next(journal.matches())[0]
        journal.commit([Result(pair, MatchRTError("image-missing", "Gone.", "Look."))])
        assert not output.is_written(journal)


def test_files_of_others_are_not_replaced(tmp_path: Path, filled: Filled) -> None:
    pytest.importorskip("h5py")
    output = Output(tmp_path / "m.h5")
    with filled() as journal:
        output.files[0].write_text("precious")
        with pytest.raises(MatchRTError) as caught:
            output.require_own(journal)
        assert caught.value.code == "output-exists" and "feats_m.h5" in caught.value.message
        output.files[0].unlink()
        write(journal, output.path)
        output.require_own(journal)


def test_two_journals_with_one_output_write_in_turn(tmp_path: Path, filled: Filled) -> None:
    pytest.importorskip("h5py")
    fcntl = pytest.importorskip("fcntl")
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)  # as another process that is writing
    done: list[str] = []

    def work() -> None:
        with filled() as journal:
            try:
                Output(tmp_path / "m.h5").write(journal, tmp_path)
            except MatchRTError as error:
                done.append(error.code)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive() and not done
    (tmp_path / "m.h5").write_text("the other's")
    os.close(handle)
    thread.join(30)
    assert done == ["output-exists"] and (tmp_path / "m.h5").read_text() == "the other's"


@pytest.mark.parametrize("name", ["m.npz", "m", "m.h5/x.db"])
def test_places_and_kinds_that_do_not_work(tmp_path: Path, name: str) -> None:
    (tmp_path / "m.h5").touch()
    with pytest.raises(MatchRTError) as caught:
        Output(tmp_path / name).check()
    assert caught.value.code in ("output-format", "output-unwritable")


def test_digest_needs_a_known_kind(tmp_path: Path) -> None:
    with pytest.raises(MatchRTError) as caught:
        content_digest(Output(tmp_path / "m.txt"))
    assert caught.value.code == "output-format"
