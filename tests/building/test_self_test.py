"""The self-test that a build writes: answered by the fp32 graph, with limits that the judged engine keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from support.small import small_engine

from matchrt.bench.variant import open_variant
from matchrt.building.judge import Judgement, judged_manifest
from matchrt.building.self_test import make_self_test, self_test_of, with_limits
from matchrt.export import precision
from matchrt.manifest import SelfTest
from matchrt.runtime.bundled import photographs_folder
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.runtime.opening import open_session
from matchrt.runtime.self_test.answer import SelfTestResult, decode_answer
from matchrt.runtime.self_test.prove import run_self_test


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> EngineFile:
    return small_engine(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def made(small: EngineFile) -> SelfTest:
    test = self_test_of(small)
    assert test is not None
    return test


def test_the_fp32_engine_answers_its_own_test(small: EngineFile, made: SelfTest) -> None:
    answer = decode_answer(made.answer)
    assert made.kind == "matches" and len(answer) == 128 and (answer[:, 4] >= 0.4).all()
    assert (answer[:, :2].max(axis=0) < (224, 160)).all()
    result = run_self_test(open_session(small), made)
    assert result.failures(made) == () and result.within == 1.0 and result.pixels < 1e-4


def test_fp16_passes_and_stays_far_from_the_limits(small: EngineFile, made: SelfTest) -> None:
    half, _ = precision.apply(onnx.load_model_from_string(small.data), "fp16", "loftr")
    result = run_self_test(open_variant(small, half).session, made)
    assert result.failures(with_limits(made, "fp16", None)) == () and result.pixels < made.pixels / 2


def test_the_bundled_engine_carries_its_test() -> None:
    manifest = read_engine("loftr-lite").manifest
    assert manifest.self_test is not None and manifest.self_test.kind == "matches"
    assert self_test_of(read_engine("loftr-lite")) is manifest.self_test or manifest.self_test == self_test_of(
        read_engine("loftr-lite")
    )


def test_limits() -> None:
    test = SelfTest(pair=read_engine("loftr-lite").manifest.self_test.pair, kind="matches",  # type: ignore[union-attr]
                    answer=read_engine("loftr-lite").manifest.self_test.answer,  # type: ignore[union-attr]
                    within=0.97, pixels=0.02, score=0.005)  # fmt: skip
    usual = with_limits(test, "fp16", SelfTestResult(128, 1.0, 0.003, 0.0006))
    assert (usual.within, usual.pixels, usual.score) == (0.97, 0.02, 0.005)
    # Random weights, which decide by the last digit: no limit that the judged engine itself would fail.
    seen = SelfTestResult(128, 0.7, 0.2, 0.02)
    assert seen.failures(with_limits(test, "fp16", seen)) == ()
    # 8 bits may lose little more than was seen, on a GPU less than by emulation.
    seen = SelfTestResult(128, 1.0, 0.035, 0.0027)
    emulated, judged = (with_limits(test, "int8", seen, emulated=flag) for flag in (True, False))
    assert seen.failures(emulated) == seen.failures(judged) == ()
    assert judged.pixels < emulated.pixels < 0.06 and judged.score < emulated.score < 0.005
    assert SelfTestResult(128, 1.0, 0.04, 0.009).failures(judged)
    # An engine whose loss was accepted although it answers nothing gets no limits that let everything through.
    assert SelfTestResult(128, 0.0, float("inf"), float("inf")).failures(
        with_limits(test, "fp16", SelfTestResult(128, 0.0, float("inf"), float("inf")))
    )


def test_a_manifest_says_where_it_was_judged(small: EngineFile, made: SelfTest) -> None:
    assert judged_manifest(small.manifest, None) is small.manifest
    manifest = replace(small.manifest, precision="int8", self_test=made)

    class Verdict:
        where = "NVIDIA X, tensorrt_rtx 1.6.1"

        @staticmethod
        def checks() -> dict[str, float]:
            return {"precision_kept": 0.98}

    found = Judgement(Verdict(), SelfTestResult(128, 1.0, 0.035, 0.0027))  # type: ignore[arg-type]
    said = judged_manifest(manifest, found)
    assert said.judged == "NVIDIA X, tensorrt_rtx 1.6.1" and said.checks["precision_kept"] == 0.98
    assert said.self_test is not None and said.self_test.pixels < 0.06


def test_no_test_without_matches(small: EngineFile) -> None:
    """A network that matches nothing in the made pairs has no self-test, and builds all the same."""
    session = open_session(small)
    run = session.run
    session.run = lambda inputs: {**run(inputs), "num_matches": run(inputs)["num_matches"] * 0}  # type: ignore[method-assign]
    assert make_self_test(session) is None


def test_the_packages_photographs_are_those_of_the_examples() -> None:
    examples = Path(__file__).parents[2] / "examples" / "images"
    for name in ("cup_0.jpg", "cup_1.jpg"):
        assert (photographs_folder() / name).read_bytes() == (examples / name).read_bytes()
