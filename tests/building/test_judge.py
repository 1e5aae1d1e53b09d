"""The gate of a build: what it lets through, what it stops, and that `verify` says the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from PIL import Image
from support.broken import with_saturated_softmax
from support.small import small_engine

from matchrt._util.digest import sha256_bytes
from matchrt.bench.drawn import drawn_pair
from matchrt.bench.gate import Verdict
from matchrt.bench.pairs import user_pairs
from matchrt.bench.verify_run import VerifyRequest, run_verify
from matchrt.building import convert
from matchrt.building.judge import judge_graph
from matchrt.building.pipeline import BuildRequest, build
from matchrt.building.textures import texture_pairs
from matchrt.errors import MatchRTError
from matchrt.export import precision
from matchrt.manifest import manifest_path
from matchrt.runtime.engine_file import EngineFile
from matchrt.store import EngineStore


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> EngineFile:
    return small_engine(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of one pair of files."""
    folder, pair = tmp_path_factory.mktemp("pairs"), drawn_pair(160, 224, 60)
    Image.fromarray(pair.image0).save(folder / "a.png")
    Image.fromarray(pair.image1).save(folder / "b.png")
    (folder / "list.txt").write_text("a.png b.png\n")
    return folder / "list.txt"


@pytest.fixture(scope="module")
def lowered(small: EngineFile) -> onnx.ModelProto:
    return precision.apply(onnx.load_model_from_string(small.data), "fp16", "loftr")[0]


@pytest.fixture(scope="module")
def ruined(small: EngineFile) -> onnx.ModelProto:
    return with_saturated_softmax(onnx.load_model_from_string(small.data))


def test_fp32_against_itself_is_perfect(small: EngineFile, listed: Path) -> None:
    told: list[float] = []
    verdict = judge_graph(
        small, onnx.load_model_from_string(small.data), "fp32", user_pairs(listed), told.append
    ).verdict
    for agreement in verdict.verification.agreements:
        assert agreement.expected == agreement.actual == agreement.kept[0] > 50
    assert told == [0.5, 1.0] and verdict.verification.scores == (0.2, 0.4)
    verdict.require("fp32")


def test_fp16_of_the_bundled_model_passes_on_textures(small: EngineFile, lowered: onnx.ModelProto) -> None:
    verdict = judge_graph(small, lowered, "fp16", texture_pairs(small.manifest.input, 8)[:2]).verdict
    verdict.require("fp16")
    assert verdict.matches > 100 and verdict.checks()["precision_pairs"] == 2
    assert verdict.checks()["precision_kept"] >= 0.99


@pytest.mark.parametrize("name", ["fp16", "int8", "fp8"])
def test_a_saturated_softmax_is_stopped_in_every_precision(
    small: EngineFile, listed: Path, ruined: onnx.ModelProto, name: str
) -> None:
    with pytest.raises(MatchRTError) as caught:
        judge_graph(small, ruined, name, user_pairs(listed)).verdict.require(name)
    assert caught.value.code == "precision-gate" and caught.value.message.startswith(name)
    assert "kept within 1 px" in caught.value.message


@pytest.mark.parametrize("kind", ["lowered", "ruined"])
def test_verify_of_an_engine_says_what_its_build_said(
    small: EngineFile, listed: Path, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """ONNX Runtime's CPU provider computes fp16 engines in fp32, so verify emulates them, as a build does."""
    model: onnx.ModelProto = request.getfixturevalue(kind)
    built = judge_graph(small, model, "fp16", user_pairs(listed)).verdict
    data, path = model.SerializeToString(), tmp_path / "fp16.onnx"
    path.write_bytes(data)
    manifest = replace(
        small.manifest, precision="fp16", engine_sha256=sha256_bytes(data), onnx_sha256=sha256_bytes(data),
        engine_bytes=len(data),
    )  # fmt: skip
    manifest.write(manifest_path(path))
    asked = VerifyRequest(str(path), str(small.path), listed)
    verified, _ = run_verify(asked, EngineStore(tmp_path / "store"), lambda what, share: None)
    assert _said(verified) == _said(built)
    assert bool(verified.failures) is (kind == "ruined") and verified.where == built.where == "emulation"


def _said(verdict: Verdict) -> tuple[object, ...]:
    return verdict.checks(), verdict.failures, verdict.verification.agreements


def test_a_build_refuses_a_ruined_fp16_graph_and_keeps_nothing(
    small: EngineFile, ruined: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(precision, "apply", lambda model, name, family: (ruined, ()))
    monkeypatch.setattr(convert, "judging_pairs", lambda *given: texture_pairs(small.manifest.input, 8)[:1])
    store = EngineStore(tmp_path)
    with pytest.raises(MatchRTError) as caught:
        build(BuildRequest(str(small.path), precision="fp16"), store)
    assert caught.value.code == "precision-gate" and not list(store.engines("loftr-lite"))
    forced = build(BuildRequest(str(small.path), precision="fp16", accept_accuracy_loss=True), store)
    assert forced.manifest.checks["precision_kept"] < 0.99
