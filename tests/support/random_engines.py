"""ONNX engines of any model from random weights, without a checkpoint; not compared with torch, which others test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from matchrt.engines.build import GraphFacts, build_engine
from matchrt.engines.onnxruntime import OnnxRuntimeBuilder
from matchrt.families.definition import ModelSpec
from matchrt.families.eloftr import ELoFTRFamily
from matchrt.families.roma import RoMaFamily
from matchrt.families.romav2 import RoMaV2Family
from matchrt.manifest import Profile, Source, manifest_path
from support.roma import roma_files, roma_state
from support.romav2 import romav2_file, romav2_state
from support.weights import coarse_loftr_state, sharp_state


def random_weights(spec: ModelSpec, folder: Path) -> tuple[Path, Path | None]:
    """Files of random values that the model's key map takes: the checkpoint, and the second file or None."""
    first, second = folder / f"{spec.name}.pt", folder / f"{spec.name}-second.pt"
    if isinstance(spec.family, RoMaFamily):
        own, dinov2 = roma_files(roma_state(spec.family.config))
        torch.save(own, first)
        torch.save(dinov2, second)
        return first, second
    if isinstance(spec.family, RoMaV2Family):
        torch.save(romav2_file(romav2_state(spec.family.config), spec), first)
        return first, None
    torch.save(coarse_loftr_state() if spec.name == "coarse-loftr" else sharp_state(spec.family.create()), first)
    return first, None


def random_engine(
    spec: ModelSpec, folder: Path, size: tuple[int, int], profile: Profile | None = None, slots: int = 64
) -> Path:
    """The model's ONNX engine with its manifest.

    size: (height, width) in pixels, of a dynamic engine its best one. slots: for matches.
    """
    from matchrt.export.contract import ExportOptions, input_contract
    from matchrt.export.passes.base import run_passes
    from matchrt.export.passes.standard import standard_passes
    from matchrt.export.to_onnx import export_onnx
    from matchrt.export.weights.network import load_network

    first, second = random_weights(spec, folder)
    loaded = load_network(spec, first, second_file=second, size=size)
    options = ExportOptions(*size, slots, profile, coarse=loaded.spec.family.coarse)
    model, passes = run_passes(export_onnx(loaded, options), standard_passes(), None)
    facts = GraphFacts(
        model=spec.name,
        family=spec.family.name,
        precision="fp32",
        source=Source("random", loaded.weights_sha256, spec.licence, spec.origin),
        input=input_contract(spec.preprocess, options),
        matching=loaded.spec.family.match_contract(slots, spec.default_score),
        passes=passes,
        build_key="0" * 64,
    )
    engine = build_engine(model.SerializeToString(), facts, OnnxRuntimeBuilder())
    path = folder / f"{spec.name}.onnx"
    path.write_bytes(engine.data)
    engine.manifest.write(manifest_path(path))
    return path


def shallow(spec: ModelSpec, depth: int) -> ModelSpec:
    """A RoMa or EfficientLoFTR in full width, with at most that many blocks in each of its stacks."""
    family = spec.family
    if isinstance(family, RoMaFamily):
        config = family.config
        stacks = {"dinov2": replace(config.dinov2, depth=depth), "refiner_blocks": depth}
        stacks["match_decoder"] = replace(config.match_decoder, depth=depth)
        return replace(spec, family=replace(family, config=replace(config, **stacks)))
    assert isinstance(family, ELoFTRFamily)
    blocks = tuple(min(count, depth) for count in family.config.blocks)
    return replace(spec, family=replace(family, config=replace(family.config, blocks=blocks, layer_pairs=1)))
