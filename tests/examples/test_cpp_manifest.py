"""The manifest's reader in C++: it takes what the one in Python takes, and refuses what that one refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.bad_manifests import bad_manifests
from support.cpp_programs import NEWEST, Program, programs
from support.manifests import good_texts, judged_mutants, verdict

from matchrt._version import __version__


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return programs(tmp_path_factory)[NEWEST]


def verdicts(program: Program, folder: Path, texts: Sequence[str | bytes]) -> list[str]:
    """What the reader says of each: `fits`, or a code and why."""
    data = [text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass") for text in texts]
    path = folder / "manifests"
    path.write_bytes(b"".join(b"%d\n%s" % (len(text), text) for text in data))
    said = program.said("manifests", path).splitlines()
    assert len(said) == len(texts)
    return said


def test_good_manifests_are_read(program: Program, tmp_path: Path) -> None:
    texts = good_texts()
    said = dict(zip(texts, verdicts(program, tmp_path, [*texts.values()]), strict=True))
    assert {name: each for name, each in said.items() if each != "fits"} == {}


def test_bad_manifests_are_refused(program: Program, tmp_path: Path) -> None:
    names, _, texts = zip(*bad_manifests(), strict=True)
    said = dict(zip(names, verdicts(program, tmp_path, texts), strict=True))
    assert [name for name, each in said.items() if not each.startswith("manifest-")] == []
    threshold = said["bundled: ('matching', 'threshold') is '1.5'"]
    assert threshold == "manifest-invalid manifest.matching.threshold should be 0 to 1"


@pytest.mark.parametrize("name", ["static", "frames of a range"])
def test_both_readers_agree_whatever_was_changed(program: Program, tmp_path: Path, name: str) -> None:
    mutants = judged_mutants(name)
    said = verdicts(program, tmp_path, [mutant.text for mutant in mutants])
    differing = [
        (mutant.what, mutant.said, each)
        for mutant, each in zip(mutants, said, strict=True)
        if (mutant.said is None) != (each == "fits")
    ]
    assert differing == [] and sum(each == "fits" for each in said) > 20


def test_texts_that_are_no_json(program: Program, tmp_path: Path) -> None:
    """Readers are alike here, too. Most of these are read by one or another library."""
    good = good_texts()["bundled"]
    two = '"schema": 2'
    assert good.count(two) == 1
    bad: list[str | bytes] = [
        "", " ", "{", "[]", "null", "1", '"x"', good + "x", good + "{}", good[: len(good) // 2], good[:-2] + ",}",
        good.replace(two, '"schema": 02'), good.replace(two, '"schema": 2.5'), good.replace(two, '"schema": +2'),
        good.replace(two, '"schema": 0x2'), good.replace(two, '"schema": 2.'), good.replace(two, '"schema": 2e'),
        good.replace(two, "'schema': 2"), good.replace(two, f"{two}, {two}"), good.replace(two, f"// {two}"),
        "[" * 100_000, '{"a":' * 100_000, '{"a": "\\ud800"}', '{"a": 1, "a": 2}', good.replace("Apache", "Ap\x00ache"),
        good.replace("Apache", "Ap\nache"), good.replace("Apache", "\\x41pache"), good.replace("Apache", "\\u00g1"),
        good.replace("Apache", "\\udc00\\ud800"), good.replace("Apache", "\\ud800x"),
        good.encode().replace(b"Apache", b"\xff"), good.encode().replace(b"Apache", b"\xc0\x80"),
        good.encode().replace(b"Apache", b"\xed\xa0\x80"), good.encode().replace(b"Apache", b"\xf4\x90\x80\x80"),
        good.encode().replace(b"Apache", b"\xe2\x82"), good.encode("utf-16"), b"\xef\xbb" + good.encode(),
        *(good.replace("0.2,", f"{n},") for n in ("1" + "0" * 400, "1e400", "nan", "-Infinity")),
        good.replace("Apache", "x" * (16 << 20)),
    ]  # fmt: skip
    said = verdicts(program, tmp_path, bad)
    for text, each in zip(bad, said, strict=True):
        assert each.startswith("manifest-") and verdict(text) is not None, (text[:80], each)


def test_manifests_of_schema_1(program: Program, tmp_path: Path) -> None:
    raw = json.loads(good_texts()["bundled"])
    old = {"schema": 1, "flavor": raw.pop("backend"), "flavor_version": raw.pop("backend_version")}
    text = json.dumps(raw | old)
    assert verdict(text) is None and verdicts(program, tmp_path, [text]) == ["fits"]
    (said,) = verdicts(program, tmp_path, [json.dumps(raw | old | {"schema": 3})])
    assert said.startswith("manifest-schema")


def test_numbers_do_not_depend_on_the_programs_locale(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(good_texts()["bundled"].replace('"default_score": 0.4', '"default_score": 0.125'))
    assert program.said("decimals", path) == "125\n"


def test_the_header_is_of_this_version() -> None:
    text = (Path(__file__).parents[2] / "examples" / "cpp" / "include" / "matchrt" / "version.h").read_text()
    assert f'#define MATCHRT_VERSION "{__version__}"' in text
