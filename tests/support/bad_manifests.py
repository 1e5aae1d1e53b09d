"""Manifests that are refused, each for one reason. The readers in Python and C++ and the JSON Schema share them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from support.manifests import Where, changed, good_manifests, value_at

FRAMES, MATCHING, TEST = ("input", "frames"), ("matching",), ("self_test",)

# Each of these names a good manifest (support.manifests) and a place in it. What is not there:
LACKING: list[tuple[str, Where]] = [
    *(("bundled", (name,)) for name in ("model", "source", "input", "matching", "outputs", "portability")),
    ("bundled", ("matchrt_version",)), ("bundled", ("source", "licence")), ("bundled", ("input", "kernel")),
    ("bundled", ("matching", "mutual")), ("bundled", ("inputs", 0, "dtype")), ("bundled", ("passes", 0, "name")),
    ("bundled", ("self_test", "pair", "seed")), ("bundled", ("input", "profile", "optimum")),
    # One of tensors of which there are all or none.
    ("static", ("inputs", 3)), ("two passes", ("inputs", 3)), ("dense", ("outputs", 5)), ("bundled", ("outputs", 2)),
    ("frames of a range", ("inputs", 2)), ("frames of a range", ("inputs", 4)), ("frames in rgb", ("inputs", 1)),
]  # fmt: skip

# Objects with one more field:
UNKNOWN: list[tuple[str, Where]] = [
    ("bundled", ()), ("bundled", ("input",)), ("bundled", ("matching",)), ("bundled", ("portability",)),
    ("bundled", ("source",)), ("bundled", ("self_test",)), ("bundled", ("self_test", "pair")),
    ("bundled", ("inputs", 0)), ("bundled", ("passes", 0)), ("bundled", ("input", "profile")),
    ("frames in rgb", ("input", "frames")),
]  # fmt: skip

# Values that are put there:
VALUES: list[tuple[str, Where, tuple[Any, ...]]] = [
    ("bundled", ("schema",), (0, 3, "2", 2.5, None, True)),
    *(
        ("bundled", (name,), ("-x", "a/b", "é", "a b", "a" * 101, ".hidden", ""))
        for name in ("model", "family", "backend", "backend_version", "matchrt_version")
    ),
    ("bundled", ("model",), ("weights",)),
    (
        "bundled",
        ("checks",),
        ({"-x": 1}, {"a b": 1}, {"": 1}, {"x": None}, {"x": True}, {f"c{i}": 1 for i in range(4097)}),
    ),
    ("bundled", ("options",), ({"-x": "1"}, {"x": 1}, {"x": "\x07"})),
    ("bundled", ("precision",), ("fp64", "FP16", "")),
    ("bundled", ("engine_sha256",), ("", "A" * 64, "0" * 65, "0x1")),
    ("bundled", ("build_key",), ("-", "0" * 65, None)),
    ("of a GPU", ("portability", "compute_capabilities", 0), ("8", "8.9.1", ".9", "8.", "sm_89", "8.9999", "٨.٩", 8.9)),
    ("of a GPU", ("portability", "version"), ("older", None)),
    ("bundled", ("source", "licence"), ("a\x85b", "\u2066", "\U000e0041", "a" * 4097, "\ufeff", "\r")),
    ("bundled", ("source", "allowed_missing"), (["x"] * 4097, [1], None)),
    ("bundled", ("engine_bytes",), (-1, 2**50 + 1, "5")),
    ("bundled", ("inputs", 0, "dtype"), ("float32", "int8")),
    ("bundled", ("inputs", 0, "shape"), ([1] * 9, [1, "", "w", 1], [1, 0, "w", 1], [1, "ü", "w", 1], [1, "h", "w"])),
    ("bundled", ("outputs", 0, "shape"), ([1, 2048], [1, 2048, 3])),
    ("static", ("inputs", 2, "name"), ("mask0", "frame0", "warp")),
    ("dense with precision", ("outputs", 6, "shape", 3), (2, 4)),
    ("dense with precision", ("outputs", 6, "dtype"), ("int32",)),
    ("dense", ("outputs", 5, "name"), ("precision",)),
    ("bundled", ("input", "channels"), (2, 0, "3")),
    ("bundled", ("input", "fitting"), ("crop", None)),
    ("bundled", ("input", "profile"), (None, {}, [1, 2])),
    ("bundled", ("input", "profile", "optimum"), ([480], [480, 0], [480, 640, 1])),
    ("bundled", ("input", "frames"), ({"pixels": "rgb", "sizes": [[90, 70], [90, 70]]},)),
    ("bundled", ("input", "height"), (64,)),
    ("static", ("input", "width"), (None, 0, 65544)),
    ("batch", ("inputs", 0, "shape", 0), ("pairs",)),
    ("batch of a range", ("outputs", 3, "shape", 0), (8, "pair")),
    ("batch of a range", ("input", "batch"), (1,)),
    ("static without sizes", ("input", "coarse"), ([56, 56],)),
    ("two passes", ("input", "coarse"), (None, [0, 56])),
    ("frames in rgb", (*FRAMES, "sizes"), (None, [[90, 70]], [[8, 70], [90, 70]])),
    ("frames in rgb", (*FRAMES, "minimum"), ([64, 64],)),
    ("frames in rgb", (*FRAMES, "pixels"), ("yuyv", None)),
    ("frames in nv12", (*FRAMES, "sizes", 0), ([91, 70],)),
    ("frames of a range", (*FRAMES, "maximum"), (None, [90], [90, 1 << 17])),
    ("frames of a range", ("input", "kernel"), ("lanczos",)),
    ("frames of a range", ("input", "coarse"), ([56, 56],)),
    ("bundled", (*MATCHING, "max_matches"), (0, 65537, 1.5)),
    ("bundled", (*MATCHING, "threshold"), (1.5, -0.1, "0.2")),
    ("bundled", (*MATCHING, "border"), (-1, 1.5)),
    ("bundled", (*MATCHING, "coarse_stride"), (0, 1025)),
    ("bundled", (*MATCHING, "default_score"), (2, None)),
    ("bundled", (*MATCHING, "mutual"), (1,)),
    ("bundled", (*TEST, "pair", "seed"), (-1, 2**31)),
    ("bundled", (*TEST, "pair", "shift"), ([0], [2**21, 0], [0, 0, 0])),
    ("bundled", (*TEST, "pair", "contrast"), (2**17, -1)),
    ("bundled", (*TEST, "kind"), ("warps",)),
    ("bundled", (*TEST, "within"), (0, 1.1)),
    ("bundled", (*TEST, "pixels"), (-1, None)),
    ("bundled", (*TEST, "answer"), (3, "AAAA", "AAA", "!" * 80, "=" * 80, "==")),
]

# What contradicts another field. A JSON Schema compares no value with another one, and reads no numbers out of texts.
CONTRADICTING: list[tuple[str, str, dict[Where, Any]]] = [
    ("a number that is no float", "bundled", {(*TEST, "answer"): "/" * 79 + "8"}),
    ("a float that is whole", "bundled", {("engine_bytes",): 5006675.0}),
    ("another height than the input's", "static", {("inputs", 0, "shape", 1): 56}),
    ("other channels than the input's", "static", {("inputs", 0, "shape", 3): 3}),
    ("another batch than the input's", "batch", {("outputs", 3, "shape", 0): 3}),
    ("more slots than there are matches", "bundled", {("outputs", 0, "shape", 1): 4096}),
    (
        "a height that is no multiple", "static",
        {("input", "height"): 44, ("inputs", 0, "shape", 1): 44, ("inputs", 2, "shape", 1): 44},
    ),
    ("a divisor of another stride", "bundled", {(*MATCHING, "coarse_stride"): 3}),
    ("a profile out of order", "bundled", {("input", "profile", "minimum"): [488, 64]}),
    ("a profile of no multiple", "bundled", {("input", "profile", "maximum"): [1020, 1024]}),
    ("a range out of order", "frames of a range", {(*FRAMES, "minimum"): [96, 64]}),
    ("frames of another size", "frames in nv12", {("inputs", 0, "shape", 1): 90}),
    ("matrices of another size", "frames of a range", {("inputs", 2, "shape", 0): 48}),
    ("matrices of another width", "frames of a range", {("inputs", 3, "shape", 1): 48}),
    ("a second pass of another size", "two passes", {("inputs", 1, "shape", 1): 64}),
]  # fmt: skip


@cache
def _good() -> dict[str, Any]:
    return {name: json.loads(manifest.to_json()) for name, manifest in good_manifests().items()}


def bad_manifests() -> Iterator[tuple[str, bool, str]]:
    """What is wrong, whether a JSON Schema can say it, and the text."""
    for name, where in LACKING:
        raw = json.loads(json.dumps(_good()[name]))
        del value_at(raw, where[:-1])[where[-1]]
        yield f"{name} without {where}", True, json.dumps(raw)
    for name, where in UNKNOWN:
        yield f"{name} with an unknown field in {where}", True, json.dumps(changed(_good()[name], (*where, "speed"), 1))
    for name, where, values in VALUES:
        for value in values:
            yield f"{name}: {where} is {str(value)[:40]!r}", True, json.dumps(changed(_good()[name], where, value))
    for name, inputs in _other_inputs():
        yield name, True, json.dumps({**_good()[name.split(":")[0]], "inputs": inputs})
    bundled = _good()["bundled"]
    twice = [*bundled["inputs"], {**bundled["inputs"][0], "shape": [1, "a", "b", 1]}]
    yield "a tensor twice", False, json.dumps({**bundled, "inputs": twice})
    for what, name, changes in CONTRADICTING:
        raw = _good()[name]
        for where, value in changes.items():
            raw = changed(raw, where, value)
        yield f"{name}: {what}", False, json.dumps(raw)


def _other_inputs() -> Iterator[tuple[str, list[Any]]]:
    inputs = {name: raw["inputs"] for name, raw in _good().items()}
    yield "frames in rgb: and images", [*inputs["frames in rgb"], *inputs["static"]]
    yield "frames in rgb: and sizes", [*inputs["frames in rgb"], *inputs["static"][1::2]]
    yield "bundled: and sizes", [*inputs["bundled"], *inputs["static"][1::2]]
    yield "bundled: and frames", [*inputs["bundled"], *inputs["frames in rgb"]]
    yield "bundled: the same twice", [*inputs["bundled"], inputs["bundled"][0]]
    yield "bundled: of a range", inputs["frames of a range"]
    for part in ("rounding", "scale", "columns"):
        rest = [spec for spec in inputs["frames of a range"] if not spec["name"].startswith(part)]
        yield f"frames of a range: without {part}", rest
    coarse = [spec for spec in inputs["frames of a range for two passes"] if not spec["name"].startswith("coarse")]
    yield "frames of a range for two passes: without the coarse ones", coarse
