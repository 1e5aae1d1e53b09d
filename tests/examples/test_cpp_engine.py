"""The C++ header for robots, compiled against mocks of the vendor's API: digest, checks, images, frames, self-test."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cpp_programs import NEWEST, RUN, Program, programs
from support.manifests import bundled_manifest, good_manifests
from support.mock_engines import VERSION, mock_tensor, write_engine
from support.self_tests import DIGESTS, Matches, make_test

from matchrt._util.digest import sha256_bytes
from matchrt.manifest import (
    FrameContract,
    Portability,
    SelfTest,
    SelfTestPair,
    TensorSpec,
    manifest_path,
    read_manifest,
)
from matchrt.runtime.self_test.answer import compare_answer, encode_answer
from matchrt.runtime.self_test.pair import view

PAIR = SelfTestPair(seed=1, shift=(5, 7), contrast=96)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """For the newest TensorRT, which most tests use: what they ask does not depend on the version."""
    return programs(tmp_path_factory)[NEWEST]


@pytest.fixture(scope="module", params=RUN)
def each(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """For each version of TensorRT in turn."""
    return programs(tmp_path_factory)[request.param]


def run(program: Program, folder: Path, engine: Path, height: int, width: int) -> subprocess.CompletedProcess[str]:
    paths = []
    for index in (0, 1):
        image = (np.arange(height * width, dtype=np.int64).reshape(height, width) % 251 + index).astype(np.uint8)
        paths.append(folder / f"{index}.raw")
        paths[-1].write_bytes(image.tobytes())
    return program.match(engine, *paths, height, width)


def corners(height: int, width: int, index: int) -> list[int]:
    return [(y * width + x) % 251 + index for y in (0, height - 1) for x in (0, width - 1)]


def rows(ran: subprocess.CompletedProcess[str]) -> Any:
    assert ran.returncode == 0, ran.stderr
    return np.array([line.split() for line in ran.stdout.splitlines()], np.float32)


def test_images_reach_the_engine_and_matches_come_back(each: Program, tmp_path: Path) -> None:
    found = rows(run(each, tmp_path, write_engine(tmp_path, backend_version=each.backend_version), 48, 64))
    assert np.array_equal(found[:, 4], np.array([0.9, 0.6, 0.1], np.float32))
    assert found[:2, :2].ravel().tolist() == corners(48, 64, 0)
    assert found[:2, 2:4].ravel().tolist() == corners(48, 64, 1)
    assert found[2, :4].tolist() == [48, 64, 48, 64]


def test_smaller_images_are_padded_and_their_size_is_told(each: Program, tmp_path: Path) -> None:
    found = rows(run(each, tmp_path, write_engine(tmp_path, backend_version=each.backend_version), 40, 56))
    assert found[0, 0] == 0 and found[0, 1] == 0 and found[1, :2].tolist() == [0, 0]
    assert found[2, :4].tolist() == [40, 56, 40, 56]


def test_dynamic_engines_take_any_size_of_their_profile(each: Program, tmp_path: Path) -> None:
    found = rows(run(each, tmp_path, write_engine(tmp_path, backend_version=each.backend_version, sized=False), 72, 80))
    assert found[:2, :2].ravel().tolist() == corners(72, 80, 0)
    assert found[2, :4].tolist() == [72, 80, 72, 80]


def test_weak_matches_are_dropped(program: Program, tmp_path: Path) -> None:
    bundled = bundled_manifest()
    engine = write_engine(tmp_path, matching=dataclasses.replace(bundled.matching, default_score=0.5))
    assert rows(run(program, tmp_path, engine, 48, 64)).shape == (2, 5)


@pytest.mark.parametrize(
    ("changes", "size", "code"),
    [
        ({"backend": "tensorrt_rtx"}, (48, 64), "engine-backend"),
        ({"backend_version": "11.0.0.1"}, (48, 64), "engine-version"),
        ({"portability": Portability(("9.0",), True, "any")}, (48, 64), "engine-gpu"),
        ({"engine_sha256": "0" * 64}, (48, 64), "engine-digest"),
        ({"engine_bytes": 7}, (48, 64), "engine-digest"),
        ({"outputs": ()}, (48, 64), "manifest-invalid"),
        ({}, (41, 64), "session-input"),
        ({}, (56, 64), "session-input"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    program: Program, tmp_path: Path, changes: dict[str, Any], size: tuple[int, int], code: str
) -> None:
    ran = run(program, tmp_path, write_engine(tmp_path, **changes), *size)
    assert ran.returncode == 1 and f"error[{code}]" in ran.stderr, ran.stderr


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("keypoints0", "keypoints0 float32 1 4096 2"),
        ("scores", "scores float32 1 1"),
        ("scores", "scores float32 2048"),
        ("num_matches", "num_matches float32 1"),
        ("image1", "image1 uint8 1 -1 -1 1"),
        ("size0", "size0 uint8 1 2"),
    ],
)
def test_tensors_unlike_the_manifests_are_refused(program: Program, tmp_path: Path, name: str, line: str) -> None:
    """An engine that writes more than its manifest says would write beyond the memory that it gets."""
    engine = write_engine(tmp_path)
    lines = engine.read_text().splitlines()
    data = "".join(f"{line if old.split()[0] == name else old}\n" for old in lines).encode()
    engine.write_bytes(data)
    manifest = read_manifest(manifest_path(engine))
    dataclasses.replace(manifest, engine_bytes=len(data), engine_sha256=sha256_bytes(data)).write(manifest_path(engine))
    ran = run(program, tmp_path, engine, 48, 64)
    assert ran.returncode == 1 and "error[engine-graph]" in ran.stderr and name in ran.stderr, ran.stderr


def write_frames_engine(folder: Path, frames: FrameContract, *orders: str, **changes: Any) -> Path:
    """A mock's engine for frames."""
    bundled = bundled_manifest()
    contract = dataclasses.replace(
        bundled.input, height=48, width=64, profile=None, fitting="letterbox", frames=frames
    )  # fmt: skip
    assert frames.sizes is not None
    shapes = [(1, *frames.shape(size)) for size in frames.sizes]
    inputs = tuple(TensorSpec(f"frame{i}", "uint8", shape) for i, shape in enumerate(shapes))
    path = write_engine(folder)
    tensors = [mock_tensor(spec) for spec in (*inputs, *bundled.outputs)]
    data = "".join(f"{line}\n" for line in (*tensors, *(f"#{order}" for order in orders))).encode()
    path.write_bytes(data)
    manifest = dataclasses.replace(
        read_manifest(manifest_path(path)), inputs=inputs, input=contract, engine_bytes=len(data),
        engine_sha256=sha256_bytes(data),
    )  # fmt: skip
    dataclasses.replace(manifest, **changes).write(manifest_path(path))
    return path


@pytest.mark.parametrize(
    ("pixels", "channels", "rows_of"),
    [("rgb", 3, 90), ("bgr", 3, 90), ("grey", 1, 90), ("rgba", 4, 90), ("nv12", 1, 135)],
)
def test_frames_reach_the_engine_as_they_are(
    program: Program, tmp_path: Path, pixels: Any, channels: int, rows_of: int
) -> None:
    engine = write_frames_engine(tmp_path, FrameContract(pixels, ((90, 70), (90, 70))))
    paths = []
    for index in (0, 1):
        image = (np.arange(rows_of * 70 * channels) % 251 + index).astype(np.uint8)
        paths.append(tmp_path / f"{index}.raw")
        paths[-1].write_bytes(image.tobytes())
    found = rows(program.match(engine, *paths, 90, 70))
    ends = [(y * 70 + x) * channels % 251 for y in (0, rows_of - 1) for x in (0, 69)]
    assert found[:2, :2].ravel().tolist() == ends
    assert found[:2, 2:4].ravel().tolist() == [end + 1 for end in ends]
    ran = program.match(engine, *paths, 70, 90)
    assert ran.returncode == 1 and "error[session-input]" in ran.stderr and "90x70" in ran.stderr


def test_the_self_test_of_frames(program: Program, tmp_path: Path) -> None:
    """Both languages make the same frames: the mock answers with the pixels that it was given."""
    frames = FrameContract("nv12", ((90, 100), (60, 80)))
    made = [
        view(*frames.shape(size), PAIR.seed, shift, contrast)
        for size, shift, contrast in zip(((90, 100), (60, 80)), ((0, 0), PAIR.shift), (256, PAIR.contrast), strict=True)
    ]
    diagonal = np.arange(40)
    ends = np.stack([made[0][diagonal, 2 * diagonal, 0], made[1].reshape(-1)[diagonal * 102]], 1)
    matches = np.column_stack([2 * diagonal, diagonal, ends, 0.9 - 0.01 * diagonal])
    test = SelfTest(PAIR, "matches", encode_answer(matches), 0.97, 0.02, 0.005)
    engine = write_frames_engine(tmp_path, frames, "many", self_test=test)
    paths = [tmp_path / "0.raw", tmp_path / "1.raw"]
    for path in paths:
        path.write_bytes(bytes(135 * 100))
    ran = program.match(engine, *paths, 90, 100)
    assert "engine-self-test" not in ran.stderr, ran.stderr
    assert "error[session-input]" in ran.stderr  # frame 1 is of another size
    broken = dataclasses.replace(test, pair=dataclasses.replace(PAIR, seed=5))
    engine = write_frames_engine(tmp_path, frames, "many", self_test=broken)
    ran = program.match(engine, *paths, 90, 100)
    assert "error[engine-self-test]" in ran.stderr


def test_frames_for_a_network_of_two_passes(program: Program, tmp_path: Path) -> None:
    """RoMa's smaller copies are made in the graph then, so the engine takes the frames alone."""
    contract = dataclasses.replace(bundled_manifest().input, height=48, width=64, profile=None, coarse=(56, 112))
    frames = FrameContract("grey", ((90, 70), (90, 70)))
    engine = write_frames_engine(tmp_path, frames, input=dataclasses.replace(contract, frames=frames))
    assert len(rows(run(program, tmp_path, engine, 90, 70))) == 3
    images = [
        TensorSpec(f"{name}{i}", "uint8", (1, h, w, 1))
        for name, h, w in (("image", 48, 64), ("coarse", 56, 112))
        for i in (0, 1)
    ]
    engine = write_engine(tmp_path, input=contract, inputs=tuple(images))
    ran = run(program, tmp_path, engine, 48, 64)
    assert ran.returncode == 1 and "error[engine-graph]" in ran.stderr and "smaller copies" in ran.stderr


@pytest.mark.parametrize("kind", ["batch", "batch of a range"])
def test_engines_of_several_pairs_are_refused(program: Program, tmp_path: Path, kind: str) -> None:
    manifest = good_manifests()[kind]
    engine = write_engine(tmp_path, input=manifest.input, inputs=manifest.inputs, outputs=manifest.outputs)
    ran = run(program, tmp_path, engine, 48, 64)
    assert ran.returncode == 1 and "error[engine-batch]" in ran.stderr, ran.stderr


def test_frames_of_a_range_are_refused(program: Program, tmp_path: Path) -> None:
    engine = write_frames_engine(tmp_path, FrameContract("rgb", ((90, 70), (90, 70))))
    manifest = good_manifests()["frames of a range"]
    same = {name: getattr(read_manifest(manifest_path(engine)), name) for name in ("engine_bytes", "engine_sha256")}
    fits = {"backend": "tensorrt", "backend_version": VERSION, "portability": Portability()}
    dataclasses.replace(manifest, **same, **fits).write(manifest_path(engine))
    ran = run(program, tmp_path, engine, 90, 70)
    assert ran.returncode == 1 and "error[engine-graph]" in ran.stderr and "range" in ran.stderr, ran.stderr


def test_newer_versions_and_gpus_where_the_manifest_allows(program: Program, tmp_path: Path) -> None:
    engine = write_engine(tmp_path, backend_version="11.0.3.1", portability=Portability(("8.0",), True, "newer"))
    assert run(program, tmp_path, engine, 48, 64).returncode == 0


def test_digests_of_all_lengths(program: Program, tmp_path: Path) -> None:
    """Lengths around a block of SHA-256: an engine that is refused later than by its digest had the right one."""
    for length in (1, 55, 56, 63, 64, 65, 119, 120, 128, 1000):
        engine = write_engine(tmp_path)
        data = bytes(i % 251 for i in range(length))
        engine.write_bytes(data)
        raw = json.loads(manifest_path(engine).read_text())
        raw |= {"engine_bytes": length, "engine_sha256": sha256_bytes(data)}
        manifest_path(engine).write_text(json.dumps(raw))
        assert "error[engine-rejected]" in run(program, tmp_path, engine, 48, 64).stderr


# ------------------------------------------------------------------------------------------- the self-test


def answer(height: int = 48, width: int = 64) -> Matches:
    """What the mock's order `many` answers to the made pair."""
    first = view(height, width, 1, PAIR.seed, (0, 0), 256)[..., 0].astype(float)
    second = view(height, width, 1, PAIR.seed, PAIR.shift, PAIR.contrast)[..., 0].astype(float)
    i = np.arange(40)
    values = first.ravel()[i * width + 2 * i], second.ravel()[i * width + 2 * i]
    return np.column_stack([2 * i, i, *values, 0.9 - 0.01 * i])


def proven(folder: Path, *orders: str, sized: bool = True, **changes: Any) -> Path:
    """A mock's engine with a self-test that `many` passes."""
    size = (48, 64) if sized else (480, 640)
    test = dataclasses.replace(make_test(answer(*size)), pair=PAIR, **changes)
    return write_engine(folder, "many", *orders, sized=sized, self_test=test)


@pytest.mark.parametrize("image", DIGESTS)
def test_the_pair_has_the_same_bytes_as_in_python(program: Program, image: Any) -> None:
    height, width, channels, seed, shift, contrast = image
    command = map(str, (program.path, "view", height, width, channels, seed, *shift, contrast))
    assert sha256_bytes(subprocess.run([*command], capture_output=True, check=True).stdout) == DIGESTS[image]


@pytest.mark.parametrize("sized", [True, False])
def test_an_engine_that_answers_right_is_opened(program: Program, tmp_path: Path, sized: bool) -> None:
    assert len(rows(run(program, tmp_path, proven(tmp_path, sized=sized), 48 if sized else 64, 64))) == 40


@pytest.mark.parametrize(
    ("orders", "said"),
    [
        (["move 0.5"], "median distance 0.5 px (limit 0.02)"),
        (["move 300"], "0.0% of 40 matches within 1 px (limit 97.0%); median distance inf px (limit 0.02)"),
        (["move nan"], "0.0% of 40 matches within 1 px"),
        (["dim 0.25"], "mean score difference 0.25 (limit 0.005)"),
        (["dim nan"], "mean score difference inf"),
        (["count 0"], "0.0% of 40 matches within 1 px"),
        (["count -1"], "0.0% of 40 matches within 1 px"),
        (["count 1000000"], "0.0% of 40 matches within 1 px"),
        (["count 30"], "75.0% of 40 matches within 1 px"),
    ],
)
def test_an_engine_that_answers_wrong_is_refused(
    program: Program, tmp_path: Path, orders: list[str], said: str
) -> None:
    engine = proven(tmp_path, *orders)
    ran = run(program, tmp_path, engine, 48, 64)
    assert ran.returncode == 1 and "error[engine-self-test]: this fp32 engine of loftr-lite" in ran.stderr, ran.stderr
    assert said in ran.stderr and "compute capability 8.9, tensorrt 11.1.0.106" in ran.stderr
    assert said in program.said("unproven", engine), "it can be opened without, and asked"


def test_a_run_that_fails_has_its_own_error(program: Program, tmp_path: Path) -> None:
    ran = run(program, tmp_path, proven(tmp_path, "fail"), 48, 64)
    assert ran.returncode == 1 and "error[session-failed]: the engine did not run: mock: the run failed" in ran.stderr


def test_engines_without_a_self_test(program: Program, tmp_path: Path) -> None:
    engine = write_engine(tmp_path)
    assert program.said("unproven", engine).strip() == "none"
    raw = json.loads(manifest_path(engine).read_text())
    del raw["self_test"]
    manifest_path(engine).write_text(json.dumps(raw))
    assert run(program, tmp_path, engine, 48, 64).returncode == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": "AAAA"}, {"answer": "AAA"}, {"answer": "!" * 80}, {"answer": "=" * 80}, {"answer": "A" * 78 + "=A"},
        {"answer": "=="}, {"answer": base64.b64encode(b"\xff" * 60).decode()}, {"answer": 3}, {"kind": "warps"},
        {"within": 0}, {"within": 1.01}, {"pixels": -1}, {"score": 1e999}, {"score": None}, {"pair": None},
        {"pair": {"seed": 2**31, "shift": [0, 0], "contrast": 1}}, {"pair": {"seed": 1, "shift": [0], "contrast": 1}},
        {"pair": {"seed": 1, "shift": [2**21, 0], "contrast": 1}}, {"pair": {"seed": 1, "shift": [0, 0]}},
        {"pair": {"seed": 1, "shift": [0, 0], "contrast": 2**17}},
    ],
)  # fmt: skip
def test_a_damaged_self_test(program: Program, tmp_path: Path, changes: dict[str, Any]) -> None:
    engine = proven(tmp_path)
    raw = json.loads(manifest_path(engine).read_text())
    raw["self_test"] |= changes
    manifest_path(engine).write_text(json.dumps(raw).replace("Infinity", "1e999"))
    ran = run(program, tmp_path, engine, 48, 64)
    assert ran.returncode == 1 and "error[manifest-invalid]" in ran.stderr, ran.stderr


@pytest.mark.parametrize("kind", ["matches", "warp"])
def test_figures_are_those_of_python(program: Program, tmp_path: Path, kind: Any) -> None:
    random = np.random.default_rng(4)
    on_pixels = np.concatenate([random.permutation(400)[:120].reshape(60, 2), random.uniform(0, 400, (60, 2))], axis=1)
    stored = np.column_stack([np.concatenate([on_pixels, on_pixels[:, [2, 3, 0, 1]]]), random.uniform(0.2, 1, 120)])
    engine = write_engine(tmp_path, self_test=make_test(stored, kind))
    test = read_manifest(manifest_path(engine)).self_test
    assert test is not None
    near = stored + random.normal(0, 0.03, stored.shape) * [0, 0, 1, 1, 0.1]
    for broken in (stored, near, near[::-1], near[:50], near[:0], stored + random.normal(0, 0.7, stored.shape)):
        for value in (None, np.nan, np.inf):
            actual = broken.copy()
            if value is not None:
                actual[random.random(actual.shape) < 0.05] = value
            count = len(actual)
            outputs = {
                "keypoints0": actual[None, :, :2], "keypoints1": actual[None, :, 2:4], "scores": actual[None, :, 4],
                "num_matches": np.array([count]),
            }  # fmt: skip
            (tmp_path / "table").write_bytes(np.ascontiguousarray(actual, "<f8").tobytes())
            expected = compare_answer(test, outputs)
            figures, said = program.said("compare", manifest_path(engine), tmp_path / "table").splitlines()
            wanted = (expected.compared, expected.within, expected.pixels, expected.score)
            assert [float(word) for word in figures.split()] == pytest.approx(wanted, rel=1e-12, abs=1e-15)
            assert said == "; ".join(expected.failures(test))


def test_engines_can_be_moved(each: Program, tmp_path: Path) -> None:
    version = {"backend_version": each.backend_version}
    said = each.said("moved", write_engine(tmp_path, "fail", **version)).splitlines()
    assert said == ["session-failed: the engine did not run: mock: the run failed"] * 2 + [
        "session-closed: the engine was moved elsewhere"
    ]
    assert each.said("moved", write_engine(tmp_path, **version)).split()[:2] == ["matched"] * 2


def test_the_log_outlives_the_engine_that_came_first(each: Program, tmp_path: Path) -> None:
    """The vendor's library writes to the first logger that it was given, also for engines that came later."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    engines = [
        write_engine(tmp_path / name, *orders, backend_version=each.backend_version)
        for name, orders in (("first", ()), ("second", ("fail",)))
    ]
    assert each.said("many", *engines) == "session-failed: the engine did not run: mock: the run failed\n"


def test_images_may_be_freed_when_match_returns_or_throws(each: Program, tmp_path: Path) -> None:
    said = each.said("refused", write_engine(tmp_path, backend_version=each.backend_version)).splitlines()
    assert said[0] == said[4] == "3 matches" and said[2].startswith(
        "session-input: image1 is 41x64x1; the engine takes"
    )
    assert all("without data" in line for line in said[1::2])
    failing = write_engine(tmp_path, "fail", backend_version=each.backend_version)
    assert each.said("refused", failing).splitlines()[0].startswith("session-failed")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_pipes_and_folders_are_not_waited_for(program: Program, tmp_path: Path) -> None:
    engine = write_engine(tmp_path)
    engine.unlink()
    os.mkfifo(engine)
    assert "error[engine-missing]" in run(program, tmp_path, engine, 48, 64).stderr
    engine.unlink()
    engine.mkdir()
    assert "error[engine-" in run(program, tmp_path, engine, 48, 64).stderr
    manifest_path(engine).unlink()
    os.mkfifo(manifest_path(engine))
    assert "error[manifest-missing]" in run(program, tmp_path, engine, 48, 64).stderr
