"""RoMa in the engine's form: images at one or two sizes in, K matches out, and the dense warp on request."""

from __future__ import annotations

import torch
from torch import Tensor

from matchrt.models.parts.engine_graph import OUTPUTS, EngineGraph, planes
from matchrt.models.roma.config import Size
from matchrt.models.roma.deployed import deployed
from matchrt.models.roma.network import RoMa
from matchrt.models.roma.selection import select_dense

DENSE_OUTPUTS = ("warp", "certainty")


class RoMaGraph(EngineGraph):
    """RoMa on uint8 `[B,H,W,3]` images and, with an upsample pass, their copies at the coarse size.

    size: (height, width) of image0 and image1, in whose pixels keypoints are.
    coarse: (height, width) of coarse0 and coarse1; None for a single pass.

    The export is checked by the dense outputs; engines have them on request.
    """

    def __init__(self, network: RoMa, max_matches: int, size: Size, coarse: Size | None) -> None:
        super().__init__(deployed(network.eval()), max_matches)
        self.inputs = ("image0", "image1") if coarse is None else ("image0", "image1", "coarse0", "coarse1")
        self.outputs = (*OUTPUTS, *DENSE_OUTPUTS)
        with torch.no_grad():
            position = network.dinov2.position(network.patch_grid(coarse or size))
        self.register_buffer("position", position, persistent=False)

    def forward(
        self, image0: Tensor, image1: Tensor, coarse0: Tensor | None = None, coarse1: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Keypoints `[B,K,2]` of both images, scores `[B,K]`, their number `[B]`; then the fields of `DenseMatches`."""
        position, network = self.get_buffer("position"), self.network
        assert isinstance(network, RoMa)
        if coarse0 is None or coarse1 is None:
            dense = network(planes(image0), planes(image1), position=position)
        else:
            dense = network(planes(coarse0), planes(coarse1), planes(image0), planes(image1), position)
        config = network.config
        out = select_dense(dense, self.max_matches, config.threshold, config.symmetric)
        return out.keypoints0, out.keypoints1, out.scores, out.num_matches, dense.warp, dense.certainty

    def tensors(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The results of `forward` by name."""
        return dict(zip(self.outputs, self(*inputs), strict=True))
