"""What gRPC answers to calls that are wrong, too many, too late, or from strangers; and the protocol's file."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.serving_clients import Ask, asked, infer
from support.serving_stub import SIDE, StubSession, opened

import matchrt.serving
from matchrt.errors import MatchRTError
from matchrt.serving.grpc_messages import compiled, message
from matchrt.serving.grpc_server import make_server
from matchrt.serving.models import models_of

PROTO = Path(matchrt.serving.__file__).with_name("open_inference.proto")


def test_raw_and_typed_contents(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(ask: Ask, service: Any) -> None:
        typed = infer()
        del typed.raw_input_contents[:]
        for index, entry in enumerate(typed.inputs):
            entry.contents.uint_contents.extend([index + 5] * SIDE**2)
        raw, same = await ask("ModelInfer", infer(id="x")), await ask("ModelInfer", typed)
        assert list(raw.raw_output_contents) == list(same.raw_output_contents)
        assert raw.id == "x" and raw.outputs[1].name == "keypoints1" and list(raw.outputs[1].shape) == [1, 2]

    asked(monkeypatch, StubSession(), test)


def bad_calls() -> list[tuple[Any, str]]:
    swapped, twice, both, short, extra = infer(), infer(), infer(), infer(), infer()
    swapped.inputs[1].name = "other"
    twice.inputs[1].name = "image0"
    both.inputs[0].contents.uint_contents.append(1)
    short.raw_input_contents[1] = b"xy"
    extra.raw_input_contents.append(b"z")
    memory, shape, kind, wanted, score = infer(), infer(), infer(), infer(), infer()
    memory.inputs[0].parameters["shared_memory_region"].string_param = "x"
    shape.inputs[0].shape[0] = -5
    kind.inputs[0].datatype = "BYTES"
    wanted.outputs.add(name="nothing")
    score.parameters["min_score"].string_param = "x"
    bad = [
        swapped,
        twice,
        both,
        short,
        extra,
        memory,
        shape,
        kind,
        wanted,
        score,
        b"\xff\xff",
        infer(model_version="9"),
    ]
    return [
        *((call, "INVALID_ARGUMENT") for call in bad[:-1]),
        (bad[-1], "NOT_FOUND"),
        (infer(model_name="other"), "NOT_FOUND"),
    ]


def test_bad_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(ask: Ask, service: Any) -> None:
        for call, status in bad_calls():
            assert await ask("ModelInfer", call) == status, call
        assert (await ask("ModelInfer", infer())).outputs
        assert await ask("ModelReady", message("ModelReadyRequest")(name="other")) == "NOT_FOUND"

    asked(monkeypatch, StubSession(), test)


def test_too_large_too_many_too_late_too_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    session = StubSession()

    async def test(ask: Ask, service: Any) -> None:
        large = infer()
        large.raw_input_contents[0] = bytes(100_000)
        assert await ask("ModelInfer", large) == "RESOURCE_EXHAUSTED"
        session.go.clear()
        late = asyncio.ensure_future(ask("ModelInfer", infer(), timeout=0.5))
        while service._taken == 0:
            await asyncio.sleep(0.002)
        assert await ask("ModelInfer", infer()) == "RESOURCE_EXHAUSTED"
        assert await late == "DEADLINE_EXCEEDED"
        session.go.set()
        while service._taken:
            await asyncio.sleep(0.002)
        timed = infer()
        timed.parameters["timeout"].int64_param = 1
        assert await ask("ModelInfer", timed) == "DEADLINE_EXCEEDED"
        service._draining = True
        assert await ask("ModelInfer", infer()) == "UNAVAILABLE"
        assert not (await ask("ServerReady", b"")).ready and (await ask("ServerLive", b"")).live

    asked(monkeypatch, session, test, queue=0, max_body=50_000)


def test_the_shorter_of_both_deadlines_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's own limit ends a call whose caller would wait longer."""
    session = StubSession()

    async def test(ask: Ask, service: Any) -> None:
        session.go.clear()
        start = time.perf_counter()
        assert await ask("ModelInfer", infer(), timeout=4) == "DEADLINE_EXCEEDED"
        assert time.perf_counter() - start < 2
        session.go.set()
        assert (await ask("ModelInfer", infer(), timeout=4)).outputs

    asked(monkeypatch, session, test, timeout=0.3)


def test_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(ask: Ask, service: Any) -> None:
        assert await ask("ModelInfer", infer()) == "UNAUTHENTICATED"
        assert await ask("ServerMetadata", b"", metadata=(("authorization", "Bearer other"),)) == "UNAUTHENTICATED"
        assert (await ask("ServerMetadata", b"", metadata=(("authorization", "Bearer secret"),))).name == "matchrt"
        assert (await ask("ServerLive", b"")).live

    asked(monkeypatch, StubSession(), test, token="secret")


def test_our_own_mistakes_tell_nothing_to_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    session = StubSession()

    async def test(ask: Ask, service: Any) -> None:
        session.failure = RuntimeError("/secret/path")
        assert await ask("ModelInfer", infer()) == "INTERNAL"

    asked(monkeypatch, session, test)


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as taken,
            opened(monkeypatch, StubSession(), grpc=taken.getsockname()[1]) as service,
        ):
            with pytest.raises(MatchRTError) as raised:
                make_server(service, models_of(service))
            assert raised.value.code == "port-taken"

    asyncio.run(main())


def test_the_compiled_form_is_of_the_file(tmp_path: Path) -> None:
    compiler = [sys.executable, "-m", "grpc_tools.protoc"] if importlib.util.find_spec("grpc_tools") else None
    if compiler is None and shutil.which("protoc"):
        compiler = ["protoc"]
    if compiler is None:
        pytest.skip("neither grpcio-tools nor protoc is installed")
    output = tmp_path / "set"
    subprocess.run([*compiler, f"-I{PROTO.parent}", f"--descriptor_set_out={output}", PROTO.name], check=True)
    assert output.read_bytes() == compiled()


def test_names_and_numbers_are_tritons() -> None:
    """Every message, field and call of ours is in the protocol file that Triton's clients bring, with its number."""
    service_pb2 = pytest.importorskip("tritonclient.grpc").service_pb2
    from google.protobuf import descriptor_pb2
    from tritonclient.grpc import model_config_pb2

    ours = descriptor_pb2.FileDescriptorSet.FromString(compiled()).file[0]
    theirs = descriptor_pb2.FileDescriptorProto()
    # The first is the protocol, the second has its messages about a model's configuration.
    for file in (service_pb2, model_config_pb2):
        one = descriptor_pb2.FileDescriptorProto()
        file.DESCRIPTOR.CopyToProto(one)
        theirs.MergeFrom(one)
    assert ours.package == theirs.package

    def compare_enums(mine: Any, other: Any) -> None:
        enums = {entry.name: {value.name: value.number for value in entry.value} for entry in other.enum_type}
        for entry in mine.enum_type:
            assert {value.name: value.number for value in entry.value}.items() <= enums[entry.name].items()

    def compare(mine: Any, other: Any) -> None:
        known = {field.name: field for field in other.field}
        for field in mine.field:
            same = known[field.name]
            assert (field.number, field.type, field.label, field.type_name) == (
                same.number, same.type, same.label, same.type_name,
            ), field.name  # fmt: skip
        compare_enums(mine, other)
        nested = {entry.name: entry for entry in other.nested_type}
        for entry in mine.nested_type:
            compare(entry, nested[entry.name])

    messages = {entry.name: entry for entry in theirs.message_type}
    for entry in ours.message_type:
        compare(entry, messages[entry.name])
    compare_enums(ours, theirs)

    def methods(file: Any) -> dict[str, tuple[Any, ...]]:
        return {
            one.name: (one.input_type, one.output_type, one.client_streaming, one.server_streaming)
            for one in file.service[0].method
        }

    assert ours.service[0].name == theirs.service[0].name
    assert methods(ours).items() <= methods(theirs).items()
