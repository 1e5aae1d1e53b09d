"""The Flax flax_network against torch: every part, masks, unequal images, both attentions, both position divisors."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flax", reason="the extra 'flax' is not installed")

import jax
import torch
from flax import nnx
from support.commands import CommandLine
from support.pictures import shifted_pair
from support.weights import random_network

from matchrt.errors import MatchRTError
from matchrt.flax.layout import flax_name, to_flax
from matchrt.flax.proof import compare_stages
from matchrt.flax.stages import PairInput, flax_stages, torch_stages
from matchrt.flax.weights import create_abstract, fill
from matchrt.models.loftr import position as torch_position
from matchrt.models.loftr.config import LoFTRConfig, TransformerConfig
from matchrt.models.loftr.flax.position import sine_encoding, sine_frequencies
from matchrt.models.loftr.flax.resnet_fpn import upsample_twice
from matchrt.models.parts.config import CoarseMatchConfig

SMALL = LoFTRConfig(
    initial_dim=8,
    block_dims=(8, 12, 16),
    coarse=TransformerConfig(d_model=16, n_heads=2, layers=("self", "cross")),
    fine=TransformerConfig(d_model=8, n_heads=2, layers=("self", "cross")),
    match=CoarseMatchConfig(threshold=0.0, border=1, mutual=False),
)


def _networks(config: LoFTRConfig) -> tuple[Any, Any]:
    network = random_network(config)
    flax_network = create_abstract(config)
    arrays = {flax_name(k, t.ndim): to_flax(t.numpy(), k) for k, t in network.state_dict().items()}
    fill(flax_network, arrays, "torch")
    return network, flax_network


def _whole(flax_network: Any, *inputs: Any) -> Any:
    graph, state = nnx.split(flax_network)
    with jax.default_matmul_precision("highest"):
        return jax.jit(lambda s, *a: nnx.merge(graph, s)(*a, max_matches=64))(state, *inputs)


@pytest.mark.parametrize("attention", ["linear", "full"])
def test_every_stage_with_masks(attention: Any) -> None:
    config = replace(
        SMALL, coarse=replace(SMALL.coarse, attention=attention), fixed_position_divisor=attention == "full"
    )
    network, flax_network = _networks(config)
    first, second = (image[None, :, :, None] for image in shifted_pair(64, 80, (16, 8)))
    pair = PairInput(first, second, np.array([[64, 72]], np.int32), np.array([[56, 80]], np.int32))
    run = torch_stages(network, pair, 64)
    device = jax.devices("cpu")[0]
    alone = flax_stages(flax_network, pair, run.cells, device, run.stages)
    stages = compare_stages(run, alone, flax_stages(flax_network, pair, run.cells, device))
    assert len(stages) == 17 and run.cells[0].shape[1] > 5
    assert [stage.name for stage in stages if stage.verdict == "differs"] == []
    # The comparison can fail: a stage that is one part in ten thousand off is found, and it alone.
    wrong = {**alone, "similarity": alone["similarity"] * 1.0001}
    assert [s.name for s in compare_stages(run, wrong, alone) if s.verdict == "differs"] == ["similarity"]


def test_unequal_images_give_torchs_matches() -> None:
    network, flax_network = _networks(SMALL)
    first, second = (image.astype(np.float32) / 255 for image in shifted_pair(64, 80, (16, 8)))
    second = second[:56, :72]
    with torch.inference_mode():
        expected = network(torch.from_numpy(first)[None, None], torch.from_numpy(second)[None, None], max_matches=64)
        doubles = (torch.from_numpy(image).double()[None, None] for image in (first, second))
        exact = copy.deepcopy(network).double()(*doubles, max_matches=64).scores.numpy()
    found = _whole(flax_network, first[None, :, :, None], second[None, :, :, None])
    assert int(found.num_matches[0]) == int(expected.num_matches[0]) > 5
    # Each rounds its own way, differently on each processor: both are measured from the exact scores.
    assert max(np.abs(scores - exact).max() for scores in (found.scores, expected.scores.numpy())) < 1e-5
    rows = [np.concatenate([np.asarray(out.keypoints0)[0], np.asarray(out.keypoints1)[0]], axis=1) for out in
            (found, expected)]  # fmt: skip
    ordered = [part[np.lexsort(part.round(2).T)] for part in rows]
    assert np.abs(ordered[0] - ordered[1]).max() < 1e-3


def test_coarse_only_networks_and_batches() -> None:
    config = replace(SMALL, fine=None)
    network, flax_network = _networks(config)
    pairs = [shifted_pair(64, 80, shift) for shift in ((16, 8), (8, 16))]
    images = [np.stack([pair[side] for pair in pairs]).astype(np.float32) / 255 for side in (0, 1)]
    with torch.inference_mode():
        expected = network(*(torch.from_numpy(image)[:, None] for image in images), max_matches=64)
    found = _whole(flax_network, *(image[..., None] for image in images))
    assert np.array_equal(found.num_matches, expected.num_matches.numpy())
    assert np.abs(found.scores - expected.scores.numpy()).max() < 1e-5


@pytest.mark.parametrize("fixed", [False, True])
def test_position_encoding(fixed: bool) -> None:
    expected = torch_position.sine_encoding(7, 11, torch_position.sine_frequencies(32, fixed))
    found = sine_encoding(7, 11, sine_frequencies(32, fixed))
    assert np.abs(found - expected.permute(0, 2, 3, 1).numpy()).max() < 1e-5


def test_upsampling_aligns_corners() -> None:
    x = np.random.default_rng(0).random((1, 5, 4, 3), np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x).permute(0, 3, 1, 2), scale_factor=2.0, mode="bilinear", align_corners=True
    )
    assert np.abs(np.asarray(upsample_twice(x)) - expected.permute(0, 2, 3, 1).numpy()).max() < 1e-6


def test_fill_leaves_nothing_out() -> None:
    network, flax_network = _networks(SMALL)
    arrays = {flax_name(k, t.ndim): to_flax(t.numpy(), k) for k, t in network.state_dict().items()}
    lacking = {k: v for k, v in arrays.items() if k != "backbone.bn1.var"}
    for wrong, said in ((lacking, "missing: backbone.bn1.var"), ({**arrays, "x.kernel": np.zeros(2)}, "unexpected: x")):
        with pytest.raises(MatchRTError) as caught:
            fill(flax_network, wrong, "x")
        assert caught.value.code == "weights-unaccounted" and said in caught.value.message


def test_sessions_and_verify_on_the_bundled_model(cli: CommandLine, tmp_path: Path) -> None:
    from PIL import Image

    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, image in zip(paths, shifted_pair(96, 128, (16, 8)), strict=True):
        Image.fromarray(image).save(path)
    ran = cli("verify", "--flax", "loftr-lite", "--images", *paths, "--size", "96x128", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["same"] and ran.json["first_difference"] is None and ran.json["matches"]["matches"] > 50
    assert len(ran.json["stages"]) == 23
    cli.fails("flax-model", "verify", "--flax", "eloftr")
    cli.fails("usage", "verify")
    cli.fails("size-syntax", "verify", "--flax", "loftr-lite", "--size", "x")


def test_jax_sessions(tmp_path: Path, cli: CommandLine, lite_file: Path) -> None:
    from matchrt import Matcher, MatcherOptions
    from matchrt.flax.session import open_jax
    from matchrt.runtime.session import SessionOptions

    images = shifted_pair(96, 128, (16, 8))
    with Matcher(open_jax("loftr-lite", size=(96, 128))) as matcher:
        found = matcher.match(*images)
        assert len(matcher.fork().match(*images)) == len(found)
    with Matcher() as bundled:
        expected = bundled.match(*images)
    # The bundled engine enlarges small images; the session was given their own size.
    assert found.provenance.backend == "jax" and len(found) > 20 and len(expected) > 20
    shift = np.median(found.keypoints0 - found.keypoints1, axis=0)
    assert np.allclose(shift, (16, 8), atol=0.5)
    session = open_jax(lite_file)
    assert session.manifest.input.height == 480 and session.manifest.source.licence == "Apache-2.0"
    session.close()
    for code, options in (("jax-option", SessionOptions(threads=1)), ("device-missing", SessionOptions(device="cuda"))):
        if code == "device-missing" and jax.default_backend() != "cpu":
            continue
        with pytest.raises(MatchRTError) as caught:
            open_jax("loftr-lite", options)
        assert caught.value.code == code
    with pytest.raises(MatchRTError) as caught:
        Matcher("loftr-outdoor", MatcherOptions(backend="jax"))
    assert caught.value.code == "engine-missing"
    # The default model is no LoFTR. That is said, and which models to take instead.
    with pytest.raises(MatchRTError) as caught:
        Matcher(options=MatcherOptions(backend="jax"))
    assert caught.value.code == "flax-model" and "loftr-lite" in caught.value.remedy
