"""Stands in for Triton's onnxruntime backend: Triton's Python backend runs it in a process of its own.

As the real one does, it joins the rows of all requests that Triton's batcher gives it at once, runs the graph, and
gives each request its rows. Each run is one line of the file $STAND_IN_RUNS. Tensors come and go by DLPack, because
the wheel's own way fits NumPy 1 only: with NumPy 2, its outputs have no bytes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as utils


class TritonPythonModel:
    """One instance of a model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the model's file."""
        config = json.loads(args["model_config"])
        self.name, self.batches = config["name"], config["max_batch_size"] > 0
        self.reshaped = {one["name"] for one in config["output"] if "reshape" in one}
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.inputs = [one.name for one in self.session.get_inputs()]
        self.outputs = [one.name for one in self.session.get_outputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Runs requests together, and answers each."""
        if not self.batches and len(requests) != 1:
            raise ValueError("a model that does not batch got several requests")
        inputs = [{name: _input(request, name) for name in self.inputs} for request in requests]
        rows = [len(next(iter(one.values()))) for one in inputs]
        joined = {name: np.concatenate([one[name] for one in inputs]) for name in self.inputs}
        found = dict(zip(self.outputs, self.session.run(self.outputs, joined), strict=True))
        with Path(os.environ["STAND_IN_RUNS"]).open("a") as runs:
            runs.write(f"{self.name} {sum(rows)}\n")
        answers, first = [], 0
        for count in rows:
            own = {name: array[first : first + count] for name, array in found.items()}
            answers.append(utils.InferenceResponse([self._output(name, array) for name, array in own.items()]))
            first += count
        return answers

    def _output(self, name: str, array: Any) -> Any:
        """With the axis that the configuration's reshape takes away from the model."""
        shown = array[:, None] if name in self.reshaped and self.batches else array
        return utils.Tensor.from_dlpack(name, np.ascontiguousarray(shown).copy())


def _input(request: Any, name: str) -> Any:
    return np.from_dlpack(utils.get_input_tensor_by_name(request, name)).copy()
