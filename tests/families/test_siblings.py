"""MINIMA's and GIM's weights of networks that matchrt has: every tensor, the authors' input rules, and whole runs.

Expected numbers are those of the published files and of the authors' code, as the team has gathered them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.commands import CommandLine
from support.eloftr import manifest_state
from support.pictures import shifted_pair
from support.random_engines import random_weights
from support.roma import TINY
from torch import Tensor

from matchrt import Matcher
from matchrt.export.weights.network import account_files, expected_tensors, load_network
from matchrt.export.weights.read import Checkpoint
from matchrt.families import eloftr, loftr, roma, xoftr
from matchrt.families.definition import FamilyDefinition, ModelSpec
from matchrt.families.registry import get_spec
from matchrt.manifest import InputContract, Profile, manifest_path, read_manifest
from matchrt.models.loftr.position import sine_encoding, sine_frequencies
from matchrt.runtime.fit import fit_image
from matchrt.runtime.options import MatcherOptions


@dataclass(frozen=True)
class Published:
    """A file: its model's family, name, bytes and sha256 (None where nobody measured), and licence."""

    family: str
    name: str
    bytes: int | None
    sha256: str | None
    licence: str


PUBLISHED = {
    "minima-loftr": Published(
        "loftr", "minima_loftr.ckpt", 46_350_788,
        "810d19773ff898ba04a68c99a3eff9c112210bf884214bd76aec885e83b0e257", "Apache-2.0",
    ),
    "minima-roma": Published(
        "roma", "minima_roma.pth", 445_638_463,
        "17f3923bd780e8f1450792706e0643f70c8864ad11bf5fd4f2b54714bac23538", "Apache-2.0",
    ),
    "minima-eloftr": Published("eloftr", "minima_eloftr.ckpt", 64_369_865, None, "Apache-2.0"),
    "minima-xoftr": Published(
        "xoftr", "minima_xoftr.ckpt", 44_484_144,
        "551eaa814713b3c60ca380eda022be9b7609e51737302e12370f8943a1e864d7", "Apache-2.0",
    ),
    "xoftr": Published(
        "xoftr", "weights_xoftr_640.ckpt", 44_486_099,
        "6e7f24e553f76746ef49061bf44c7d11252e56057470d1421bcd4e6506af3a67", "Apache-2.0",
    ),
    "gim-roma": Published(
        "roma", "gim_roma_100h.ckpt", None,
        "0568a39fa9154bc60ab67badf1a49d4da7860761f87eb2149dc5e9daa02e5a05", "MIT",
    ),
}  # fmt: skip


@pytest.mark.parametrize("model", PUBLISHED)
def test_files_are_stated_as_they_were_measured(model: str) -> None:
    spec, expected = get_spec(model), PUBLISHED[model]
    file = spec.published[0]
    assert (spec.family.name, file.name, file.bytes, file.sha256) == (
        expected.family,
        expected.name,
        expected.bytes,
        expected.sha256,
    )
    assert file.licence.name == expected.licence and spec.licence.startswith(expected.licence)


@pytest.mark.parametrize(
    ("model", "manifest", "count", "fused"),
    [("minima-loftr", "loftr_outdoor_ds", 211, False), ("minima-eloftr", "eloftr_outdoor", 447, True)],
)
def test_every_tensor_of_a_file_is_loaded(
    shared: Path, tmp_path: Path, model: str, manifest: str, count: int, fused: bool
) -> None:
    tensors = manifest_state(shared, manifest)
    assert all(key.startswith("matcher.") for key in tensors) and len(tensors) == count
    path = tmp_path / get_spec(model).published[0].name
    torch.save({"state_dict": tensors}, path)
    report = load_network(get_spec(model), path).report
    report.require_complete(path.name)
    fates = report.counts()
    assert report.prefix == "matcher." and sum(fates["file"].values()) == count
    assert fused or fates == {"file": {"loaded": count}, "network": {"loaded": count}}


@pytest.mark.parametrize(("model", "prefix"), [("minima-roma", ""), ("gim-roma", "model.")])
def test_every_tensor_of_romas_files_is_loaded(shared: Path, model: str, prefix: str) -> None:
    def zeros(manifest: str) -> dict[str, Tensor]:
        """The manifest's tensors, without the memory that they would take."""
        entries = json.loads((shared / "manifests" / f"{manifest}.json").read_text())["tensors"]
        return {e["key"]: torch.zeros((), dtype=getattr(torch, e["dtype"])).expand(e["shape"]) for e in entries}

    own = {prefix + key: value for key, value in zeros("roma_outdoor").items()}
    spec = get_spec(model)
    with torch.device("meta"):
        expected = expected_tensors(spec)
    files = (Checkpoint(Path(name), "torch", tensors, None, (), {}, "") for name, tensors in
             ((spec.published[0].name, own), ("dinov2.pth", zeros("dinov2_vitl14"))))  # fmt: skip
    _, report = account_files(spec, expected, *files)
    report.require_complete(spec.published[0].name)
    assert report.prefix == prefix and report.counts()["file"] == {"loaded": 603}
    assert report.counts()["supplement"] == {"loaded": 342, "dropped": 1}


def test_minimas_loftr_has_the_papers_positions(tmp_path: Path) -> None:
    """Its authors correct the divisor; a file with the other table is another variant's."""
    config = get_spec("minima-loftr").family.config
    assert config.fixed_position_divisor and config.match.threshold == 0.2
    spec = get_spec("minima-loftr")
    table = sine_encoding(32, 32, sine_frequencies(256, True))
    assert torch.equal(spec.family.constants()["position encoding"]((1, 256, 32, 32)), table)


def _authors_size(height: int, width: int) -> tuple[int, int]:
    """What MINIMA's and XoFTR's test code resizes an image to: long side 640, sides cut down to multiples of 8."""
    scale = 640 / max(height, width)
    return round(height * scale) // 8 * 8, round(width * scale) // 8 * 8


CAMERAS = [(480, 640), (768, 1024), (1080, 1920), (1920, 1080), (2160, 3840), (3000, 4000), (512, 640), (2448, 3264),
           (360, 640), (2000, 3000)]  # fmt: skip


@pytest.mark.parametrize("model", ["minima-loftr", "xoftr", "minima-xoftr"])
def test_grey_images_are_resized_as_by_the_authors(model: str) -> None:
    rule = get_spec(model).preprocess
    assert (rule.channels, rule.divisor, get_spec(model).width) == (1, 8, 640)
    profile = Profile((64, 64), (480, 640), (640, 640))
    dynamic = InputContract(1, 8, "aspect", rule.kernel, profile=profile)
    for size in CAMERAS:
        assert fit_image(size, dynamic, 640).canvas_hw == _authors_size(*size), size
    # Other aspect ratios: the nearest multiple of 8 here, the next smaller one there.
    for size in ((431, 640), (638, 640), (999, 777)):
        ours, theirs = fit_image(size, dynamic, 640).canvas_hw, _authors_size(*size)
        assert all(0 <= a - b <= 8 for a, b in zip(ours, theirs, strict=True)), size


def test_what_is_unofficial_is_said_where_models_are_listed(cli: CommandLine) -> None:
    listed = {entry["name"]: entry for entry in cli("models", "--json").json}
    assert "no loader" in listed["minima-eloftr"]["description"]
    config = get_spec("minima-eloftr").family.config
    assert config.match.threshold == 0.2 and config.softmax


# Whole runs, of networks with the same structure and fewer layers.


def _little(spec: ModelSpec) -> ModelSpec:
    config = spec.family.config
    if isinstance(spec.family, roma.RoMaFamily):
        rules = {name: getattr(config, name) for name in ("imagenet", "scale_rule", "black")}
        return replace(spec, family=replace(spec.family, config=replace(TINY, **rules)))
    if isinstance(spec.family, eloftr.ELoFTRFamily):
        return replace(spec, family=replace(spec.family, config=replace(config, blocks=(1, 1, 1, 1), layer_pairs=1)))
    layers = replace(config.coarse, layers=("self", "cross"))
    return replace(spec, family=replace(spec.family, config=replace(config, coarse=layers)))  # type: ignore[type-var]


SIZES = {"roma": 168, "eloftr": 128, "loftr": 128, "xoftr": 128}
MODULES: dict[str, tuple[object, str]] = {
    "loftr": (loftr, "LOFTR_FAMILY"),
    "roma": (roma, "ROMA_FAMILY"),
    "eloftr": (eloftr, "ELOFTR_FAMILY"),
    "xoftr": (xoftr, "XOFTR_FAMILY"),
}


@pytest.fixture
def with_little(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModelSpec]:
    """Puts a small network in the place of a model's, and returns the model."""

    def put(name: str) -> ModelSpec:
        module, attribute = MODULES[get_spec(name).family.name]
        definition: FamilyDefinition = getattr(module, attribute)
        models = tuple(_little(spec) if spec.name == name else spec for spec in definition.models)
        monkeypatch.setattr(module, attribute, replace(definition, models=models))
        return get_spec(name)

    return put


@pytest.mark.slow
@pytest.mark.parametrize("model", [name for name in PUBLISHED if name != "minima-xoftr"])
def test_build_match_and_verify(
    cli: CommandLine, tmp_path: Path, with_little: Callable[[str], ModelSpec], model: str
) -> None:
    spec = with_little(model)
    side = SIZES[spec.family.name]
    first, second = random_weights(spec, tmp_path)
    engine, half, store = tmp_path / "e.onnx", tmp_path / "half.onnx", ("--store", tmp_path / "store")
    told = ["--height", side, "--width", side, "--max-matches", 200, "--threshold", "0.0"]
    told += ["--second-file", second, "--coarse", "112x112", "--dense"] if second is not None else []
    ran = cli("build", model, "--checkpoint", first, *told, *store, "--output", engine)
    assert ran.code == 0, ran.err
    manifest = read_manifest(manifest_path(engine))
    assert manifest.model == model and manifest.source.licence == spec.licence
    assert manifest.input.fitting == spec.preprocess.static and manifest.input.kernel == spec.preprocess.kernel
    images = [np.ascontiguousarray(image[: 3 * side // 4]) for image in shifted_pair(side, side, (16, 8))]
    names = [tmp_path / "a.png", tmp_path / "b.png"]
    for name, image in zip(names, images, strict=True):
        cv2.imwrite(str(name), image)
    with Matcher(engine) as matcher:
        found = matcher.match(*names)
    assert len(found) > 0 and found.provenance.model == model
    for points in (found.keypoints0, found.keypoints1):
        # Grids of cells may give points a few pixels beyond the edge; a padded square gives none of the padding.
        assert points.min() >= -8 and points[:, 1].max() <= 3 * side // 4 + 8
    ran = cli("build", engine, "--precision", "fp16", *store, "--output", half, "--accept-accuracy-loss")
    assert ran.code == 0, ran.err
    (tmp_path / "pairs.txt").write_text("a.png b.png\n")
    ran = cli("verify", half, "--reference", engine, "--pairs", tmp_path / "pairs.txt", "--json")
    assert ran.code == 0 and len(ran.json["pairs"]) == 1, ran.err


@pytest.mark.slow
def test_gims_matches_are_in_the_images(
    cli: CommandLine, tmp_path: Path, with_little: Callable[[str], ModelSpec]
) -> None:
    spec = with_little("gim-roma")
    first, second = random_weights(spec, tmp_path)
    engine = tmp_path / "gim.onnx"
    ran = cli("build", "gim-roma", "--checkpoint", first, "--second-file", second, "--height", 168, "--width", 168,
              "--coarse", "112x112", "--dense", "--max-matches", 500, "--store", tmp_path / "store",
              "--output", engine)  # fmt: skip
    assert ran.code == 0, ran.err
    whole = [np.repeat(image[:, :, None], 3, axis=2) for image in shifted_pair(200, 300, (16, 8))]
    images = [np.ascontiguousarray(whole[0][:150]), np.ascontiguousarray(whole[1][:, :120])]
    images[0][20:60, 30:90] = 5
    sizes = np.array([[300, 150], [120, 200]])
    with Matcher(engine) as matcher:
        found, dense = matcher.match(*images), matcher.match_dense(*images)
    with Matcher(engine, MatcherOptions(sample=5000)) as matcher:
        drawn = matcher.match(*images)
    assert dense.certainty.shape == (168, 336) and len(found) and len(drawn)
    for matches in (found, drawn):
        for points, size in zip((matches.keypoints0, matches.keypoints1), sizes, strict=True):
            assert points.min() >= -0.5 and (points <= size - 0.5).all()
    # Within the black square, away from its edges, image 0 has no certainty.
    points0, _ = dense.to_pixels(dense.warp[:, :168])
    inside = (points0[..., 0] > 34) & (points0[..., 0] < 86) & (points0[..., 1] > 24) & (points0[..., 1] < 56)
    assert inside.sum() > 100 and (dense.certainty[:, :168][inside] == 0).all()
    beyond = points0[..., 1] > 150.5
    assert beyond.sum() > 1000 and (dense.certainty[:, :168][beyond] == 0).all()
