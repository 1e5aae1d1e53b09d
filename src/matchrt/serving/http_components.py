"""The named schemas of the OpenAPI description, so that a generated client has one class for each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from matchrt.runtime.verdict import WORDS

Schema = dict[str, Any]
# OpenAPI 3.0 says `format: binary`; 3.1 says it by the media type. Generators look for the first.
FILE: Schema = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}


def ref(name: str) -> Schema:
    """A reference to the schema of that name in COMPONENTS. Raises nothing."""
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(required: Iterable[str] = (), /, **properties: Schema) -> Schema:
    """An object's schema. Raises nothing."""
    needed = list(required)
    return {"type": "object", **({"required": needed} if needed else {}), "properties": properties}


def list_of(item: Schema, description: str = "") -> Schema:
    """A list's schema. Raises nothing."""
    return {"type": "array", "items": item, **({"description": description} if description else {})}


def text(description: str = "", **more: Any) -> Schema:
    """A text's schema. Raises nothing."""
    return {"type": "string", **({"description": description} if description else {}), **more}


def whole(description: str = "") -> Schema:
    """The schema of a whole number from 0 on. Raises nothing."""
    return {"type": "integer", "minimum": 0, **({"description": description} if description else {})}


_KINDS = ("name", "datatype", "shape")
_PARAMETERS: Schema = {"type": "object", "additionalProperties": True}
_TEXTS = list_of(text())
_TIMES = ("compute_input", "compute_infer", "compute_output")
_DURATION = ref("StatisticDuration")
_REQUEST_COUNTS = ("success", "fail", "queue", *_TIMES)
_SIZES = list_of({"type": "integer", "minimum": -1}, "-1: any size")
_CONFIG_TENSOR = object_of(("name", "data_type", "dims"), name=text(), data_type=text(), dims=_SIZES)

_POINT: Schema = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_NUMBER: Schema = {"type": "number"}
_ROWS = list_of(list_of(_NUMBER))

COMPONENTS: dict[str, Schema] = {
    "Error": object_of(
        ("error", "code", "remedy"),
        error=text("What is wrong"),
        code=text("The error's name, which does not change", examples=["request-invalid"]),
        remedy=text("What to do about it"),
    ),
    "Tensor": object_of(
        _KINDS,
        name=text(),
        datatype=text(examples=["UINT8"]),
        shape=list_of(whole()),
        parameters={**_PARAMETERS, "description": "binary_data_size: bytes of binary data; content_type: base64"},
        data=list_of({}, "Row by row, flat or nested. Absent where the tensor comes as binary data"),
    ),
    "TensorDeclaration": object_of(_KINDS, name=text(), datatype=text(), shape=_SIZES),
    "InferRequest": object_of(
        ("inputs",),
        id=text("Comes back in the answer"),
        parameters={
            **_PARAMETERS,
            "description": "min_score: 0..1; rotate, zoom: off, auto; effort: normal, high; timeout: microseconds; "
            "binary_data_output: true for binary outputs",
        },
        inputs=list_of(ref("Tensor")),
        outputs=list_of(ref("OutputRequest"), "Absent for all"),
    ),
    "OutputRequest": object_of(
        ("name",), name=text(), parameters={**_PARAMETERS, "description": "binary_data: true for binary data"}
    ),
    "InferAnswer": object_of(
        ("model_name", "model_version", "outputs"),
        model_name=text(),
        model_version=text(),
        id=text(),
        outputs=list_of(ref("Tensor")),
    ),
    "ServerMetadata": object_of(("name", "version", "extensions"), name=text(), version=text(), extensions=_TEXTS),
    "ModelMetadata": object_of(
        ("name", "versions", "platform", "inputs", "outputs"),
        name=text(),
        versions=_TEXTS,
        platform=text(),
        inputs=list_of(ref("TensorDeclaration")),
        outputs=list_of(ref("TensorDeclaration")),
    ),
    "ModelConfig": object_of(
        ("name", "platform", "backend", "max_batch_size", "input", "output", "instance_group"),
        name=text(),
        platform=text(),
        backend=text(),
        version_policy={"type": "object"},
        max_batch_size=whole("0: one pair a request, and sizes are whole. Else sizes are without the rows"),
        input=list_of(_CONFIG_TENSOR),
        output=list_of(_CONFIG_TENSOR),
        instance_group=list_of(
            object_of(("name", "count", "kind"), name=text(), count=whole("Workers"), kind=text(examples=["KIND_CPU"]))
        ),
        dynamic_batching={"type": "object", "description": "Where pairs of several requests share a run"},
        parameters={"type": "object"},
        model_transaction_policy={"type": "object"},
    ),
    "StatisticDuration": object_of(("count", "ns"), count=whole(), ns=whole("Nanoseconds in all")),
    "ModelStatistics": object_of(
        ("name", "version", "last_inference", "inference_count", "execution_count", "inference_stats", "batch_stats"),
        name=text(),
        version=text(),
        last_inference=whole("Milliseconds since 1970; 0 for never"),
        inference_count=whole("Pairs"),
        execution_count=whole("Runs; several pairs may share one"),
        inference_stats=object_of(_REQUEST_COUNTS, **dict.fromkeys(_REQUEST_COUNTS, _DURATION)),
        batch_stats=list_of(
            object_of(("batch_size", *_TIMES), batch_size=whole(), **dict.fromkeys(_TIMES, _DURATION)),
            "By the pairs in a run",
        ),
    ),
    "Statistics": object_of(("model_stats",), model_stats=list_of(ref("ModelStatistics"))),
    "IndexRequest": object_of(ready={"type": "boolean", "description": "Only models that take requests"}),
    "ModelState": object_of(
        ("name", "version", "state", "reason"), name=text(), version=text(), state=text(), reason=text()
    ),
    "Engine": object_of(
        ("name", "model", "backend", "precision", "batch", "max_matches", "default_score"),
        name=text("What requests call it"),
        model=text("The network and its weights"),
        backend=text(),
        precision=text(),
        batch=whole("Pairs in one run, at most"),
        max_matches=whole("Matches of one pair, at most"),
        default_score={**_NUMBER, "description": "The smallest score of a match where min_score is not given"},
    ),
    "MatchedImage": object_of(
        ("name", "height", "width", "orientation"),
        name=text(),
        height=whole("Pixels, turned as EXIF says"),
        width=whole("Pixels, turned as EXIF says"),
        orientation={"type": ["integer", "null"], "description": "EXIF's, 1 to 8"},
    ),
    "Geometry": object_of(
        ("kind", "found", "inliers", "threshold_px", "estimator", "matrix"),
        kind=text("homography or fundamental"),
        found={"type": "boolean", "description": "Whether a model of that kind was found"},
        inliers=whole("Matches that agree with it"),
        threshold_px={**_NUMBER, "description": "The largest error of an inlier, pixels"},
        estimator=text(),
        matrix={
            **_ROWS,
            "type": ["array", "null"],
            "description": "3x3, row by row: a homography maps pixels of "
            "image0 to image1; a fundamental matrix F fulfils x1' F x0 = 0",
        },
    ),
    "Evidence": object_of(
        ("kind", "matches", "cells", "inliers", "coverage0", "coverage1", "homography", "fundamental", "sharpness"),
        kind={"type": ["string", "null"], "description": "The surer geometry, homography, fundamental or essential"},
        matches=whole("All matches"),
        cells=whole("Matches that stand for their surroundings: one for each cell of a grid"),
        inliers=whole("Those of them that the geometry explains better than chance"),
        coverage0={**_NUMBER, "description": "Share of image0's cells with such inliers, 0..1"},
        coverage1={**_NUMBER, "description": "The same of image1"},
        homography={**_NUMBER, "description": "log10 of a homography's number of false alarms"},
        fundamental={**_NUMBER, "description": "log10 of a fundamental matrix's number of false alarms"},
        sharpness={**_NUMBER, "description": "How closely the homography fits: digits of evidence for each inlier"},
        score_median={**_NUMBER, "description": "Of all matches; 0 without any"},
        score_high={**_NUMBER, "description": "The score that a tenth of the matches reach"},
    ),
    "Provenance": object_of(
        ("model", "engine_sha256", "precision", "backend", "matchrt_version"),
        model=text(),
        engine_sha256=text(),
        precision=text(),
        backend=text(),
        matchrt_version=text(),
        network_size0=list_of(whole(), "Height and width at which the network saw image0"),
        network_size1=list_of(whole(), "The same of image1"),
        apply_exif={"type": "boolean"},
        turned1={"type": "integer", "enum": [0, 90, 180, 270], "description": "How image1 was turned, clockwise"},
    ),
    "Timings": object_of(
        ("decode", "resize", "inference", "to_pixels"),
        decode={**_NUMBER, "description": "Milliseconds until both images were decoded"},
        resize={**_NUMBER, "description": "From then until both were resized"},
        inference={**_NUMBER, "description": "The engine's run"},
        to_pixels={**_NUMBER, "description": "Scaling the matches back"},
        judge={**_NUMBER, "description": "All verdicts, with rotate, zoom or effort"},
        retry={**_NUMBER, "description": "All further runs"},
    ),
    "MatchAnswer": object_of(
        (
            *("matches", "verdict", "probability", "log10_nfa", "evidence", "keypoints0", "keypoints1", "scores"),
            *("image0", "image1", "timings_ms", "provenance"),
        ),
        matches=whole("How many there are"),
        verdict=text("Whether both images show the same thing", enum=list(WORDS)),
        probability={**_NUMBER, "minimum": 0, "maximum": 1, "description": "That they do"},
        log10_nfa={**_NUMBER, "description": "log10 of the number of false alarms that chance would give, at most 0"},
        evidence={**ref("Evidence"), "description": "What the verdict rests on"},
        keypoints0=list_of(_POINT, "x, y in pixels of image0; its top-left pixel's centre is 0, 0"),
        keypoints1=list_of(_POINT, "The same of image1"),
        scores=list_of(_NUMBER, "0..1, best first"),
        inliers=list_of({"type": "boolean"}, "With verify"),
        geometry={**ref("Geometry"), "description": "With verify"},
        image0=ref("MatchedImage"),
        image1=ref("MatchedImage"),
        pixels=text("Whose pixels the keypoints are in: upright, as EXIF turns the images"),
        warnings=_TEXTS,
        advice=list_of(text(), "What may find more, if the verdict is not match"),
        picture=text("base64, with picture"),
        timings_ms=ref("Timings"),
        provenance=ref("Provenance"),
    ),
}
