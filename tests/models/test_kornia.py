"""Our LoFTR against kornia's, an independent implementation, with the same random weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.pictures import shifted_pair
from support.weights import sharp_state

from matchrt.families.loftr import LOFTR_OUTDOOR
from matchrt.models.loftr.network import LoFTR
from matchrt.models.loftr.resnet_fpn import run_backbone

kornia_loftr = pytest.importorskip("kornia.feature.loftr.loftr", reason="kornia is not installed (extra dev)")
THRESHOLD = 1e-5


@pytest.fixture(scope="module", params=[False, True], ids=["published-divisor", "fixed-divisor"])
def twins(request: pytest.FixtureRequest) -> tuple[LoFTR, Any]:
    config = copy.deepcopy(kornia_loftr.default_cfg)
    config["coarse"]["temp_bug_fix"] = request.param
    config["match_coarse"]["thr"] = THRESHOLD
    theirs = kornia_loftr.LoFTR(pretrained=None, config=config).eval()
    match = replace(LOFTR_OUTDOOR.match, threshold=THRESHOLD)
    ours = LoFTR(replace(LOFTR_OUTDOOR, fixed_position_divisor=request.param, match=match)).eval()
    state = sharp_state(ours)
    ours.load_state_dict(state, strict=True)
    theirs.load_state_dict({k: v for k, v in state.items() if k in theirs.state_dict()}, strict=False)
    assert {k for k in theirs.state_dict() if not k.startswith("pos_encoding")} == set(state)
    return ours, theirs


def _images() -> tuple[torch.Tensor, torch.Tensor]:
    pair = shifted_pair(192, 256, (16, 24))
    first, second = (torch.from_numpy(image).float()[None, None] / 255 for image in pair)
    return first, second


@torch.inference_mode()
def test_backbone(twins: tuple[LoFTR, Any]) -> None:
    ours, theirs = twins
    image0, image1 = _images()
    (coarse, fine), _ = run_backbone(ours.backbone, image0, image1)
    expected = theirs.backbone(image0)
    for actual, wanted in zip((coarse, fine), expected, strict=True):
        assert actual is not None
        assert float((actual - wanted).abs().max() / wanted.abs().max()) <= 1e-4


@torch.inference_mode()
def test_matches(twins: tuple[LoFTR, Any]) -> None:
    ours, theirs = twins
    image0, image1 = _images()
    out = ours(image0, image1, max_matches=1024)
    wanted = theirs({"image0": image0, "image1": image1})
    count = int(out.num_matches[0])
    assert count > 50
    assert count == len(wanted["keypoints0"])
    order = np.lexsort(out.keypoints0[0, :count].numpy().T)
    wanted_order = np.lexsort(wanted["keypoints0"].numpy().T)
    for name in ("keypoints0", "keypoints1"):
        actual = getattr(out, name)[0, :count].numpy()[order]
        assert np.abs(actual - wanted[name].numpy()[wanted_order]).max() <= 1e-3
    confidence = wanted["confidence"].numpy()[wanted_order]
    assert np.abs(out.scores[0, :count].numpy()[order] - confidence).max() <= 1e-4
