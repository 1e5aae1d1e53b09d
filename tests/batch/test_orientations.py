"""Turned photographs: keypoints lie where the readers of COLMAP and hloc see the same point of the scene.

hloc reads with OpenCV's IMREAD_IGNORE_ORIENTATION, COLMAP with its own Bitmap. OpenCV does not heed that flag for TIFF:
it turns orientations 2 to 4 and fails at 5 to 8. hloc's keypoints go to COLMAP, which reads TIFF as it is stored, so
that reader counts there.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PILImage
from PIL import features
from support.commands import CommandLine
from support.pictures import shifted_pair

from matchrt import Matches

SHIFT = (16, 10)
ORIENTATIONS = range(1, 9)
FORMATS = {
    "jpg": ("JPEG", {"quality": 97}), "png": ("PNG", {}), "webp": ("WEBP", {"lossless": True}), "tif": ("TIFF", {}),
    "avif": ("AVIF", {"quality": 98}),
}  # fmt: skip
# What makes stored pixels of upright ones, as the Exif standard words it: where the 0th row and column are.
STORE: dict[int, Callable[[Any], Any]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.swapaxes(a, 0, 1)[::-1],
    7: lambda a: np.swapaxes(a[::-1, ::-1], 0, 1),
    8: lambda a: np.swapaxes(a, 0, 1)[:, ::-1],
}
QUICK = ("--resize", "256", "--json")
Points = npt.NDArray[np.float64]


def test_the_table_is_what_pillow_does() -> None:
    upright = np.arange(12, dtype=np.uint8).reshape(3, 4)
    turn = PILImage.Transpose
    undone = {2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE,
              6: turn.ROTATE_270, 7: turn.TRANSVERSE, 8: turn.ROTATE_90}  # fmt: skip
    for orientation, method in undone.items():
        stored = PILImage.fromarray(np.ascontiguousarray(STORE[orientation](upright)))
        assert np.array_equal(np.asarray(stored.transpose(method)), upright), orientation


class Album:
    """`a.png`, and the same scene moved by SHIFT in every orientation and format (of squares in fewer)."""

    def __init__(self, folder: Path, height: int, width: int) -> None:
        first, self.upright = shifted_pair(height, width, SHIFT)
        self.folder, self.names = folder, {}
        folder.mkdir()
        PILImage.fromarray(first).save(folder / "a.png")
        for suffix, (kind, options) in FORMATS.items():
            if (kind == "AVIF" and not features.check("avif")) or (height == width and suffix in ("webp", "avif")):
                continue
            for orientation in ORIENTATIONS:
                exif = PILImage.Exif()
                exif[0x0112] = orientation
                name = f"b{orientation}.{suffix}"
                stored = np.ascontiguousarray(STORE[orientation](self.upright))
                PILImage.fromarray(stored).save(folder / name, kind, exif=exif, **options)
                self.names[name] = orientation
        self.pairs = folder / "pairs.txt"
        self.pairs.write_text("".join(f"a.png {name}\n" for name in self.names))

    def require(self, name: str, seen: npt.NDArray[np.uint8] | None, points0: Points, points1: Points) -> None:
        """Checks that `seen` are the stored pixels, and that the points are of one scene there."""
        orientation = self.names[name]
        stored = STORE[orientation](self.upright).astype(int)
        assert seen is not None and seen.shape[:2] == stored.shape, name
        grey = seen.astype(float).mean(axis=2) if seen.ndim == 3 else seen.astype(float)
        assert np.abs(grey - stored).mean() < 3, name
        assert len(points0) > 60, name
        error = np.linalg.norm(self.to_upright(orientation, points1) - (points0 - np.array(SHIFT)), axis=1)
        assert np.median(error) < 0.5 and np.percentile(error, 90) < 1.5, (name, np.median(error))

    def to_upright(self, orientation: int, points: Points) -> Points:
        """Stored x, y as upright ones, from where the turned picture has its first pixels."""
        y, x = np.mgrid[: self.upright.shape[0], : self.upright.shape[1]]
        xy = STORE[orientation](np.stack([x, y], 2)).astype(float)
        return xy[0, 0] + points[:, :1] * (xy[0, 1] - xy[0, 0]) + points[:, 1:] * (xy[1, 0] - xy[0, 0])


@pytest.fixture(scope="module", params=[(120, 160), (144, 144)], ids=["oblong", "square"])
def album(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Album:
    return Album(tmp_path_factory.mktemp("album") / "img", *request.param)


@pytest.fixture(scope="module")
def journal(album: Album) -> Path:
    return album.folder.parent / "journal"


def run(cli: CommandLine, album: Album, journal: Path, output: Path, *options: object) -> None:
    ran = cli("match-many", album.pairs, "--output", output, "--journal", journal, *QUICK, *options)
    assert ran.code == 0, ran.out
    assert ran.json["matched"] == len(album.names)


def colmap_sees(path: Path) -> npt.NDArray[np.uint8] | None:
    pycolmap = pytest.importorskip("pycolmap")
    bitmap = pycolmap.Bitmap.read(str(path), False)
    return None if bitmap is None else bitmap.to_array()


def hloc_sees(path: Path) -> npt.NDArray[np.uint8] | None:
    if path.suffix == ".tif":
        return colmap_sees(path)
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_hloc_files(album: Album, journal: Path, layout: str, cli: CommandLine, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    output = tmp_path / "m.h5"
    run(cli, album, journal, output, "--layout", layout)
    with h5py.File(tmp_path / "feats_m.h5") as images, h5py.File(output) as pairs:
        first = images["a.png/keypoints"][()].astype(float)
        for name in album.names:
            matches0 = pairs[f"a.png/{name}/matches0"][()]
            kept = matches0 >= 0
            points = first[: len(matches0)][kept], images[f"{name}/keypoints"][()].astype(float)[matches0[kept]]
            album.require(name, hloc_sees(album.folder / name), *points)
            if layout == "dense":
                raw = [pairs[f"a.png/{name}/keypoints{side}"][()].astype(float) for side in (0, 1)]
                album.require(name, hloc_sees(album.folder / name), *raw)
            else:
                height, width = STORE[album.names[name]](album.upright).shape
                assert images[f"{name}/image_size"][()].tolist() == [width, height]


def test_colmaps_database(album: Album, journal: Path, cli: CommandLine, tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    output = tmp_path / "m.db"
    run(cli, album, journal, output)
    with pycolmap.Database.open(output) as base:
        images = {image.name: image for image in base.read_all_images()}
        cameras = {camera.camera_id: camera for camera in base.read_all_cameras()}
        first = images["a.png"].image_id
        for name in album.names:
            image = images[name]
            stored = STORE[album.names[name]](album.upright)
            seen = colmap_sees(album.folder / name)
            assert seen is not None or name.endswith(("webp", "avif")), name  # this COLMAP may not read these
            camera = cameras[image.camera_id]
            assert (camera.height, camera.width) == stored.shape
            matches = base.read_matches(first, image.image_id)
            points = [base.read_keypoints(number).astype(float)[:, :2] - 0.5 for number in (first, image.image_id)]
            both = points[0][matches[:, 0]], points[1][matches[:, 1]]
            album.require(name, stored.astype(np.uint8) if seen is None else seen, *both)
            assert len(base.read_two_view_geometry(first, image.image_id).inlier_matches) > 50
    with closing(sqlite3.connect(output)) as plain:
        assert plain.execute("SELECT count(*) FROM images").fetchone() == (len(album.names) + 1,)


def upright_files(album: Album, journal: Path, cli: CommandLine, tmp_path: Path) -> Iterator[tuple[str, Any]]:
    parquet = pytest.importorskip("pyarrow.parquet")
    run(cli, album, journal, tmp_path / "m.parquet")
    for row in parquet.read_table(tmp_path / "m.parquet").to_pylist():
        yield row["image1"], row


def test_parquet_says_how_to_turn_its_points(album: Album, journal: Path, cli: CommandLine, tmp_path: Path) -> None:
    seen = 0
    for name, row in upright_files(album, journal, cli, tmp_path):
        orientation = album.names[name]
        assert row["pixels"] == "upright" and (row["orientation0"], row["orientation1"]) == (1, orientation)
        assert (row["height1"], row["width1"]) == album.upright.shape
        points = [np.array(row[f"keypoints{side}"]) for side in (0, 1)]
        error = np.linalg.norm(points[1] - (points[0] - np.array(SHIFT)), axis=1)
        assert np.median(error) < 0.5
        seen += 1
    assert seen == len(album.names)


@pytest.mark.parametrize("name", ["b3.jpg", "b6.png", "b7.tif", "b8.png"])
def test_match_saves_upright_or_stored_pixels(album: Album, name: str, cli: CommandLine, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    pair, orientation = (album.folder / "a.png", album.folder / name), album.names[name]
    for suffix in ("npz", "json", "h5"):
        ran = cli("match", *pair, "--save", tmp_path / f"m.{suffix}", "--root", album.folder, *QUICK)
        assert ran.code == 0 and ran.json["pixels"] == "upright" and ran.json["image1"]["orientation"] == orientation
    for suffix in ("npz", "json"):
        matches = Matches.load(tmp_path / f"m.{suffix}")
        assert (matches.pixels, matches.image1.orientation) == ("upright", orientation)
        stored = matches.image1.stored_points(matches.keypoints1).astype(float)
        album.require(name, hloc_sees(album.folder / name), matches.keypoints0.astype(float), stored)
    with h5py.File(tmp_path / "m.h5") as file:
        group = file[f"a.png/{name}"]
        points = [group[f"keypoints{side}"][()].astype(float) for side in (0, 1)]
        assert json.loads(group.attrs["matchrt"])["pixels"] == "stored"
    album.require(name, hloc_sees(album.folder / name), *points)


def test_with_exif_ignored_both_are_the_same(album: Album, cli: CommandLine, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    parquet = pytest.importorskip("pyarrow.parquet")
    listing = tmp_path / "pairs.txt"
    names = [f"b{orientation}.{suffix}" for orientation in (3, 8) for suffix in ("jpg", "tif", "png")]
    listing.write_text("".join(f"{name} {name.replace('b', 'c')}\n" for name in names))
    for name in names:  # the same picture with a mark that is not in the way
        (tmp_path / name).write_bytes((album.folder / name).read_bytes())
        (tmp_path / name.replace("b", "c")).write_bytes((album.folder / name).read_bytes())
    common = ("match-many", listing, "--ignore-exif", "--journal", tmp_path / "j", *QUICK, "--output")
    for output in ("m.h5", "m.parquet"):
        assert cli(*common, tmp_path / output).code == 0
    rows = parquet.read_table(tmp_path / "m.parquet").to_pylist()
    assert {(row["pixels"], row["orientation0"], row["orientation1"]) for row in rows} == {("stored", 1, 1)}
    with h5py.File(tmp_path / "m.h5") as file:
        for row in rows:
            stored = STORE[album.names[row["image0"]]](album.upright)
            assert (row["height0"], row["width0"]) == stored.shape
            points = file[f"{row['image0']}/{row['image1']}/keypoints0"][()]
            assert np.array_equal(points, np.array(row["keypoints0"], np.float32))
