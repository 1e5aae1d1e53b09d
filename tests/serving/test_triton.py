"""A Triton model repository: by Triton's own schema, and what its batcher would send."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from support.commands import CommandLine
from support.triton_engines import engine_of, rows_graph, several_pairs

from matchrt.export.rows import any_rows
from matchrt.runtime.engine_file import engine_path
from matchrt.serving.triton import TritonOptions, export_triton


def parsed(folder: Path) -> Any:
    """config.pbtxt, read with Triton's published schema."""
    model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def test_the_bundled_engine(cli: CommandLine, tmp_path: Path) -> None:
    ran = cli("export-triton", "loftr-lite", tmp_path / "models", "--instances", 2, "--kind", "cpu", "--json")
    assert ran.code == 0, ran.err
    folder = Path(ran.json["folder"])
    assert folder == tmp_path / "models" / "loftr-lite"
    assert (folder / "1" / "model.onnx").read_bytes() == engine_path("loftr-lite").read_bytes()
    manifest = json.loads((folder / "matchrt.json").read_text())
    found = parsed(folder)
    assert found.name == "loftr-lite" and found.backend == "onnxruntime" and found.max_batch_size == 0
    assert not found.HasField("dynamic_batching")
    assert found.instance_group[0].count == 2 and found.instance_group[0].kind == 2  # KIND_CPU
    shapes = {one.name: list(one.dims) for one in found.input}
    assert shapes == {"image0": [1, -1, -1, 1], "image1": [1, -1, -1, 1]}
    assert {one.name for one in found.output} == {entry["name"] for entry in manifest["outputs"]}
    warm = found.model_warmup[0]
    assert warm.batch_size == 1 and list(warm.inputs["image0"].dims) == [1, 480, 640, 1]
    assert warm.inputs["image0"].zero_data and warm.inputs["image0"].data_type == found.input[0].data_type
    assert found.parameters["matchrt_engine_sha256"].string_value == manifest["engine_sha256"]


def test_an_engine_of_several_pairs_gets_tritons_batcher(tmp_path: Path) -> None:
    data, path = rows_graph(4), several_pairs(tmp_path, 4)
    folder = export_triton(path, tmp_path / "models", TritonOptions(name="many", queue_delay=500))
    found = parsed(folder)
    assert found.max_batch_size == 4 and list(found.dynamic_batching.preferred_batch_size) == [4]
    assert found.dynamic_batching.max_queue_delay_microseconds == 500
    assert list(found.input[0].dims) == [4, 4, 1] and list(found.output[0].dims) == [1]
    assert found.model_warmup[0].batch_size == 4
    # Triton refuses empty dims; a model without any is told so by a reshape.
    assert list(found.output[3].dims) == [1] and list(found.output[3].reshape.shape) == []
    assert found.output[3].HasField("reshape") and not found.output[0].HasField("reshape")
    whole = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    served = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    # What Triton asks of a model that it batches for: a first dimension of any size everywhere.
    assert all(isinstance(one.shape[0], str) for one in (*served.get_inputs(), *served.get_outputs()))
    images = np.random.default_rng(0).integers(0, 255, (4, 4, 4, 1), dtype=np.uint8)
    expected = whole.run(None, {"image0": images, "image1": images[::-1]})
    for rows in (1, 2, 3, 4):
        found_rows = served.run(None, {"image0": images[:rows], "image1": images[::-1][:rows]})
        assert all(np.array_equal(got, want[:rows]) for got, want in zip(found_rows, expected, strict=True))


def test_plans_go_to_the_tensorrt_backend(tmp_path: Path) -> None:
    path = engine_of(tmp_path, b"plan", backend="tensorrt", backend_version="10.9.0")
    folder = export_triton(path, tmp_path / "models", TritonOptions(kind="gpu"))
    assert (folder / "1" / "model.plan").read_bytes() == b"plan"
    found = parsed(folder)
    assert found.backend == "tensorrt" and found.max_batch_size == 0 and found.instance_group[0].kind == 1


def test_what_triton_cannot_take(cli: CommandLine, tmp_path: Path) -> None:
    path = engine_of(tmp_path, b"rtx", backend="tensorrt_rtx", backend_version="1.4.0")
    cli.fails("triton-backend", "export-triton", path, tmp_path / "models")
    cli.fails("triton-name", "export-triton", "loftr-lite", tmp_path / "models", "--name", "a/b")
    cli.fails("option-range", "export-triton", "loftr-lite", tmp_path / "models", "--instances", 0)
    (tmp_path / "models" / "loftr-lite").mkdir(parents=True)
    cli.fails("output-exists", "export-triton", "loftr-lite", tmp_path / "models")
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == ["loftr-lite"]


def test_rows_of_a_graph_that_is_checked() -> None:
    model = onnx.load_model_from_string(any_rows(rows_graph(2), 2))
    onnx.checker.check_model(model, full_check=True)
