"""The network with the engine's contract around it: camera images in, K matches out."""

from __future__ import annotations

from torch import Tensor, nn

from matchrt.models.loftr import LoFTR, MatchTensors

MASKED_INPUTS = ("image0", "image1", "size0", "size1")
PLAIN_INPUTS = ("image0", "image1")
OUTPUTS = ("keypoints0", "keypoints1", "scores", "num_matches")


class LoFTRGraph(nn.Module):
    """uint8 `[B,H,W,1]` images and int32 `[B,2]` valid sizes in; see DESIGN for the four outputs."""

    def __init__(self, network: LoFTR, max_matches: int) -> None:
        super().__init__()
        self.network = network
        self.max_matches = max_matches

    def forward(
        self, image0: Tensor, image1: Tensor, size0: Tensor | None = None, size1: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images are cast, scaled to 0..1 and transposed here, so that callers hand over what a camera gives."""
        out: MatchTensors = self.network(_grey(image0), _grey(image1), size0, size1, self.max_matches)
        return out.keypoints0, out.keypoints1, out.scores, out.num_matches


def _grey(image: Tensor) -> Tensor:
    # One channel: moving the axis is a reshape and costs nothing.
    batch, height, width, _ = image.shape
    return image.float().reshape(batch, 1, height, width) / 255.0
