"""A whole training step up to the gradients as one CUDA graph: making the pairs alone is thousands of small kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

# Runs before the recording: compilation, and the choice of convolution algorithms.
WARM_UP = 3


class GraphedStep:
    """Replays `step`, which returns its losses and leaves gradients in `net`; the same work every time.

    step: makes a batch with `generator`, runs forward and backward. It must not wait for the GPU.
    generator: of the GPU; seeding it before a call has its usual effect.
    """

    def __init__(self, step: Callable[[], Tensor], net: nn.Module, generator: torch.Generator) -> None:
        parameters = list(net.parameters())
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                _clear(parameters)
                step()
        torch.cuda.current_stream().wait_stream(aside)
        torch.cuda.synchronize()
        _clear(parameters)
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(generator)
        # The threads of NCCL ask for events meanwhile, which the default mode forbids to all threads.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.losses = step()
        self.gradients = [(parameter, parameter.grad) for parameter in parameters]

    def __call__(self) -> Tensor:
        """Losses of this step; the gradients are those of the network's parameters afterwards."""
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.losses.clone()


def _clear(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None
