"""Pickles that ask for memory, time or depth: a named error, quickly and in little memory."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from support.pickles import archive, named, state, tensor, text

from matchrt.errors import MatchRTError
from matchrt.export.weights.read import read_checkpoint

GOOD = tensor("0", (4,), (1,))
RANGE = named("builtins", "range") + b"(J\xff\xff\xff\x7ftR"
UNSAFE, DAMAGED = "checkpoint-unsafe", "checkpoint-truncated"


def _bytearray(number: bytes) -> bytes:
    return named("builtins", "bytearray") + b"(" + number + b"tR"


def _laughs(levels: int) -> bytes:
    """A tuple of two equal tuples of two equal tuples …: the last one has 2**levels entries if it is walked through."""
    return b"X\x01\x00\x00\x00a" + b"".join(b"q\x07" + b"h\x07\x86" for _ in range(levels))


def _nested(opening: bytes, closing: bytes, depth: int) -> bytes:
    return opening * depth + closing * depth


HOSTILE: dict[str, tuple[bytes, str | None]] = {
    "three billion zeros": (_bytearray(b"\x8a\x05" + struct.pack("<q", 3_000_000_000)[:5]), UNSAFE),
    "as bytes": (named("builtins", "bytes") + b"(J" + struct.pack("<i", 2_000_000_000) + b"tR", UNSAFE),
    "as a new object": (named("builtins", "bytearray") + b"(J" + struct.pack("<i", 2_000_000_000) + b"t\x81", UNSAFE),
    "a list of a range": (named("builtins", "list") + b"(" + RANGE + b"tR", UNSAFE),
    "a set of a range": (named("builtins", "set") + b"(" + RANGE + b"tR", UNSAFE),
    "long bytes": (b"\x8e" + struct.pack("<Q", 1 << 40) + b"x", DAMAGED),
    "a long bytearray": (b"\x96" + struct.pack("<Q", 1 << 40) + b"x", DAMAGED),
    "a long text": (b"\x8d" + struct.pack("<Q", 1 << 40) + b"x", DAMAGED),
    "a long number": (b"\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"x", DAMAGED),
    "a negative length": (b"\x8b" + struct.pack("<i", -1), DAMAGED),
    "many digits": (b"I" + b"9" * 70_000 + b"\n", DAMAGED),
    "a huge memo": (b"Nr\xff\xff\xff\xff", None),
    "a huge frame": (b"\x95" + struct.pack("<Q", 1 << 62) + b"N", None),
    "laughs": (_laughs(3000), None),
    "laughs as a key": (b"}" + _laughs(3000) + b"Ns", None),
    "laughs in a set": (b"\x8f(" + _laughs(3000) + b"\x90", None),
    "deep lists": (_nested(b"]", b"a", 200_000)[:-1], None),
    "deep tuples": (b"N" + b"\x85" * 200_000, None),
    "deep dicts": (b"}" + _nested(b"N}", b"s", 100_000), None),
    "a circle of tuples": (b"]q\x01h\x01\x85a", None),
    "a dict in itself": (b"}q\x01" + text("a") + b"h\x01s", None),
    "numbers of one hash": (
        b"}(" + b"".join(b"\x8a\x10" + struct.pack("<QQ", *divmod(i * ((1 << 61) - 1), 1 << 64)[::-1]) + b"N"
                         for i in range(20_000)) + b"u", None),
    "a list as a key": (b"}]Ns", DAMAGED),
    "no memo": (b"h\x63", DAMAGED),
    "more than there is": (b"0000", DAMAGED),
    "a mark too many": (b"(", DAMAGED),
    "a registered class": (b"\x82\x01", UNSAFE),
    "out of band": (b"\x97", DAMAGED),
    "a foreign persistent id": (text("x") + b"Q", DAMAGED),
    "an unknown operation": (b"\xff", DAMAGED),
    "a class of three": (named("builtins", "type") + b"(" + text("A") + b")}tR", UNSAFE),
    "a number for a class": (b"K\x01K\x02\x93", DAMAGED),
    "a call of a number": (b"K\x01)R", DAMAGED),
    "not in ASCII": (b"c\xff\xfe\nb\n", DAMAGED),
    "no name": (b"ca\n\n)R", None),
    "a device of laughs": (named("torch", "device") + _laughs(3000) + b"\x85R", None),
    "a deep device": (named("torch", "device") + b"N" + b"\x85" * 200_000 + b"R", None),
    "a layout of a list in itself": (named("torch.serialization", "_get_layout") + b"]q\x01h\x01a\x85R", None),
    "a deep size": (named("torch", "Size") + b"N" + b"\x85" * 200_000 + b"R", DAMAGED),
    "a long name": (text("a." * 4_000_000) + text("b") + b"\x93", DAMAGED),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_cost_little(tmp_path: Path, name: str) -> None:
    """None stands for what is strange and harmless: the tensors beside it are read."""
    evil, code = HOSTILE[name]
    path = archive(tmp_path / "x.pt", state({"a": GOOD, "x": b"(" + evil + b"l" if name == "a huge memo" else evil}))
    tracemalloc.start()
    start = time.process_time()
    try:
        tensors = _read(path, code)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert time.process_time() - start < 20
    assert peak < 200 * path.stat().st_size + 20_000_000
    assert code is not None or "a" in tensors


def _read(path: Path, code: str | None) -> list[str]:
    if code is None:
        try:
            return list(read_checkpoint(path).tensors)
        except MatchRTError as error:
            # Beside a tensor there is a list or dict, so this is no state dict.
            assert error.code == "checkpoint-empty", error
            return ["a"]
    with pytest.raises(MatchRTError) as caught:
        read_checkpoint(path)
    assert caught.value.code == code, caught.value
    assert len(caught.value.message) < 600
    return []


@pytest.mark.parametrize("name", [name for name, (_, code) in HOSTILE.items() if code is None])
def test_what_is_strange_but_harmless_is_put_aside(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.pt"
    inner = state({"a": GOOD})[2:-1]
    archive(path, state({"state_dict": inner, "x": HOSTILE[name][0]}))
    found = read_checkpoint(path)
    assert list(found.tensors) == ["a"] and found.ignored == ("x",)


def test_a_file_inside_itself_is_refused(tmp_path: Path) -> None:
    for inside in (b"}q\x01" + text("model") + b"h\x01s", b"}q\x01" + text("a") + b"h\x01s"):
        archive(tmp_path / "x.pt", b"\x80\x02" + inside + b".")
        with pytest.raises(MatchRTError) as caught:
            read_checkpoint(tmp_path / "x.pt")
        assert caught.value.code == "checkpoint-empty"


def test_copies_of_one_text_are_counted(tmp_path: Path) -> None:
    """Each call copies a megabyte that the pickle holds once."""
    encode = b"h\x01h\x02\x85R0" * 500_000
    long = b"X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20) + b"q\x020"
    pickled = state({"a": GOOD, "x": named("_codecs", "encode") + b"q\x010" + long + encode + b"N"})
    start = time.process_time()
    assert _read(archive(tmp_path / "x.pt", pickled), UNSAFE) == []
    assert time.process_time() - start < 20


@pytest.mark.parametrize(("pushed", "number"), [(b"\x8f", 2_500_000), (b"}", 1_900_000), (b"ca\nb\n0N", 660_000)])
def test_many_small_objects_of_a_small_archive(tmp_path: Path, pushed: bytes, number: int) -> None:
    """A packed pickle of the same operation again and again is a few kB. An empty set takes 216 bytes."""
    pickled = b"\x80\x02(" + pushed * number + b"t."
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", pickled)
    assert path.stat().st_size < 20_000
    # Only a process of its own says what was taken: tracing millions of objects takes minutes.
    program = (
        "import resource, sys, pathlib\n"
        "from matchrt.errors import MatchRTError\n"
        "from matchrt.export.weights.read import read_stored\n"
        "before = resource.getrusage(resource.RUSAGE_SELF)\n"
        "try:\n"
        "    read_stored(pathlib.Path(sys.argv[1]))\n"
        "except MatchRTError as error:\n"
        "    after = resource.getrusage(resource.RUSAGE_SELF)\n"
        "    print(error.code, after.ru_maxrss - before.ru_maxrss, after.ru_utime - before.ru_utime)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    code, kilobytes, seconds = ran.stdout.split()
    assert code in (UNSAFE, "checkpoint-empty")
    assert int(kilobytes) < 300_000
    assert float(seconds) < 20


@pytest.mark.parametrize("shared", [2, 100])
def test_views_of_one_storage_are_bounded(tmp_path: Path, shared: int) -> None:
    """Tied weights are views of one storage. Thousands of them would be hours of hashing for a small file."""
    path = archive(tmp_path / "x.pt", state({f"k{index}": GOOD for index in range(shared)}))
    assert _read(path, None if shared == 2 else UNSAFE) == (["k0", "k1"] if shared == 2 else [])


@pytest.mark.parametrize("keys", [[[]], [{}], [("0",)], [1], ["0", "0"]])
def test_storages_of_the_old_format_are_named_by_texts(tmp_path: Path, keys: list[object]) -> None:
    magic, version, facts = 0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}
    head = b"".join(pickle.dumps(value, 2) for value in (magic, version, facts))
    rest = pickle.dumps(keys, 2) + struct.pack("<q4f", 4, 1, 2, 3, 4)
    path = tmp_path / "x.pt"
    path.write_bytes(head + state({"a": GOOD}) + rest)
    assert _read(path, DAMAGED) == []


@pytest.mark.parametrize("key", ["\ud800", "a\udfffb"])
def test_half_of_a_pair_of_surrogates(tmp_path: Path, key: str) -> None:
    path = tmp_path / "x.pt"
    assert _read(archive(path, state({key: GOOD})), DAMAGED) == []
    # Beside the tensors it does no harm, and can be printed.
    archive(path, state({"a": GOOD, key: b"K\x01"}))
    assert read_checkpoint(path).ignored[0].encode()
    archive(path, state({key: state({"a": GOOD})[2:-1]}))
    assert (read_checkpoint(path).wrapper or "").encode()
