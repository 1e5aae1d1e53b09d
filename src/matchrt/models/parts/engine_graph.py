"""A network in the engine's form: camera images in, K matches out."""

from __future__ import annotations

from torch import Tensor, nn

from matchrt.models.parts.match_tensors import MatchTensors

MASKED_INPUTS = ("image0", "image1", "size0", "size1")
PLAIN_INPUTS = ("image0", "image1")
OUTPUTS = ("keypoints0", "keypoints1", "scores", "num_matches")


class EngineGraph(nn.Module):
    """A network that takes uint8 `[B,H,W,C]` images and int32 `[B,2]` valid sizes, (height, width) in pixels.

    docs/engine-contract.md describes the four outputs.
    inputs: names of `forward`'s arguments, in order.
    outputs: names of `forward`'s results, in order.
    network: called with images float `[B,C,H,W]` in 0..1, the sizes and `max_matches`; returns `MatchTensors`.
    max_matches: K, the match slots of each pair.
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
        """The engine's outputs: keypoints `[B,K,2]` of both images, scores `[B,K]`, num_matches `[B]`."""
        out = self.matches(image0, image1, size0, size1)
        return out.keypoints0, out.keypoints1, out.scores, out.num_matches

    def matches(
        self, image0: Tensor, image1: Tensor, size0: Tensor | None = None, size1: Tensor | None = None
    ) -> MatchTensors:
        """The network's matches. Arguments are those of the class.

        Images are cast, scaled to 0..1 and transposed in the graph, so that callers pass what a camera gives.
        """
        out: MatchTensors = self.network(planes(image0), planes(image1), size0, size1, self.max_matches)
        return out

    def tensors(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The results of `forward` by name, and `margin` `[B,K]` if the network has one."""
        return {name: value for name, value in vars(self.matches(*inputs)).items() if value is not None}


def planes(image: Tensor) -> Tensor:
    """uint8 `[B,H,W,C]` to float `[B,C,H,W]` in 0..1."""
    batch, height, width, channels = image.shape
    if channels == 1:
        # Moving an axis of one channel is a reshape and costs nothing.
        return image.float().reshape(batch, 1, height, width) / 255.0
    # The cast comes first, because TensorRT does not transpose uint8.
    return image.float().permute(0, 3, 1, 2) / 255.0
