"""Real Triton takes the repositories of `matchrt export-triton`: it accepts, warms up, and batches."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from support.triton_engines import several_pairs
from support.triton_server import Triton, find, triton

from matchrt.runtime.matcher import Matcher
from matchrt.serving.triton import TritonOptions, export_triton

pytestmark = pytest.mark.slow


def test_a_real_server_takes_warms_and_batches(tmp_path: Path, pair: Any) -> None:
    http = pytest.importorskip("tritonclient.http")
    server, why = find()
    if server is None:
        pytest.skip(why)
    models = tmp_path / "models"
    export_triton("loftr-lite", models, TritonOptions(kind="cpu"))
    many = several_pairs(tmp_path, 4)
    export_triton(many, models, TritonOptions(name="many", kind="cpu", queue_delay=500_000))
    (tmp_path / "work").mkdir()
    with (
        triton(server, models, tmp_path / "work") as running,
        http.InferenceServerClient(f"127.0.0.1:{running.http}", network_timeout=120) as client,
    ):
        states = {one["name"]: one["state"] for one in client.get_model_repository_index()}
        assert states == {"loftr-lite": "READY", "many": "READY"}
        # The warm-up of one blank pair, and of one blank batch, before anybody asked.
        assert running.rows("loftr-lite") == [1] and running.rows("many") == [4]
        check_the_bundled_engine(http, client, pair)
        check_batches(http, client, running, many)


def check_the_bundled_engine(http: Any, client: Any, pair: Any) -> None:
    """The tensors that Triton answers are those of a session of ours."""
    with Matcher("loftr-lite") as matcher:
        prepared = matcher.adapter.inputs(*pair.paths)
        expected = matcher.session.run(prepared)
    answer = client.infer("loftr-lite", [tensor(http, name, prepared[name]) for name in prepared])
    for name, array in expected.items():
        found = answer.as_numpy(name)
        assert found.shape == array.shape and np.allclose(found, array, atol=1e-3), name


def check_batches(http: Any, client: Any, running: Triton, engine: Path) -> None:
    """Four requests of one pair that come together are one run, and each gets its own rows."""
    images = np.random.default_rng(0).integers(0, 255, (4, 4, 4, 1), dtype=np.uint8)
    session = onnxruntime.InferenceSession(engine, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    expected = dict(zip(names, session.run(None, {"image0": images, "image1": images[::-1]}), strict=True))
    answers: list[Any] = [None] * 4
    together = threading.Barrier(4)

    def ask(row: int) -> None:
        both = (images[row : row + 1], np.ascontiguousarray(images[::-1][row : row + 1]))
        inputs = [tensor(http, f"image{i}", one) for i, one in enumerate(both)]
        with http.InferenceServerClient(f"127.0.0.1:{running.http}", network_timeout=120) as own:
            own.is_server_live()
            together.wait(60)
            answers[row] = own.infer("many", inputs)

    threads = [threading.Thread(target=ask, args=(row,)) for row in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for row, answer in enumerate(answers):
        for name in ("keypoints0", "keypoints1", "scores"):
            assert np.array_equal(answer.as_numpy(name), expected[name][row : row + 1]), name
        # One number a pair: Triton has a second axis for it, as config.pbtxt says.
        assert answer.as_numpy("num_matches").shape == (1, 1)
        assert answer.as_numpy("num_matches")[0, 0] == expected["num_matches"][row]
    (found,) = client.get_inference_statistics("many")["model_stats"]
    # Triton counts the warm-up, of four pairs in one run.
    assert found["inference_count"] == 8 and found["execution_count"] - 1 == len(running.rows("many")[1:]) < 4
    assert running.rows("many")[0] == 4 and sum(running.rows("many")[1:]) == 4 and max(running.rows("many")[1:]) > 1


def tensor(http: Any, name: str, array: Any) -> Any:
    kind = {"uint8": "UINT8", "int32": "INT32"}[str(array.dtype)]
    one = http.InferInput(name, list(array.shape), kind)
    one.set_data_from_numpy(np.ascontiguousarray(array))
    return one
