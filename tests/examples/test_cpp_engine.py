"""The C++ header for robots, compiled against a mock of the vendor's API: manifest, digest, checks, images."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matchrt._util.digest import sha256_bytes
from matchrt.manifest import EngineManifest, Portability, TensorSpec, manifest_path, read_manifest
from matchrt.runtime.engine_file import engine_path

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    output = tmp_path_factory.mktemp("cpp") / "match_engine"
    source = ROOT / "examples" / "cpp"
    mock = ROOT / "tests" / "support" / "tensorrt_mock"
    command = [
        compiler,
        *FLAGS,
        f"-I{source / 'include'}",
        f"-I{mock}",
        str(source / "match_engine.cpp"),
        "-o",
        str(output),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return output


def write_engine(folder: Path, *, sized: bool = True, **changes: Any) -> Path:
    """A mock's engine with a real manifest: static 48x64 with sizes, or dynamic."""
    bundled = read_manifest(manifest_path(engine_path("loftr-lite")))
    sizes = tuple(TensorSpec(f"size{i}", "int32", (1, 2)) for i in (0, 1)) if sized else ()
    height, width = (48, 64) if sized else ("h", "w")
    images = tuple(TensorSpec(f"image{i}", "uint8", (1, height, width, 1)) for i in (0, 1))
    contract = bundled.input
    if sized:
        contract = dataclasses.replace(contract, height=48, width=64, profile=None, fitting="letterbox")
    names = [spec.name for spec in (*images, *sizes, *bundled.outputs)]
    data = "".join(f"{name}\n" for name in names).encode()
    manifest: EngineManifest = dataclasses.replace(
        bundled, backend="tensorrt", backend_version="10.9.0.34", portability=Portability(("8.9",), False, "exact"),
        inputs=(*images, *sizes), input=contract, engine_bytes=len(data), engine_sha256=sha256_bytes(data),
        matching=dataclasses.replace(bundled.matching, default_score=0.05),
    )  # fmt: skip
    path = folder / "mock.engine"
    path.write_bytes(data)
    dataclasses.replace(manifest, **changes).write(manifest_path(path))
    return path


def run(program: Path, folder: Path, engine: Path, height: int, width: int) -> subprocess.CompletedProcess[str]:
    paths = []
    for index in (0, 1):
        image = (np.arange(height * width, dtype=np.int64).reshape(height, width) % 251 + index).astype(np.uint8)
        paths.append(folder / f"{index}.raw")
        paths[-1].write_bytes(image.tobytes())
    command = [program, engine, *paths, str(height), str(width)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def corners(height: int, width: int, index: int) -> list[int]:
    return [(y * width + x) % 251 + index for y in (0, height - 1) for x in (0, width - 1)]


def rows(ran: subprocess.CompletedProcess[str]) -> Any:
    assert ran.returncode == 0, ran.stderr
    return np.array([line.split() for line in ran.stdout.splitlines()], np.float32)


def test_images_reach_the_engine_and_matches_come_back(program: Path, tmp_path: Path) -> None:
    found = rows(run(program, tmp_path, write_engine(tmp_path), 48, 64))
    assert np.array_equal(found[:, 4], np.array([0.9, 0.6, 0.1], np.float32))
    assert found[:2, :2].ravel().tolist() == corners(48, 64, 0)
    assert found[:2, 2:4].ravel().tolist() == corners(48, 64, 1)
    assert found[2, :4].tolist() == [48, 64, 48, 64]


def test_smaller_images_are_padded_and_their_size_is_told(program: Path, tmp_path: Path) -> None:
    found = rows(run(program, tmp_path, write_engine(tmp_path), 40, 56))
    assert found[0, 0] == 0 and found[0, 1] == 0 and found[1, :2].tolist() == [0, 0]
    assert found[2, :4].tolist() == [40, 56, 40, 56]


def test_dynamic_engines_take_any_size_of_their_profile(program: Path, tmp_path: Path) -> None:
    found = rows(run(program, tmp_path, write_engine(tmp_path, sized=False), 72, 80))
    assert found[:2, :2].ravel().tolist() == corners(72, 80, 0)
    assert found[2, :4].tolist() == [72, 80, 72, 80]


def test_weak_matches_are_dropped(program: Path, tmp_path: Path) -> None:
    bundled = read_manifest(manifest_path(engine_path("loftr-lite")))
    engine = write_engine(tmp_path, matching=dataclasses.replace(bundled.matching, default_score=0.5))
    assert rows(run(program, tmp_path, engine, 48, 64)).shape == (2, 5)


@pytest.mark.parametrize(
    ("changes", "size", "code"),
    [
        ({"backend": "tensorrt_rtx"}, (48, 64), "engine-backend"),
        ({"backend_version": "10.8.0.1"}, (48, 64), "engine-version"),
        ({"portability": Portability(("9.0",), True, "any")}, (48, 64), "engine-gpu"),
        ({"engine_sha256": "0" * 64}, (48, 64), "engine-digest"),
        ({"engine_bytes": 7}, (48, 64), "engine-digest"),
        ({"outputs": ()}, (48, 64), "engine-graph"),
        ({}, (41, 64), "session-input"),
        ({}, (56, 64), "session-input"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    program: Path, tmp_path: Path, changes: dict[str, Any], size: tuple[int, int], code: str
) -> None:
    ran = run(program, tmp_path, write_engine(tmp_path, **changes), *size)
    assert ran.returncode == 1 and f"error[{code}]" in ran.stderr, ran.stderr


def test_newer_versions_and_gpus_where_the_manifest_allows(program: Path, tmp_path: Path) -> None:
    engine = write_engine(tmp_path, backend_version="10.8.3.1", portability=Portability(("8.0",), True, "newer"))
    assert run(program, tmp_path, engine, 48, 64).returncode == 0


def test_manifests_of_schema_1_are_read(program: Path, tmp_path: Path) -> None:
    engine = write_engine(tmp_path)
    raw = json.loads(manifest_path(engine).read_text())
    old = {"schema": 1, "flavor": raw.pop("backend"), "flavor_version": raw.pop("backend_version")}
    manifest_path(engine).write_text(json.dumps(raw | old))
    assert run(program, tmp_path, engine, 48, 64).returncode == 0


def test_manifests_that_are_damaged(program: Path, tmp_path: Path) -> None:
    engine = write_engine(tmp_path)
    path = manifest_path(engine)
    good = path.read_text()
    raw = json.loads(good)
    bad = [
        ("manifest-invalid", text)
        for text in ("", "{", "[]", good + "x", good[: len(good) // 2], good.replace('"schema": 2', '"schema": 02'),
                     good.replace('"schema": 2', '"schema": 2.5'), "[" * 100_000, '{"a": "\\ud800"}',
                     '{"a": 1, "a": 2}')
    ]  # fmt: skip
    bad += [
        ("manifest-invalid", json.dumps({k: v for k, v in raw.items() if k != name})) for name in ("input", "model")
    ]
    bad += [("manifest-schema", json.dumps({**raw, "schema": 3}))]
    for code, text in bad:
        path.write_text(text)
        ran = run(program, tmp_path, engine, 48, 64)
        assert ran.returncode == 1 and f"error[{code}]" in ran.stderr, (text[:60], ran.stderr)
    path.unlink()
    assert "manifest-missing" in run(program, tmp_path, engine, 48, 64).stderr


def test_digests_of_all_lengths(program: Path, tmp_path: Path) -> None:
    """Lengths around a block of SHA-256: an engine that is refused later than by its digest had the right one."""
    for length in (1, 55, 56, 63, 64, 65, 119, 120, 128, 1000):
        engine = write_engine(tmp_path)
        data = bytes(i % 251 for i in range(length))
        engine.write_bytes(data)
        raw = json.loads(manifest_path(engine).read_text())
        raw |= {"engine_bytes": length, "engine_sha256": sha256_bytes(data)}
        manifest_path(engine).write_text(json.dumps(raw))
        assert "error[engine-rejected]" in run(program, tmp_path, engine, 48, 64).stderr
