"""An ONNX engine's digest covers all of its weights: tensors in other files are refused, wherever they may stand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from support.commands import CommandLine
from support.tiny_engines import tiny_engine, tiny_graph

from matchrt._util.onnx_wire import _MESSAGES, external_tensors
from matchrt.errors import MatchRTError
from matchrt.manifest import TensorSpec, manifest_path, read_manifest
from matchrt.runtime.engine_file import engine_path, read_engine
from matchrt.runtime.opening import open_session


def outside(name: str = "hidden", location: str = "ext.bin") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": "4"}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def constant(**attributes: object) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["made"], **attributes)


def in_node(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    model.graph.node.append(node)


def subgraph(operator: str, *nodes: onnx.NodeProto, tensor: TensorProto | None = None) -> onnx.NodeProto:
    graph = helper.make_graph(list(nodes), "inner", [], [], [] if tensor is None else [tensor])
    return helper.make_node(operator, ["flag"], ["out"], then_branch=graph)


def with_function(model: onnx.ModelProto) -> None:
    made = helper.make_function("own", "F", [], ["made"], [constant(value=outside())], [helper.make_opsetid("", 18)])
    model.functions.append(made)


def with_sparse(model: onnx.ModelProto, which: str) -> None:
    sparse = onnx.SparseTensorProto(dims=[2])
    getattr(sparse, which).CopyFrom(outside())
    model.graph.sparse_initializer.append(sparse)


def sparse_constant() -> onnx.NodeProto:
    sparse = onnx.SparseTensorProto(dims=[2], values=outside())
    attribute = onnx.AttributeProto(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse)
    return onnx.NodeProto(op_type="Constant", output=["made"], attribute=[attribute])


def only(field: str) -> TensorProto:
    """Either of the two things that say so, without the other."""
    tensor = outside()
    tensor.ClearField(field)
    return tensor


PLACES: dict[str, Callable[[onnx.ModelProto], object]] = {
    "initializer": lambda m: m.graph.initializer.append(outside()),
    "Constant": lambda m: in_node(m, constant(value=outside())),
    "list of tensors": lambda m: in_node(m, helper.make_node("Odd", [], ["made"], values=[outside(), outside()])),
    "If, initializer": lambda m: in_node(m, subgraph("If", tensor=outside())),
    "If, Constant": lambda m: in_node(m, subgraph("If", constant(value=outside()))),
    "If in Loop in If": lambda m: in_node(
        m, subgraph("If", subgraph("Loop", subgraph("If", constant(value=outside()))))
    ),
    "list of graphs": lambda m: in_node(
        m, helper.make_node("Odd", [], ["made"], bodies=[helper.make_graph([], "g", [], [], [outside()])])
    ),
    "sparse initializer, values": lambda m: with_sparse(m, "values"),
    "sparse initializer, indices": lambda m: with_sparse(m, "indices"),
    "sparse Constant": lambda m: in_node(m, sparse_constant()),
    "function": with_function,
    "training": lambda m: m.training_info.add(initialization=helper.make_graph([], "t", [], [], [outside()])),
    "training, algorithm": lambda m: m.training_info.add(algorithm=helper.make_graph([], "t", [], [], [outside()])),
    "no location": lambda m: m.graph.initializer.append(only("external_data")),
    "no flag": lambda m: m.graph.initializer.append(only("data_location")),
    "absolute": lambda m: m.graph.initializer.append(outside(location="/etc/passwd")),
    "memory": lambda m: m.graph.initializer.append(outside(location="*/_ORT_MEM_ADDR_/*")),
}


@pytest.mark.parametrize("place", PLACES)
def test_wherever_a_tensor_may_stand(tmp_path: Path, place: str) -> None:
    model = tiny_graph()
    PLACES[place](model)
    with pytest.raises(MatchRTError) as caught:
        read_engine(tiny_engine(tmp_path, model))
    assert caught.value.code == "engine-external" and "hidden" in caught.value.message


def test_every_message_of_onnx_that_holds_tensors_is_known() -> None:
    """The table against onnx's own descriptors: a newer version of the format with other places fails here."""
    holding = {"TensorProto"}
    kinds = {d.name: d for d in onnx.ModelProto.DESCRIPTOR.file.message_types_by_name.values()}
    fields = {name: {f.number: f.message_type.name for f in d.fields if f.message_type} for name, d in kinds.items()}
    while new := {name for name, inside in fields.items() if holding & set(inside.values())} - holding:
        holding |= new
    wanted = {
        name: {number: kind for number, kind in fields[name].items() if kind in holding and name != "TensorProto"}
        for name in holding
    }
    assert wanted == _MESSAGES


def test_what_is_inside_is_read() -> None:
    assert external_tensors(tiny_graph().SerializeToString()) == []
    assert external_tensors(engine_path("loftr-lite").read_bytes()) == []
    assert external_tensors(b"") == []


@pytest.mark.parametrize(
    "data",
    [b"\x00ORTM", b"\x1c\x00\x00\x00ORTM", b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x05\x2a", b"\x0b", b"\x00", b"\x08",
     b"\xff" * 20, b"\x3a\x02\x2a\x05", b"no graph"],
)  # fmt: skip
def test_what_is_no_graph_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        external_tensors(data)


def test_a_graph_of_endless_fields_is_refused() -> None:
    with pytest.raises(ValueError, match="fields"):
        external_tensors(b"\x08\x00" * 4_000_001)


def test_inspect_says_it_of_a_graph_without_a_manifest(cli: CommandLine, tmp_path: Path) -> None:
    model = tiny_graph()
    PLACES["Constant"](model)
    path = tiny_engine(tmp_path, model)
    cli.fails("engine-external", "inspect", path)
    cli.fails("engine-external", "build", path, "--precision", "fp16")
    cli.fails("engine-external", "export-triton", path, tmp_path / "models")
    manifest_path(path).unlink()
    ran = cli("inspect", path)
    assert ran.code == 0 and "EXTERNAL" in ran.out and "ext.bin" in ran.out
    assert cli("inspect", path, "--json").json["external"] == [{"name": "hidden", "location": "ext.bin"}]


def test_the_tensors_are_compared_when_an_engine_is_opened(tmp_path: Path) -> None:
    """The manifest agrees with itself, and not with the engine."""
    path = tiny_engine(tmp_path)
    manifest = read_manifest(manifest_path(path))

    def opens(**changes: object) -> str:
        dataclasses.replace(manifest, **changes).write(manifest_path(path))  # type: ignore[arg-type]
        try:
            open_session(read_engine(path)).close()
        except MatchRTError as error:
            return error.code
        return "opened"

    assert opens() == "opened"
    two = tuple(
        TensorSpec(spec.name, spec.dtype, (1, 2, *spec.shape[2:])) if len(spec.shape) > 1 else spec
        for spec in manifest.outputs
    )
    assert opens(outputs=two, matching=dataclasses.replace(manifest.matching, max_matches=2)) == "engine-graph"
    larger = tuple(
        TensorSpec(spec.name, spec.dtype, (1, 128, 128, 1)) if spec.name.startswith("image") else spec
        for spec in manifest.inputs
    )
    contract = dataclasses.replace(manifest.input, height=128, width=128)
    assert opens(inputs=larger, input=contract) == "engine-graph"
    assert opens(inputs=tuple(s for s in manifest.inputs if not s.name.startswith("size"))) == "engine-graph"
    assert opens(matching=dataclasses.replace(manifest.matching, max_matches=2)) == "manifest-invalid"
