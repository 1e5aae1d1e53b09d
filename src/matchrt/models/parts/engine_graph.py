"""A network with the engine's contract around it: camera images in, K matches out."""

from __future__ import annotations

from torch import Tensor, nn

from matchrt.models.parts.match_tensors import MatchTensors

MASKED_INPUTS = ("image0", "image1", "size0", "size1")
PLAIN_INPUTS = ("image0", "image1")
OUTPUTS = ("keypoints0", "keypoints1", "scores", "num_matches")


class EngineGraph(nn.Module):
    """uint8 `[B,H,W,C]` images and int32 `[B,2]` valid sizes in; see docs/engine-contract.md for the four outputs.

    inputs, outputs: names, in the order of `forward`'s arguments and results.
    network: called with images float `[B,C,H,W]` in 0..1, the sizes and `max_matches`; gives `MatchTensors`.
    """

    inputs: tuple[str, ...] = MASKED_INPUTS
    outputs: tuple[str, ...] = OUTPUTS

    def __init__(self, network: nn.Module, max_matches: int) -> None:
        super().__init__()
        self.network = network
        self.max_matches = max_matches

    def forward(
        self, image0: Tensor, image1: Tensor, size0: Tensor | None = None, size1: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """The engine's outputs."""
        out = self.matches(image0, image1, size0, size1)
        return out.keypoints0, out.keypoints1, out.scores, out.num_matches

    def matches(
        self, image0: Tensor, image1: Tensor, size0: Tensor | None = None, size1: Tensor | None = None
    ) -> MatchTensors:
        """Images are cast, scaled to 0..1 and transposed here, so that callers hand over what a camera gives."""
        out: MatchTensors = self.network(planes(image0), planes(image1), size0, size1, self.max_matches)
        return out

    def tensors(self, *inputs: Tensor) -> dict[str, Tensor]:
        """What `forward` returns, by name; with `margin`, where the network has one."""
        return {name: value for name, value in vars(self.matches(*inputs)).items() if value is not None}


def planes(image: Tensor) -> Tensor:
    """uint8 `[B,H,W,C]` to float `[B,C,H,W]` in 0..1."""
    batch, height, width, channels = image.shape
    if channels == 1:
        # Moving an axis of one channel is a reshape and costs nothing.
        return image.float().reshape(batch, 1, height, width) / 255.0
    # Cast first: TensorRT transposes no uint8.
    return image.float().permute(0, 3, 1, 2) / 255.0
