"""Engines that take any number of pairs in a run, from 1 to a largest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from support.commands import CommandLine
from support.random_engines import random_weights, shallow

from matchrt.building.parity import sample_inputs
from matchrt.building.pipeline import BuildRequest, build
from matchrt.errors import MatchRTError
from matchrt.export.contract import ExportOptions, input_contract
from matchrt.export.to_onnx import export_onnx
from matchrt.export.weights.network import load_network
from matchrt.families.registry import get_spec
from matchrt.manifest import manifest_path, read_manifest
from matchrt.runtime.engine_checks import build_command
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.onnxruntime import OnnxRuntimeSession
from matchrt.runtime.opening import open_session
from matchrt.runtime.self_test.prove import run_self_test
from matchrt.runtime.session import SessionOptions
from matchrt.serving.triton import TritonOptions, config
from matchrt.serving.workers import rows_of_run
from matchrt.store import EngineStore

HEIGHT, WIDTH, MOST = 96, 128, 3


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> EngineFile:
    folder = tmp_path_factory.mktemp("pairs")
    request = BuildRequest("loftr-lite", height=HEIGHT, width=WIDTH, batch=MOST, any_batch=True, max_matches=64)
    return read_engine(build(request, EngineStore(folder)).path)


def test_each_row_is_what_the_pair_alone_gives(engine: EngineFile) -> None:
    session = open_session(engine)
    inputs = sample_inputs(engine.manifest.input, 8)[0]
    together = session.run(inputs)
    assert [len(array) for array in together.values()] == [MOST] * len(together)
    for rows in range(1, MOST + 1):
        some = session.run({name: array[:rows] for name, array in inputs.items()})
        for name, array in some.items():
            assert len(array) == rows
            np.testing.assert_allclose(array, together[name][:rows], atol=1e-4)
    assert len({together["keypoints1"][row].tobytes() for row in range(MOST)}) == MOST  # the rows are different pairs


@pytest.mark.parametrize("rows", [(0, 0, 0, 0), (4, 4, 4, 4), (2, 1, 2, 2)])
def test_other_numbers_of_rows_are_refused(engine: EngineFile, rows: tuple[int, ...]) -> None:
    session = open_session(engine)
    inputs = sample_inputs(engine.manifest.input, 8)[0]
    given = {
        name: np.resize(array, (count, *array.shape[1:]))
        for (name, array), count in zip(inputs.items(), rows, strict=True)
    }
    with pytest.raises(MatchRTError, match="1 to 3 pairs") as raised:
        session.run(given)
    assert raised.value.code == "session-input"


def test_one_engine_serves_single_pairs_too(engine: EngineFile) -> None:
    inputs = sample_inputs(engine.manifest.input, 8)[1]
    assert len(inputs["image0"]) == 1
    with Matcher(engine.path) as matcher:
        found = matcher.match(inputs["image0"][0], inputs["image1"][0, :, : WIDTH - 8])
    assert len(found) > 10
    test = engine.manifest.self_test
    assert test is not None
    session = OnnxRuntimeSession(engine, SessionOptions())
    assert not run_self_test(session, test).failures(test)


def test_the_manifest_says_it(engine: EngineFile) -> None:
    manifest = read_manifest(manifest_path(engine.path))
    assert manifest.input.any_batch and manifest.input.batch == MOST
    assert all(spec.shape[0] == "pairs" for spec in (*manifest.inputs, *manifest.outputs))
    assert "-b1-3-" in engine.path.name and "--batch 1..3" in build_command(manifest)
    found = config(manifest, "many", TritonOptions())
    assert "max_batch_size: 3" in found and "dynamic_batching" in found


@pytest.mark.slow  # the exporter takes half a minute for symbols of a deep network
def test_efficientloftr_takes_any_number_of_pairs(tmp_path: Path) -> None:
    import onnxruntime

    spec = shallow(get_spec("eloftr"), 1)
    options = ExportOptions(128, 160, 64, batch=2, any_batch=True)
    loaded = load_network(spec, random_weights(spec, tmp_path)[0], size=(128, 160))
    graph = export_onnx(loaded, options)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    full, one = sample_inputs(input_contract(spec.preprocess, options), spec.family.coarse_stride)
    names = [value.name for value in graph.graph.output]
    for name, alone, together in zip(names, session.run(None, one), session.run(None, full), strict=True):
        assert alone.shape == (1, *together.shape[1:]), name
        np.testing.assert_allclose(alone, together[:1], atol=1e-3)


def test_static_graphs_keep_their_form(tmp_path: Path) -> None:
    """Halves of a batch are split in graphs of a fixed number of pairs, which engines do without a copy."""
    spec = get_spec("loftr-lite")
    loaded = load_network(spec, None, size=(64, 64))
    fixed = export_onnx(loaded, ExportOptions(64, 64, 64))
    assert _shape(fixed) == [1, 64, 64, 1]
    assert not [node for node in fixed.graph.node if node.op_type == "Shape"]


def _shape(model: onnx.ModelProto) -> list[int]:
    return [dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("loftr-lite", "--batch", "1..1"), "batch-range"),
        (("loftr-lite", "--batch", "2..8"), "batch-range"),
        (("loftr-lite", "--batch", "1..65"), "batch-range"),
        (("loftr-lite", "--batch", "many"), "batch-range"),
        (("loftr-lite", "--batch", "1..8", "--dynamic", "64,128,256"), "batch-range"),
        (("roma-outdoor", "--batch", "1..2"), "batch-range"),
    ],
)
def test_ranges_that_cannot_be(cli: CommandLine, arguments: tuple[str, ...], code: str) -> None:
    cli.fails(code, "build", *arguments)


@pytest.mark.parametrize(
    ("rows", "on_gpu", "wanted"), [(1, True, 1), (3, True, 4), (5, True, 6), (6, True, 6), (5, False, 5)]
)
def test_gpus_run_few_numbers_of_rows(rows: int, on_gpu: bool, wanted: int) -> None:
    assert rows_of_run(rows, 6, on_gpu) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_rtx_builds_it(engine: EngineFile, precision: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra: rtx)")
    from matchrt.nvidia.dialect import BuilderOptions

    request = BuildRequest(
        str(engine.path), backend="tensorrt_rtx", precision=precision, builder=BuilderOptions(targets=("8.9",))
    )
    manifest = build(request, EngineStore(tmp_path)).manifest
    assert manifest.input.any_batch and manifest.inputs[0].shape == ("pairs", HEIGHT, WIDTH, 1)
