"""What a build would miss at its end is missed before its export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from matchrt.building.calibration.options import CalibrationOptions
from matchrt.building.pipeline import BuildRequest, build
from matchrt.errors import MatchRTError
from matchrt.families import loftr
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.store import EngineStore

INT8 = {"precision": "int8"}


def refused(code: str, store: Path, model: str = "loftr-lite", **options: Any) -> MatchRTError:
    """The error, which comes before the checkpoint is read."""
    told: list[str] = []
    with pytest.raises(MatchRTError) as caught:
        build(BuildRequest(model, **options), EngineStore(store), lambda what, done: told.append(what))
    assert caught.value.code == code and not told
    return caught.value


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_pairs_to_judge_on(tmp_path: Path, precision: str) -> None:
    refused("pairs-missing", tmp_path, precision=precision, pairs=tmp_path / "none.txt")
    (tmp_path / "list.txt").write_text("a.png b.png\n")
    found = refused("pairs-missing", tmp_path, precision=precision, pairs=tmp_path / "list.txt")
    assert "list.txt:1" in found.message


def test_pairs_to_calibrate_on(tmp_path: Path) -> None:
    for source, code in ((tmp_path / "none", "pairs-missing"), (tmp_path, "pairs-empty")):
        refused(code, tmp_path, **INT8, calibration=CalibrationOptions(source))


def test_other_options_of_calibration(tmp_path: Path) -> None:
    refused("calibration-method", tmp_path, **INT8, calibration=CalibrationOptions(method="mean"))
    refused("calibration-batch", tmp_path, **INT8, batch=2)
    refused("device-missing", tmp_path, **INT8, calibration=CalibrationOptions(only_faster=True))


def test_places_to_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused("output-unwritable", tmp_path, output=tmp_path / "file" / "engine.onnx")
    (tmp_path / "engine.onnx.json").mkdir()  # where the manifest belongs
    refused("output-unwritable", tmp_path, output=tmp_path / "engine.onnx")
    found = refused("store-unwritable", tmp_path / "file" / "store")
    assert "--store" in found.remedy
    refused("store-unwritable", tmp_path / "file")


@pytest.mark.parametrize("machine", ["tensorrt-10"], indirect=True)
@pytest.mark.usefixtures("machine")
def test_a_timing_cache_that_cannot_be_written(tmp_path: Path) -> None:
    options = BuilderOptions(timing_cache=tmp_path)
    refused("output-unwritable", tmp_path, backend="tensorrt", builder=options)


@pytest.mark.parametrize("precision", ["fp16", "int8", "fp8"])
@pytest.mark.parametrize("machine", ["rtx"], indirect=True)
@pytest.mark.usefixtures("machine")
def test_a_family_without_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setattr(loftr, "LOFTR_FAMILY", replace(loftr.LOFTR_FAMILY, fp16=None, int8=None))
    options = BuilderOptions(targets=("8.9",))
    refused("precision-family", tmp_path, backend="tensorrt_rtx", builder=options, precision=precision)


@pytest.mark.parametrize("machine", ["rtx"], indirect=True)
@pytest.mark.usefixtures("machine")
def test_products_in_tf32_where_the_network_does_not_tolerate_them(tmp_path: Path) -> None:
    options = BuilderOptions(tf32=True)
    found = refused("build-option", tmp_path, "roma-outdoor", backend="tensorrt_rtx", builder=options)
    assert "--tf32" in found.remedy
