"""The verdicts on pairs: in the journal, in the report, and in every output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from support.pictures import texture

from matchrt.batch.journal import Journal
from matchrt.batch.merging import MergeOptions
from matchrt.batch.options import ColmapOptions, OutputOptions
from matchrt.batch.output import Output
from matchrt.batch.results import Found, ImageFacts, Judged, Result, pack, unpack, unpack_judged

SIZE = (120, 160)
NAMES = ("a.png", "b.png", "c.png", "d.png")
# One of each verdict; the last pair is of a version that judged none.
JUDGED = (
    Judged("match", 0.984375, -41.5, 57, 270),
    Judged("doubtful", 0.5, -3.0),
    Judged("no match", 0.03125, 0.0, 0, 90),
    None,
)


def found(count: int, judged: Judged | None) -> Found:
    dice = np.random.default_rng(count)
    points = dice.uniform((20, 20), (120, 100), (count, 2)).astype(np.float32)
    scores = np.sort(dice.uniform(0.2, 1, count))[::-1].astype(np.float32)
    facts = ImageFacts(*SIZE, 1, "content")
    return Found(points, points + np.float32(4), scores, facts, facts, judged)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    for name in NAMES:
        PILImage.fromarray(texture(*SIZE)).save(tmp_path / name)
    pairs = [(NAMES[0], NAMES[1]), (NAMES[0], NAMES[2]), (NAMES[0], NAMES[3]), (NAMES[1], NAMES[2])]
    made = Journal(tmp_path / "m.journal")
    made.begin({"pairs": "x"}, pairs)
    made.commit([Result(pair, found(60, judged)) for pair, judged in zip(made.waiting(), JUDGED, strict=True)])
    return made


def write(journal: Journal, path: Path, colmap: ColmapOptions | None = None) -> Path:
    options = OutputOptions(MergeOptions(1.0, None), colmap=colmap or ColmapOptions("SIMPLE_PINHOLE", "single"))
    with journal:
        Output(path, options).write(journal, path.parent)
    return path


@pytest.mark.parametrize("judged", JUDGED)
@pytest.mark.parametrize("count", [0, 1, 5, 60])
def test_packed_results(count: int, judged: Judged | None) -> None:
    result = found(count, judged)
    data = pack(result)
    assert unpack_judged(data) == judged
    for back, wanted in zip(unpack(data), (result.keypoints0, result.keypoints1, result.scores), strict=True):
        assert back.shape == wanted.shape and np.array_equal(back, wanted)


def test_the_journal_counts_them(journal: Journal) -> None:
    with journal:
        assert journal.verdicts() == {"match": 1, "doubtful": 1, "no match": 1}
        assert journal.mend() == 0


def test_parquet_has_columns(journal: Journal, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(write(journal, tmp_path / "m.parquet")).to_pylist()
    assert [row["verdict"] for row in rows] == ["match", "doubtful", "no match", None]
    assert [row["probability"] for row in rows] == [0.984375, 0.5, 0.03125, None]
    assert [row["log10_nfa"] for row in rows] == [-41.5, -3.0, 0.0, None]
    assert [row["turned1"] for row in rows] == [270, 0, 90, None]


def test_hdf5_has_attributes(journal: Journal, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(write(journal, tmp_path / "m.h5")) as file:
        assert file["a.png/c.png"].attrs["verdict"] == "doubtful"
        assert file["a.png/b.png"].attrs["log10_nfa"] == -41.5
        assert file["a.png/b.png"].attrs["probability"] == 0.984375
        assert file["a.png/b.png"].attrs["turned1"] == 270 and file["a.png/c.png"].attrs["turned1"] == 0
        assert not dict(file["b.png/c.png"].attrs)


def test_colmap_has_geometries_of_matches_alone(journal: Journal, tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    path = write(journal, tmp_path / "m.db")
    with pycolmap.Database.open(path) as base:
        images = {image.name: image.image_id for image in base.read_all_images()}
        inliers = {}
        for first, second in (("a", "b"), ("a", "c"), ("a", "d"), ("b", "c")):
            ids = images[f"{first}.png"], images[f"{second}.png"]
            assert len(base.read_matches(*ids)) > 40  # all pairs keep their matches
            if base.exists_two_view_geometry(*ids):
                inliers[first + second] = len(base.read_two_view_geometry(*ids).inlier_matches)
        assert base.num_verified_image_pairs() == 2
    assert set(inliers) == {"ab", "bc"} and min(inliers.values()) > 30


def test_colmap_without_geometries_has_none(journal: Journal, tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    path = write(journal, tmp_path / "m.db", ColmapOptions("SIMPLE_PINHOLE", "single", verify=False))
    with pycolmap.Database.open(path) as base:
        assert base.num_matched_image_pairs() == 4 and base.num_verified_image_pairs() == 0
