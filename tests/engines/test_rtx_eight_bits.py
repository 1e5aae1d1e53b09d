"""int8 and fp8 of every family, built by TensorRT-RTX on the CPU at usual sizes, for three generations of GPUs.

Ranges are made up: they decide results, which nothing here looks at, and not what the vendor builds. RoMa and the
dynamic EfficientLoFTR have their full width, but two blocks where the published networks have up to 24. The whole RoMa,
560 to 864 and both ways, takes minutes and gigabytes:

    MATCHRT_WHOLE_ROMA=1 pytest -m slow tests/engines/test_rtx_eight_bits.py -k 864 --durations 0
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from support.random_engines import random_engine, shallow
from support.rtx import check_header

from matchrt.building.calibration.style import style_for
from matchrt.export.quantization.quantize import plan_quantization, quantize
from matchrt.export.quantization.scale_types import require_float_scales
from matchrt.families.definition import ModelSpec
from matchrt.families.registry import get_spec
from matchrt.families.roma import RoMaFamily
from matchrt.manifest import InputContract, Profile
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.runtime.backend import get_backend
from matchrt.runtime.engine_file import read_engine

pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra: rtx)")

pytestmark = pytest.mark.slow
AMPERE, ADA, BLACKWELL = "8.0", "8.9", "12.0"
EVERY = (AMPERE, ADA, BLACKWELL)
PROFILE = Profile((128, 128), (480, 640), (1024, 1024))


@dataclass(frozen=True)
class Form:
    """A model at a size.

    profile: of a dynamic engine. depth: blocks of each stack; None for the published ones.
    coarse: (height, width) of RoMa's first pass; None for a single pass.
    """

    model: str
    size: tuple[int, int]
    profile: Profile | None = None
    depth: int | None = None
    coarse: tuple[int, int] | None = None

    @property
    def spec(self) -> ModelSpec:
        spec = get_spec(self.model)
        if isinstance(spec.family, RoMaFamily):
            spec = replace(spec, family=replace(spec.family, coarse=self.coarse))
        return spec if self.depth is None else shallow(spec, self.depth)

    def __str__(self) -> str:
        return f"{self.model}-{'dynamic' if self.profile else f'{self.size[0]}x{self.size[1]}'}"


# With the precisions to build, and the GPUs of each engine.
INT8, FP8 = ("int8", EVERY), ("fp8", (ADA, BLACKWELL))
ALONE = tuple(("int8", (target,)) for target in EVERY)
BUILDS = {
    Form("loftr-lite", (480, 640)): (INT8, ("int8", (ADA,)), FP8),
    Form("loftr-lite", (480, 640), PROFILE): (INT8, FP8),
    Form("loftr-outdoor", (480, 640)): (INT8,),
    Form("coarse-loftr", (480, 640)): (INT8, *ALONE, FP8),
    Form("eloftr", (480, 640)): (INT8, FP8),
    Form("eloftr", (480, 640), PROFILE, depth=2): (INT8, FP8),
    Form("roma-outdoor", (560, 560), depth=2): (INT8, FP8),
}
if "MATCHRT_WHOLE_ROMA" in os.environ:
    BUILDS[Form("roma-outdoor", (864, 864), coarse=(560, 560))] = (INT8,)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("eight")


@pytest.mark.parametrize("form", BUILDS, ids=str)
def test_eight_bits_build(form: Form, folder: Path) -> None:
    graph = fp32_graph(form, folder)
    for precision, targets in BUILDS[form]:
        build_eight(graph, form, precision, targets, folder / "eight.engine")


def fp32_graph(form: Form, folder: Path) -> onnx.ModelProto:
    """The fp32 graph with random weights; the bundled one where it is the same."""
    if form.model == "loftr-lite" and form.profile is not None:
        return onnx.load_model_from_string(read_engine("loftr-lite").data)
    path = random_engine(form.spec, folder, form.size, form.profile, slots=2048)
    model = onnx.load(str(path))
    path.unlink()
    return model


def build_eight(model: onnx.ModelProto, form: Form, precision: str, targets: tuple[str, ...], output: Path) -> None:
    """Quantises and builds; the graph is 8-bit with FLOAT scales, and the vendor's reader takes the engine."""
    builder = get_backend("tensorrt_rtx").builder(BuilderOptions(targets=targets))
    plan = plan_quantization(model, form.spec.family.name, style_for(precision, builder.name, builder.version))
    rng = np.random.default_rng(0)
    ranges = {name: (-high, high) for name, high in zip(plan.placement.tensors, rng.uniform(1, 8, 9999), strict=False)}
    graph, _ = quantize(plan, ranges)
    require_float_scales(graph)
    kind = TensorProto.INT8 if precision == "int8" else TensorProto.FLOAT8E4M3FN
    eighth = {weight.name for weight in graph.graph.initializer if weight.data_type == kind and weight.dims}
    used = {
        node.output[0] for node in graph.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in eighth
    }
    products = [node for node in graph.graph.node if len(node.input) > 1 and node.input[1] in used]
    assert len(products) == len(plan.selection.products) > 10
    contract = None if form.profile is None else InputContract(1, 8, "aspect", "area-linear", profile=form.profile)
    built = builder.build(graph.SerializeToString(), contract, lambda what, done: None)
    assert built.portability.compute_capabilities == targets
    output.write_bytes(built.data)
    check_header(output)
