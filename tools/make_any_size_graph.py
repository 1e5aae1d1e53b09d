"""Writes the package's second graph of a bundled model: static, with masks for padding, for any size.

    matchrt build eloftr-lite --checkpoint src/matchrt/assets/eloftr-lite.safetensors \\
        --dynamic 64x64,480x640,1024x1024 --output src/matchrt/assets/eloftr-lite.onnx
    python tools/make_any_size_graph.py eloftr-lite

The first line makes the bundled engine, the second one this graph, from the same weights; without a name, that of every
bundled model.

`matchrt build eloftr-lite` makes static engines from it without torch (src/matchrt/building/bundled.py). Run this again
whenever the engine in the assets changes: the weights that this one has are left out. tests/building/test_bundled.py
compares the graph with torch.
"""

from __future__ import annotations

import sys

import onnx
import torch
from torch import nn

from matchrt.export.contract import ExportOptions
from matchrt.export.passes.standard import run_standard
from matchrt.export.shared_weights import leave_out_shared
from matchrt.export.to_onnx import OPSET
from matchrt.export.weights.network import load_network
from matchrt.families.registry import get_spec
from matchrt.models.eloftr.half_resolution import HalfWindows
from matchrt.models.loftr.attention import LinearAttention
from matchrt.models.parts.coarse_matching import CoarseScores
from matchrt.models.parts.coarse_matching_bounded import CosineScores
from matchrt.runtime.bundled import BUNDLED, any_size_path, bundled_path

# The exporter's names of the two dimensions; building/bundled.py gives them values.
ROWS, COLUMNS = "rows", "columns"


def prefer_gpu(module: nn.Module) -> None:
    """Gives a module the form that suits GPUs, as in a static graph. The exporter does not know the size here."""
    if isinstance(module, CoarseScores):
        module.narrow = False
    elif isinstance(module, LinearAttention):
        module.joined = True
    elif isinstance(module, CosineScores):
        module.twice = True
    elif isinstance(module, HalfWindows):
        module.stored = True


def main() -> None:
    """Exports the named bundled models, or all."""
    for model in sys.argv[1:] or BUNDLED:
        spec = get_spec(model)
        options = ExportOptions(spec.height, spec.width)
        network = load_network(spec, size=(spec.height, spec.width)).network
        for module in network.modules():
            prefer_gpu(module)
        graph = spec.family.graph(network, options.max_matches).eval()
        stride = spec.preprocess.divisor
        rows, columns = (torch.export.Dim(name, min=max(2, 64 // stride), max=256) for name in (ROWS, COLUMNS))
        image = torch.zeros(1, spec.height, spec.width, spec.preprocess.channels, dtype=torch.uint8)
        size = torch.tensor([[spec.height, spec.width]], dtype=torch.int32)
        free = {1: stride * rows, 2: stride * columns}
        program = torch.onnx.export(
            graph,
            (image, image.clone(), size, size.clone()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes={name: free if name.startswith("image") else {} for name in graph.inputs},
            external_data=False,
            optimize=True,
            verbose=False,
        )
        assert program is not None
        exported, _ = run_standard(program.model_proto)
        for value in exported.graph.input:
            for axis, name in zip(value.type.tensor_type.shape.dim[1:3], ("height", "width"), strict=False):
                if axis.dim_param:
                    axis.dim_param = name
        del exported.graph.value_info[:]
        saved = leave_out_shared(exported, onnx.load(bundled_path(model)))
        data = exported.SerializeToString(deterministic=True)
        any_size_path(model).write_bytes(data)
        print(f"{any_size_path(model)}: {len(data)} bytes; {saved} bytes of weights are in {bundled_path(model).name}")


if __name__ == "__main__":
    main()
