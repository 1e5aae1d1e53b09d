"""The parts' costs, and the commands that build, verify and take apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from support.commands import CommandLine
from support.small import small_engine

from matchrt.bench.drawn import drawn_pair
from matchrt.bench.per_block import block_of
from matchrt.manifest import manifest_path, read_manifest
from matchrt.runtime.bundled import photographs_folder
from matchrt.runtime.engine_file import EngineFile


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> EngineFile:
    return small_engine(tmp_path_factory.mktemp("small"))


def test_blocks() -> None:
    assert block_of("backbone.layer1.0.conv1/Conv_0") == "backbone.layer1.0"
    assert block_of("loftr_coarse.layers.3.mlp.0/MatMul_0") == "loftr_coarse.layers.3"
    assert block_of("backbone.layer2_outconv/Conv_0") == "backbone.layer2_outconv"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of two pairs of files."""
    folder = tmp_path_factory.mktemp("pairs")
    for seed in (60, 61):
        pair = drawn_pair(160, 224, seed)
        Image.fromarray(pair.image0).save(folder / f"{seed}a.png")
        Image.fromarray(pair.image1).save(folder / f"{seed}b.png")
    (folder / "list.txt").write_text("60a.png 60b.png\n61a.png 61b.png\n")
    return folder / "list.txt"


@pytest.mark.slow
def test_build_verify_and_take_apart(cli: CommandLine, small: EngineFile, pairs: Path, tmp_path: Path) -> None:
    engine = tmp_path / "int8.onnx"
    told = ("--calibration", pairs, "--calibration-method", "max", "--keep-fp32", "loftr_fine")
    ran = cli("build", small.path, "--precision", "int8", *told, "--store", tmp_path / "store", "--output", engine)
    assert ran.code == 0 and "int8" in ran.out and "within 1 px" in ran.out
    manifest = read_manifest(manifest_path(engine))
    assert manifest.precision == "int8" and manifest.checks["precision_kept"] >= 0.95
    assert manifest.checks["precision_pairs"] == 3  # the package's photographs judge too
    assert any(r.name == "calibration" and "max over 2 given pairs" in r.summary for r in manifest.passes)
    again = cli("build", small.path, "--precision", "int8", *told, "--store", tmp_path / "store", "--json")
    assert again.json["cached"]
    html, told_json = tmp_path / "report.html", tmp_path / "report.json"
    judged = tmp_path / "judged.txt"
    lines = [[pairs.parent / name for name in line.split()] for line in pairs.read_text().splitlines()]
    lines.append([photographs_folder() / f"cup_{index}.jpg" for index in (0, 1)])
    judged.write_text("".join(f"{first} {second}\n" for first, second in lines))
    compared = ("verify", engine, "--reference", small.path, "--pairs", judged)
    ran = cli(*compared, "--html", html, "--output", told_json, "--worst", "1", "--gate")
    assert ran.code == 0 and "gate: passed" in ran.out
    found = json.loads(told_json.read_text())
    # Two pairs calibrate and judge, with the photographs: the engine and the pairs of the build, hence its verdict.
    assert found["together"]["within_1px"] == pytest.approx(manifest.checks["precision_kept"], abs=1e-6)
    assert found["together"]["count_ratio"] == pytest.approx(manifest.checks["precision_count"], abs=1e-6)
    assert found["together"]["within_1px"] >= 0.95 and found["together"]["rank"] > 0.9 and len(found["pairs"]) == 3
    assert html.read_text().count("data:image/jpeg;base64") == 2
    assert "a.png" in html.read_text() or "cup_0.jpg" in html.read_text()
    kept = ("loftr_coarse", "loftr_fine", "fine_preprocess", "backbone.layer1.*", "backbone.layer3.*",
            "backbone.layer*_outconv*")  # fmt: skip
    blocks = cli("verify", small.path, "--per-block", "--pairs", pairs, "--first", "1", *told[:2],
                 *(word for pattern in kept for word in ("--keep-fp32", pattern)),
                 "--store", tmp_path / "store", "--json").json["per_block"]  # fmt: skip
    lost = [block["lost"] for block in blocks["blocks"]]
    assert blocks["whole"]["products"] == sum(block["products"] for block in blocks["blocks"]) > 2
    assert len(lost) == 2 and lost == sorted(lost, reverse=True) and blocks["whole"]["lost"] >= 0


def test_what_is_refused(cli: CommandLine, small: EngineFile, tmp_path: Path) -> None:
    store = ("--store", tmp_path / "store")
    cli.fails("precision-backend", "build", small.path, "--precision", "fp8", *store)
    cli.fails("calibration-unused", "build", small.path, "--keep-fp32", "backbone", *store)
    cli.fails("pairs-missing", "build", small.path, "--precision", "int8", "--calibration", tmp_path / "no", *store)
    cli.fails("bench-nothing", "verify", small.path, "--plot", tmp_path / "x.png")
    changed = tmp_path / "other.onnx"
    changed.write_bytes(small.data)
    matching = replace(small.manifest.matching, threshold=0.123)
    replace(small.manifest, matching=matching, precision="int8").write(manifest_path(changed))
    cli.fails("reference-missing", "verify", changed, *store)
