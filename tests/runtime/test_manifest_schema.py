"""The published JSON Schema of manifests: it takes what matchrt writes, and refuses nothing that matchrt reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from support.bad_manifests import bad_manifests
from support.commands import CommandLine
from support.manifests import bundled_manifest, good_texts, judged_mutants, verdict

from matchrt import manifest as manifests
from matchrt._util.strict_json import read_json
from matchrt.manifest import SCHEMA, EngineManifest, manifest_schema, schema_path

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (extra dev)")


@pytest.fixture(scope="module")
def schema() -> Any:
    found = manifest_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@pytest.fixture(scope="module")
def is_valid(schema: Any) -> Callable[[Any], bool]:
    """Whether a value validates; by a validator that is a hundred times faster, if there is one."""
    try:
        from jsonschema_rs import Draft202012Validator
    except ImportError:
        return schema.is_valid
    return Draft202012Validator(schema.schema).is_valid


def test_the_schema_names_its_version(schema: Any, cli: CommandLine) -> None:
    assert schema.schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema.schema["$id"].endswith(f":{SCHEMA}") and schema.schema["properties"]["schema"]["const"] == SCHEMA
    assert cli("inspect", "--schema").json == cli("inspect", "--schema", "--json").json == schema.schema
    for arguments in (("inspect",), ("inspect", "--schema", "loftr-lite")):
        assert cli(*arguments).code == 2
    assert schema_path().is_file()


def test_the_schema_has_every_field(schema: Any) -> None:
    """And the same ones are required as in the reader, and the same ones have a default."""
    parts = {
        "": EngineManifest,
        "tensor": manifests.TensorSpec,
        "input": manifests.InputContract,
        "pass": manifests.PassRecord,
    }
    parts |= {"frames": manifests.FrameContract, "matching": manifests.MatchContract, "self_test": manifests.SelfTest}
    parts |= {"portability": manifests.Portability, "source": manifests.Source}
    for name, part in parts.items():
        said = schema.schema["$defs"][name] if name else schema.schema
        assert list(said["properties"]) == [field.name for field in fields(part)] or not name
        assert set(said["properties"]) == {field.name for field in fields(part)}, name
        own = {field.name for field in fields(part) if repr(field.default) == repr(field.default_factory)}
        assert set(said["required"]) == own | ({"schema"} if not name else set()), name
        assert said["additionalProperties"] is False


def test_good_manifests_validate(schema: Any) -> None:
    texts = good_texts()
    assert len(texts) > 40
    for name, text in texts.items():
        assert verdict(text) is None, name
        schema.validate(read_json(text.encode()))


def test_bad_manifests_are_refused(schema: Any) -> None:
    seen = set()
    for name, says, text in bad_manifests():
        assert name not in seen and verdict(text) is not None, name
        assert schema.is_valid(read_json(text)) is not says, name
        seen.add(name)
    assert len(seen) > 190


@pytest.mark.parametrize("name", ["static", "frames of a range"])
def test_what_is_read_validates_whatever_was_changed(schema: Any, is_valid: Callable[[Any], bool], name: str) -> None:
    """And of what is refused, little validates."""
    refused = missed = 0
    for mutant in judged_mutants(name):
        try:
            value = read_json(mutant.text.encode("utf-8", "surrogatepass"), unique_keys=True)
        except ValueError:
            continue  # no JSON that any reader takes
        valid = "\\ud800" not in mutant.text and is_valid(value)  # half a character is no text of JSON Schema's
        if mutant.said is None:
            assert valid, (mutant.what, list(schema.iter_errors(value)))
        else:
            refused, missed = refused + 1, missed + valid
    assert refused > 1000 and missed < refused / 50, (refused, missed)


def test_validators_agree(is_valid: Callable[[Any], bool]) -> None:
    assert all(is_valid(read_json(text.encode())) for text in good_texts().values())
    assert all(is_valid(json.loads(text)) is not says for _, says, text in bad_manifests())


def test_a_manifest_says_what_is_wrong_with_it(schema: Any) -> None:
    raw = json.loads(bundled_manifest().to_json())
    raw["matching"]["threshold"] = 2
    (error,) = schema.iter_errors(raw)
    assert list(error.path) == ["matching", "threshold"] and "2 is greater than the maximum of 1" in error.message
