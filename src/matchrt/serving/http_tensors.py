"""Inference requests and answers over HTTP: JSON, with tensors in it or as binary data after it.

The binary tensor data extension is described in github.com/triton-inference-server/server,
docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

import orjson

from matchrt.serving.failures import bad_request, too_large
from matchrt.serving.json_bounds import NumberText, loads
from matchrt.serving.tensors import (
    InferCall,
    Tensor,
    Wanted,
    byte_strings,
    from_bytes,
    from_slices,
    from_values,
    read_datatype,
    read_shape,
    text_count,
    to_bytes,
)

HEADER = "Inference-Header-Content-Length"
# Parsed numbers take many times the memory of their text.
MAX_JSON = 16 << 20


def read_call(body: bytes | bytearray, header: str | None) -> InferCall:
    """Reads a request's body. The tensors are views of it where they can be.

    header: the value of the header HEADER, which is the length of the JSON part in bytes; None without binary data.
    Errors: request-invalid, body-too-large.
    """
    size = len(body)
    if header is not None:
        if not (header.isascii() and header.isdigit() and int(header[:12]) <= len(body)):
            raise bad_request(f"{HEADER} is not a length within the body.", "Give the length of the JSON part.")
        size = int(header[:12])
    if size > MAX_JSON:
        raise too_large(MAX_JSON)
    value, numbers = loads(bytes(memoryview(body)[:size]))
    request = _object(value, "request")
    data = memoryview(body)[size:]
    tensors, used = _read_inputs(request.get("inputs"), data, numbers)
    if numbers:
        raise bad_request("A long list of numbers is no tensor's data.", "See /docs for the request's form.")
    if used != len(data):
        raise bad_request(f"{len(data) - used} bytes belong to no tensor.", "Send exactly the tensors' data.")
    request_id = request.get("id", "")
    if not isinstance(request_id, str):
        raise bad_request("'id' is not a text.", 'Give, for instance, "17".')
    parameters = _object(request.get("parameters", {}), "parameters")
    binary = parameters.pop("binary_data_output", False) is True
    return InferCall(tensors, parameters, _read_wanted(request.get("outputs"), binary), request_id)


def write_answer(
    model: str, version: str, call: InferCall, tensors: list[Tensor], wanted: tuple[Wanted, ...]
) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON part in bytes if binary data follow, else None.

    tensors, wanted: the outputs asked for, in the same order. Error: request-invalid.
    """
    outputs, blobs = [], []
    for output, tensor in zip(wanted, tensors, strict=True):
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.array.shape),
        }
        if output.binary:
            blobs.append(to_bytes(tensor))
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = tensor.array.ravel()
        outputs.append(entry)
    answer = {"model_name": model, "model_version": version, "outputs": outputs}
    if call.request_id:
        answer["id"] = call.request_id
    # orjson writes float32 as the shortest decimal that reads back to it.
    text = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join((text, *blobs)), len(text) if blobs else None


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad_request(f"'{what}' is not an object.", "See /docs for the request's form.")
    return value


def _read_inputs(entries: Any, data: memoryview, numbers: dict[str, NumberText]) -> tuple[dict[str, Tensor], int]:
    """The tensors, and the number of binary bytes that they take. Takes what it uses out of `numbers`."""
    if not isinstance(entries, list) or len(entries) > 64:
        raise bad_request("'inputs' is not a list of tensors.", "See /docs for the request's form.")
    tensors: dict[str, Tensor] = {}
    place = 0
    for item in entries:
        entry = _object(item, "inputs")
        name = entry.get("name")
        if not isinstance(name, str) or name in tensors:
            raise bad_request("An input's name is missing, is not a text, or is given twice.", "Name every input once.")
        name = name[:80]
        parameters = _object(entry.get("parameters", {}), "parameters")
        size = parameters.get("binary_data_size")
        if size is None:
            tensors[name] = _from_json(name, entry, parameters, numbers)
            continue
        if type(size) is not int or not 0 <= size <= len(data) - place:
            raise bad_request(f"'binary_data_size' of '{name}' is not within the body.", "Send the tensor's data.")
        shape, datatype = read_shape(name, entry.get("shape")), read_datatype(name, entry.get("datatype"))
        tensors[name] = from_bytes(name, datatype, shape, data[place : place + size])
        place += size
    return tensors, place


def _from_json(
    name: str, entry: Mapping[str, Any], parameters: Mapping[str, Any], numbers: dict[str, NumberText]
) -> Tensor:
    shape, datatype = read_shape(name, entry.get("shape")), read_datatype(name, entry.get("datatype"))
    if "data" not in entry:
        raise bad_request(f"'{name}' has neither data nor binary_data_size.", "Send one of them.")
    values = entry["data"]
    if datatype != "BYTES":
        text = numbers.pop(values, None) if isinstance(values, str) else None
        if text is None:
            return from_values(name, datatype, shape, values)
        if not text.check(shape):
            raise bad_request(f"The data of '{name}' are not a list of {list(shape)} numbers.", "Nest it so, or not.")
        return from_slices(name, datatype, shape, math.prod(shape), text.slices())
    count = text_count(name, shape)
    if not isinstance(values, list) or len(values) != count or not all(isinstance(value, str) for value in values):
        raise bad_request(f"'{name}' is not a list of {count} texts.", "Send one text an element.")
    encoded = parameters.get("content_type") == "base64"
    return byte_strings(name, shape, [_text_bytes(name, value, encoded) for value in values])


def _text_bytes(name: str, value: str, encoded: bool) -> bytes:
    if not encoded:
        return value.encode()
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_request(f"'{name}' is not base64.", "Encode the file's bytes as base64.") from error


def _read_wanted(entries: Any, binary: bool) -> tuple[Wanted, ...] | None:
    """The outputs that are asked for; None for all outputs, as text."""
    if entries is None:
        return None if not binary else (Wanted("", True),)
    if not isinstance(entries, list) or len(entries) > 64:
        raise bad_request("'outputs' is not a list.", "See /docs for the request's form.")
    wanted = []
    for item in entries:
        entry = _object(item, "outputs")
        name, parameters = entry.get("name"), _object(entry.get("parameters", {}), "parameters")
        if not isinstance(name, str):
            raise bad_request("An output's name is missing or is not a text.", "Name every output.")
        wanted.append(Wanted(name, parameters.get("binary_data", binary) is True))
    return tuple(wanted)
