"""What `verify` judges: the engine itself, or its emulation where ONNX Runtime would compute something else."""

from __future__ import annotations

import builtins
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image
from support.broken import scaled_and_back
from support.commands import CommandLine
from support.small import small_engine

from matchrt._util.digest import sha256_bytes
from matchrt.bench.drawn import drawn_pair
from matchrt.bench.gate import EMULATION
from matchrt.bench.overflow import first_overflow
from matchrt.bench.pairs import drawn_pairs
from matchrt.bench.variant import computes_in_fp16, open_judged, open_variant
from matchrt.errors import MatchRTError
from matchrt.export import precision
from matchrt.manifest import manifest_path
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.runtime.session import SessionOptions

MODULES = ("backbone.layer1.0.conv1", "loftr_coarse.layers.2.mlp.0", "fine_preprocess.down_proj")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> EngineFile:
    return small_engine(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def half(small: EngineFile) -> onnx.ModelProto:
    return precision.apply(onnx.load_model_from_string(small.data), "fp16", "loftr")[0]


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of one pair of files that the network matches."""
    folder, pair = tmp_path_factory.mktemp("pairs"), drawn_pair(160, 224, 60)
    for name, image in (("a", pair.image0), ("b", pair.image1)):
        Image.fromarray(image).save(folder / f"{name}.png")
    (folder / "list.txt").write_text("a.png b.png\n")
    return folder / "list.txt"


def written(small: EngineFile, model: onnx.ModelProto, path: Path, says: str) -> Path:
    """The graph as an engine whose manifest says that precision."""
    data = model.SerializeToString()
    path.write_bytes(data)
    digest = sha256_bytes(data)
    replace(
        small.manifest, precision=says, engine_sha256=digest, onnx_sha256=digest, engine_bytes=len(data)
    ).write(manifest_path(path))  # fmt: skip
    return path


def test_only_arithmetic_in_fp16_is_emulated(small: EngineFile, half: onnx.ModelProto) -> None:
    """The bundled engine stores weights in float16 and computes in float32."""
    stored = onnx.load_model_from_string(small.data)
    assert any(weight.data_type == onnx.TensorProto.FLOAT16 for weight in stored.graph.initializer)
    assert computes_in_fp16(half) and not computes_in_fp16(stored)
    assert open_variant(small, half).where == EMULATION
    assert open_judged(small, SessionOptions()).where.startswith("CPU, onnxruntime ")


@pytest.mark.parametrize("says", ["fp16", "fp32", "int8"])
def test_the_graph_decides_and_not_what_its_manifest_says(
    small: EngineFile, half: onnx.ModelProto, tmp_path: Path, says: str
) -> None:
    judged = open_judged(read_engine(written(small, half, tmp_path / "half.onnx", says)), SessionOptions())
    assert judged.where == EMULATION and judged.emulated is not None


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(("kind", "factor"), [("overflow", 2.0**30), ("underflow", 2.0**-30)])
def test_an_engine_that_fp16_ruins_fails_the_gate(
    small: EngineFile,
    half: onnx.ModelProto,
    listed: Path,
    tmp_path: Path,
    cli: CommandLine,
    kind: str,
    factor: float,
    module: str,
) -> None:
    """ONNX Runtime's CPU provider computes these in fp32, where nothing is lost, and would keep every match."""
    path = written(small, scaled_and_back(half, module, factor), tmp_path / "ruined.onnx", "fp16")
    ran = cli.fails(
        "precision-gate", "verify", path, "--reference", small.path, "--pairs", listed, "--gate"
    )  # fmt: skip
    assert "judged by emulation" in ran.err and "gate: FAILED" in ran.out
    assert ("beyond the range of fp16 is that of" in ran.err) is (kind == "overflow")


def test_the_first_overflow_is_named(small: EngineFile, half: onnx.ModelProto) -> None:
    (pair,) = drawn_pairs(small.manifest.input, (500,))
    assert first_overflow(small, half, pair) is None
    reason = first_overflow(small, scaled_and_back(half, MODULES[0], 2.0**30), pair)
    assert reason is not None and MODULES[0].rpartition(".")[0] in reason


@pytest.mark.parametrize("says", ["fp16", "fp32", "int8"])
def test_without_onnx_nothing_passes_by_accident(
    small: EngineFile, half: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    path = written(small, half, tmp_path / "half.onnx", says)
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "onnx":
            raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MatchRTError) as caught:
        open_judged(read_engine(path), SessionOptions())
    assert caught.value.code == "package-missing" and "fp16" in caught.value.message


def test_a_manifest_does_not_choose_the_limits_of_an_fp16_graph(
    small: EngineFile, half: onnx.ModelProto, tmp_path: Path
) -> None:
    judged = open_judged(read_engine(written(small, half, tmp_path / "half.onnx", "int8")), SessionOptions())
    assert judged.precision == "fp16" and open_judged(small, SessionOptions()).precision == "fp32"


def test_no_matches_prove_nothing(small: EngineFile, tmp_path: Path, cli: CommandLine) -> None:
    for name in ("a", "b"):
        Image.new("L", (224, 160), 128).save(tmp_path / f"{name}.png")
    (tmp_path / "list.txt").write_text("a.png b.png\n")
    line = ("verify", small.path, "--reference", small.path, "--pairs", tmp_path / "list.txt")
    ran = cli(*line)
    assert ran.code == 0 and "100.00%" not in ran.out and "gate: no verdict, fp32 finds 0 matches" in ran.out
    cli.fails("precision-gate-empty", *line, "--gate")
