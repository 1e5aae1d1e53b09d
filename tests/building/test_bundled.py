"""Engines of the bundled model are made from the package's graphs: without torch, and with its numbers."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from matchrt.building.bundled import needs_export
from matchrt.building.parity import require_parity, run_torch, sample_inputs
from matchrt.building.pipeline import BuildRequest, build
from matchrt.errors import MatchRTError
from matchrt.export.fixed_sizes import fix_sizes
from matchrt.export.shared_weights import leave_out_shared, take_shared
from matchrt.export.weights.network import load_network
from matchrt.families.registry import get_spec
from matchrt.manifest import Profile, manifest_path, read_manifest
from matchrt.runtime.bundled import any_size_path, bundled_path
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.opening import open_session
from matchrt.store import EngineStore

# Runs the command line where torch, onnxscript and everything else of the export extra alone cannot be imported.
WITHOUT_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'onnxscript', 'onnx_ir', 'safetensors'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name.split('.')[0])
sys.meta_path.insert(0, Blocked())
from matchrt.cli.app import main
main()
"""


def _build_without_torch(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", WITHOUT_TORCH, "build", "loftr-lite", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "backend",
    [
        ("onnxruntime",),
        pytest.param(
            ("tensorrt_rtx", "--target", "sm89"),
            marks=pytest.mark.skipif(
                importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed"
            ),
        ),
    ],
    ids=lambda backend: backend[0],
)
def test_an_fp16_engine_is_built_without_torch(tmp_path: Path, backend: tuple[str, ...]) -> None:
    engine = tmp_path / "lite.engine"
    size = ("--height", 96, "--width", 128, "--precision", "fp16", "--output", engine, "--store", tmp_path / "store")
    ran = _build_without_torch("--backend", *backend, *size)
    assert ran.returncode == 0, ran.stderr
    manifest = read_manifest(manifest_path(engine))
    assert (manifest.precision, manifest.backend, manifest.input.height) == ("fp16", backend[0], 96)
    assert [record.name for record in manifest.passes][:2] == ["package-graph", "fix-sizes"]
    # What was compared is said, and nothing is said about torch.
    assert manifest.checks["bundled_matches"] > 30 and manifest.checks["precision_kept"] > 0.99
    assert not any(name.startswith("parity") for name in manifest.checks)
    assert "against the bundled engine in ONNX Runtime" in ran.stdout
    assert manifest.source == read_engine("loftr-lite").manifest.source
    assert manifest.self_test is not None


def test_what_changes_the_graph_needs_an_export_and_the_error_names_it(tmp_path: Path) -> None:
    ran = _build_without_torch("--max-matches", 512, "--threshold", "0.3", "--store", tmp_path)
    assert ran.returncode == 2
    assert "max_matches and threshold" in ran.stderr and "matchrt[export]" in ran.stderr
    assert needs_export(BuildRequest("loftr-lite", height=96, width=128, backend="tensorrt", precision="int8")) == ()
    assert needs_export(BuildRequest("loftr-lite", batch=4, any_batch=True)) == ("batch", "any_batch")
    assert needs_export(BuildRequest("loftr-lite", bundled_path("loftr-lite"))) == ("checkpoint",)
    assert needs_export(BuildRequest("roma-outdoor")) is None


@pytest.mark.parametrize(
    ("option", "code"),
    [
        (("--preset", "nope"), "option-model"),
        (("--max-matches", 70000), "matches-range"),
        (("--batch", 2, "--height", 100), "size-divisor"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_wrong_option_is_named_before_packages_are_asked_for(
    tmp_path: Path, option: tuple[object, ...], code: str
) -> None:
    ran = _build_without_torch(*option, "--store", tmp_path)
    assert ran.returncode == 2 and code in ran.stderr and "package-missing" not in ran.stderr


@pytest.mark.parametrize("size", [(96, 128), (192, 136)], ids=str)
def test_a_static_engine_has_torchs_numbers_also_with_padding(tmp_path: Path, size: tuple[int, int]) -> None:
    spec = get_spec("loftr-lite")
    file = read_engine(build(BuildRequest("loftr-lite", height=size[0], width=size[1]), EngineStore(tmp_path)).path)
    network = load_network(spec, size=size).network
    graph = spec.family.graph(network, file.manifest.matching.max_matches)
    session = open_session(file)
    for seed in (0, 1):
        (inputs,) = sample_inputs(file.manifest.input, file.manifest.matching.coarse_stride, seed)
        assert inputs["size1"][0, 1] < size[1]  # the second image is padded
        expected, threshold = run_torch(graph, inputs), file.manifest.matching.threshold
        difference = require_parity(expected, session.run(inputs), threshold, "The package")
        assert difference.matches > 40
    session.close()


def test_a_dynamic_engine_is_the_bundled_graph_with_another_profile(tmp_path: Path) -> None:
    profile = Profile((64, 64), (96, 128), (192, 256))
    result = build(BuildRequest("loftr-lite", profile=profile), EngineStore(tmp_path))
    bundled = read_engine("loftr-lite").manifest
    assert result.manifest.onnx_sha256 == bundled.onnx_sha256 and result.manifest.input.profile == profile
    assert result.manifest.checks == bundled.checks and result.weights is None
    assert build(BuildRequest("loftr-lite", profile=profile), EngineStore(tmp_path)).cached


def test_sizes_are_checked_as_for_an_export(tmp_path: Path) -> None:
    with pytest.raises(MatchRTError) as caught:
        build(BuildRequest("loftr-lite", height=100, width=128), EngineStore(tmp_path))
    assert caught.value.code == "size-divisor"


def test_the_packages_second_graph_lacks_nothing_but_what_the_first_has() -> None:
    model, bundled = onnx.load(any_size_path("loftr-lite")), onnx.load(bundled_path("loftr-lite"))
    before = {weight.name for weight in model.graph.initializer}
    take_shared(model, bundled)
    onnx.checker.check_model(model, full_check=True)
    assert len(model.graph.initializer) > len(before) > 0
    assert not any("shared" in entry.key for entry in model.metadata_props)
    assert leave_out_shared(model, bundled) > 2_000_000 and {w.name for w in model.graph.initializer} == before


def test_a_scalar_of_a_shape_stays_a_scalar() -> None:
    """onnx-graphsurgeon alone makes a list of one number of it, which Range refuses."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], "s"),
        helper.make_node("Gather", ["shape", "one"], ["width"], "g"),
        helper.make_node("Range", ["zero", "width", "step"], ["columns"], "r"),
        helper.make_node("Add", ["x", "columns"], ["y"], "a"),
    ]
    constants = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in
                 (("one", 1), ("zero", 0), ("step", 1))]  # fmt: skip
    x, y = (helper.make_tensor_value_info(name, TensorProto.INT64, ["height", "width"]) for name in "xy")
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], constants), opset_imports=opset, ir_version=8)
    fixed, records = fix_sizes(model, {"height": 2, "width": 3})
    assert [node.op_type for node in fixed.graph.node] == ["Add"]
    (stored,) = fixed.graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(stored), [0, 1, 2])
    assert records[0].name == "fix-sizes" and "height 2, width 3" in records[0].summary
