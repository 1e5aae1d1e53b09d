"""Our EfficientLoFTR against Hugging Face's, an independent implementation, with the same random weights.

Up to the coarse scores: its fine stage divides and normalises otherwise than the authors' code (docs/models/eloftr.md).
"""

from __future__ import annotations

from typing import Any

import torch
from support.eloftr import filled
from support.oracles import oracle
from support.pictures import shifted_pair
from support.weights import sharp_state
from torch import Tensor

from matchrt.families.eloftr import ELOFTR, ELoFTRFamily
from matchrt.models.eloftr.network import ELoFTR

SCORES = 1e-3  # relative to the largest


def _theirs() -> Any:
    transformers = oracle("transformers")
    network = transformers.EfficientLoFTRForKeypointMatching(transformers.EfficientLoFTRConfig()).eval()
    state = sharp_state(network)
    # Large outputs of the last norm make the scores sharp; else a flat matrix would equal any other.
    state.update({key: 2.0 * value for key, value in state.items() if key.endswith("mlp.layer_norm.weight")})
    network.load_state_dict(state, strict=True)
    return network


def _their_confidence(network: Any, images: Tensor) -> Tensor:
    pixels = images[None].expand(-1, -1, 3, -1, -1)
    coarse = network.efficientloftr(pixels).feature_maps[0].flatten(3).transpose(2, 3)
    first, second = (coarse / coarse.shape[3] ** 0.5).unbind(1)
    scores = first @ second.transpose(1, 2) / network.config.coarse_matching_temperature
    return scores.softmax(1) * scores.softmax(2)


@torch.inference_mode()
def test_coarse_scores() -> None:
    theirs = _theirs()
    ours, report = filled(ELoFTRFamily(ELOFTR), dict(theirs.state_dict()))
    assert isinstance(ours, ELoFTR)
    assert report.counts()["file"] == {"derived": 282, "loaded": 105, "dropped": 60}
    pair = shifted_pair(160, 192, (32, 32))
    images = torch.stack([torch.from_numpy(image)[None].float() / 255 for image in pair])
    x0, x1 = ours.loftr_coarse(*ours.coarse(ours.features(images[:1], images[1:])))
    found = ours.coarse_matching(x0.flatten(1, 2), x1.flatten(1, 2), (x0.shape[2], x1.shape[2]))
    actual, expected = found.value_of(found.order), _their_confidence(theirs, images)
    assert actual.shape == expected.shape and float(expected.max()) > 1e-2
    assert float((actual - expected).abs().max() / expected.max()) <= SCORES
