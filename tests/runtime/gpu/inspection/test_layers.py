"""The EngineInspector's JSON, in the forms that its versions and verbosities give it.

The samples are written by hand after NVIDIA's documentation of TensorRT 8 to 11 (no GPU was at hand to record one),
with node names of our graphs.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.commands import CommandLine

from matchrt._util.module_path import OTHER, part_of
from matchrt.errors import InternalError, MatchRTError
from matchrt.manifest import Portability, Profile
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.gpu.inspection import opened as opening
from matchrt.runtime.gpu.inspection.layers import Layer, LayerTensor, parse_layers, parse_type
from matchrt.runtime.gpu.inspection.summary import summarise_layers, tensor_bytes
from matchrt.store import EngineStore


def _tensor(name: str, form: str, *shape: int) -> dict[str, Any]:
    return {"Name": name, "Location": "Device", "Dimensions": list(shape), "Format/Datatype": form}


LAYERS: list[Any] = [
    {
        "Name": "Reformatting CopyNode for Input Tensor 0 to backbone.conv1/Conv_0", "LayerType": "Reformat",
        "Inputs": [_tensor("image0", "Row major linear UInt8 format", 1, 480, 640, 1)],
        "Outputs": [_tensor("copy", "Row major linear FP32 format", 1, 1, 480, 640)],
        "ParameterType": "Reformat", "Origin": "REFORMAT", "TacticValue": "0x00000000000003e8", "StreamId": 0,
        "Metadata": "",
    },
    {
        "Name": "backbone.conv1/Conv_0 + backbone.conv1/Relu_0", "LayerType": "CaskConvolution",
        "Inputs": [_tensor("copy", "Channel major FP16 format where channel % 8 == 0", 1, 1, 480, 640)],
        "Outputs": [_tensor("a", "Channel major FP16 format where channel % 8 == 0", 1, 128, 240, 320)],
        "ParameterType": "Convolution", "Weights": {"Type": "Half", "Count": 6272}, "Activation": "RELU",
        "TacticName": "sm80_xmma_fprop_implicit_gemm_f16f16", "TacticValue": "0x1", "StreamId": 0,
        "Metadata": "[ONNX Layer: backbone.conv1/Conv_0]\x1e[ONNX Layer: backbone.conv1/Relu_0]",
    },
    {
        "Name": "__myl_MatMulCastSoftMax_myl0_12", "LayerType": "kgen",
        "Inputs": [_tensor("b", "Half", 1, 4800, 256), _tensor("mask", "Bool", 1, 4800)],
        "Outputs": [_tensor("c", "Float", 1, 4800, 4800)],
        "TacticName": "__myl_MatMulCastSoftMax_0x2f", "StreamId": 0,
        "Metadata": "x [ONNX Layer: loftr_coarse.layers.7/MatMul_3]\x1f[ONNX Layer: network/Softmax_0]"
                    "[ONNX Layer: network/Softmax_0]",
    },
    {
        "Name": "top", "LayerType": "TopK", "Inputs": [{"Name": "c", "DataType": "Int32", "Dimensions": [4800]}],
        "Outputs": [{"Name": "d", "DataType": "Int32", "Dimensions": [2048], "Format": "kLINEAR"}],
        "Metadata": "[ONNX Layer: network/TopK_0]",
    },
]  # fmt: skip
DOCUMENTS = {
    "10": json.dumps({"Layers": LAYERS, "Bindings": ["image0", "scores"]}),
    "11": json.dumps({"Layers": LAYERS, "I/O Tensors": [{"Name": "image0", "IOMode": "Input", "DataType": "UInt8"}]}),
    "a list": json.dumps(LAYERS),
    "control characters as they are": json.dumps({"Layers": LAYERS}).replace("\\u001e", "\x1e"),
}


@pytest.mark.parametrize("form", DOCUMENTS)
def test_layers_with_types_and_nodes(form: str) -> None:
    copy, convolution, fused, top = parse_layers(DOCUMENTS[form])
    assert (copy.kind, copy.precision, copy.nodes, copy.tactic) == ("Reformat", "fp32", (), "0x00000000000003e8")
    assert copy.inputs == (LayerTensor("image0", "uint8", (1, 480, 640, 1)),)
    assert convolution.nodes == ("backbone.conv1/Conv_0", "backbone.conv1/Relu_0")
    assert convolution.precision == "fp16" and convolution.parts == ("backbone.conv1",)
    assert fused.nodes == ("loftr_coarse.layers.7/MatMul_3", "network/Softmax_0")
    assert fused.precision == "fp16+fp32" and fused.parts == ("loftr_coarse.layers", "network")
    assert top.precision == "int32" and top.kind == "TopK"


def test_summary() -> None:
    summary = summarise_layers(parse_layers(DOCUMENTS["10"]))
    assert summary.by_precision == {"fp32": 1, "fp16": 1, "fp16+fp32": 1, "int32": 1}
    assert summary.by_part == {
        "(added by TensorRT)": {"fp32": 1}, "backbone.conv1": {"fp16": 1},
        "loftr_coarse.layers": {"fp16+fp32": 1}, "network": {"fp16+fp32": 1, "int32": 1},
    }  # fmt: skip
    assert summary.by_kind["kgen"] == 1


def test_layers_that_are_only_names() -> None:
    names = ["backbone.conv1/Conv_0 + backbone.conv1/Relu_0", "{ForeignNode[a/b_0...network/TopK_0]}", "PWN(x)"]
    first, second, third = parse_layers(json.dumps({"Layers": names}))
    assert first.nodes == ("backbone.conv1/Conv_0", "backbone.conv1/Relu_0") and first.precision == "unknown"
    assert second.nodes == ("a/b_0", "network/TopK_0") and third.nodes == () and first.kind == "unknown"


def test_objects_with_little_in_them() -> None:
    (layer,) = parse_layers('{"Layers": [{"Name": "x", "Inputs": ["a"], "Outputs": [{}]}]}')
    assert layer == Layer("x", "unknown", (LayerTensor("a", "unknown", None),), (LayerTensor("", "unknown", None),))
    assert parse_layers('{"Layers": []}') == ()


@pytest.mark.parametrize("text", ["", "Layers:", "{}", '{"Layers": {"a": 1}}', '{"Layers": [7]}', "3"])
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(InternalError) as caught:
        parse_layers(text)
    assert caught.value.code == "inspector-format" and caught.value.remedy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Row major linear FP16 format (kLINEAR)", "fp16"), ("Half", "fp16"), ("Float", "fp32"), ("BF16", "bf16"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"), ("FP8", "fp8"), ("Bool", "bool"),
        ("Int64", "int64"), ("Unknown format", "unknown"), ("N/A due to dynamic shapes", "unknown"),
    ],
)  # fmt: skip
def test_types(text: str, expected: str) -> None:
    assert parse_type(text) == expected


def test_quantised_layers() -> None:
    tensors = LayerTensor("a", "int8", None), LayerTensor("b", "fp16", None), LayerTensor("i", "int64", None)
    assert Layer("x", "y", tensors).precision == "fp16+int8"


def test_parts() -> None:
    assert part_of("loftr_coarse.layers.3/MatMul_0") == part_of("loftr_coarse.layers.3.q.weight")
    assert part_of("loftr_coarse.layers.3.q.weight") == "loftr_coarse.layers"
    assert part_of("network/TopK_1") == "network"
    assert {part_of(name) for name in ("val_13/Cast_0", "_empty_hook/Shape_0", "val_13", "")} == {OTHER}


# ---------------------------------------------------------------------------------- the command


@pytest.fixture
def engine(tmp_path: Path, coarse_engine: Path) -> Path:
    """Bytes with the manifest of a TensorRT-RTX engine."""
    file = read_engine(coarse_engine)
    manifest = replace(
        file.manifest, backend="tensorrt_rtx", backend_version="1.4.0.76",
        portability=Portability(("8.0",), True, "exact"), options={"workspace": "1024"},
    )  # fmt: skip
    return EngineStore(tmp_path / "store").put(file.data, manifest, "x.engine").path


class FakeLoaded:
    """What `LoadedEngine` offers, with an engine that answers as TensorRT-RTX does."""

    def __init__(self, file: Any) -> None:
        inspector = SimpleNamespace(get_engine_information=lambda form: DOCUMENTS["10"])
        self.engine = SimpleNamespace(
            create_engine_inspector=lambda: inspector, device_memory_size_v2=7_000_000, num_aux_streams=2,
            num_optimization_profiles=1, get_engine_stat=lambda kind: 5_000_000,
            get_tensor_profile_shape=lambda name, index: [(1, 2), (1, 3), (1, 4)],
        )  # fmt: skip
        stats = SimpleNamespace(TOTAL_WEIGHTS_SIZE=0)
        trt = SimpleNamespace(LayerInformationFormat=SimpleNamespace(JSON=1), EngineStat=stats)
        self.dialect, self.gpu = SimpleNamespace(trt=trt), SimpleNamespace(name="NVIDIA L4")


def test_inspect_with_layers(cli: CommandLine, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matchrt.runtime.gpu.loaded.LoadedEngine", FakeLoaded)
    found = cli("inspect", engine, "--layers", "--json").json
    assert found["memory"] == {
        "weights": 5_000_000,
        "scratch": 7_000_000,
        "tensors": tensor_bytes(read_engine(engine).manifest),
    }
    assert found["profiles"][0][0] == {"name": "image0", "minimum": [1, 2], "optimum": [1, 3], "maximum": [1, 4]}
    assert found["summary"]["by_precision"]["fp16"] == 1 and found["layers"][2]["precision"] == "fp16+fp32"
    ran = cli("inspect", engine, "--layers")
    assert ran.code == 0 and "NVIDIA L4" in ran.out and "kgen" in ran.out and "loftr_coarse.layers" in ran.out
    monkeypatch.setattr(opening, "_weights", lambda trt, engine: None)
    assert "weights unknown" in cli("inspect", engine, "--layers").out


def test_without_a_gpu_the_manifest_is_shown_and_why_there_are_no_layers(
    cli: CommandLine, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(file: Any) -> Any:
        raise MatchRTError("device-missing", "There is no usable NVIDIA GPU here.", "Run where there is one.")

    monkeypatch.setattr("matchrt.runtime.gpu.loaded.LoadedEngine", refused)
    ran = cli("inspect", engine, "--layers")
    assert ran.code == 2 and "no usable NVIDIA GPU" in ran.err and "device-missing" in ran.err
    for shown in ("tensorrt_rtx 1.4.0.76", "compute capability 8.0 and later", "this version only", "workspace 1024"):
        assert shown in ran.out
    ran = cli("inspect", engine, "--layers", "--json")
    assert ran.code == 2 and ran.json["layers"] is None and ran.json["layers_error"]["code"] == "device-missing"
    assert ran.json["manifest"]["backend"] == "tensorrt_rtx"
    assert cli("inspect", engine).code == 0


def test_onnx_engines_show_their_graph(cli: CommandLine, coarse_engine: Path, tmp_path: Path) -> None:
    graph = cli("inspect", coarse_engine, "--layers", "--json").json["graph"]
    assert graph["operator_types"]["Conv"] == {"float32": graph["operators"]["Conv"]}
    assert graph["operator_types"]["TopK"].keys() == {"float32"}
    assert "float32" in graph["parts"]["loftr_coarse.layers"]["nodes"]
    counted = sum(sum(part["nodes"].values()) for part in graph["parts"].values())
    assert counted == graph["nodes"] and not any("unknown" in part["nodes"] for part in graph["parts"].values())
    assert "loftr_coarse.layers" in cli("inspect", coarse_engine, "--layers").out
    with pytest.raises(MatchRTError) as caught:
        opening.open_engine(read_engine(coarse_engine))
    assert caught.value.code == "engine-layers"
    (tmp_path / "x.ckpt").write_bytes(b"PK\x03\x04")
    cli.fails("engine-layers", "inspect", tmp_path / "x.ckpt", "--layers")


def test_fp16_weights_and_nodes_are_counted_as_such() -> None:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from matchrt.export.element_types import element_types

    nodes = [
        helper.make_node("Cast", ["x"], ["half"], name="backbone.stem/Cast_0", to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["half", "backbone.stem.weight"], ["y"], name="backbone.stem/MatMul_0"),
        helper.make_node("Cast", ["y"], ["z"], name="network/Cast_0", to=TensorProto.FLOAT),
    ]
    weight = numpy_helper.from_array(np.ones((4, 2), np.float16), "backbone.stem.weight")
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 4])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [3, 2])], [weight],
    )  # fmt: skip
    found = element_types(helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]))
    assert dict(found.parts["backbone.stem"].nodes) == {"float16": 2}
    assert dict(found.parts["backbone.stem"].weights) == {"float16": 16}
    assert found.operators["Cast"] == {"float16": 1, "float32": 1}


def test_tensor_bytes_of_a_dynamic_engine_are_its_largest(coarse_engine: Path) -> None:
    manifest = read_engine(coarse_engine).manifest
    static = tensor_bytes(manifest)
    assert static == 2 * 192 * 256 + 2 * 8 + 2 * 256 * 2 * 4 + 256 * 4 + 4
    image = replace(manifest.inputs[0], shape=(1, "height0", "width0", 1))
    profile = Profile((64, 64), (128, 128), (1000, 2000))
    contract = replace(manifest.input, height=None, width=None, profile=profile)
    dynamic = replace(manifest, inputs=(image, *manifest.inputs[1:]), input=contract)
    assert tensor_bytes(dynamic) == static - 192 * 256 + 1000 * 2000
