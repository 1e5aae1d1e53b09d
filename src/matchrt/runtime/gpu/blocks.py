"""The memory that all shapes of a session share."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from matchrt.runtime.gpu.memory import DeviceMemory, Staging
from matchrt.runtime.gpu.shape_runner import ShapeRunner


@dataclass(frozen=True)
class Blocks:
    """Memory that is large enough for the largest shape so far.

    scratch: the engine's working memory.
    inputs: one block for all inputs, on both sides.
    outputs: one block for all outputs, on both sides.
    """

    scratch: DeviceMemory
    inputs: Staging
    outputs: Staging

    def holds(self, runner: ShapeRunner) -> bool:
        """Whether a runner's tensors and scratch memory fit. Raises nothing."""
        return (
            runner.scratch_bytes <= self.scratch.size
            and runner.inputs.size <= self.inputs.size
            and runner.outputs.size <= self.outputs.size
        )

    def close(self) -> None:
        """Frees all blocks. Raises nothing."""
        for block in (self.scratch, self.inputs, self.outputs):
            block.close()


def grown(blocks: Blocks | None, runner: ShapeRunner) -> Blocks:
    """Blocks that hold what the old ones did and what the runner needs; the old ones are freed first.

    Errors: out-of-memory, cuda-failed; nothing is held then.
    """
    sizes = [runner.scratch_bytes, runner.inputs.size, runner.outputs.size]
    if blocks is not None:
        old = (blocks.scratch.size, blocks.inputs.size, blocks.outputs.size)
        sizes = [max(pair) for pair in zip(sizes, old, strict=True)]
        blocks.close()
    with contextlib.ExitStack() as undo:
        scratch = DeviceMemory(sizes[0])
        undo.callback(scratch.close)
        inputs = Staging(sizes[1])
        undo.callback(inputs.close)
        outputs = Staging(sizes[2])
        undo.pop_all()
        return Blocks(scratch, inputs, outputs)
