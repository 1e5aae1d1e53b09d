"""Bounds before parsing: JSON, forms, packed bodies and gRPC messages, and that what is in bounds is read exactly."""

from __future__ import annotations

import gzip
import json
import random
import time
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from support.scripts import bench_script

from matchrt.errors import MatchRTError
from matchrt.serving import body as bodies
from matchrt.serving.admission import Admission
from matchrt.serving.body import Body
from matchrt.serving.grpc_bounds import check_infer, check_small
from matchrt.serving.grpc_messages import message
from matchrt.serving.grpc_tensors import read_call as read_message
from matchrt.serving.http_multipart import read_boundary, read_parts
from matchrt.serving.http_tensors import MAX_JSON, read_call
from matchrt.serving.json_bounds import MAX_ELEMENTS, MAX_LISTS, loads
from matchrt.serving.tensors import MAX_TEXTS


def code_of(action: Any, *arguments: Any) -> str:
    with pytest.raises(MatchRTError) as caught:
        action(*arguments)
    return caught.value.code


def entry(data: str, shape: list[int], datatype: str = "UINT8") -> bytes:
    return f'{{"inputs":[{{"name":"a","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}'.encode()


def tensor(data: str, shape: list[int], datatype: str = "UINT8") -> Any:
    return read_call(entry(data, shape, datatype), None).tensors["a"].array


# ---------------------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize(("shape", "datatype"), [
    ([3, 4], "UINT8"), ([480, 640, 1], "UINT8"), ([200, 300, 3], "UINT8"), ([90_000], "INT32"), ([3, 40_000], "FP32"),
    ([2, 2, 50_000], "INT64"), ([1, 1, 1], "FP64"), ([0, 5], "UINT8"), ([70_000, 1], "UINT16"),
])  # fmt: skip
@pytest.mark.parametrize("blank", [("", ""), (" ", "\n")])
def test_numbers_are_read_exactly(shape: list[int], datatype: str, blank: tuple[str, str]) -> None:
    """Flat and nested, short and long."""
    rng = np.random.default_rng(1)
    values: Any = rng.integers(0, 255, shape) if "INT" in datatype else rng.normal(0, 1e3, shape).astype(np.float32)
    for nested in (values, values.ravel()):
        text = json.dumps(nested.tolist(), separators=(f",{blank[0]}", ":")).replace("]]", f"]{blank[1]}]")
        array = tensor(text, shape, datatype)
        assert array.shape == tuple(shape) and np.array_equal(array, values.astype(array.dtype))


def test_lists_may_be_nested_in_any_way() -> None:
    values = np.arange(240_000) % 251
    for nested in ((240_000, 1), (600, 400), (600, 400, 1), (1, 600, 400, 1), (2, 3, 100, 400), (1, 1, 1, 240_000)):
        text = json.dumps(values.reshape(nested).tolist(), separators=(",", ":"))
        assert np.array_equal(tensor(text, [600, 400, 1]).ravel(), values)
        assert code_of(tensor, text, [600, 401, 1]) == "request-invalid"
        for place in (len(text) // 2, len(text) - 5, 3):
            # A bracket too many or too few, anywhere.
            cut = text.find(",", place)
            for bad in (text[:cut] + "]" + text[cut:], text[:cut] + "],[" + text[cut + 1 :]):
                assert code_of(tensor, bad, [600, 400, 1]) == "request-invalid" or nested == (240_000, 1)


def test_two_long_lists_and_texts_between() -> None:
    first, second = list(range(90_000)), [7.5] * 80_000
    inputs = [
        {"name": name, "shape": [len(data)], "datatype": "FP64", "data": data}
        for name, data in (("a", first), ("[1,2]", second))
    ]
    call = read_call(json.dumps({"id": "[" * 9, "inputs": inputs, "parameters": {"x": [1, 2]}}).encode(), None)
    assert call.tensors["a"].array.tolist() == first and call.tensors["[1,2]"].array.tolist() == second
    assert call.request_id == "[" * 9 and call.parameters == {"x": [1, 2]}


LONG = "1," * 90_000


@pytest.mark.parametrize(("data", "shape"), [
    (f"[{LONG}1]", [90_000]),  # one too many
    (f"[{LONG}]", [90_000]),
    (f"[{LONG},1]", [90_002]),
    (f"[{LONG}1 1]", [90_001]),
    (f"[{LONG}1e]", [90_001]),
    (f"[{LONG}-]", [90_001]),
    (f"[[{LONG}1]", [90_001]),
    (f"[{LONG}1]]", [90_001]),
    (f"[[{LONG}1],[1]]", [90_002]),
    (f"[[1],[{LONG}1]]", [90_002]),
    ("[" * 9 + f"{LONG}1" + "]" * 9, [90_001]),
    (f"[{LONG}[1]]", [90_001]),
    (f"[[{LONG}1],[{LONG}1]]", [90_001, 2]),
    (f"[{LONG}256]", [90_001]),
    (f"[{LONG}-1]", [90_001]),
    (f"[{LONG}0.5]", [90_001]),
    (f"[{LONG}1]", [2**31 - 1, 2**31 - 1]),
    (f'"[{LONG}1]"', [90_001]),
    ("[" * 200_000, [1]),
    ("[" * 200_000 + "]" * 200_000, [1]),
    ("1" * 200_000, [1]),
    ("[" + "1" * 200_000 + "]", [1]),
    (json.dumps(["x" * 100_000, "a"]), [2]),
    (json.dumps([["x" * 100_000], ["a"]]), [2, 1]),
    (json.dumps([1, "2"]), [2]),
    (json.dumps([1, None]), [2]),
    (json.dumps([1, {}]), [2]),
    (json.dumps([[1, 2], [3]]), [3]),
    (json.dumps([]), [1]),
    (json.dumps([1]), [0]),
])  # fmt: skip
def test_data_that_are_no_tensor(data: str, shape: list[int]) -> None:
    assert code_of(tensor, data, shape) == "request-invalid"


@pytest.mark.parametrize("text", [
    b"[" + b"[null]," * (MAX_LISTS + 1) + b"1]",
    b"[" + b"true," * (MAX_ELEMENTS + 1) + b"1]",
    b"[" + b'"",' * (MAX_ELEMENTS + 1) + b"1]",
    b"[" + b"{}," * 2000 + b"1]",
    b'{"a":' * 2000 + b"1" + b"}" * 2000,
    b"[" * 60_000,
    b'"' + b"[" * 300_000,
    b"[1,2" + b" " * 300_000,
])  # fmt: skip
def test_json_beyond_the_bounds(text: bytes) -> None:
    assert code_of(loads, text) == "request-invalid"


def test_a_long_list_where_none_belongs() -> None:
    for text in (f'{{"id":[{LONG}1],"inputs":[]}}', f'{{"inputs":[{LONG}1]}}', f"[{LONG}1]"):
        assert code_of(read_call, text.encode(), None) == "request-invalid"


def test_hostile_json_takes_little_memory_and_time() -> None:
    """The texts of each of these were gigabytes, or seconds of the interpreter's lock."""
    million = 1_000_000
    hostile = [
        entry(json.dumps(["x" * million, *["a"] * 400]), [401, 1, 1]),
        entry("[" + "[1]," * 3 * million + "[1]]", [7]),
        entry("[" + "1," * 7 * million + "1]", [7, 7]),
        entry("[" * 15 * million, [1]),
        b'{"inputs":[' + b"{}," * 5 * million + b"{}]}",
        entry(json.dumps([""] * million), [million], "BYTES"),
    ]
    for text in hostile:
        assert len(text) <= MAX_JSON
        tracemalloc.start()
        start = time.monotonic()
        assert code_of(read_call, text, None) == "request-invalid"
        took, (_, most) = time.monotonic() - start, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 5 * len(text) + 40 * million and took < 10


def test_texts_are_few() -> None:
    def binary(count: int, data: bytes) -> Any:
        size = {"binary_data_size": len(data)}
        wish = {"inputs": [{"name": "a", "datatype": "BYTES", "shape": [count], "parameters": size}]}
        head = json.dumps(wish).encode()
        return read_call(head + data, str(len(head))).tensors["a"].array

    assert binary(2, b"\1\0\0\0x\0\0\0\0").tolist() == [b"x", b""]
    assert code_of(binary, MAX_TEXTS + 1, bytes(4 * (MAX_TEXTS + 1))) == "request-invalid"
    assert len(binary(MAX_TEXTS, bytes(4 * MAX_TEXTS))) == MAX_TEXTS


# ---------------------------------------------------------------------------------------------------------------- form


def part(name: str, content: bytes, filename: str | None = "x.png") -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    return f'--BB\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"


def test_forms_are_read_exactly() -> None:
    rng = random.Random(3)
    hostile = (b"", b"\r\n", b"\r--BB", b"\r\n--B", b"\r\n--", b"\r\r\n\n", b" --BB--", bytes(range(256)))
    for _ in range(300):
        contents = {f"f{number}": b"".join(rng.choices(hostile, k=rng.randint(0, 5))) for number in range(5)}
        body = b"".join(part(name, content) for name, content in contents.items()) + b"--BB--\r\n"
        parts = read_parts(body, b"BB")
        assert {name: bytes(one.content) for name, one in parts.items()} == contents
    large = rng.randbytes(3 << 20)
    assert bytes(read_parts(bytearray(part("a", large) + b"--BB--"), b"BB")["a"].content) == large


def test_parts_of_a_form() -> None:
    body = (
        b"before\r\n" + part("t", b"\xc3\xa9", None) + part("f", b"1", "a b.png") + part("t", b"2", None) + b"--BB--x"
    )
    parts = read_parts(body, b"BB")
    assert parts["t"].text() == "2" and parts["f"].filename == "a b.png" and bytes(parts["f"].content) == b"1"
    assert code_of(parts["f"].text) == "request-invalid"
    assert read_boundary('multipart/form-data; charset=utf-8; boundary="a b"') == b"a b"


@pytest.mark.parametrize("body", [
    b"", b"--", b"--BB", b"--BB\r\n", b"--BB--", b"x--BB\r\n", part("a", b"1"), part("a", b"1")[:-1] + b"--BB--",
    b"--BBB\r\n" + part("a", b"1")[6:] + b"--BB--", b"--BB\r\n\r\n1\r\n--BB--",
    b'--BB\r\nContent-Disposition: form-data; filename="x"\r\n\r\n1\r\n--BB--',
    b"--BB\r\nContent-Type: x\r\n\r\n1\r\n--BB--", b"--BB\r\nContent-Disposition: file; name=a\r\n\r\n1\r\n--BB--",
    b"".join(part(f"f{n}", b"") for n in range(17)) + b"--BB--",
    b"--BB\r\n" + b"A: b\r\n" * 2000 + b"\r\n1\r\n--BB--",
])  # fmt: skip
def test_forms_that_are_none(body: bytes) -> None:
    def read() -> None:
        parts = read_parts(body, b"BB")
        assert parts  # what has no part is refused as a form without files

    with pytest.raises((MatchRTError, AssertionError)) as caught:
        read()
    assert isinstance(caught.value, AssertionError) == (body == b"--BB--")


def test_boundaries_that_are_none() -> None:
    for text in (
        "",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"multipart/form-data; boundary={'b' * 71}",
    ):
        assert code_of(read_boundary, text) == "request-invalid"


def test_texts_of_a_form() -> None:
    for content in (b"\xff", b"e" * 5000):
        assert code_of(read_parts(part("a", content, None) + b"--BB--", b"BB")["a"].text) == "request-invalid"


# -------------------------------------------------------------------------------------------------------------- packed


def unpack(data: bytes, encoding: str = "gzip", limit: int = 5_000_000) -> Any:
    one = Body(Admission(1, 4 * limit).enter(), limit, encoding)
    one._content += data
    return bytes(one.take())


def test_packed_bodies_are_unpacked_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    noise = rng.randbytes(300_000)
    for step in (1 << 20, 1000, 77):
        monkeypatch.setattr(bodies, "_STEP", step)
        for content in (b"", b"x", bytes(200_000), noise, noise + bytes(100_000), b"ab" * 99_999):
            assert unpack(gzip.compress(content)) == content
            assert unpack(zlib.compress(content), "deflate") == content
            assert unpack(gzip.compress(content) + b"rest") == content
        for bad in (b"", b"x", gzip.compress(noise)[:-9], gzip.compress(b"")[:-1], zlib.compress(noise)):
            assert code_of(unpack, bad) == "request-invalid"
    monkeypatch.undo()
    assert code_of(unpack, gzip.compress(bytes(5_000_001))) == "body-too-large"
    assert len(unpack(gzip.compress(bytes(5_000_000)))) == 5_000_000


# ---------------------------------------------------------------------------------------------------------------- gRPC


field = bench_script("serve_attacks").field


def good() -> Any:
    request = message("ModelInferRequest")(model_name="m", id="7")
    request.parameters["min_score"].double_param = 0.5
    request.inputs.add(name="a", datatype="INT32", shape=[2, 3]).contents.int_contents.extend(
        [1, -2, 3, 4, 5, 2**31 - 1]
    )
    request.inputs.add(name="b", datatype="FP64", shape=[1]).contents.fp64_contents.append(0.5)
    request.inputs.add(name="c", datatype="BYTES", shape=[2]).contents.bytes_contents.extend([b"x", b""])
    request.outputs.add(name="o")
    return request


def test_good_messages_are_in_bounds() -> None:
    raw = good().SerializeToString()
    check_infer(raw)
    check_infer(b"")
    call = read_message(good())
    assert call.tensors["a"].array.tolist() == [[1, -2, 3], [4, 5, 2**31 - 1]]
    assert call.tensors["c"].array.tolist() == [b"x", b""]
    large = message("ModelInferRequest")()
    large.inputs.add(name="a", datatype="INT64", shape=[200_000]).contents.int64_contents.extend(range(200_000))
    check_infer(large.SerializeToString())
    assert read_message(large).tensors["a"].array.tolist() == list(range(200_000))
    files = message("ModelInferRequest")(raw_input_contents=[bytes(5_000_000)] * 2)
    check_infer(files.SerializeToString())


MB = 1_000_000


@pytest.mark.parametrize("raw", [
    b"\x2a\x00" * MB, b"\x32\x00" * MB, b"\x3a\x00" * MB, b"\x22\x00" * MB, b"\x78\x00" * MB,
    field(5, b"\x22\x00" * MB), field(5, field(3, bytes(MB))), field(5, field(1, bytes(MB))), field(6, bytes(MB)),
    field(5, field(5, field(5, bytes(17 * MB)))), field(5, field(5, b"\x08\x00" * MB)),
    field(5, field(5, field(2, bytes(9 * MB)))), field(5, field(5, b"\x42\x00" * MB)),
    b"".join(field(5, field(5, field(6, bytes(9 * MB)))) for _ in range(2)),
    field(1, bytes(MB)), b"\x0b" * 100, b"\x2a", b"\x2a\xff", b"\x2a\x05", b"\xff" * 11, b"\x80" * 200, b"\x3d\x00",
    b"\x39\x00", b"\x2a" + b"\xff" * 9 + b"\x7f", field(5, b"\x2a\x09"), field(5, field(5, b"\x0d")),
])  # fmt: skip
def test_messages_beyond_the_bounds(raw: bytes) -> None:
    tracemalloc.start()
    assert code_of(check_infer, raw) == "request-invalid"
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20 * MB


def test_the_count_agrees_with_protobuf() -> None:
    """What protobuf reads is walked without an error, whatever was done to the bytes."""
    from google.protobuf.message import DecodeError

    rng, raw = random.Random(9), good().SerializeToString()
    read = 0
    for _ in range(5000):
        bad = bytearray(raw)
        for _ in range(rng.randint(1, 3)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        try:
            message("ModelInferRequest").FromString(bytes(bad))
        except DecodeError:
            continue
        read += 1
        try:
            check_infer(bytes(bad))
        except MatchRTError as error:  # a group, which the protocol does not have
            assert "not the call's message" in error.message
            assert any(byte & 7 in (3, 4) for byte in bad)
    assert read > 500


def test_small_messages_are_small() -> None:
    check_small(bytes(60_000))
    assert code_of(check_small, bytes(70_000)) == "request-invalid"
