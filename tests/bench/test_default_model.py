"""The comparison's own arithmetic: changes and their homographies, means and deviations, what counts as ahead."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.matching import made_matches
from support.pictures import texture

from bench.default_model import __main__ as program
from bench.default_model import cases as listed
from bench.default_model import changes
from bench.default_model.cases import Case
from bench.default_model.methods import EngineMethod, Sift, XFeat, resized
from bench.default_model.protocol import Figure, ahead_in_pairs, aucs, explained, figures_of, share_within, shuffled
from bench.default_model.report import auc_table, hard_table, homography_table, standing
from bench.default_model.store import MatchStore
from matchrt.bench.folder import PosePair


def test_times_are_on_two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the tables say; matches are made on one."""
    subjects: dict[str, Any] = {}

    def recorded(given: dict[str, Any], _: Any) -> Any:
        subjects.update(given)
        return SimpleNamespace(subjects=[])

    monkeypatch.setattr(program, "measure", recorded)
    methods = [EngineMethod("a", "loftr-lite"), EngineMethod("b", "loftr-lite", side=832), XFeat(640), Sift(640)]
    program._times({method.name: method for method in methods}, 1)
    assert [getattr(call.args[0], "threads", 2) for call in subjects.values()] == [2, 2, 2]  # not the one at 832


def spots(height: int = 96, width: int = 128) -> Any:
    """An image with three bright spots, and their places (x, y)."""
    places = np.array([[40.0, 40.0], [70.0, 44.0], [60.0, 58.0]])
    image = np.zeros((height, width, 3), np.float32)
    y, x = np.mgrid[:height, :width]
    for u, v in places:
        image += 250 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / 18)[:, :, None]
    return np.clip(image, 0, 255).astype(np.uint8), places


@pytest.mark.parametrize(
    "change", [c for c in changes.all_changes() if c.set in ("rotation", "zoom")], ids=lambda c: c.name
)
def test_a_change_says_where_its_pixels_go(change: changes.Change) -> None:
    image, places = spots()
    copy, homography = change.apply(image)
    mapped = np.c_[places, np.ones(3)] @ homography.T
    for u, v in mapped[:, :2] / mapped[:, 2:]:
        if not (8 < u < copy.shape[1] - 8 and 8 < v < copy.shape[0] - 8):
            continue
        left, top = int(u) - 6, int(v) - 6
        part = copy[top : top + 13, left : left + 13, 0].astype(float)
        assert part[round(v) - top, round(u) - left] > 0.85 * part.max()
    if change.set == "rotation":
        corners = np.array([[0, 0, 1], [127, 0, 1], [0, 95, 1], [127, 95, 1.0]]) @ homography.T
        assert corners[:, 0].min() > -0.51 and corners[:, 1].min() > -0.51
        assert corners[:, 0].max() < copy.shape[1] - 0.49 and corners[:, 1].max() < copy.shape[0] - 0.49


def test_quarter_turns_move_whole_pixels() -> None:
    image = texture(96, 128)[:, :, None].repeat(3, axis=2)
    for angle, turns in ((90, -1), (180, 2)):
        assert np.array_equal(changes.rotated(image, angle)[0], np.rot90(image, turns))


def test_finished_copies_are_the_same_every_time_and_never_the_photograph() -> None:
    image, _ = spots()
    for change in changes.all_changes():
        first, homography = change.of(image, "name")
        assert np.array_equal(first, change.of(image, "name")[0]) and homography.shape == (3, 3)
        assert (first.dtype == np.uint8 and first.shape != image.shape) or not np.array_equal(first, image)


def test_names_of_changes_are_unique() -> None:
    names = [change.name for change in changes.all_changes()]
    assert len(set(names)) == len(names) == 13 + 6 + 3 + 3 + 4 + 1 + 3


def test_means_and_deviations() -> None:
    figure = Figure.over_seeds([1.0, 2.0, 3.0])
    assert figure == Figure(2.0, 1.0)
    assert Figure.over_pairs([1.0, 2.0, 3.0]).deviation == pytest.approx(1 / math.sqrt(3))
    assert Figure.over_seeds([0.5]) == Figure(0.5, 0.0) and Figure.over_pairs([]) == Figure(0.0)


def test_ahead_only_beyond_both_deviations() -> None:
    assert Figure(0.5, 0.03).ahead_of(Figure(0.44, 0.04))
    assert not Figure(0.5, 0.03).ahead_of(Figure(0.46, 0.04))
    assert not Figure(0.46, 0.0).ahead_of(Figure(0.5, 0.0))
    assert ahead_in_pairs([0.9, 0.8, 0.7], [0.8, 0.7, 0.6]) == 1
    assert ahead_in_pairs([0.9, 0.2], [0.2, 0.9]) == 0
    assert ahead_in_pairs([0.1, 0.1], [0.4, 0.5]) == -1


def test_areas_under_recall_are_taken_seed_by_seed() -> None:
    # Seed 0 solves both pairs exactly, seed 1 none: areas 1 and 0.
    figure = aucs([[0.0, math.inf], [0.0, math.inf]], 5)
    assert figure.mean == 0.5 and figure.deviation == pytest.approx(math.sqrt(0.5))


def rows(count: int, wrong: int) -> Any:
    generator = np.random.default_rng(1)
    found = []
    for index in range(count):
        x, y = generator.uniform(50, 590, 2)
        u, v = generator.uniform(50, 590, 2) if index < wrong else (x + 10, y)
        found.append((x, y, u, v, 0.5))
    return found


def test_what_one_homography_explains() -> None:
    assert explained(made_matches(rows(60, 10)), 0)
    assert not explained(made_matches(rows(25, 0)), 0)  # fewer than 30
    assert not explained(made_matches(rows(120, 80)), 0)  # a third of the matches


def test_seeds_change_the_order_of_matches_and_no_match() -> None:
    matches = made_matches(rows(60, 10))
    (one0, one1), (two0, two1), (again, _) = (shuffled(matches, seed) for seed in (1, 2, 1))
    assert np.array_equal(one0, again) and not np.array_equal(one0, two0)
    for first, second in ((one0, one1), (two0, two1)):
        joined = np.c_[first, second]
        wanted = np.c_[matches.keypoints0, matches.keypoints1]
        assert np.array_equal(joined[np.lexsort(joined.T)], wanted[np.lexsort(wanted.T)])


def test_the_share_within_3_px_is_for_a_long_side_of_640() -> None:
    moved = np.array([[1, 0, 10.0], [0, 1, 0], [0, 0, 1]])
    case = Case("a", "v_dogman", "", lambda: (spots()[0],) * 2, homography=moved)
    points = [(100 + i, 100, 110 + i + off, 100, 0.5) for i, off in enumerate((0, 2.9, 3.1, 5.9))]
    assert share_within(case, made_matches(points, 640)) == 0.5
    assert share_within(case, made_matches(points, 1280)) == 1.0
    assert share_within(case, made_matches([], 640)) == 0.0


def pose_case(name: str) -> Case:
    camera = np.array([[600, 0, 320], [0, 600, 320], [0, 0, 1.0]])
    pair = PosePair(
        name,
        "reichstag",
        Path("a"),
        Path("b"),
        np.eye(3),
        np.array([1.0, 0, 0]),
        camera,
        camera,
        (640, 640),
        (640, 640),
    )
    return Case(name, "reichstag", "", lambda: (spots()[0],) * 2, pose=pair)


def test_figures_and_tables_of_a_small_run() -> None:
    generator = np.random.default_rng(0)
    depth = generator.uniform(3, 9, 80)
    rays = generator.uniform(-0.4, 0.4, (80, 2))
    first = rays * 600 + 320
    second = first + np.c_[600 / depth, np.zeros(80)]
    seen = [(*a, *b, 0.9) for a, b in zip(first, second, strict=True) if b[0] < 639]
    good, none = made_matches(seen), made_matches([])
    cases = [
        pose_case("reichstag/a"),
        pose_case("reichstag/b"),
        Case("v/1", "v_dogman", "", lambda: (spots()[0],) * 2, homography=np.eye(3)),
    ]
    found = {"reichstag/a": good, "reichstag/b": none, "v/1": none}
    figures = figures_of(cases, lambda case: found[case.id], {"reichstag/a"}, seeds=3)
    row = figures["pairs"]["reichstag/a"]
    assert len(row["ransac"]) == 3 and max(row["magsac"]) < 0.5 and row["near"]
    assert figures["pairs"]["reichstag/b"]["ransac"] == [None] * 3
    assert figures["pairs"]["v/1"]["within"] == 0.0
    table = auc_table({"one": figures}, near=False).splitlines()
    assert len(table) == 3 and table[2].split("|")[-2].strip() == ".500 ± .000"
    assert "1.000 ± .000" in auc_table({"one": figures}, near=True)
    assert ".000 ± .000" in homography_table({"one": figures})
    assert "level: v_dogman" in standing({"one": figures, "two": figures}, "one")[0]


def test_pairs_that_were_not_run_have_no_verdicts() -> None:
    rows = [{"set": name, "explained": [1]} for name in ("multimodal", "box")]
    rows.append({"set": "unrelated", "verdict": "doubtful"})
    table = hard_table({"one": {"pairs": dict(enumerate(rows))}}).splitlines()
    assert [cell.strip() for cell in table[-1].split("|")[-3:-1]] == ["0 / 1 / 0", "not run"]


def test_matches_are_kept_and_made_once(tmp_path: Path) -> None:
    first = texture(200, 260)
    case = Case("rotation-0/x", "rotation", "0", lambda: (first, first), homography=np.eye(3))
    told: list[str] = []
    store = MatchStore(tmp_path, Sift(320))
    one, again = (store.matches(case, told.append) for _ in range(2))
    assert told == ["rotation-0/x"] and len(one) > 20
    assert np.array_equal(one.keypoints0, again.keypoints0) and share_within(case, again) == 1.0
    (file,) = store.folder.glob("*.npz")
    file.write_bytes(b"cut")
    assert len(store.matches(case, told.append)) == len(one) and len(told) == 2


def test_images_are_enlarged_at_most_twice() -> None:
    small, factors = resized(np.zeros((100, 200), np.uint8), 640)
    assert small.shape == (200, 400) and np.array_equal(factors, [0.5, 0.5])


def test_unrelated_pairs_are_of_different_places(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2].parent / "shared" / "eval"
    if not root.is_dir():
        pytest.skip("the evaluation folder is not here")
    places = {name: place for place, names in listed._PLACES.items() for name in names}
    pairs = list(listed._unrelated(root))
    assert len({case.id for case in pairs}) == listed.UNRELATED
    for case in pairs:
        first, second = case.id.removeprefix("unrelated/").split("__")
        one, other = (next((p for n, p in places.items() if Path(n).stem == stem), stem) for stem in (first, second))
        assert one != other
