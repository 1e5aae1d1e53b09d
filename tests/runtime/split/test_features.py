"""Features computed once and matched in pairs: the same bits as the whole engine's, and refusals by name."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.pictures import shifted_pair, texture

from matchrt import Features, Matcher, MatcherOptions, Matches, MatchRTError
from matchrt.manifest import manifest_path
from matchrt.manifest.split import FEATURES, MATCH, PartFacts, SplitManifest, part_path, split_folder
from matchrt.runtime.bundled import bundled_path
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.opening import open_session
from matchrt.runtime.split.parts import open_parts
from matchrt.store import EngineStore

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
SIZE = MatcherOptions(resize=256, threads=1)


@pytest.fixture(scope="module")
def matcher() -> Iterator[Matcher]:
    with Matcher("loftr-lite", SIZE) as opened:
        yield opened


def _same(one: Matches, other: Matches) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("keypoints0", "keypoints1", "scores")
    )


@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def test_matches_have_the_bits_of_the_whole_engine(backend: str) -> None:
    """Images of unequal sizes, each on both sides, with features that are used more than once."""
    left, right = shifted_pair(256, 192, (24, 16))
    third = texture(160, 256, seed=1)
    with Matcher("loftr-lite", MatcherOptions(resize=256, threads=1, backend=backend)) as matcher:
        features = [matcher.features(image, str(index)) for index, image in enumerate((left, right, third))]
        for first, second in ((0, 1), (1, 0), (0, 2), (2, 1)):
            images = (left, right, third)
            whole = matcher.match(images[first], images[second])
            found = matcher.match_features(features[first], features[second])
            assert _same(whole, found)
            assert found.image0 == features[first].ref and found.image1 == features[second].ref
            assert found.provenance == whole.provenance
        assert len(matcher.match_features(features[0], features[1])) > 50


def test_features_say_what_they_are(matcher: Matcher) -> None:
    features = matcher.features(texture(192, 256), "left")
    assert features.ref.name == "left" and (features.ref.height, features.ref.width) == (192, 256)
    assert features.network_size == (192, 256) and features.exact
    assert features.engine_sha256 == matcher.manifest.engine_sha256
    # 1/8 of a side for the coarse maps, 1/2 for the fine one.
    assert 192 * 256 * 4 < features.nbytes < 192 * 256 * 128
    assert "left" in repr(features) and "192x256" in repr(features)


def test_warnings_of_images_are_kept(matcher: Matcher) -> None:
    dark = np.full((128, 128), 100, np.uint8)
    pair = matcher.features(dark, "image0"), matcher.features(dark, "image1")
    assert matcher.match_features(*pair).warnings == matcher.match(dark, dark).warnings != ()


def test_forks_share_the_parts_and_outlive_their_matcher() -> None:
    left, right = shifted_pair(192, 192, (16, 8))
    with Matcher("loftr-lite", SIZE) as matcher:
        pair = matcher.features(left), matcher.features(right)
        expected = matcher.match_features(*pair)
        fork = matcher.fork()
    with fork:
        assert _same(fork.match_features(*pair), expected)
        assert _same(fork.match_features(fork.features(left), pair[1]), expected)
    with pytest.raises(MatchRTError, match="closed"):
        matcher.match_features(*pair)


def test_features_in_half_precision_are_half_as_large_and_say_so(matcher: Matcher) -> None:
    left, right = shifted_pair(256, 256, (24, 16))
    pair = matcher.features(left), matcher.features(right)
    halves = pair[0].halved(), pair[1].halved()
    assert not halves[0].exact and halves[0].halved() is halves[0]
    assert halves[0].nbytes < 0.55 * pair[0].nbytes
    whole, found = matcher.match(left, right), matcher.match_features(*halves)
    assert not _same(whole, found)
    errors = np.linalg.norm(found.keypoints1 + np.array([24, 16]) - found.keypoints0, axis=1)
    assert abs(len(found) - len(whole)) < 0.05 * len(whole) and np.median(errors) < 0.5


def test_features_of_another_engine_or_size_are_refused(matcher: Matcher, tmp_path: Path) -> None:
    image = texture(256, 256)
    features = matcher.features(image)
    with Matcher("loftr-lite", MatcherOptions(resize=128, threads=1)) as smaller:
        with pytest.raises(MatchRTError) as caught:
            smaller.match_features(features, smaller.features(image))
        assert caught.value.code == "features-size"
    other = Features(features.image, features.maps, "ab" * 32, features.backend)
    with pytest.raises(MatchRTError) as caught:
        matcher.match_features(features, other)
    assert caught.value.code == "features-engine"
    elsewhere = Features(features.image, features.maps, features.engine_sha256, "openvino")
    with pytest.raises(MatchRTError) as caught:
        matcher.match_features(elsewhere, features)
    assert caught.value.code == "features-engine"


def test_a_matcher_of_a_session_has_no_parts() -> None:
    with Matcher(open_session(read_engine("loftr-lite")), SIZE) as matcher:
        with pytest.raises(MatchRTError) as caught:
            matcher.features(texture(128, 128))
        assert caught.value.code == "split-graph" and "session" in caught.value.message


def test_images_that_are_stretched_in_pairs_have_no_features() -> None:
    with Matcher("loftr-lite", MatcherOptions(stretch="same", resize=128)) as matcher:
        with pytest.raises(MatchRTError) as caught:
            matcher.features(np.random.default_rng(0).integers(0, 65535, (128, 128), np.uint16))
        assert caught.value.code == "option-range"


def test_an_engine_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    engine = tmp_path / "own.onnx"
    shutil.copy(bundled_path("loftr-lite"), engine)
    shutil.copy(manifest_path(bundled_path("loftr-lite")), manifest_path(engine))
    with Matcher(engine, SIZE) as matcher:
        engine.write_bytes(engine.read_bytes() + b"\x00")
        with pytest.raises(MatchRTError) as caught:
            matcher.features(texture(128, 128))
        assert caught.value.code == "engine-digest"


@pytest.mark.parametrize(
    ("text", "code"),
    [("{", "manifest-invalid"), ("{}", "manifest-invalid"), ('{"schema": "matchrt-split-1"}', "manifest-invalid")],
)
def test_a_damaged_description_of_parts_is_an_error(tmp_path: Path, text: str, code: str) -> None:
    engine = tmp_path / "own.onnx"
    shutil.copy(bundled_path("loftr-lite"), engine)
    shutil.copy(manifest_path(bundled_path("loftr-lite")), manifest_path(engine))
    split_folder(engine).mkdir()
    (split_folder(engine) / "split.json").write_text(text)
    with Matcher(engine, SIZE) as matcher:
        with pytest.raises(MatchRTError) as caught:
            matcher.features(texture(128, 128))
        assert caught.value.code == code


def _with_parts(folder: Path, model: str) -> Path:
    """A copy of a bundled engine with its parts beside it."""
    engine = folder / "own.onnx"
    split_folder(engine).mkdir(parents=True)
    shutil.copy(bundled_path(model), engine)
    shutil.copy(manifest_path(bundled_path(model)), manifest_path(engine))
    whole = read_engine(str(engine), EngineStore(folder))
    parts = open_parts(whole)
    for name, part in zip((FEATURES, MATCH), parts, strict=True):
        part_path(engine, name).write_bytes(part.data)
    first, second = (
        PartFacts(part.manifest.engine_sha256, len(part.data), "0" * 64, part.manifest.inputs, part.manifest.outputs)
        for part in parts
    )
    SplitManifest(whole.manifest.engine_sha256, first, second).write(split_folder(engine))
    return engine


@pytest.mark.parametrize("part", [FEATURES, MATCH])
def test_parts_of_different_builds_are_refused(tmp_path: Path, part: str) -> None:
    engine, other = (_with_parts(tmp_path / name, name) for name in ("loftr-lite", "eloftr-lite"))
    image = texture(128, 128)
    with Matcher(engine, SIZE) as whole:
        assert len(whole.match_features(whole.features(image), whole.features(image)))
    shutil.copy(part_path(other, part), part_path(engine, part))
    told, theirs = (split_folder(path) / "split.json" for path in (engine, other))
    mixed = json.loads(told.read_text()) | {part: json.loads(theirs.read_text())[part]}
    told.write_text(json.dumps(mixed))
    with Matcher(engine, SIZE) as matcher, pytest.raises(MatchRTError) as caught:
        matcher.features(image)
    assert caught.value.code == "manifest-invalid" and "one build" in caught.value.message


def test_parts_in_each_others_place_are_refused(tmp_path: Path) -> None:
    engine = _with_parts(tmp_path, "loftr-lite")
    paths = [part_path(engine, part) for part in (FEATURES, MATCH)]
    for path, data in zip(paths, [path.read_bytes() for path in reversed(paths)], strict=True):
        path.write_bytes(data)
    told = split_folder(engine) / "split.json"
    facts = json.loads(told.read_text())
    told.write_text(json.dumps(facts | {FEATURES: facts[MATCH], MATCH: facts[FEATURES]}))
    with Matcher(engine, SIZE) as matcher, pytest.raises(MatchRTError) as caught:
        matcher.features(texture(128, 128))
    assert caught.value.code == "manifest-invalid"
