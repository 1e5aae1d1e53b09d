"""Writes the package's second graph of loftr-lite: static, with masks for padding, for any size.

    matchrt build loftr-lite --checkpoint src/matchrt/assets/loftr-lite.safetensors \\
        --dynamic 64x64,480x640,1024x1024 --output src/matchrt/assets/loftr-lite.onnx
    python tools/make_any_size_graph.py

The first line makes the bundled engine, the second one this graph, from the same weights.

`matchrt build loftr-lite` makes static engines from it without torch (src/matchrt/building/bundled.py). Run this again
whenever `assets/loftr-lite.onnx` changes: the weights that this one has are left out. tests/building/test_bundled.py
compares the graph with torch.
"""

from __future__ import annotations

import onnx
import torch

from matchrt.export.contract import ExportOptions
from matchrt.export.passes.standard import run_standard
from matchrt.export.shared_weights import leave_out_shared
from matchrt.export.to_onnx import OPSET
from matchrt.export.weights.network import load_network
from matchrt.families.registry import get_spec
from matchrt.models.loftr.attention import LinearAttention
from matchrt.runtime.bundled import BUNDLED, any_size_path, bundled_path

# The exporter's names of the two dimensions; building/bundled.py gives them values.
ROWS, COLUMNS = "rows", "columns"


def main() -> None:
    """Exports each bundled model."""
    for model in BUNDLED:
        spec = get_spec(model)
        options = ExportOptions(spec.height, spec.width)
        network = load_network(spec, size=(spec.height, spec.width)).network
        # A static graph has the forms that suit GPUs. The exporter does not know the size here, and would take it for a
        # dynamic one.
        network.coarse_matching.narrow = False
        for module in network.modules():
            if isinstance(module, LinearAttention):
                module.joined = True
        graph = spec.family.graph(network, options.max_matches).eval()
        stride = spec.preprocess.divisor
        rows, columns = (torch.export.Dim(name, min=8, max=256) for name in (ROWS, COLUMNS))
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
