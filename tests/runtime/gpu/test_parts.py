"""An engine's two parts on stubs of CUDA and TensorRT: features stay on the GPU, and pairs are matched from there."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import platformdirs
import pytest
from onnx import TensorProto, helper
from support.machines import KINDS, SLOTS, Machine, make_engine, save_engine
from support.self_tests import PAIR, make_test, with_self_test
from support.tensorrt_stub.running import kernel

from matchrt import Matcher, MatcherOptions, Matches, MatchRTError
from matchrt._util.digest import sha256_bytes
from matchrt.manifest import TensorSpec
from matchrt.manifest.split import FEATURES, MATCH, PartFacts, SplitManifest, part_path, split_folder
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.runtime.backend import get_backend
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.gpu.kept import KeptMaps
from matchrt.runtime.self_test.answer import matches_of
from matchrt.runtime.self_test.pair import self_test_inputs
from matchrt.runtime.session import SessionOptions
from matchrt.runtime.split.features import HostMaps
from matchrt.runtime.split.sessions import PartSessions

every_machine = pytest.mark.parametrize("machine", KINDS, indirect=True)
SIZE = (32, 48)
MAPS = {"map0": (1, 24, 8), "map1": (96, 5)}
TYPES = {TensorProto.UINT8: "uint8", TensorProto.INT32: "int32", TensorProto.FLOAT: "float32"}


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *names, **more: str(tmp_path))


def _part(inputs: dict[str, tuple[int, tuple[int, ...]]], outputs: dict[str, tuple[int, tuple[int, ...]]]) -> bytes:
    sides = (
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in tensors.items()]
        for tensors in (inputs, outputs)
    )
    graph = helper.make_graph([], "part", *sides)
    return bytes(helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]).SerializeToString())


def _save_parts(machine: Machine, engine: Path, digest: str, slots: int = SLOTS) -> None:
    maps = {name: (TensorProto.FLOAT, shape) for name, shape in MAPS.items()}
    given = {f"image{side}_{name}": kind for side in (0, 1) for name, kind in maps.items()}
    sizes = {f"size{side}": (TensorProto.INT32, (1, 2)) for side in (0, 1)}
    matches = {
        **{f"keypoints{side}": (TensorProto.FLOAT, (1, slots, 2)) for side in (0, 1)},
        "scores": (TensorProto.FLOAT, (1, slots)),
        "num_matches": (TensorProto.INT32, (1,)),
    }
    image = {"image0": (TensorProto.UINT8, (1, *SIZE, 1)), "size0": (TensorProto.INT32, (1, 2))}
    builder = get_backend(machine.backend).builder(BuilderOptions())
    split_folder(engine).mkdir()
    facts = []
    for part, inputs, outputs in ((FEATURES, image, maps), (MATCH, sizes | given, matches)):
        built = builder.build(_part(inputs, outputs), None, lambda what, done: None)
        part_path(engine, part).write_bytes(built.data)
        told = [
            tuple(TensorSpec(name, TYPES[kind], shape) for name, (kind, shape) in tensors.items())
            for tensors in (inputs, outputs)
        ]
        facts.append(PartFacts(sha256_bytes(built.data), len(built.data), "0" * 64, *told))
    SplitManifest(digest, *facts).write(split_folder(engine))


@pytest.fixture
def engine(machine: Machine, tmp_path: Path) -> Path:
    whole = make_engine(machine, SIZE)
    path = save_engine(whole, tmp_path)
    _save_parts(machine, path, whole.manifest.engine_sha256)
    return path


@pytest.fixture
def matcher(engine: Path) -> Iterator[Matcher]:
    with Matcher(engine, MatcherOptions(min_score=0.0)) as opened:
        yield opened


def _image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SIZE, np.uint8)


def _maps(image: np.ndarray) -> dict[str, np.ndarray]:
    outputs = {name: np.empty(shape, np.float32) for name, shape in MAPS.items()}
    kernel({"image0": image[None, :, :, None], "size0": np.array([SIZE], np.int32)}, outputs)
    return outputs


def _expected(image0: np.ndarray, image1: np.ndarray, slots: int = SLOTS) -> dict[str, np.ndarray]:
    outputs = {
        "keypoints0": np.empty((1, slots, 2), np.float32), "keypoints1": np.empty((1, slots, 2), np.float32),
        "scores": np.empty((1, slots), np.float32), "num_matches": np.empty(1, np.int32),
    }  # fmt: skip
    inputs = {f"size{side}": np.array([SIZE], np.int32) for side in (0, 1)}
    for side, image in enumerate((image0, image1)):
        inputs |= {f"image{side}_{name}": array for name, array in _maps(image).items()}
    kernel(inputs, outputs)
    return outputs


def _same(matches: Matches, outputs: dict[str, np.ndarray]) -> bool:
    count = int(outputs["num_matches"][0])
    return len(matches) == count and all(
        np.array_equal(getattr(matches, name), outputs[name][0, :count])
        for name in ("keypoints0", "keypoints1", "scores")
    )


@every_machine
def test_pairs_are_matched_from_features_on_the_gpu(matcher: Matcher) -> None:
    """Again and again, so that graphs are captured; features of several images are kept at the same time."""
    images = [_image(seed) for seed in range(4)]
    features = [matcher.features(image, str(seed)) for seed, image in enumerate(images)]
    assert all(isinstance(item.maps, KeptMaps) for item in features)
    assert features[0].nbytes >= 4 * (24 * 8 + 96 * 5)
    for _ in range(3):
        for first, second in ((0, 1), (1, 0), (2, 3), (0, 3)):
            found = matcher.match_features(features[first], features[second])
            assert _same(found, _expected(images[first], images[second]))


@every_machine
def test_features_on_the_host_give_the_same(matcher: Matcher) -> None:
    images = [_image(seed) for seed in (5, 6)]
    here = [matcher.features(image, on_host=True) for image in images]
    assert isinstance(here[0].maps, HostMaps)
    assert np.array_equal(here[0].maps.arrays["map1"], _maps(images[0])["map1"])
    there = matcher.features(images[1])
    for second in (here[1], there):
        assert _same(matcher.match_features(here[0], second), _expected(*images))


@every_machine
def test_a_whole_pair_runs_between_features(matcher: Matcher) -> None:
    images = [_image(seed) for seed in (7, 8)]
    features = [matcher.features(image) for image in images]
    matcher.match(*images)
    with matcher.fork() as fork:
        fork.match(images[1], images[0])
        assert _same(fork.match_features(*features), _expected(*images))
    assert _same(matcher.match_features(*features), _expected(*images))


@every_machine
def test_memory_of_features_is_free_when_they_are_gone(machine: Machine, engine: Path) -> None:
    with Matcher(engine) as matcher:
        pair = [matcher.features(_image(seed)) for seed in (1, 2)]
        matcher.match_features(*pair)
        gc.collect()
        before = len(machine.cuda.device_memory)
        more = [matcher.features(_image(seed)) for seed in range(5)]
        assert len(machine.cuda.device_memory) == before + 5
        del more
        gc.collect()
        assert len(machine.cuda.device_memory) == before
    del pair, matcher
    gc.collect()
    assert machine.cuda.held() == 0


@every_machine
def test_an_engine_without_its_parts_says_how_to_build_them(machine: Machine, tmp_path: Path) -> None:
    with Matcher(save_engine(make_engine(machine, SIZE), tmp_path)) as matcher, pytest.raises(MatchRTError) as caught:
        matcher.features(_image(0))
    assert caught.value.code == "split-missing" and "--split" in caught.value.remedy


@every_machine
@pytest.mark.parametrize(("part", "code"), [(FEATURES, "engine-digest"), (MATCH, "engine-digest")])
def test_parts_that_were_changed_are_refused(machine: Machine, engine: Path, part: str, code: str) -> None:
    path = part_path(engine, part)
    path.write_bytes(path.read_bytes() + b" ")
    with Matcher(engine) as matcher, pytest.raises(MatchRTError) as caught:
        matcher.features(_image(0))
    assert caught.value.code == code


@every_machine
def test_a_part_that_is_gone_is_named(machine: Machine, engine: Path) -> None:
    part_path(engine, MATCH).unlink()
    with Matcher(engine) as matcher, pytest.raises(MatchRTError) as caught:
        matcher.features(_image(0))
    assert caught.value.code == "split-missing" and "match.engine" in caught.value.message


@every_machine
def test_parts_of_another_engine_are_refused(machine: Machine, engine: Path) -> None:
    file = split_folder(engine) / "split.json"
    text = file.read_text()
    at = text.index('"engine_sha256": "') + len('"engine_sha256": "')
    file.write_text(text[:at] + "ab" * 32 + text[at + 64 :])
    with Matcher(engine) as matcher, pytest.raises(MatchRTError) as caught:
        matcher.features(_image(0))
    assert caught.value.code == "manifest-invalid" and "another engine" in caught.value.message


@every_machine
@pytest.mark.parametrize("right", [True, False])
def test_parts_answer_the_whole_engines_self_test(machine: Machine, tmp_path: Path, right: bool) -> None:
    """The stub's whole engine answers otherwise than its parts do, so its own answer is wrong for them."""
    whole = make_engine(machine, SIZE, slots=64)
    engine = save_engine(whole, tmp_path)
    _save_parts(machine, engine, whole.manifest.engine_sha256, 64)
    file = read_engine(engine)
    inputs = self_test_inputs(file.manifest, PAIR)
    answer = matches_of(_expected(inputs["image0"][0, :, :, 0], inputs["image1"][0, :, :, 0], 64))
    tested = replace(file.manifest, self_test=make_test(answer)) if right else with_self_test(file).manifest
    runs = machine.cuda.count("cudaMemcpyAsync")
    if right:
        PartSessions.open(replace(file, manifest=tested), SessionOptions()).close()
        assert machine.cuda.count("cudaMemcpyAsync") > runs
        runs = machine.cuda.count("cudaMemcpyAsync")
        PartSessions.open(replace(file, manifest=tested), SessionOptions()).close()  # remembered
        assert machine.cuda.count("cudaMemcpyAsync") == runs
    else:
        with pytest.raises(MatchRTError) as caught:
            PartSessions.open(replace(file, manifest=tested), SessionOptions())
        assert caught.value.code == "engine-self-test"
    assert machine.cuda.held() == 0
