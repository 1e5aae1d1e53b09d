"""Writes frames into the graph of a static engine: `frame0` and `frame1` take the place of `image0` and `image1`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from matchrt.building.frames.colour import to_planes
from matchrt.building.frames.nodes import FrameNodes
from matchrt.building.frames.resize import OVERSHOOTS, multiply, resize, round_values
from matchrt.export.graph import GraphEditor
from matchrt.manifest import FRAMES, FrameContract, InputContract
from matchrt.manifest.frames import Size
from matchrt.runtime.fit import Fit, fit_coarse, fit_image

_BEFORE_NETWORK = "of_network"


def write_frames(model: onnx.ModelProto, contract: InputContract, frames: FrameContract) -> None:
    """Changes the graph of a static fp32 engine in place: it takes frames, and its keypoints are in their pixels.

    contract: the engine's input as it is. frames: what it shall take.
    """
    editor = GraphEditor(model.graph)
    sized = any(value.name == "size0" for value in model.graph.input)
    before, after = [], []
    for side in (0, 1):
        writer = _Side(editor, contract, frames, side, sized)
        writer.write()
        before += writer.before.added
        after += writer.after.added
    editor.nodes = [*before, *editor.nodes, *after]
    editor.finish(prune=True)
    _write_inputs(model.graph, contract, frames, sized)


class _Side:
    """Writes one of the two frames.

    before, after: the nodes before and behind the network.
    """

    def __init__(
        self, editor: GraphEditor, contract: InputContract, frames: FrameContract, side: int, sized: bool
    ) -> None:
        self.before = FrameNodes(editor, f"{side}.image")
        self.after = FrameNodes(editor, f"{side}.points")
        self._editor = editor
        self._contract = contract
        self._frames = frames
        self._side = side
        self._sized = sized

    def write(self) -> None:
        """Writes the nodes of this side."""
        frames, grey = self._frames, self._contract.channels == 1
        size = None if frames.sizes is None else frames.sizes[self._side]
        planes = to_planes(self.before, FRAMES[self._side], frames.pixels, size, grey)
        # A grey frame for a network that sees colours is resized once.
        repeat = self._contract.channels if frames.pixels == "grey" else 1
        if size is None:
            self._write_range(planes, repeat)
        else:
            self._write_size(planes, size, repeat)

    def _write_size(self, planes: str, size: Size, repeat: int) -> None:
        contract, side, kernel = self._contract, self._side, self._contract.kernel
        fit = fit_image(size, contract, 0)
        found = resize(
            self.before, planes, size, (fit.resized_height, fit.resized_width), fit.canvas_hw, kernel, repeat
        )
        self._give(f"image{side}", found)
        if (small := fit_coarse(size, contract)) is not None:
            nodes = self.before.within("coarse")
            self._give(f"coarse{side}", resize(nodes, planes, size, small.canvas_hw, small.canvas_hw, kernel, repeat))
        if self._sized:
            valid = self.before.constant([[fit.resized_height, fit.resized_width]] * contract.batch, np.int32)
            self._editor.rewire({f"size{side}": valid})
        if (fit.scale_x, fit.scale_y) != (1.0, 1.0):
            self._scale(self.after.constant([fit.scale_x, fit.scale_y]), _shift(fit))

    def _write_range(self, planes: str, repeat: int) -> None:
        """Products with the matrices that the runtime gives (`runtime.frames`), whatever the frame's size."""
        names = ["", "coarse_"] if self._contract.coarse is not None else [""]
        for name in names:
            nodes = self.before.within("coarse") if name else self.before
            multiply_range = self._area_range if self._contract.kernel == "area-linear" else self._multiply_range
            found = multiply_range(nodes, planes, name)
            found = found if repeat == 1 else nodes.add("Concat", [found] * repeat, axis=1)
            self._give(f"{name.rstrip('_') or 'image'}{self._side}", found)
        half = self.after.plus(self.after.times(f"scale{self._side}", 0.5), -0.5)
        self._scale(f"scale{self._side}", half)

    def _area_range(self, nodes: FrameNodes, planes: str, name: str) -> str:
        """OpenCV's averages and its linear enlargement, whose steps `rounding` sets (`runtime.frame_matrices`)."""
        steps = [nodes.piece(f"{name}rounding{self._side}", 0, place, place + 1) for place in range(3)]
        found = multiply(nodes, planes, f"{name}columns{self._side}", "columns", whole=True)
        found = _rounded_down(nodes, found, steps[0])
        found = _rounded_down(nodes, multiply(nodes, found, f"{name}rows{self._side}", "rows", whole=False), steps[1])
        height = self._contract.coarse[0] if name and self._contract.coarse else self._contract.height or 0
        halves = [nodes.piece(found, 2, start, start + height) for start in (0, height)]
        return nodes.add("Round", [nodes.add("Add", [nodes.add("Add", halves), steps[2]])])

    def _multiply_range(self, nodes: FrameNodes, planes: str, name: str) -> str:
        columns, rows = f"{name}columns{self._side}", f"{name}rows{self._side}"
        kernel = self._contract.kernel
        overshoots = kernel in OVERSHOOTS
        found = multiply(nodes, planes, columns, "columns", whole=True)
        between = kernel in ("lanczos", "bicubic")
        if between:
            found = round_values(nodes, found, "half-up", overshoots)
        found = multiply(nodes, found, rows, "rows", whole=between)
        return round_values(nodes, found, "half-up" if between else "half-even", overshoots)

    def _give(self, image: str, planes: str) -> None:
        """Lets the network read planes float32 `[B, C, H, W]` where it read the image uint8 `[B, H, W, C]`.

        The network begins with a Cast, and with the Transpose to planes where there are several of them.
        """
        readers = self._editor.readers()
        casts = readers.get(image, [])
        assert casts and all(_is_cast(node) for node in casts), f"{image} is read by other nodes than casts"
        for cast in casts:
            found = cast.output[0]
            turns = readers.get(found, [])
            if turns and all(_to_planes(node) for node in turns):
                self._editor.rewire({node.output[0]: planes for node in turns})
                self._editor.drop([cast, *turns])
            else:
                flat = self.before.within(_BEFORE_NETWORK).add("Transpose", [planes], perm=[0, 2, 3, 1])
                self._editor.rewire({found: flat})
                self._editor.drop([cast])

    def _scale(self, scale: str, shift: str | Sequence[float]) -> None:
        """Puts the matches of this side into pixels of the frame: `x * scale + shift`; slots without a match stay zero.

        A resize keeps the image's edges, so that x_frame + 0.5 = (x + 0.5) * scale.
        """
        nodes, name, slots = self.after, f"keypoints{self._side}", self._slots()
        inside = f"{name}:network"
        self._editor.rename({name: inside})
        moved = nodes.add("Mul", [inside, scale])
        moved = nodes.add("Add", [moved, shift]) if isinstance(shift, str) else nodes.plus(moved, shift)
        count = nodes.add("Unsqueeze", ["num_matches", nodes.constant([1, 2], np.int64)])
        places = nodes.constant(np.arange(slots).reshape(1, slots, 1), np.int32)
        real = nodes.add("Less", [places, count])
        nodes.add("Where", [real, moved, nodes.constant(0.0)], output=name)

    def _slots(self) -> int:
        outputs = {value.name: value for value in self._editor.graph.output}
        return int(outputs["scores"].type.tensor_type.shape.dim[1].dim_value)


def _rounded_down(nodes: FrameNodes, values: str, steps: str) -> str:
    """The values, rounded down to a whole number of steps of 1 / `steps`."""
    return nodes.add("Div", [nodes.add("Floor", [nodes.add("Mul", [values, steps])]), steps])


def _shift(fit: Fit) -> list[float]:
    return [0.5 * fit.scale_x - 0.5, 0.5 * fit.scale_y - 0.5]


def _is_cast(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT


def _to_planes(node: onnx.NodeProto) -> bool:
    return node.op_type == "Transpose" and list(node.attribute[0].ints) == [0, 3, 1, 2]


def _write_inputs(graph: onnx.GraphProto, contract: InputContract, frames: FrameContract, sized: bool) -> None:
    """The graph's inputs, in the order frames, then what a range of sizes needs."""
    kept = [value for value in graph.input if value.name.startswith("size")] if frames.sizes is None and sized else []
    del graph.input[:]
    for side in (0, 1):
        shape = (None, None, frames.channels) if frames.sizes is None else frames.shape(frames.sizes[side])
        dims = [dim or f"{what}{side}" for dim, what in zip(shape, ("rows", "columns", ""), strict=True)]
        value = helper.make_tensor_value_info(FRAMES[side], TensorProto.UINT8, [contract.batch, *dims])
        graph.input.append(value)
    if frames.sizes is not None:
        return
    graph.input.extend(kept)
    for side in (0, 1):
        graph.input.extend(_range_inputs(contract, side))


def _range_inputs(contract: InputContract, side: int) -> list[onnx.ValueInfoProto]:
    area = contract.kernel == "area-linear"
    shapes: dict[str, list[int | str]] = {
        f"rows{side}": [(2 if area else 1) * (contract.height or 0), f"rows{side}"],
        f"columns{side}": [f"columns{side}", contract.width or 0],
        f"scale{side}": [2],
    }
    if contract.coarse is not None:
        shapes |= {
            f"coarse_rows{side}": [(2 if area else 1) * contract.coarse[0], f"rows{side}"],
            f"coarse_columns{side}": [f"columns{side}", contract.coarse[1]],
        }
    if area:
        shapes |= {f"{name}rounding{side}": [3] for name in (["", "coarse_"] if contract.coarse is not None else [""])}
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
