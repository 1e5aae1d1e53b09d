"""Comparisons say where a run loses, and reports can be written."""

import json
import math

import pytest

from matchrt.bench.accuracy import AccuracyOptions, AccuracyReport, PairResult, evaluate
from matchrt.bench.compare import Baseline, as_baseline, compare, read_baselines
from matchrt.bench.folder import read_folder
from matchrt.bench.latency import LatencyOptions, LatencyReport, Stage, SubjectLatency
from matchrt.bench.machine import Machine
from matchrt.bench.plots import check_plot, pixel_curves, pose_curves, save_plot
from matchrt.bench.report import Results, report_markdown, report_value
from matchrt.bench.tables import comparison_table
from matchrt.errors import MatchRTError

MACHINE = Machine("Example CPU", 4, "Linux x86_64", "3.12", {"onnxruntime": "1.0"}, None)


def report(pairs, estimator="ransac"):
    results = tuple(PairResult(key, name, "any", 10, 0.1, figures) for key, (name, figures) in pairs.items())
    return AccuracyReport("ours", AccuracyOptions(pose_estimator=estimator), "5.0", results)


def rows(comparison):
    return {(row.set, row.figure): row for row in comparison.rows}


def test_verdicts_follow_what_is_better():
    ours = report(
        {
            "s/1": ("s", {"p3": 0.9, "p8": 0.5, "p16": 0.7, "corner_err_px": 2.0}),
            "negative/1": ("negative", {"F_inliers": 30.0, "H_inliers": 2.0}),
        }
    )
    theirs = Baseline(
        "theirs",
        {
            "s/1": {"matches": 50.0, "p3": 0.8, "p8": 0.6, "p16": 0.7, "corner_err_px": 1.0},
            "negative/1": {"matches": 5.0, "F_inliers": 10.0, "H_inliers": 8.0},
        },
    )
    comparison = compare(ours, theirs)
    found = rows(comparison)
    assert found["s", "p3"].verdict == "ahead"
    assert found["s", "p8"].verdict == "behind"
    assert found["s", "p16"].verdict == "level"
    assert found["s", "corner_median_px"].verdict == "behind"  # larger is worse
    assert found["s", "matches"].verdict == ""  # more is not better by itself
    assert found["negative", "F_inliers"].verdict == "behind"  # fewer false ones are better
    assert found["negative", "H_inliers"].verdict == "ahead"
    assert comparison.count("behind") == 3
    assert "behind in 3" in comparison.line()


def test_only_common_pairs_count():
    ours = report({"s/1": ("s", {"p3": 1.0}), "s/2": ("s", {"p3": 0.0}), "t/1": ("t", {"p3": 1.0})})
    comparison = compare(ours, Baseline("theirs", {"s/1": {"matches": 1.0, "p3": 0.5}}))
    assert {row.set for row in comparison.rows} == {"s"}
    row = rows(comparison)["s", "p3"]
    assert (row.pairs, row.ours, row.theirs) == (1, 1.0, 0.5)


def test_other_estimators_are_noted():
    pose = {"s/1": ("s", {"err_R": 1.0, "err_t": 2.0})}
    theirs = Baseline("theirs", {"s/1": {"matches": 1.0, "err_R": 1.0, "err_t": 2.0}})
    assert compare(report(pose), theirs).notes == ()
    assert "magsac" in compare(report(pose, "magsac"), theirs).notes[0]


def test_baselines_are_read_and_their_failures_understood(tmp_path):
    (tmp_path / "b.json").write_text('{"s/1": {"matches": 0, "corner_err_px": 1e6}, "s/2": {"err_R": 180.0}}')
    (tmp_path / "a.json").write_text('{"s/1": {"corner_err_px": 12.5, "err_t": null}}')
    first, second = read_baselines(tmp_path)
    assert (first.name, second.name) == ("a", "b")
    assert first.pairs["s/1"] == {"corner_err_px": 12.5, "err_t": math.inf}
    assert second.pairs == {"s/1": {"matches": 0, "corner_err_px": math.inf}, "s/2": {"err_R": math.inf}}


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": 3}', '{"a": {"p3": "high"}}'])
def test_other_files_are_no_baselines(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(MatchRTError) as caught:
        read_baselines(tmp_path)
    assert caught.value.code == "baseline-invalid"


def test_no_baselines(tmp_path):
    with pytest.raises(MatchRTError) as caught:
        read_baselines(tmp_path)
    assert caught.value.code == "baselines-missing"


def test_a_better_run_is_ahead_of_a_worse_one(eval_folder, true_matcher, garbage_matcher):
    folder = read_folder(eval_folder)
    good = evaluate(true_matcher(noise=0.5), folder, name="good")
    bad = evaluate(garbage_matcher, folder, name="bad")
    forth, back = compare(good, as_baseline(bad)), compare(bad, as_baseline(good))
    assert forth.count("behind") == 0
    assert forth.count("ahead") == back.count("behind") > 10
    assert back.count("ahead") == 0


def test_the_written_report_holds_the_losses(eval_folder, no_matches, true_matcher):
    folder = read_folder(eval_folder)
    run = evaluate(no_matches, folder, name="nothing|found")
    comparison = compare(run, as_baseline(evaluate(true_matcher(), folder, name="truth")))
    stage = Stage.of([1.0, 2.0, 3.0])
    latency = LatencyReport(LatencyOptions(runs=3), (SubjectLatency("x", {"total": stage}, (1.0, 2.0, 3.0)),))
    results = Results(MACHINE, latency=latency, accuracy=(run,), comparisons=(comparison,))
    text = report_markdown(results)
    assert "Example CPU, 4 cores" in text
    assert "| x | total | 2.00 |" in text
    assert "| tiny | within 3 px | 2 | 0.000 | 1.000 | behind |" in text
    assert "nothing\\|found" in text  # a bar in a name does not break the table
    assert "failed" in text
    document = json.loads(json.dumps(report_value(results), allow_nan=False))
    assert document["comparisons"][0]["behind"] == comparison.count("behind") > 5
    table = comparison_table(comparison)
    assert all(len(row) == len(table.headings) for row in table.rows)
    assert table.rich().row_count == len(comparison.rows)


def test_curves_of_known_errors():
    pairs = {
        "s/1": ("s", {"err_R": 3.0, "err_t": 1.0}),
        "s/2": ("s", {"err_R": math.inf, "err_t": math.inf}),
        "h/1": ("h", {f"p{pixels}": pixels / 32 for pixels in (1, 3, 5, 8, 16, 32)}),
    }
    assert pose_curves([report(pairs)]) == {"ours, s": ([0.0, 3.0, 20.0], [0.0, 0.5, 0.5])}
    x, y = pixel_curves([report(pairs)])["ours, h"]
    assert (x[-1], y[-1], y[0]) == (32, 1, 1 / 32)


def test_plots_need_matplotlib_and_say_so(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MatchRTError) as caught:
        check_plot(tmp_path / "a.png")
    assert caught.value.code == "package-missing"
    with pytest.raises(MatchRTError) as caught:
        check_plot(tmp_path / "a.txt")
    assert caught.value.code == "output-format"


def test_plot_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="plots are optional")
    save_plot([report({"s/1": ("s", {"err_R": 3.0, "err_t": 1.0})})], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
