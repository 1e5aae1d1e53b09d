"""docs/contributing/add-a-pass.md does what it says: a pass is one new file and a line in the list."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import matchrt
from matchrt.building.parity import require_parity, run_onnx, sample_inputs
from matchrt.errors import MatchRTError
from matchrt.export import passes
from matchrt.export.contract import ExportOptions, input_contract
from matchrt.export.passes import standard
from matchrt.export.passes.base import Pass, run_passes
from matchrt.families.base import Preprocess
from matchrt.manifest import Profile

PAGE = Path(__file__).parents[2] / "docs" / "contributing" / "add-a-pass.md"
LITE = Path(matchrt.__file__).parent / "assets" / "loftr-lite.onnx"
MODULE = "matchrt.export.passes.merge_weights"


def block(language: str) -> str:
    """The first block of code of that language on the page."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def patched(source: str, patch: str) -> str:
    """The source with the page's change: each hunk of lines without and with the change stands once in it."""
    for hunk in re.findall(r"(?:^\+.*\n)+(?:^ .*\n)|(?:^-.*\n)(?:^\+.*\n)+", patch, re.MULTILINE):
        lines = hunk.splitlines()
        old = "".join(f"{line[1:]}\n" for line in lines if line[0] != "+")
        assert source.count(old) == 1, old
        source = source.replace(old, "".join(f"{line[1:]}\n" for line in lines if line[0] != "-"))
    return source


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`passes/standard.py` as it is after the page's two steps."""
    (tmp_path / "merge_weights.py").write_text(block("python"), encoding="utf-8")
    monkeypatch.setattr(passes, "__path__", [*passes.__path__, str(tmp_path)])
    monkeypatch.setitem(sys.modules, MODULE, importlib.import_module(MODULE))  # taken out again after the test
    assert standard.__file__ is not None
    source = Path(standard.__file__).read_text(encoding="utf-8")
    module = ModuleType("standard_with_one_more")
    exec(compile(patched(source, block("diff")), "standard.py", "exec"), module.__dict__)
    return module


def new_pass() -> Pass:
    made: Pass = vars(importlib.import_module(MODULE))["MergeWeights"]()
    return made


def twice() -> onnx.ModelProto:
    """y = (x + 2) * 2, z = x + 2 and w = 2, from four equal weights, of which w is an output of the graph."""
    nodes = [
        helper.make_node("Add", ["x", "a"], ["sum"], "add"),
        helper.make_node("Mul", ["sum", "b"], ["y"], "mul"),
        helper.make_node("Add", ["c", "x"], ["z"], "other"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "twice",
        [value("x", TensorProto.FLOAT, [3])],
        [value("y", TensorProto.FLOAT, [3]), value("z", TensorProto.FLOAT, [3]), value("w", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.float32([2]), name) for name in ("a", "b", "c", "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_the_two_steps_put_the_pass_into_every_build(added: ModuleType) -> None:
    inputs: dict[str, Any] = {"x": np.float32([-1, 2, 3])}
    before = run_onnx(twice(), inputs)
    names = [step.name for step in standard.standard_passes()]
    assert [step.name for step in added.standard_passes() if step.name != "merge-weights"] == names
    model, records = added.run_standard(twice())
    by_name = {record.name: record for record in records}
    assert by_name["merge-weights"].changed and by_name["merge-weights"].summary == "merged 2 weights"
    assert {weight.name for weight in model.graph.initializer} == {"a", "w"}
    after = run_onnx(model, inputs)
    assert all(np.array_equal(after[name], before[name]) for name in ("y", "z", "w"))
    assert before["y"].tolist() == [2, 8, 10]


@pytest.mark.usefixtures("added")
def test_the_pass_changes_no_match_of_the_bundled_model() -> None:
    model = onnx.load(LITE)
    options = ExportOptions(128, 160, profile=Profile((64, 64), (128, 160), (256, 256)))
    inputs = sample_inputs(input_contract(Preprocess(1, 8), options), 8)[0]
    compared = []

    def same(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
        compared.append(require_parity(run_onnx(before, inputs), run_onnx(after, inputs), 0.0, "The new pass"))

    weights = len(model.graph.initializer)
    merged, records = run_passes(model, [new_pass()], same)
    assert records[0].changed and len(compared) == 1 and compared[0].matches > 50
    assert records[0].summary == "merged 4 weights" and len(merged.graph.initializer) == weights - 4
    _, again = run_passes(merged, [new_pass()], same)
    assert not again[0].changed and len(compared) == 1


@pytest.mark.usefixtures("added")
def test_the_pass_refuses_what_its_condition_excludes() -> None:
    model = twice()
    model.functions.add().name = "f"
    with pytest.raises(MatchRTError) as caught:
        run_passes(model, [new_pass()])
    assert caught.value.code == "pass-requirement"
