"""RoMa v2 in the engine's form: images at one or two sizes in, K matches out, and the dense warp on request."""

from __future__ import annotations

import torch
from torch import Tensor

from matchrt.models.parts.engine_graph import OUTPUTS, EngineGraph, planes
from matchrt.models.roma.config import Size
from matchrt.models.roma.engine_graph import DENSE_OUTPUTS
from matchrt.models.roma.selection import select_dense
from matchrt.models.romav2.dense import dense_matches
from matchrt.models.romav2.deployed import deployed
from matchrt.models.romav2.network import RoMaV2, Tables
from matchrt.models.romav2.rotary import Rotation

PRECISION_OUTPUT = "precision"


class RoMaV2Graph(EngineGraph):
    """RoMa v2 on uint8 `[B,H,W,3]` images and, with a second refinement, their copies at the coarse size.

    size: (height, width) of image0 and image1, in whose pixels keypoints are.
    coarse: (height, width) of coarse0 and coarse1; None if there are none.
    published: keep the network's published form.

    Rotations and embedded positions are constants of the graph. The export is checked by the dense outputs; engines
    have them on request.
    """

    def __init__(
        self, network: RoMaV2, max_matches: int, size: Size, coarse: Size | None, published: bool = False
    ) -> None:
        network = network.eval()
        super().__init__(network if published else deployed(network), max_matches)
        self.inputs = ("image0", "image1") if coarse is None else ("image0", "image1", "coarse0", "coarse1")
        self.outputs = (*OUTPUTS, *DENSE_OUTPUTS, PRECISION_OUTPUT)
        with torch.no_grad():
            tables = network.tables(coarse or size)
        for name, turn in (("backbone", tables.backbone), ("matcher", tables.matcher)):
            self.register_buffer(f"{name}_cosine", turn.cosine, persistent=False)
            self.register_buffer(f"{name}_sine", turn.sine, persistent=False)
        self.register_buffer("positions", tables.positions, persistent=False)

    def tables(self) -> Tables:
        """The constants."""
        backbone, matcher = (
            Rotation(self.get_buffer(f"{name}_cosine"), self.get_buffer(f"{name}_sine"))
            for name in ("backbone", "matcher")
        )
        return Tables(backbone, matcher, self.get_buffer("positions"))

    def forward(
        self, image0: Tensor, image1: Tensor, coarse0: Tensor | None = None, coarse1: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Keypoints `[B,K,2]` of both images, scores `[B,K]`, their number `[B]`; warp, certainty, precision."""
        network = self.network
        assert isinstance(network, RoMaV2)
        if coarse0 is None or coarse1 is None:
            estimate = network(planes(image0), planes(image1), tables=self.tables())
        else:
            estimate = network(planes(coarse0), planes(coarse1), planes(image0), planes(image1), self.tables())
        config = network.config
        dense, precision = dense_matches(estimate, config.symmetric)
        out = select_dense(dense, self.max_matches, config.threshold, config.symmetric)
        return out.keypoints0, out.keypoints1, out.scores, out.num_matches, dense.warp, dense.certainty, precision

    def tensors(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The results of `forward` by name."""
        return dict(zip(self.outputs, self(*inputs), strict=True))
