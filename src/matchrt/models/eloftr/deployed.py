"""EfficientLoFTR in a form that engines run faster: a dense first convolution. Nothing changes beyond rounding."""

from __future__ import annotations

import copy

from matchrt.models.eloftr.network import ELoFTR
from matchrt.models.eloftr.repvgg import RepVGGBlock
from matchrt.models.parts.grey_convolution import GreyConvolution


def deployed(network: ELoFTR) -> ELoFTR:
    """A copy in evaluation mode; `network` is not changed."""
    result = copy.deepcopy(network)
    first = result.backbone.layer0
    assert isinstance(first, RepVGGBlock)
    first.rbr_reparam = GreyConvolution(first.rbr_reparam)  # type: ignore[assignment]
    return result.eval()
