"""Which pairs of a folder are chosen: windows, places and times of EXIF, and nearest neighbours."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from matchrt import MatchRTError
from matchrt.batch.pairing.exif import Taken, read_taken
from matchrt.batch.pairing.nearest import pairs_by_distance, pairs_by_similarity
from matchrt.batch.pairing.options import PairingOptions
from matchrt.batch.pairing.taken import earth_centred, pairs_by_place, pairs_by_time
from matchrt.batch.pairing.windows import all_pairs, window_pairs

GPS, EXIF = 0x8825, 0x8769


@pytest.mark.parametrize(("count", "window"), [(2, 1), (5, 1), (6, 2), (6, 5), (6, 9), (7, 3), (1, 3)])
@pytest.mark.parametrize("loop", [False, True])
def test_windows_are_those_of_the_definition(count: int, window: int, loop: bool) -> None:
    def near(i: int, j: int) -> bool:
        return j - i <= window or (loop and i + count - j <= window)

    found = list(window_pairs(count, window, loop))
    assert len(found) == len(set(found))
    assert set(found) == {pair for pair in itertools.combinations(range(count), 2) if near(*pair)}
    assert list(all_pairs(count)) == list(itertools.combinations(range(count), 2))


def test_each_option_has_its_range() -> None:
    for wrong in ({"neighbours": 0}, {"window": 0}, {"max_distance": 0}, {"max_seconds": -1}, {"min_similarity": 2}):
        with pytest.raises(MatchRTError, match="out of range"):
            PairingOptions(**wrong)


def _photograph(path: Path, gps: dict[int, object], taken: dict[int, object]) -> Path:
    image = PILImage.new("RGB", (32, 24))
    exif = image.getexif()
    exif.get_ifd(GPS).update(gps)
    exif.get_ifd(EXIF).update(taken)
    image.save(path, exif=exif)
    return path


def test_place_and_time_are_read(tmp_path: Path) -> None:
    gps = {1: "S", 2: (33.0, 51.0, 24.5), 3: "W", 4: (151.0, 12.0, 0.0), 5: b"\x01", 6: 12.5}
    taken = {0x9003: "2024:02:29 12:00:01", 0x9291: "25", 0x9011: "+02:00"}
    found = read_taken(_photograph(tmp_path / "a.jpg", gps, taken))
    assert found.place == pytest.approx((-33.856806, -151.2, -12.5), abs=1e-5)
    assert found.seconds == pytest.approx(1709200801.25)


def test_what_is_damaged_gives_way_to_what_is_not(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    image = PILImage.new("RGB", (32, 24))
    exif = image.getexif()
    exif[0x0132] = "2024:02:29 12:00:01"
    exif.get_ifd(EXIF)[0x9003] = "    :  :     :  :  "
    exif.get_ifd(GPS).update({1: "N", 2: (33.0, 0.0, 0.0), 3: "E", 4: (15.0, 0.0, 0.0), 6: 4294967295.0})
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_taken(tmp_path / "a.jpg") == Taken((33.0, 15.0, 0.0), 1709208001.0)
    data, dice = (tmp_path / "a.jpg").read_bytes(), np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(data)
        for place in dice.integers(20, 300, 4):
            damaged[place] = dice.integers(256)
        (tmp_path / "b.jpg").write_bytes(damaged)
        read_taken(tmp_path / "b.jpg")
    assert not recwarn.list


@pytest.mark.parametrize(
    "gps",
    [
        {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)},  # what cameras without a fix write
        {1: "N", 2: (99.0, 0.0, 0.0), 3: "E", 4: (8.0, 0.0, 0.0)},
        {1: "N", 2: (49.0, 0.0, 0.0)},
    ],
)
def test_no_place_is_made_up(tmp_path: Path, gps: dict[int, object]) -> None:
    assert read_taken(_photograph(tmp_path / "a.jpg", gps, {0x9003: "    :  :     :  :  "})) == Taken()


def test_what_is_no_photograph_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe1\x00\x08Exif\0\0II")
    assert read_taken(tmp_path / "a.jpg") == read_taken(tmp_path / "none.jpg") == Taken()


def _walk(count: int) -> list[Taken]:
    dice = np.random.default_rng(1)
    steps = dice.uniform(-2e-4, 2e-4, (count, 2)).cumsum(0)
    return [Taken((49.0 + y, 8.0 + x, 100.0)) for x, y in steps]


def test_places_give_the_pairs_of_colmap(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    taken = _walk(30)
    with pycolmap.Database.open(tmp_path / "d.db") as base:
        camera = pycolmap.Camera.create_from_model_name(0, "PINHOLE", 100.0, 100, 100)
        camera.camera_id = base.write_camera(camera)
        for number, one in enumerate(taken):
            image = pycolmap.Image()
            image.name, image.camera_id = f"{number}.jpg", camera.camera_id
            image.image_id = base.write_image(image)
            prior = pycolmap.PosePrior()
            prior.position = np.array(one.place)
            prior.coordinate_system = pycolmap.PosePriorCoordinateSystem.WGS84
            prior.corr_data_id = image.data_id
            base.write_pose_prior(prior)
        options = pycolmap.SpatialPairingOptions()
        options.max_num_neighbors, options.max_distance, options.ignore_z = 5, 60.0, False
        theirs = pycolmap.SpatialPairGenerator(options, base).all_pairs()
    wanted = {(min(a, b) - 1, max(a, b) - 1) for a, b in theirs}
    # COLMAP counts an image among its own neighbours in some versions.
    ours = [set(pairs_by_place(taken, count, 60.0)) for count in (4, 5)]
    assert wanted in ours


def test_places_far_apart_and_unknown_ones_are_in_no_pair() -> None:
    taken = [Taken((49.0, 8.0, 0.0)), Taken(), Taken((49.0, 8.0005, 0.0)), Taken((50.0, 8.0, 0.0))]
    assert pairs_by_place(taken, 5, 100.0) == [(0, 2)]
    with pytest.raises(MatchRTError) as caught:
        pairs_by_place(taken[:2], 5, 100.0)
    assert caught.value.code == "pairs-exif"


def test_metres_are_metres() -> None:
    # A degree along the equator, and one minute of latitude, which is a nautical mile.
    points = earth_centred(np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [45.0, 0.0, 0.0], [45.0 + 1 / 60, 0.0, 0.0]]))
    assert np.linalg.norm(points[1] - points[0]) == pytest.approx(111_320, rel=1e-3)
    assert np.linalg.norm(points[3] - points[2]) == pytest.approx(1852, rel=1e-3)


def test_times_give_neighbours_in_time() -> None:
    taken = [Taken(seconds=time) for time in (100.0, 0.0, 103.0, 51.0)] + [Taken()]
    assert pairs_by_time(taken, 1, None) == [(0, 2), (0, 3), (1, 3)]
    assert pairs_by_time(taken, 3, 10.0) == [(0, 2)]


def test_one_wrong_clock_or_place_spoils_no_neighbours() -> None:
    """A camera whose clock began at 1980, and a place on the other side of the Earth, make all numbers large."""
    chain = [(number, number + 1) for number in range(39)]
    seconds = [1.7e9 + 3 * number + 0.01 * number**2 for number in range(40)]  # the one before is nearest
    assert pairs_by_time([Taken(seconds=time) for time in [*seconds, 3.2e8]], 1, 100.0) == chain
    steps = [0.05 * number + 0.001 * number**2 for number in range(20)]  # metres, as above
    places = [Taken((48.0, 11.0 + step / 74_600, 0.0)) for step in steps] + [Taken((-40.0, -170.0, 0.0))]
    assert pairs_by_place(places, 1, 5.0) == chain[:19]


def test_equal_times_are_told_apart_by_the_images_order() -> None:
    """EXIF counts whole seconds: of a burst, the first two images must not be everybody's neighbours."""
    burst = [Taken(seconds=5.0)] * 6
    assert pairs_by_time(burst, 1, None) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert max(j - i for i, j in pairs_by_time(burst, 2, 0.0)) == 2


def test_equal_images_have_the_similarity_one() -> None:
    rows = _descriptors(50).repeat(2, 0).astype(np.float16).astype(np.float32)  # as they are kept
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert pairs_by_similarity(rows, 3, 1.0) == [(number, number + 1) for number in range(0, 100, 2)]


def _descriptors(count: int) -> np.ndarray:
    rows = np.random.default_rng(2).normal(size=(count, 24)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_neighbours_of_both_directions_are_merged() -> None:
    rows = _descriptors(70)
    likeness = rows @ rows.T
    np.fill_diagonal(likeness, -2)
    wanted = {tuple(sorted((i, int(j)))) for i in range(70) for j in np.argsort(-likeness[i])[:3]}
    assert pairs_by_similarity(rows, 3, -1.0) == sorted(wanted)
    least = [(i, j) for i, j in sorted(wanted) if likeness[i, j] >= 0.5]
    assert pairs_by_similarity(rows, 3, 0.5) == least and 0 < len(least) < len(wanted)
    assert pairs_by_similarity(rows[:1], 3, -1.0) == [] and pairs_by_distance(np.zeros((1, 3)), 3, 1.0) == []
    assert pairs_by_similarity(rows[:3], 9, -1.0) == [(0, 1), (0, 2), (1, 2)]


def test_an_index_finds_nearly_the_same() -> None:
    pytest.importorskip("faiss")
    rows = _descriptors(600)
    exact, indexed = (set(pairs_by_similarity(rows, 5, -1.0, index_from)) for index_from in (10_000, 10))
    assert len(exact & indexed) >= 0.95 * len(exact)
