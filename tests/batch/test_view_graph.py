"""The view graph, its page, and what is said during a long run."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from support.pictures import texture

from matchrt.batch.graph_drawing import drawn
from matchrt.batch.journal import Journal
from matchrt.batch.results import Found, ImageFacts, Judged, Result
from matchrt.batch.run_report import write_report
from matchrt.batch.view_graph import Edges, ViewGraph, connected
from matchrt.cli.output import MinuteLines, duration
from matchrt.errors import MatchRTError

SIZE = (120, 160)
EVIL = "<img src=x onerror=alert(1)>.png"
NAMES = ("a.png", "b.png", "c.png", "d.png", EVIL)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    for name in NAMES[:4]:
        PILImage.fromarray(texture(*SIZE)).save(tmp_path / name)
    pairs = [(NAMES[1], NAMES[0]), (NAMES[1], NAMES[2]), (NAMES[0], NAMES[3]), (NAMES[3], EVIL), (NAMES[2], EVIL)]
    judged = [Judged("match", 0.99, -40.0, 57), Judged("match", 0.93, -9.0, 12), Judged("doubtful", 0.5, -1.0, 4)]
    made = Journal(tmp_path / "m.journal")
    made.begin({"pairs": "x"}, pairs)
    dice = np.random.default_rng(0)
    outcomes: list[Found | MatchRTError] = []
    for one in judged:
        points = dice.uniform(20, 100, (9, 2)).astype(np.float32)
        facts = ImageFacts(*SIZE, 1, "content")
        outcomes.append(Found(points, points, np.linspace(1, 0.5, 9, dtype=np.float32), facts, facts, one))
    outcomes += [MatchRTError("image-missing", "gone", "") for _ in range(2)]
    made.commit([Result(pair, outcome) for pair, outcome in zip(made.waiting(), outcomes, strict=True)])
    return made


def test_what_is_connected(journal: Journal) -> None:
    with journal:
        graph = ViewGraph.of(journal)
    names = [[graph.names[node] for node in group] for group in graph.components]
    assert names == [["a.png", "b.png", "c.png"]]
    assert {graph.names[node] for node in graph.alone} == {"d.png", EVIL}
    assert graph.failed_by == {"image-missing": 2}
    assert graph.verified.inliers.tolist() == [57, 12] and graph.doubtful.inliers.tolist() == [4]
    assert {bar.least: bar.count for bar in graph.histogram() if bar.count} == {10: 1, 40: 1}
    assert graph.verified.weakest(1) == graph.verified.likeliest(2)[1:] == [graph.verified.edge(1)]


def test_components_of_a_graph() -> None:
    assert connected(6, [(4, 5), (0, 2), (2, 4)]) == [(0, 2, 4, 5), (1,), (3,)]
    assert connected(0, []) == []


def test_a_page_shows_all_and_obeys_no_name(journal: Journal, tmp_path: Path) -> None:
    with journal:
        write_report(tmp_path / "r.html", journal, ViewGraph.of(journal), tmp_path, "<script>")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert EVIL not in text and "&lt;img src=x" in text and "<script" not in text
    # Two verified pairs, a doubtful one, and the image without a partner that is there; the other one is named.
    assert text.count("data:image/jpeg;base64,") == 4 and "image-missing" in text
    assert text.count("<circle") == 3 and text.count("<line") == 2


@pytest.mark.parametrize("nodes", [2, 50, 1500])
def test_drawings_stay_within_their_frame(nodes: int) -> None:
    rows = [(i, i, i + 1, 0.99, 57) for i in range(nodes - 1) if i % 7 != 6]
    edges = Edges.of(array("d", [value for row in rows for value in row]))
    groups = tuple(group for group in connected(nodes, edges.nodes.tolist()) if len(group) > 1)
    graph = ViewGraph(tuple(map(str, range(nodes))), edges, Edges.of(array("d")), groups, (), {})
    picture, shown = drawn(graph)
    assert picture.count("<circle") == shown <= 600 and "nan" not in picture
    places = [float(part.split('"')[1]) for part in picture.split("cx=")[1:]]
    assert 0 <= min(places) <= max(places) <= 900


def test_a_line_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = MinuteLines("matching", "pairs", lambda: now[0])
    for second in range(0, 151, 10):
        now[0] = float(second)
        lines.tell(second, 6000)
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "matching: 60 of 6000 pairs, 1.00 a second, about 1 h 39 min left",
        "matching: 120 of 6000 pairs, 1.00 a second, about 1 h 38 min left",
    ]
    assert [duration(seconds) for seconds in (5, 59, 61, 3599, 4000)] == [
        "5 s",
        "59 s",
        "1 min",
        "1 h 0 min",
        "1 h 7 min",
    ]


def test_the_journal_keeps_the_inliers(journal: Journal, filled: Callable[[], Journal]) -> None:
    with journal:
        assert [judged.inliers for *_, judged in journal.judged() if judged is not None] == [57, 12, 4]
        assert journal.found_of(1).judged == Judged("match", np.float32(0.99), -40.0, 57)
    with filled() as plain:  # pairs that nobody judged
        assert [judged for *_, judged in plain.judged()] == [None, None, None]
