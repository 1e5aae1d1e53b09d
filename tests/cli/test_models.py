"""`matchrt models`: by network, for whom each model is, and what its licences state."""

from __future__ import annotations

from typing import get_args

from support.commands import CommandLine

from matchrt.families.definition import Use
from matchrt.families.registry import families, model_specs

# Whose statements do not permit commercial use, and why.
NOT_COMMERCIAL = {
    "loftr-indoor": "ScanNet",
    "loftr-indoor-new": "ScanNet",
    "roma-indoor": "ScanNet",
    "matchanything-roma": "organisations register",
    "matchanything-eloftr": "organisations register",
    "eloftr": "organisations register",
    "eloftr-opt": "organisations register",
    "gim-roma": "research purposes only",
}


def test_every_model_says_for_whom_it_is() -> None:
    for spec in model_specs().values():
        assert spec.suits and set(spec.suits) <= set(get_args(Use)) and len(set(spec.suits)) == len(spec.suits), (
            spec.name
        )
    first = {spec.suits[0] for spec in model_specs().values()}
    assert first == set(get_args(Use))


def test_models_are_grouped_by_network(cli: CommandLine) -> None:
    rows = cli("models", "--json").json
    assert [row["name"] for row in rows] == list(model_specs())
    networks = list(dict.fromkeys(row["network"] for row in rows))
    assert networks == [family.title for family in families()]
    lines = cli("models").out.splitlines()
    headings = [line for line in lines if line in networks]
    assert headings == networks
    assert lines.index("XoFTR") < next(i for i, line in enumerate(lines) if line.startswith("  minima-xoftr  "))
    assert any(line.strip().startswith("for thermal, cross-modal, outdoor; Apache-2.0") for line in lines)


def test_commercial_lists_what_is_stated_to_be_permitted(cli: CommandLine) -> None:
    rows = {row["name"]: row for row in cli("models", "--json").json}
    assert {name for name, row in rows.items() if not row["commercial"]} >= set(NOT_COMMERCIAL)
    allowed = cli("models", "--commercial", "--json").json
    assert {row["name"] for row in allowed} == {name for name, row in rows.items() if row["commercial"]}
    assert {"loftr-lite", "loftr-outdoor", "roma-outdoor", "minima-roma", "xoftr"} <= {row["name"] for row in allowed}
    for row in allowed:
        assert row["files"], row["name"]
        for file in row["files"]:
            assert file["licence"]["commercial"] and file["licence"]["note"]
            assert file["licence"]["date"] or file["state"] == "bundled"
    out = cli("models", "--commercial").out
    assert "DKM#42" in out and "(read 2026-11-27)" in out and "no legal advice" in out
    assert not any(f"  {name}  " in out for name in NOT_COMMERCIAL)
    for name, reason in NOT_COMMERCIAL.items():
        assert any(reason in file["licence"]["note"] for file in rows[name]["files"]), name
    assert "EfficientLoFTR" in out and "efficientloftr.safetensors" not in out


def test_a_part_without_a_permitted_file_excludes_the_model(cli: CommandLine) -> None:
    """RoMa needs two files, and both must permit it."""
    rows = {row["name"]: row for row in cli("models", "--commercial", "--json").json}
    options = [file["option"] for file in rows["roma-outdoor"]["files"]]
    assert options == ["--checkpoint", "--dinov2", "--dinov2"]
    notes = {row["name"]: row for row in cli("models", "--json").json}["gim-roma"]["files"]
    assert not notes[0]["licence"]["commercial"] and "research purposes only" in notes[0]["licence"]["note"]
    assert notes[1]["licence"]["commercial"]
