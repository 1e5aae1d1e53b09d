"""The table of families, and what general code may ask of it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import matchrt
from matchrt.errors import MatchRTError
from matchrt.families.registry import FAMILIES, families, family_of, find_family, model_specs
from matchrt.manifest import DENSE_OUTPUTS, PRECISION_OUTPUT

SOURCE = Path(matchrt.__file__).parent


def test_every_line_of_the_table_is_a_family_of_that_name() -> None:
    assert [family.name for family in families()] == list(FAMILIES)
    for family in families():
        assert family.models and {spec.family.name for spec in family.models} == {family.name}
    assert len(model_specs()) == sum(len(family.models) for family in families())


def test_unknown_families_are_named_errors() -> None:
    with pytest.raises(MatchRTError, match="loftr, roma, romav2, eloftr, xoftr") as caught:
        family_of("superglue")
    assert caught.value.code == "family-unknown" and find_family("superglue") is None


def test_dense_networks_refuse_tf32() -> None:
    assert {family.name for family in families() if not family.tf32} == {"roma", "romav2"}


def test_dense_outputs_are_those_of_the_graph() -> None:
    from matchrt.models.roma import engine_graph
    from matchrt.models.romav2 import engine_graph as romav2

    assert [family.name for family in families() if family.dense] == ["roma", "romav2"]
    assert engine_graph.DENSE_OUTPUTS == DENSE_OUTPUTS and romav2.PRECISION_OUTPUT == PRECISION_OUTPUT


def test_error_codes_of_second_files_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
    codes = [f"{family.second_file.code}-needed" for family in families() if family.second_file is not None]
    assert codes == ["dinov2-needed"] and all(f"| `{code}`" in text for code in codes)


def test_listing_models_needs_neither_torch_nor_onnx(
    run_python: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    code = """
import sys
from matchrt.families.presets import families
families()
print([name for name in ("torch", "onnx") if name in sys.modules])
"""
    ran = run_python(code)
    assert ran.stdout.strip() == "[]", ran.stderr


def test_families_stand_below_export() -> None:
    for path in (SOURCE / "families").glob("*.py"):
        assert not re.search(r"(from|import) matchrt\.(export|building|engines|runtime)", path.read_text()), path


# Rooms whose code may name a network: their subject is one, or they are the networks.
_OWN = ("families", "models", "flax")


def test_general_code_imports_no_network_and_compares_no_family() -> None:
    imports = re.compile(
        r"(?:from|import) matchrt\.(?:models\.(?:loftr|eloftr|roma|xoftr)|families\.(?:loftr|eloftr|roma|xoftr|dinov2))"
    )
    compares = re.compile(r"[=!]= *\"(?:loftr|eloftr|roma|xoftr)\"|isinstance\([^)]*(?:LoFTR|RoMa|GridFamily)")
    for path in SOURCE.rglob("*.py"):
        if path.relative_to(SOURCE).parts[0] not in _OWN:
            text = path.read_text(encoding="utf-8")
            assert not imports.search(text) and not compares.search(text), path
