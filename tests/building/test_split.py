"""`build --split`: the two parts beside an engine, whose matches have the bits of the whole engine's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import CommandLine
from support.machines import Machine
from support.pictures import shifted_pair

from matchrt import Matcher, MatcherOptions, MatchRTError
from matchrt.building.pipeline import BuildRequest, BuildResult, build
from matchrt.manifest import FrameContract, Profile
from matchrt.manifest.split import FEATURES, MATCH, part_path, read_split, split_folder
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.opening import open_session
from matchrt.runtime.split.parts import open_parts
from matchrt.store import EngineStore

pytestmark = pytest.mark.slow
SIZE = {"height": 128, "width": 160}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EngineStore:
    return EngineStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def built(store: EngineStore) -> BuildResult:
    return build(BuildRequest("loftr-lite", **SIZE, split=True), store)


def _same_bits(engine: Path, options: MatcherOptions) -> int:
    """Matches pairs of equal and unequal sizes, so that images are padded too; returns the number of matches."""
    left, right = shifted_pair(128, 160, (24, 16))
    images = [left, right, right[:96], left[:, :100]]
    total = 0
    with Matcher(engine, options) as matcher:
        features = [matcher.features(np.ascontiguousarray(image)) for image in images]
        for first, second in ((0, 1), (1, 0), (0, 2), (3, 2)):
            whole = matcher.match(*(np.ascontiguousarray(images[index]) for index in (first, second)))
            found = matcher.match_features(features[first], features[second])
            total += len(whole)
            for name in ("keypoints0", "keypoints1", "scores"):
                assert np.array_equal(getattr(whole, name), getattr(found, name))
    return total


def test_static_parts_have_the_bits_of_the_batched_engine(built: BuildResult) -> None:
    """The whole engine computes both images in one batch, and the parts one after the other."""
    assert built.parts is not None and built.parts == read_split(built.path, built.manifest)
    assert _same_bits(built.path, MatcherOptions(threads=1)) > 100
    assert {path.name for path in split_folder(built.path).iterdir()} == {"features.onnx", "match.onnx", "split.json"}


def test_parts_in_openvino(built: BuildResult) -> None:
    pytest.importorskip("openvino")
    assert _same_bits(built.path, MatcherOptions(threads=1, backend="openvino")) > 100


def test_the_same_build_again_finds_the_parts(built: BuildResult, store: EngineStore) -> None:
    before = {path: path.stat().st_mtime_ns for path in split_folder(built.path).iterdir()}
    again = build(BuildRequest("loftr-lite", **SIZE, split=True), store)
    assert again.cached and again.parts == built.parts
    assert {path: path.stat().st_mtime_ns for path in split_folder(built.path).iterdir()} == before
    # An engine that is there already gets its parts, and damaged ones are built again.
    (split_folder(built.path) / "split.json").write_text("{")
    assert build(BuildRequest("loftr-lite", **SIZE, split=True), store).parts == built.parts
    assert _same_bits(built.path, MatcherOptions(threads=1)) > 100


def test_a_copy_has_the_parts_too(built: BuildResult, store: EngineStore, tmp_path: Path) -> None:
    output = tmp_path / "own.onnx"
    copied = build(BuildRequest("loftr-lite", **SIZE, split=True, output=output), store)
    assert copied.path == output and part_path(output, FEATURES).is_file() and part_path(output, MATCH).is_file()
    assert _same_bits(output, MatcherOptions(threads=1)) > 100


def test_fp16_parts_are_cut_from_the_judged_graph(store: EngineStore) -> None:
    """Also if the store has the engine already, and its graph is written once more."""
    request = BuildRequest("loftr-lite", **SIZE, precision="fp16")
    whole = build(request, store)
    assert whole.parts is None and read_split(whole.path, whole.manifest) is None
    with Matcher(whole.path) as matcher, pytest.raises(MatchRTError) as caught:
        matcher.features(np.zeros((64, 64), np.uint8))
    assert caught.value.code == "split-graph" and "--split" in caught.value.remedy
    split = build(BuildRequest("loftr-lite", **SIZE, precision="fp16", split=True), store)
    assert split.cached and split.parts is not None
    assert "float16" in {spec.dtype for spec in split.parts.features.outputs}
    left, right = shifted_pair(128, 160, (24, 16))
    with Matcher(split.path) as matcher:
        expected = matcher.match(left, right)
        found = matcher.match_features(matcher.features(left), matcher.features(right))
    # ONNX Runtime computes fp16 in fp32 on the CPU, and leaves out roundings inside of a graph, but not between two.
    known = {tuple(point) for point in expected.keypoints0.tolist()}
    assert len(expected) > 100 and abs(len(found) - len(expected)) <= 0.03 * len(expected)
    assert np.mean([tuple(point) in known for point in found.keypoints0.tolist()]) > 0.97
    errors = np.linalg.norm(found.keypoints1 + np.array([24, 16]) - found.keypoints0, axis=1)
    assert np.median(errors) < 0.5


def test_dynamic_parts(store: EngineStore) -> None:
    profile = Profile((64, 64), (128, 160), (256, 256))
    split = build(BuildRequest("loftr-lite", profile=profile, split=True), store)
    features, match = open_parts(read_engine(split.path))
    for part in (features, match):
        open_session(part).close()
    assert _same_bits(split.path, MatcherOptions(threads=1, resize=160)) > 100


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({**SIZE, "frames": FrameContract("rgb", ((240, 320), (240, 320)))}, "split-graph"),
        ({**SIZE, "batch": 2}, "split-graph"),
        ({**SIZE, "batch": 4, "any_batch": True}, "split-graph"),
    ],
)
def test_engines_without_parts_are_refused_at_once(options: dict[str, Any], code: str, tmp_path: Path) -> None:
    with pytest.raises(MatchRTError) as caught:
        build(BuildRequest("loftr-lite", split=True, **options), EngineStore(tmp_path))
    assert caught.value.code == code and not list(tmp_path.iterdir())


@pytest.mark.parametrize("machine", ["rtx"], indirect=True)
def test_dynamic_parts_for_a_gpu_are_refused_at_once(machine: Machine, tmp_path: Path) -> None:
    profile = Profile((64, 64), (128, 160), (256, 256))
    with pytest.raises(MatchRTError) as caught:
        build(BuildRequest("loftr-lite", profile=profile, backend=machine.backend, split=True), EngineStore(tmp_path))
    assert caught.value.code == "split-dynamic" and not list(tmp_path.iterdir())


def test_the_command_line(tmp_path: Path, cli: CommandLine) -> None:
    command = ("build", "loftr-lite", "--height", 64, "--width", 96, "--split", "--store", tmp_path)
    text = cli(*command).out
    assert "parts" in text and "features" in text and ".split" in text
    ran = cli(*command, "--json")
    path = Path(ran.json["path"])
    told = json.loads((split_folder(path) / "split.json").read_text())
    assert ran.json["parts"] == told and told["engine_sha256"] == ran.json["manifest"]["engine_sha256"]
    assert cli("engines", "--store", tmp_path, "--json").code == 0
