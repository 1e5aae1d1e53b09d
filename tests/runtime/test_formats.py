"""Matches to files and back."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from matchrt.errors import MatchRTError
from matchrt.runtime import formats
from matchrt.runtime.formats import save_matches
from matchrt.runtime.hloc import save_pairs
from matchrt.runtime.match_data import ImageRef
from matchrt.runtime.matches import Matches
from matchrt.runtime.record import arrays, metadata

K = np.array([[700.0, 0, 320], [0, 700, 240], [0, 0, 1]])


def assert_same(first: Matches, second: Matches):
    for name in ("keypoints0", "keypoints1", "scores"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    for name in ("image0", "image1", "timings", "provenance"):
        assert getattr(first, name) == getattr(second, name)
    assert (first.geometry is None) == (second.geometry is None)
    if first.geometry is not None and second.geometry is not None:
        for name in ("kind", "threshold_px", "estimator"):
            assert getattr(first.geometry, name) == getattr(second.geometry, name)
        for name in ("matrix", "inliers", "rotation", "translation"):
            assert np.array_equal(getattr(first.geometry, name), getattr(second.geometry, name))


def fails(code, call, *args, **options):
    with pytest.raises(MatchRTError) as caught:
        call(*args, **options)
    assert caught.value.code == code
    assert caught.value.remedy


@pytest.mark.parametrize("suffix", [".npz", ".json", ".NPZ"])
def test_everything_comes_back_exactly(tmp_path, matches, no_matches, suffix):
    cases = [
        matches,
        no_matches,
        matches.verify("homography"),
        matches.verify("essential", K0=K, K1=K),
        no_matches.verify("fundamental"),
    ]
    for case in cases:
        case.save(tmp_path / f"m{suffix}")
        assert_same(Matches.load(tmp_path / f"m{suffix}"), case)


def test_npz_is_plain_numpy(tmp_path, matches):
    verified = matches.verify("homography")
    save_matches(verified, tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {"keypoints0", "keypoints1", "scores", "inliers", "matrix", "meta"}
        assert archive["keypoints0"].dtype == np.float32
        assert np.array_equal(archive["inliers"], verified.inliers)
        assert json.loads(str(archive["meta"]))["provenance"]["model"] == "loftr-outdoor"


def test_json_floats_are_short(tmp_path, matches):
    save_matches(replace(matches.top(1), keypoints0=[[12.3, 4.0]]), tmp_path / "m.json")
    assert "[12.3, 4.0]" in (tmp_path / "m.json").read_text()


@pytest.mark.parametrize("name", ["m.txt", "m", "m.npy"])
def test_unknown_suffix(tmp_path, matches, name):
    fails("output-format", save_matches, matches, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_an_entry_of_the_table_is_a_format(tmp_path, matches, monkeypatch):
    """A function that saves and one that reads back are all that a format of one pair needs."""

    def save(found, path, root):
        path.write_text(json.dumps(metadata(found) | {name: array.tolist() for name, array in arrays(found).items()}))

    monkeypatch.setattr(formats, "FORMATS", {**formats.FORMATS, ".txt": formats.Format(save, json.loads)})
    matches.save(tmp_path / "m.TXT")
    assert_same(matches, Matches.load(tmp_path / "m.TXT"))
    monkeypatch.setattr(formats, "FORMATS", {".txt": formats.Format(save)})
    fails("matches-format", Matches.load, tmp_path / "m.TXT")
    with pytest.raises(MatchRTError, match="known suffix") as caught:
        matches.save(tmp_path / "m.npz")
    assert ".txt" in caught.value.remedy


def test_unwritable_folder(tmp_path, matches):
    (tmp_path / "file").write_text("")
    fails("output-unwritable", save_matches, matches, tmp_path / "file" / "m.npz")


def test_load_of_what_is_not_there(tmp_path):
    fails("matches-missing", Matches.load, tmp_path / "m.npz")
    (tmp_path / "d.json").mkdir()
    fails("matches-missing", Matches.load, tmp_path / "d.json")
    fails("matches-format", Matches.load, tmp_path / "m.h5")


@pytest.mark.parametrize("content", [b"", b"hello", b"[1, 2]", b"{}", b'{"format": "matchrt-matches"}', b"\xff\xfe"])
@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_load_of_something_else(tmp_path, content, suffix):
    (tmp_path / f"m{suffix}").write_bytes(content)
    fails("matches-format", Matches.load, tmp_path / f"m{suffix}")


def test_load_of_damaged_files(tmp_path, matches):
    save_matches(matches, tmp_path / "m.npz")
    data = (tmp_path / "m.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    fails("matches-format", Matches.load, tmp_path / "cut.npz")
    damaged = bytearray(data)
    damaged[len(data) // 2 : len(data) // 2 + 8] = b"\0" * 8
    (tmp_path / "damaged.npz").write_bytes(damaged)
    fails("matches-format", Matches.load, tmp_path / "damaged.npz")
    np.savez(tmp_path / "pickled.npz", meta=np.array({"a": 1}, object))
    fails("matches-format", Matches.load, tmp_path / "pickled.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    fails("matches-format", Matches.load, tmp_path / "array.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 99},
        {"image0": {"name": "a", "height": 9, "width": 9, "orientation": 9}},
        {"scores": [3.0] * 120},
        {"scores": [0.5]},
        {"keypoints0": "x"},
        {"image0": {"name": "a"}},
        {"provenance": None},
        {"timings_ms": 3},
        {"geometry": {"kind": "affine"}},
        {"geometry": {"kind": "homography", "threshold_px": 1, "estimator": "magsac"}, "inliers": [True]},
    ],
)
def test_load_of_json_with_a_wrong_field(tmp_path, matches, change):
    save_matches(matches, tmp_path / "m.json")
    record = json.loads((tmp_path / "m.json").read_text()) | change
    (tmp_path / "m.json").write_text(json.dumps(record))
    fails("matches-format", Matches.load, tmp_path / "m.json")


# -------------------------------------------------------------------------------------------------------------- hdf5


def test_files_of_version_1_are_read(tmp_path, matches):
    path = tmp_path / "m.json"
    matches.save(path)
    record = json.loads(path.read_text())
    record["version"] = 1
    record["provenance"]["flavor"] = record["provenance"].pop("backend")
    path.write_text(json.dumps(record))
    assert Matches.load(path).provenance == matches.provenance


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_files_say_in_which_pixels_their_keypoints_are(tmp_path, matches, suffix):
    turned = replace(matches, image1=replace(matches.image1, orientation=6))
    path = tmp_path / f"m.{suffix}"
    turned.save(path)
    if suffix == "json":
        record = json.loads(path.read_text())
    else:
        with np.load(path) as archive:
            record = json.loads(str(archive["meta"]))
    assert record["pixels"] == "upright"
    assert [record[side]["orientation"] for side in ("image0", "image1")] == [1, 6]
    read = Matches.load(path)
    assert read.image1 == turned.image1 and np.array_equal(read.keypoints1, matches.keypoints1)
    x, y = matches.keypoints1.T
    assert np.array_equal(read.image1.stored_points(read.keypoints1), np.stack([y, turned.image1.width - 1 - x], 1))
    as_stored = replace(matches, provenance=replace(matches.provenance, apply_exif=False))
    as_stored.save(tmp_path / "stored.json")
    assert json.loads((tmp_path / "stored.json").read_text())["pixels"] == "stored"


def test_files_of_version_2_do_not_know_the_orientation(tmp_path, matches):
    pytest.importorskip("h5py")
    path = tmp_path / "m.json"
    matches.save(path)
    record = json.loads(path.read_text())
    record["version"] = 2
    for side in ("image0", "image1"):
        del record[side]["orientation"]
    path.write_text(json.dumps(record))
    read = Matches.load(path)
    assert read.image0.orientation is None and np.array_equal(read.keypoints0, matches.keypoints0)
    fails("matches-orientation", save_matches, read, tmp_path / "m.h5")
    assert not (tmp_path / "m.h5").exists()


def test_hdf5_has_stored_pixels(tmp_path, matches):
    h5py = pytest.importorskip("h5py")
    turned = replace(matches, image1=replace(matches.image1, orientation=6))
    turned.save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5") as file:
        group = file["db-left.jpg/query-right.jpg"]
        assert np.array_equal(group["keypoints0"][()], matches.keypoints0)
        assert np.array_equal(group["keypoints1"][()], turned.image1.stored_points(matches.keypoints1))
        meta = json.loads(group.attrs["matchrt"])
    assert meta["pixels"] == "stored"
    assert meta["image1"] == {"name": "query/right.jpg", "height": 800, "width": 600, "orientation": 6}


def test_hdf5_has_hlocs_dense_layout(tmp_path, matches):
    h5py = pytest.importorskip("h5py")
    matches.save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5") as file:
        group = file["db-left.jpg/query-right.jpg"]
        assert set(group) == {"keypoints0", "keypoints1", "scores"}
        assert np.array_equal(group["keypoints0"][()], matches.keypoints0)
        assert np.array_equal(group["keypoints1"][()], matches.keypoints1)
        assert np.array_equal(group["scores"][()], matches.scores)
        assert group["scores"].dtype == np.float32
        assert json.loads(group.attrs["matchrt"])["provenance"]["precision"] == "fp16"


def test_hdf5_adds_pairs_and_replaces_equal_ones(tmp_path, matches, no_matches):
    h5py = pytest.importorskip("h5py")
    other = replace(no_matches, image1=ImageRef("c.jpg", 5, 6))
    path = tmp_path / "m.hdf5"
    save_pairs([matches, other], path)
    save_pairs([matches.top(3)], path)
    with h5py.File(path) as file:
        assert len(file["db-left.jpg/query-right.jpg/scores"]) == 3
        assert file["db-left.jpg/c.jpg/keypoints0"].shape == (0, 2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.hdf5"]


def test_hdf5_names_are_relative_to_the_root(tmp_path, matches):
    h5py = pytest.importorskip("h5py")
    images = [ImageRef((tmp_path / "images" / name).as_posix(), 9, 9) for name in ("a/1.jpg", "2.jpg")]
    absolute = replace(matches, image0=images[0], image1=images[1])
    save_matches(absolute, tmp_path / "m.h5", root=tmp_path / "images")
    with h5py.File(tmp_path / "m.h5") as file:
        assert "a-1.jpg/2.jpg" in file
    fails("matches-name", save_matches, absolute, tmp_path / "m.h5", root=tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["", ".", "..", "a\0b"])
def test_hdf5_refuses_names_that_cannot_be_stored(tmp_path, matches, name):
    pytest.importorskip("h5py")
    fails("matches-name", save_matches, replace(matches, image0=ImageRef(name, 9, 9)), tmp_path / "m.h5")
    assert not list(tmp_path.iterdir())


def test_hdf5_leaves_a_file_of_another_kind_alone(tmp_path, matches):
    pytest.importorskip("h5py")
    (tmp_path / "m.h5").write_text("precious")
    fails("output-format", save_matches, matches, tmp_path / "m.h5")
    assert (tmp_path / "m.h5").read_text() == "precious"


def test_hdf5_interrupted_leaves_the_old_file(tmp_path, matches, monkeypatch):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "m.h5"
    save_matches(matches, path)
    before = path.read_bytes()

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(h5py.Group, "create_dataset", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_matches(matches.top(1), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.h5"]


def test_h5py_is_optional(tmp_path, matches, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    fails("package-missing", save_matches, matches, tmp_path / "m.h5")
