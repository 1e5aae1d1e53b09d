"""The command with a fake Matcher in the place of an engine: what is written, and what is refused before any work."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from matchrt.cli import bench as command
from matchrt.errors import MatchRTError
from matchrt.runtime.matches import ImageRef, Matches, Provenance


class FakeMatcher:
    """Takes everything that is passed to a Matcher; returns the true matches of the tiny folder."""

    opened: list = []  # noqa: RUF012

    def __init__(self, engine, options, store=None):
        self.engine, self.options = engine, options
        self.opened.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

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


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--runs", 0], "bench-nothing"),
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
