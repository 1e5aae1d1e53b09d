"""A graph that shows what a network would see, to look at what frames become before it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from matchrt.building.frames.write import write_frames
from matchrt.manifest import EngineManifest, FrameContract, InputContract, TensorSpec
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.frames import frame_inputs, prepare_frame
from matchrt.runtime.options import MatcherOptions

Arrays = dict[str, npt.NDArray[Any]]
POINTS = np.array([[[0.0, 0.0], [10.0, 4.0], [7.5, 3.25], [0.0, 0.0]]], np.float32)
COUNT = 3


def showing_graph(contract: InputContract, sized: bool = False) -> onnx.ModelProto:
    """A graph with an engine's inputs, whose outputs are the images as float32 planes, and fixed matches."""
    assert contract.height is not None and contract.width is not None
    nodes, inputs, outputs = [], [], []
    sizes = {"image": (contract.height, contract.width)}
    sizes |= {"coarse": contract.coarse} if contract.coarse is not None else {}
    for name in [f"{kind}{side}" for kind in sizes for side in (0, 1)]:
        shape = [contract.batch, *sizes[name[:-1]], contract.channels]
        inputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8, shape))
        nodes.append(helper.make_node("Cast", [name], [f"{name}:float"], f"graph/Cast_{name}", to=TensorProto.FLOAT))
        op = ("Transpose", {"perm": [0, 3, 1, 2]}) if contract.channels == 3 else ("Identity", {})
        nodes.append(helper.make_node(op[0], [f"{name}:float"], [f"{name}:planes"], f"graph/{name}", **op[1]))
        nodes.append(helper.make_node("Identity", [f"{name}:planes"], [f"seen_{name}"], f"graph/seen_{name}"))
        outputs.append(helper.make_tensor_value_info(f"seen_{name}", TensorProto.FLOAT, ["b", "x", "y", "z"]))
    for side in (0, 1) if sized else ():
        inputs.append(helper.make_tensor_value_info(f"size{side}", TensorProto.INT32, [contract.batch, 2]))
        nodes.append(helper.make_node("Identity", [f"size{side}"], [f"valid{side}"], f"graph/valid{side}"))
        outputs.append(helper.make_tensor_value_info(f"valid{side}", TensorProto.INT32, [contract.batch, 2]))
    weights = [numpy_helper.from_array(POINTS, "points"), numpy_helper.from_array(POINTS[:, :, 0], "ranks")]
    weights.append(numpy_helper.from_array(np.array([COUNT], np.int32), "count"))
    fixed = {"keypoints0": "points", "keypoints1": "points", "scores": "ranks", "num_matches": "count"}
    for name, source in fixed.items():
        nodes.append(helper.make_node("Identity", [source], [name], f"graph/{name}"))
        kind = TensorProto.INT32 if name == "num_matches" else TensorProto.FLOAT
        shape = {"scores": [1, 4], "num_matches": [1]}.get(name, [1, 4, 2])
        outputs.append(helper.make_tensor_value_info(name, kind, shape))
    graph = helper.make_graph(nodes, "showing", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run_graph(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    """The graph's outputs by name, from ONNX Runtime."""
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def manifest_of(manifest: EngineManifest, contract: InputContract, sized: bool = False) -> EngineManifest:
    """A manifest for the graph: any engine's, with this input."""
    names = ["image0", "image1"] if contract.frames is None else ["frame0", "frame1"]
    if contract.frames is not None and contract.frames.sizes is None:
        names += [f"{name}{side}" for side in (0, 1) for name in ("rows", "columns", "scale")]
        if contract.kernel == "area-linear":
            names += [
                f"{name}rounding{side}" for side in (0, 1) for name in ("", *(["coarse_"] if contract.coarse else []))
            ]
        names += [f"coarse_{name}{side}" for side in (0, 1) for name in ("rows", "columns") if contract.coarse]
    if sized and (contract.frames is None or contract.frames.sizes is None):
        names += ["size0", "size1"]
    specs = tuple(TensorSpec(name, "uint8", (1,)) for name in names)
    return replace(manifest, input=contract, inputs=specs)


def seen_by_graph(
    manifest: EngineManifest, contract: InputContract, frames: FrameContract, images: Any, sized: bool = False
) -> Arrays:
    """What a network would see of two images that reach it as frames."""
    model = showing_graph(contract, sized)
    write_frames(model, contract, frames)
    told = manifest_of(manifest, replace(contract, frames=frames), sized)
    first, second = (prepare_frame(image, "i", side, told, MatcherOptions()) for side, image in enumerate(images))
    return run_graph(model, frame_inputs(first, second, told))


def seen_on_host(manifest: EngineManifest, contract: InputContract, images: Any, sized: bool = False) -> Arrays:
    """What a network would see of two images that the host resizes."""
    inputs = PairAdapter(manifest_of(manifest, contract, sized)).inputs(*images)
    return run_graph(showing_graph(contract, sized), inputs)
