"""The command with a fake Matcher in the place of an engine: what is written, and what is refused before any work."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from matchrt.cli import bench as command
from matchrt.errors import MatchRTError
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.match_data import ImageRef, Provenance
from matchrt.runtime.matches import Matches
from matchrt.runtime.session import SessionMemory
from matchrt.store import EngineStore


class FakeMatcher:
    """Takes everything that is passed to a Matcher; returns the true matches of the tiny folder."""

    opened: list = []  # noqa: RUF012
    manifest = read_engine("loftr-lite").manifest

    def __init__(self, engine, options, store=None):
        self.engine, self.options, self.forks, self.closed = engine, options, [], False
        self.opened.append(self)
        launch = "graph" if options.cuda_graph else "enqueue (switched off)"
        self.session = SimpleNamespace(
            launch_mode=lambda: launch, asynchronous=False, memory=lambda: SessionMemory(10**6, 2 * 10**6, 3)
        )

    def fork(self):
        self.forks.append(FakeMatcher(self.engine, self.options))
        return self.forks[-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True

    def match_many(self, pairs):
        return (self.match(*pair) for pair in pairs)

    def match(self, image0, image1):
        points = (np.zeros((0, 2)), np.zeros((0, 2))) if not hasattr(image0, "parent") else self.truth(image0, image1)
        return Matches(
            *points, np.ones(len(points[0])), ImageRef("a", 480, 640), ImageRef("b", 480, 640), {"inference": 1.0},
            Provenance("m", "0" * 64, "fp32", "onnxruntime", "0", (480, 640), (480, 640)),
        )  # fmt: skip


@pytest.fixture
def invoke(monkeypatch, true_matcher):
    monkeypatch.setattr("matchrt.runtime.matcher.Matcher", FakeMatcher)
    monkeypatch.setattr(FakeMatcher, "truth", staticmethod(true_matcher()), raising=False)
    monkeypatch.setattr(FakeMatcher, "opened", [])
    app = typer.Typer()
    app.command("bench", epilog=command.EPILOG)(command.bench)

    def run(*arguments):
        if "--frames" not in arguments:  # drawing them takes longer than everything else here
            arguments = (*arguments, "--frames", "none")
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)
        if isinstance(result.exception, MatchRTError):
            raise result.exception
        assert result.exception is None, result.output
        return result

    return run


def test_json_holds_latency_accuracy_and_comparison(invoke, eval_folder, tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "old.json").write_text('{"tiny/0_1": {"matches": 9, "p3": 0.25}}')
    result = invoke("a.onnx", "x/a.onnx", "--runs", 2, "--warm-up", 0, "--eval", eval_folder, "--baselines",
                    tmp_path / "base", "--json")  # fmt: skip
    document = json.loads(result.stdout)
    assert list(document["latency"]["subjects"]) == ["a.onnx", "a.onnx #2"]
    assert [run["name"] for run in document["accuracy"]] == ["a.onnx", "a.onnx #2"]
    assert document["accuracy"][0]["sets"]["tiny"]["p1"] == 1
    assert [c["baseline"] for c in document["comparisons"]] == ["old", "old", "a.onnx"]
    assert document["comparisons"][0]["ahead"] == 1
    assert all(matcher.options.apply_exif is False for matcher in FakeMatcher.opened)


def test_markdown_is_written_and_names_no_folder(invoke, eval_folder, tmp_path):
    out = tmp_path / "run.md"
    result = invoke(
        "some/where/a.onnx", "--runs", 0, "--eval", eval_folder, "--set", "tiny", "--first", 1, "--output", out
    )
    text = out.read_text(encoding="utf-8")
    assert "| tiny | within 1 px | 1.000 |" in text
    assert "scene" not in text
    assert "where" not in text
    assert "wrote" in result.stdout


def test_latency_alone_on_given_images(invoke, tmp_path, eval_folder):
    pair = eval_folder / "homography" / "0.png", eval_folder / "homography" / "1.png"
    document = json.loads(invoke("a.onnx", "--runs", 1, "--pairs", *pair, "--json").stdout)
    assert document["accuracy"] == []
    assert "inference" in document["latency"]["subjects"]["a.onnx"]["stages_ms"]


def test_engines_are_told_apart_by_backend_and_launch(invoke, tmp_path, coarse_engine):
    store = EngineStore(tmp_path)
    file = read_engine(coarse_engine)
    store.put(file.data, file.manifest, "a.onnx")
    rtx = replace(file.manifest, backend="tensorrt_rtx", build_key="e" * 64)
    store.put(file.data, rtx, "b.engine")
    document = json.loads(
        invoke("coarse-loftr", "--backend", "onnxruntime", "--backend", "tensorrt_rtx", "--compare-launch", "--runs", 1,
               "--store", tmp_path, "--json").stdout
    )  # fmt: skip
    names = ["coarse-loftr onnxruntime", "coarse-loftr tensorrt_rtx", "coarse-loftr tensorrt_rtx, no graph"]
    assert list(document["latency"]["subjects"]) == names == [entry["name"] for entry in document["engines"]]
    assert [entry["launch"] for entry in document["engines"]] == ["graph", "graph", "enqueue (switched off)"]
    assert document["engines"][0]["memory"] == {"scratch": 10**6, "tensors": 2 * 10**6, "pinned": 3}
    assert [matcher.options.backend for matcher in FakeMatcher.opened] == [
        "onnxruntime",
        "tensorrt_rtx",
        "tensorrt_rtx",
    ]
    with pytest.raises(MatchRTError) as caught:
        invoke("coarse-loftr", "--backend", "onnxruntime", "--compare-launch", "--store", tmp_path)
    assert caught.value.code == "bench-nothing"


def test_streams_are_forks_and_all_are_closed(invoke):
    result = invoke("a.onnx", "--runs", 0, "--streams", 3, "--stream-seconds", 0.1, "--json")
    document = json.loads(result.stdout)
    assert document["latency"] is None
    assert [rate["streams"] for rate in document["throughput"]["engines"]["a.onnx"]] == [1, 2, 3]
    assert len(FakeMatcher.opened) == 3 and len(FakeMatcher.opened[0].forks) == 2
    assert all(matcher.closed for matcher in FakeMatcher.opened)
    text = invoke("a.onnx", "--runs", 1, "--streams", 2, "--stream-seconds", 0.1).stdout
    assert "2 streams" in text and "fp32" in text and "pairs a second" in text


def test_latency_plot(invoke, tmp_path):
    pytest.importorskip("matplotlib")
    from PIL import Image

    invoke("a.onnx", "b.onnx", "--runs", 5, "--latency-plot", tmp_path / "ecdf.png")
    with Image.open(tmp_path / "ecdf.png") as picture:
        assert picture.width > 300 and len(picture.convert("RGB").getcolors(1 << 20)) > 20


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--runs", 0], "bench-nothing"),
        (["--runs", 0, "--streams", 1, "--latency-plot", "x.png"], "bench-nothing"),
        (["--compare-launch", "--no-cuda-graph"], "bench-nothing"),
        (["--latency-plot", "x.jpg"], "output-format"),
        (["--baselines", "b"], "bench-nothing"),
        (["--plot", "p.png"], "bench-nothing"),
        (["--output", "run.txt"], "output-format"),
        (["--size", "big"], "size-syntax"),
        (["--size", "8x640"], "size-syntax"),
        (["--pose-estimator", "best"], "pose-estimator"),
        (["--device", "tpu"], "device-unknown"),
        (["--eval", "nowhere"], "eval-missing"),
    ],
)
def test_refused_before_any_work(invoke, arguments, code):
    with pytest.raises(MatchRTError) as caught:
        invoke("a.onnx", *arguments)
    assert caught.value.code == code
    assert caught.value.remedy
    assert FakeMatcher.opened == []


def test_help_has_an_example():
    assert command.EPILOG.startswith("Example: matchrt bench ")


def test_an_engine_whose_backend_is_missing_is_left_out(invoke, monkeypatch):
    class Missing(FakeMatcher):
        def __init__(self, engine, options, store=None):
            if "gone" in engine:
                raise MatchRTError("package-missing", "tensorrt is not installed.", "Install it.")
            super().__init__(engine, options, store)

    monkeypatch.setattr("matchrt.runtime.matcher.Matcher", Missing)
    document = json.loads(invoke("a.onnx", "gone.engine", "--runs", 1, "--json").stdout)
    assert list(document["latency"]["subjects"]) == ["a.onnx"]
    assert "gone.engine was left out: tensorrt is not installed. Install it." in document["cautions"]
    with pytest.raises(MatchRTError) as caught:
        invoke("gone.engine", "--runs", 1)
    assert caught.value.code == "package-missing"


def test_frames_and_streams_are_measured_and_tables_are_not_cut_in_pipes(invoke):
    name = "an-engine-with-a-name-that-is-longer-than-a-terminal-of-eighty-characters-is-wide-in-most-shells.onnx"
    text = invoke(name, "--runs", 1, "--frames", "64x96", "--streams", 1, "--stream-seconds", 0.1).stdout
    assert "96x64 on the host" in text
    assert "engine waited for images" in text
    assert text.count(f" {name} ") >= 4 and "…" not in text
    document = json.loads(invoke("a.onnx", "--runs", 1, "--frames", "64x96", "--frames", "32x32", "--json").stdout)
    assert [row["frame"] for row in document["calls"]["rows"]] == [[32, 32], [64, 96]]
