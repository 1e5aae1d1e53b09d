"""NVIDIA's Polygraphy as a second opinion: its runner, its comparator and its folding on the engine that is shipped."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from support.pictures import shifted_pair

from matchrt.runtime.engine_file import engine_path, read_engine
from matchrt.runtime.opening import open_session

pytest.importorskip("polygraphy")

from polygraphy.backend.onnx import fold_constants
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.comparator import Comparator, IterationResult, RunResults, SimpleCompareFunc


def test_our_session_gives_what_polygraphys_runner_gives() -> None:
    pair = shifted_pair(96, 128, (16, 8))
    inputs = {f"image{index}": image[None, :, :, None] for index, image in enumerate(pair)}
    session = open_session(read_engine("loftr-lite"))
    ours = session.run(inputs)
    session.close()
    runner = OnnxrtRunner(SessionFromOnnx(str(engine_path("loftr-lite"))), name="polygraphy")
    results = Comparator.run([runner], data_loader=[inputs])
    results.append(("matchrt", [IterationResult(ours, runner_name="matchrt")]))
    assert int(ours["num_matches"][0]) > 20

    def agree(found: RunResults) -> bool:
        return bool(Comparator.compare_accuracy(found, compare_func=SimpleCompareFunc(atol=1e-5, rtol=1e-5)))

    assert agree(results)
    # It can disagree: one match half a pixel off.
    moved = {name: np.array(array) for name, array in ours.items()}
    moved["keypoints1"][0, 3, 0] += 0.5
    results[-1] = ("matchrt", [IterationResult(moved, runner_name="matchrt")])
    assert not agree(results)


def test_polygraphy_folds_nothing_but_stored_halves() -> None:
    """What is constant was folded by our passes; what is left are weights that the file stores in half precision."""
    model = onnx.load(str(engine_path("loftr-lite")))
    stored = {weight.name for weight in model.graph.initializer if weight.data_type == onnx.TensorProto.FLOAT16}
    casts = {node.name for node in model.graph.node if node.op_type == "Cast" and node.input[0] in stored}
    before = {node.name for node in model.graph.node}
    after = {node.name for node in fold_constants(model).graph.node}
    assert before - after == casts and len(casts) > 50 and after < before
