"""Figures of agreement, the gate, the parts' costs, and the commands around them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from support.broken import with_saturated_softmax
from support.commands import CommandLine
from support.small import small_engine

from matchrt.bench.agreement import Agreement, agree, together
from matchrt.bench.drawn import drawn_pair
from matchrt.bench.gate import INT8, Verdict
from matchrt.bench.pairs import drawn_pairs
from matchrt.bench.per_block import block_of
from matchrt.bench.verify import Verification, VerifiedPair
from matchrt.building.judge import judge
from matchrt.errors import InternalError, MatchRTError
from matchrt.manifest import manifest_path, read_manifest
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.matches import ImageRef, Matches, Provenance


def _matches(rows: list[tuple[float, float, float, float, float]], side: int = 640) -> Matches:
    values = np.array(rows, np.float32).reshape(-1, 5)
    ref = ImageRef("x", side, side)
    made_by = Provenance("m", "0", "fp32", "onnxruntime", "0", (side, side), (side, side))
    return Matches(values[:, :2], values[:, 2:4], values[:, 4], ref, ref, {}, made_by)


FIRST = [(8, 8, 20, 20, 0.9), (16, 8, 30, 20, 0.8), (24, 8, 40, 20, 0.7), (32, 8, 50, 20, 0.6), (40, 8, 60, 20, 0.5)]


def test_shares_count_and_rank() -> None:
    second = [(8, 8, 20.4, 20, 0.9), (24, 8, 40, 20.9, 0.85), (16, 8, 32, 20, 0.7), (32, 8, 58, 20, 0.6)]
    found = agree(_matches(FIRST), _matches(second))
    assert (found.expected, found.actual, found.kept) == (5, 4, (1, 2, 3)) and found.count_ratio == 0.8
    assert [found.share(pixels) for pixels in (0.5, 1.0, 3.0)] == [0.2, 0.4, 0.6]
    assert found.rank == pytest.approx(0.5)  # 1 2 3 against 1 3 2
    # At twice the size the same offsets are half as far.
    doubled = agree(_matches(FIRST, 1280), _matches(second, 1280))
    assert doubled.kept == (2, 3, 3)


def test_nothing_against_nothing_and_something() -> None:
    none, some = _matches([]), _matches(FIRST)
    assert agree(none, none).share(1.0) == 1 and agree(none, none).count_ratio == 1
    assert agree(none, some).share(1.0) == 0 and math.isinf(agree(none, some).count_ratio)
    assert agree(some, none).kept == (0, 0, 0) and math.isnan(agree(some, none).rank)
    both = together([agree(some, some), agree(some, none)])
    assert (both.expected, both.actual, both.kept[1]) == (10, 5, 5) and both.rank == pytest.approx(1.0)
    json.dumps(agree(none, some).to_json(), allow_nan=False)


def _verdict(kept: int, actual: int, accuracy: tuple[float, float] | None) -> Verdict:
    agreement = Agreement(1000, actual, (kept, kept, kept), 1.0)
    pair = VerifiedPair(None, agreement, accuracy, ({}, {}))  # type: ignore[arg-type]
    return Verdict(Verification("fp32", "int8", (pair,)), INT8)


@pytest.mark.parametrize(
    ("kept", "actual", "accuracy", "word"),
    [
        (950, 1000, (0.9, 0.88), None),
        (949, 1000, None, "within 1 px"),
        (1000, 899, None, "count"),
        (1000, 1101, None, "count"),
        (1000, 1000, (0.9, 0.879), "accuracy"),
    ],
)
def test_limits(kept: int, actual: int, accuracy: tuple[float, float] | None, word: str | None) -> None:
    verdict = _verdict(kept, actual, accuracy)
    if word is None:
        return verdict.require("int8")
    with pytest.raises(MatchRTError) as caught:
        verdict.require("int8")
    assert caught.value.code == "precision-gate" and word in caught.value.message
    return None


def test_too_few_matches_prove_nothing() -> None:
    few = Agreement(3, 3, (3, 3, 3), 1.0)
    pair = VerifiedPair(None, few, None, ({}, {}))  # type: ignore[arg-type]
    with pytest.raises(InternalError) as caught:
        Verdict(Verification("fp32", "int8", (pair,)), INT8).require("int8")
    assert caught.value.code == "precision-gate-empty"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> EngineFile:
    return small_engine(tmp_path_factory.mktemp("small"))


def test_an_fp16_softmax_is_stopped(small: EngineFile) -> None:
    lowered = with_saturated_softmax(onnx.load_model_from_string(small.data))
    verdict = judge(small, lowered, "int8", drawn_pairs(small.manifest.input, (50,)))
    assert verdict.verification.agreement.expected > 50
    with pytest.raises(MatchRTError) as caught:
        verdict.require("int8")
    assert caught.value.code == "precision-gate"


def test_blocks() -> None:
    assert block_of("backbone.layer1.0.conv1/Conv_0") == "backbone.layer1.0"
    assert block_of("loftr_coarse.layers.3.mlp.0/MatMul_0") == "loftr_coarse.layers.3"
    assert block_of("backbone.layer2_outconv/Conv_0") == "backbone.layer2_outconv"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of two pairs of files."""
    folder = tmp_path_factory.mktemp("pairs")
    for seed in (60, 61):
        pair = drawn_pair(160, 224, seed)
        Image.fromarray(pair.image0).save(folder / f"{seed}a.png")
        Image.fromarray(pair.image1).save(folder / f"{seed}b.png")
    (folder / "list.txt").write_text("60a.png 60b.png\n61a.png 61b.png\n")
    return folder / "list.txt"


@pytest.mark.slow
def test_build_verify_and_take_apart(cli: CommandLine, small: EngineFile, pairs: Path, tmp_path: Path) -> None:
    engine = tmp_path / "int8.onnx"
    told = ("--calibration", pairs, "--calibration-method", "max", "--keep-fp32", "loftr_fine")
    ran = cli("build", small.path, "--precision", "int8", *told, "--store", tmp_path / "store", "--output", engine)
    assert ran.code == 0 and "int8" in ran.out and "within 1 px" in ran.out
    manifest = read_manifest(manifest_path(engine))
    assert manifest.precision == "int8" and manifest.checks["precision_kept"] >= 0.95
    assert manifest.checks["precision_pairs"] == 2
    assert any(r.name == "calibration" and "max over 2 given pairs" in r.summary for r in manifest.passes)
    again = cli("build", small.path, "--precision", "int8", *told, "--store", tmp_path / "store", "--json")
    assert again.json["cached"]
    html, told_json = tmp_path / "report.html", tmp_path / "report.json"
    compared = ("verify", engine, "--reference", small.path, "--pairs", pairs)
    ran = cli(*compared, "--html", html, "--output", told_json, "--worst", "1", "--gate")
    assert ran.code == 0 and "gate: passed" in ran.out
    found = json.loads(told_json.read_text())
    assert found["together"]["within_1px"] >= 0.95 and found["together"]["rank"] > 0.9 and len(found["pairs"]) == 2
    assert html.read_text().count("data:image/jpeg;base64") == 2 and "a.png" in html.read_text()
    kept = ("loftr_coarse", "loftr_fine", "fine_preprocess", "backbone.layer1.*", "backbone.layer3.*",
            "backbone.layer*_outconv*")  # fmt: skip
    blocks = cli("verify", small.path, "--per-block", "--pairs", pairs, "--first", "1", *told[:2],
                 *(word for pattern in kept for word in ("--keep-fp32", pattern)),
                 "--store", tmp_path / "store", "--json").json["per_block"]  # fmt: skip
    lost = [block["lost"] for block in blocks["blocks"]]
    assert len(lost) == 2 and lost == sorted(lost, reverse=True) and blocks["whole"]["lost"] >= 0


def test_what_is_refused(cli: CommandLine, small: EngineFile, tmp_path: Path) -> None:
    store = ("--store", tmp_path / "store")
    cli.fails("precision-backend", "build", small.path, "--precision", "fp8", *store)
    cli.fails("calibration-unused", "build", small.path, "--keep-fp32", "backbone", *store)
    cli.fails("pairs-missing", "build", small.path, "--precision", "int8", "--calibration", tmp_path / "no", *store)
    cli.fails("bench-nothing", "verify", small.path, "--plot", tmp_path / "x.png")
    changed = tmp_path / "other.onnx"
    changed.write_bytes(small.data)
    matching = replace(small.manifest.matching, threshold=0.123)
    replace(small.manifest, matching=matching, precision="int8").write(manifest_path(changed))
    cli.fails("reference-missing", "verify", changed, *store)
