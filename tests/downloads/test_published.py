"""The table of published files."""

from __future__ import annotations

import re

import pytest

from matchrt.families.published import Address, Licence, PublishedFile
from matchrt.families.registry import families, get_spec, model_specs

FILES = [file for spec in model_specs().values() for file in spec.published]
FILES += [file for family in families() if family.second_file is not None for file in family.second_file.published]


def test_every_model_has_weights_and_every_name_is_one_file() -> None:
    for spec in model_specs().values():
        assert (spec.weights is not None) != bool(spec.published), spec.name
    by_name = {file.name: file for file in FILES}
    assert all(by_name[file.name] == file for file in FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_can_be_asked_for_safely(file: PublishedFile) -> None:
    assert file.addresses and file.page.startswith("https://")
    # Over plain http only a digest tells whether the file is the one that was published.
    assert file.sha256 is not None or all(address.url.startswith("https://") for address in file.addresses)
    assert re.fullmatch(r"[\w.-]+\.(ckpt|pth|pt|safetensors)", file.name)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_licence_has_a_date_and_a_note(file: PublishedFile) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", file.licence.date) and file.licence.dated in ("since", "read")
    assert file.licence.note.endswith(".") and file.licence.name


def test_licences_that_changed_say_since_when_and_from_what() -> None:
    for model, name in (
        ("eloftr", "eloftr_outdoor.ckpt"),
        ("matchanything-eloftr", "matchanything_eloftr.ckpt"),
        ("matchanything-roma", "matchanything_roma.ckpt"),
    ):
        licence = next(file.licence for file in get_spec(model).published if file.name == name)
        assert str(licence) == "Project Registration License v1.0 (since 2026-09-15)"
        assert "Apache-2.0 until then" in licence.note and "2026-09-15" in get_spec(model).licence


def test_what_nobody_can_say_is_not_called_mit() -> None:
    spec = get_spec("roma-indoor")
    assert "MIT" not in spec.published[0].licence.name and "non-commercial" in spec.published[0].licence.note
    assert spec.licence != "MIT"


def test_a_digest_is_a_digest() -> None:
    licence = Licence("MIT", "2026-01-01", "read", "A test.")
    blank = ("x", "x", "https://x", (Address("https://x", "x"),), licence)
    assert PublishedFile(*blank, sha256="AB" * 32).sha256 == "ab" * 32
    with pytest.raises(AssertionError):
        PublishedFile(*blank, sha256="ab" * 31)
