"""Manifests for the readers in Python and C++ and for the JSON Schema: good ones of all kinds, and bad ones by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from matchrt.errors import MatchRTError
from matchrt.families.registry import model_specs
from matchrt.manifest import (
    EngineManifest,
    FrameContract,
    InputContract,
    MatchContract,
    PassRecord,
    Portability,
    Profile,
    TensorSpec,
    manifest_path,
    read_manifest,
)
from matchrt.manifest.contract import check_contract
from matchrt.manifest.reading import parse_manifest
from matchrt.runtime.engine_file import engine_path

Step = str | int
Where = tuple[Step, ...]
# What JSON's writer does not write goes in as text in place of a marker.
MARK = "@@@"
AS_TEXT = {
    "10^400": "1" + "0" * 400, "-10^400": "-1" + "0" * 400, "1e400": "1e400", "NaN": "NaN", "-Infinity": "-Infinity",
    "deep": "[" * 5_000 + "]" * 5_000, "half a pair": '"\\ud800"',
}  # fmt: skip
VALUES: dict[str, Any] = {
    "null": None, "true": True, "false": False, "0": 0, "-1": -1, "2^31": 2**31, "2^63": 2**63, "-0.5": -0.5,
    "1e300": 1e300, "empty": "", "blank": " ", "5,000 letters": "a" * 5000, "up": "../../escaped", "root": "/escaped",
    "line": 'm"\nbackend: "python"\n#', "title": "\x1b]0;title\x07", "turned": "\u202egnp.exe", "C1": "\x9b31m",
    "quote": '"', "option": "--store", "dots": "..", "NUL": "a\0b", "list": [], "object": {}, "nested": [[[[1]]]],
}  # fmt: skip


def verdict(text: str | bytes) -> str | None:
    """What matchrt's own reader says is wrong with a manifest's text; None if it would open the engine."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    try:
        check_contract(parse_manifest(data, Path("manifest.json")))
    except MatchRTError as error:
        return error.message
    except ValueError as error:
        return str(error)
    return None


# ------------------------------------------------------------------------------------------- changes of one field


def places(value: Any, where: Where = ()) -> Iterator[Where]:
    """Every field, entry and group of a JSON value."""
    if where:
        yield where
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from places(entry, (*where, key))
    elif isinstance(value, list):
        for index, entry in enumerate(value[:4]):
            yield from places(entry, (*where, index))


def changed(raw: Any, where: Where, value: Any) -> Any:
    """A copy with another value at that place."""
    copy = json.loads(json.dumps(raw))
    group = copy
    for step in where[:-1]:
        group = group[step]
    group[where[-1]] = value
    return copy


def value_at(raw: Any, where: Where) -> Any:
    for step in where:
        raw = raw[step]
    return raw


def mutants(raw: dict[str, Any]) -> Iterator[tuple[Where, str, str]]:
    """The place, the change, and the text of the manifest."""
    for where in places(raw):
        old = value_at(raw, where)
        for name, text in AS_TEXT.items():
            yield where, name, json.dumps(changed(raw, where, MARK)).replace(f'"{MARK}"', text)
        own = {"as text": str(old), "in a list": [old], "in an object": {"value": old}, "more": _more(old)}
        for name, value in {**VALUES, **own}.items():
            if json.dumps(value) != json.dumps(old):
                yield where, name, json.dumps(changed(raw, where, value))
        if isinstance(where[-1], str):
            key = f'"{where[-1]}": '
            text = json.dumps(changed(raw, where, MARK))
            yield where, "twice", text.replace(f'"{MARK}"', f"{json.dumps(old)}, {key}{json.dumps(old)}")


@dataclass(frozen=True)
class Mutant:
    """A changed manifest. what: the place and the change. said: what matchrt's own reader says is wrong, or None."""

    what: tuple[Where, str]
    text: str
    said: str | None


@cache
def judged_mutants(name: str) -> tuple[Mutant, ...]:
    """The mutants of a good manifest with the verdicts of matchrt's own reader, which takes a while."""
    raw = json.loads(good_manifests()[name].to_json())
    return tuple(Mutant((where, change), text, verdict(text)) for where, change, text in mutants(raw))


def _more(old: Any) -> Any:
    """The value with something added that is of its own kind."""
    if isinstance(old, dict):
        return {**old, "unknown\x1b[31m": 1}
    if isinstance(old, list):
        return [*old, *old, "x"]
    return f"{old}\x07" if isinstance(old, str) else 10**19


# ------------------------------------------------------------------------------------------- good ones


def tensors(
    contract: InputContract, matching: MatchContract, *, sized: bool = False, dense: bool = False, precise: bool = False
) -> dict[str, tuple[TensorSpec, ...]]:
    """The inputs and outputs of an engine, as docs/engine-contract.md and docs/frames.md have them.

    sized: whether it takes the images' valid sizes. dense: whether it also gives the warp. precise: and its precision.
    """
    pairs: int | str = "pairs" if contract.any_batch else contract.batch
    frames = contract.frames
    inputs = []
    for i in (0, 1):
        sides = [contract.height or f"height{i}", contract.width or f"width{i}"]
        if frames is None:
            inputs.append(TensorSpec(f"image{i}", "uint8", (pairs, *sides, contract.channels)))
        elif frames.sizes is not None:
            inputs.append(TensorSpec(f"frame{i}", "uint8", (pairs, *frames.shape(frames.sizes[i]))))
        else:
            inputs.append(TensorSpec(f"frame{i}", "uint8", (pairs, f"rows{i}", f"columns{i}", frames.channels)))
        if contract.coarse is not None and frames is None:
            inputs.append(TensorSpec(f"coarse{i}", "uint8", (pairs, *contract.coarse, contract.channels)))
        if sized:
            inputs.append(TensorSpec(f"size{i}", "int32", (pairs, 2)))
        if frames is not None and frames.sizes is None:
            inputs += _resize(contract, i)
    slots = matching.max_matches
    outputs = [TensorSpec(f"keypoints{i}", "float32", (pairs, slots, 2)) for i in (0, 1)]
    outputs += [TensorSpec("scores", "float32", (pairs, slots)), TensorSpec("num_matches", "int32", (pairs,))]
    if dense:
        outputs += [
            TensorSpec("warp", "float32", (pairs, 56, 112, 4)),
            TensorSpec("certainty", "float32", (pairs, 56, 112)),
        ]
    if precise:
        outputs.append(TensorSpec("precision", "float32", (pairs, 56, 112, 3)))
    return {"inputs": tuple(inputs), "outputs": tuple(outputs)}


def _resize(contract: InputContract, i: int) -> Iterator[TensorSpec]:
    """What an engine for a range of sizes takes besides a frame."""
    twice = 2 if contract.kernel == "area-linear" else 1
    for name, size in (("", (contract.height, contract.width)), ("coarse_", contract.coarse)):
        if size is None:
            continue
        height, width = size
        assert height is not None and width is not None
        yield TensorSpec(f"{name}rows{i}", "float32", (twice * height, f"rows{i}"))
        yield TensorSpec(f"{name}columns{i}", "float32", (f"columns{i}", width))
        if twice == 2:
            yield TensorSpec(f"{name}rounding{i}", "float32", (3,))
    yield TensorSpec(f"scale{i}", "float32", (2,))


def bundled_manifest() -> EngineManifest:
    """Of loftr-lite, as it is in the package."""
    return read_manifest(manifest_path(engine_path("loftr-lite")))


@cache
def good_manifests() -> Mapping[str, EngineManifest]:
    """One of each kind that matchrt writes, by what it is: each input, precision and model.

    All but the shipped one have a self-test of six matches, which are read and written a thousand times.
    """
    shipped = bundled_manifest()
    assert shipped.self_test is not None
    bundled = replace(shipped, self_test=replace(shipped.self_test, answer=shipped.self_test.answer[:160]))
    fixed = replace(bundled.input, height=48, width=64, profile=None, fitting="letterbox")
    two_passes = replace(fixed, channels=3, kernel="lanczos", fitting="stretch", coarse=(56, 112))

    def of(
        contract: InputContract, *, sized: bool = False, dense: bool = False, precise: bool = False, **changes: Any
    ) -> EngineManifest:
        made = tensors(contract, bundled.matching, sized=sized, dense=dense, precise=precise)
        return replace(bundled, input=contract, **made, **changes)

    def frames(pixels: Any, contract: InputContract = fixed) -> EngineManifest:
        return of(replace(contract, frames=FrameContract(pixels, ((90, 70), (96, 120)))))

    ranged = FrameContract("bgr", None, (64, 64), (90, 120))
    found = {
        "bundled": bundled,
        "shipped": shipped,
        "static": of(fixed, sized=True),
        "static without sizes": of(fixed),
        "batch": of(replace(fixed, batch=4), sized=True),
        "batch of a range": of(replace(fixed, batch=8, any_batch=True), sized=True),
        "two passes": of(two_passes),
        "dense": of(two_passes, dense=True),
        "dense with precision": of(two_passes, dense=True, precise=True),
        **{f"frames in {pixels}": frames(pixels) for pixels in ("rgb", "bgr", "grey", "rgba", "nv12")},
        "frames of two passes": frames("rgb", two_passes),
        "frames of a range": of(replace(fixed, frames=ranged), sized=True),
        "frames of a range for two passes": of(replace(two_passes, frames=ranged)),
        **{f"precision {name}": replace(bundled, precision=name) for name in ("fp16", "int8", "fp8")},
        "of a GPU": replace(
            bundled, backend="tensorrt_rtx", backend_version="1.6.1.120",
            portability=Portability(("8.9", "12.0"), True, "newer"), options={"precision": "fp16 with fp32 sums"},
            judged="NVIDIA H100 80GB HBM3, tensorrt_rtx 1.6.1.120",
        ),
        "without a self-test": replace(bundled, self_test=None),
        "a self-test of a warp": replace(bundled, self_test=replace(shipped.self_test, kind="warp")),
        "texts of all planes": replace(
            bundled, source=replace(bundled.source, name="Gewölbe 拱顶 🏛.ckpt", origin="“vault”\u00a0\U0001f3db"),
            passes=(PassRecord("größer", True, "→ 2"),),
        ),
    }  # fmt: skip
    return MappingProxyType(found | _of_models(bundled))


def _of_models(bundled: EngineManifest) -> dict[str, EngineManifest]:
    """The engines of every model: static, and dynamic where it can be."""
    from matchrt.export.contract import ExportOptions, input_contract

    found = {}
    for spec in model_specs().values():
        matching = spec.family.match_contract(1024, spec.default_score)
        for kind, profile in (("static", None), ("dynamic", Profile((224, 224), (448, 448), (896, 896)))):
            options = ExportOptions(448, 448, profile=profile, coarse=spec.family.coarse)
            try:
                contract = input_contract(spec.preprocess, options)
            except MatchRTError as error:
                assert error.code == "dynamic-unsupported", error
                continue
            found[f"{spec.name}, {kind}"] = replace(
                bundled, model=spec.name, family=spec.family.name, input=contract, matching=matching,
                **tensors(contract, matching), source=replace(bundled.source, licence=spec.licence, origin=spec.origin),
            )  # fmt: skip
    return found


def good_texts() -> dict[str, str]:
    """The good manifests as texts, and texts of the same that other writers would write."""
    found = {name: manifest.to_json() for name, manifest in good_manifests().items()}
    raw = json.loads(found["bundled"])
    least = {
        name: value for name, value in raw.items()
        if name not in ("passes", "checks", "judged", "self_test", "options", "build_key")
    }  # fmt: skip
    least |= {"portability": {}}
    least["input"] = {name: raw["input"][name] for name in ("channels", "divisor", "fitting", "kernel", "profile")}
    least["matching"] = {name: value for name, value in raw["matching"].items() if name != "default_score"}
    least["source"] = {name: value for name, value in raw["source"].items() if name != "allowed_missing"}
    whole = changed(raw, ("checks",), {"most": 2**63 - 1, "tiny": 1e-300, "large": 1e300, "none": 0, "minus": -0.0})
    return found | {
        "no more than is needed": json.dumps(least),
        "texts as they are": json.dumps(json.loads(found["texts of all planes"]), ensure_ascii=False),
        "numbers of all sizes": json.dumps(whole),
        "exponents": found["bundled"].replace('"threshold": 0.2', '"threshold": 2E-1'),
        "a number that is too small": found["bundled"].replace('"threshold": 0.2', '"threshold": 2e-400'),
        "a byte order mark": "\ufeff" + found["bundled"],
        "without blanks": json.dumps(raw, separators=(",", ":")),
        "an answer of no match": json.dumps(changed(raw, ("self_test", "answer"), "")),
        "a key of letters": json.dumps(changed(raw, ("build_key",), "Zz9")),
    }
