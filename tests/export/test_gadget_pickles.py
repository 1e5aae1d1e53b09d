"""Pickles that run code when others unpickle them: nothing runs here, and the file is refused by name."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
import torch
from support.pickles import archive, named, state, tensor, text

from matchrt.errors import MatchRTError
from matchrt.export.weights.read import read_checkpoint

MARK = "{mark}"
WRITE = f"open({MARK!r}, 'w')"


def _call(module: str, name: str, *arguments: bytes) -> bytes:
    return named(module, name) + b"(" + b"".join(arguments) + b"tR"


def _partial(module: str, name: str, *arguments: bytes) -> bytes:
    made = named("functools", "partial") + b"(" + named(module, name) + b"".join(arguments) + b"t\x81"
    return made + b"(" + named(module, name) + b"(" + b"".join(arguments) + b"t}Ntb"


# What runs, by name: opcodes that push its result. MARK stands for a file that must not be made.
GADGETS: dict[str, bytes] = {
    "os.system": _call("os", "system", text(f"touch {MARK}")),
    "posix.system": _call("posix", "system", text(f"touch {MARK}")),
    "nt.system": _call("nt", "system", text(f"touch {MARK}")),
    "os.mkdir": _call("os", "mkdir", text(MARK)),
    "subprocess.Popen": _call("subprocess", "Popen", text(f"touch {MARK}")),
    "subprocess.check_output": _call("subprocess", "check_output", text(f"touch {MARK}")),
    "pty.spawn": _call("pty", "spawn", text("true")),
    "builtins.eval": _call("builtins", "eval", text(WRITE)),
    "builtins.exec": _call("builtins", "exec", text(WRITE)),
    "builtins.open": _call("builtins", "open", text(MARK), text("w")),
    "builtins.__import__": _call("builtins", "__import__", text("antigravity")),
    "__builtin__.eval": _call("__builtin__", "eval", text(WRITE)),
    "builtins.getattr": _call("builtins", "getattr", named("collections", "OrderedDict"), text("__init__")),
    "builtins.map": _call("builtins", "map", named("builtins", "list"), b"]"),
    "builtins.compile": _call("builtins", "compile", text(WRITE), text("x"), text("exec")),
    "builtins.globals": _call("builtins", "globals"),
    "runpy.run_path": _call("runpy", "run_path", text(MARK)),
    "code.InteractiveInterpreter": _call("code", "InteractiveInterpreter"),
    "importlib.import_module": _call("importlib", "import_module", text("antigravity")),
    "shutil.rmtree": _call("shutil", "rmtree", text(MARK)),
    "webbrowser.open": _call("webbrowser", "open", text("x")),
    "timeit.timeit": _call("timeit", "timeit", text(WRITE)),
    "cProfile.run": _call("cProfile", "run", text(WRITE)),
    "pdb.run": _call("pdb", "run", text(WRITE)),
    "types.FunctionType": _call("types", "FunctionType", b"N", b"}"),
    "operator.attrgetter": _call("operator", "attrgetter", text("system")),
    "_io.FileIO": _call("_io", "FileIO", text(MARK), text("w")),
    "ctypes.CDLL": _call("ctypes", "CDLL", text("libc.so.6")),
    "socket.create_connection": _call("socket", "create_connection", text("x")),
    "pickle.loads": _call("pickle", "loads", b"C\x01."),
    "marshal.loads": _call("marshal", "loads", b"C\x01."),
    "pip.main": _call("pip", "main", b"]"),
    "numpy.load": _call("numpy", "load", text(MARK)),
    "numpy.testing._private.utils.runstring": _call("numpy.testing._private.utils", "runstring", text(WRITE), b"}"),
    "torch.load": _call("torch", "load", text(MARK)),
    "torch.hub.load": _call("torch.hub", "load", text("x"), text("y")),
    "torch.storage._load_from_bytes": _call("torch.storage", "_load_from_bytes", b"C\x01."),
    "torch.utils.bottleneck.__main__.run_cprofile": _call("torch.utils.bottleneck.__main__", "run_cprofile", b"N"),
    "torch.fx.graph_module.reduce_graph_module": _call("torch.fx.graph_module", "reduce_graph_module", b"}", text("x")),
    "commands.getoutput": _call("commands", "getoutput", text(f"touch {MARK}")),
    "a partial of os.system": _partial("os", "system", text(f"touch {MARK}")),
    "an object of os._wrap_close": named("os", "_wrap_close") + b"(" + text(MARK) + b"t\x81}b",
    "an instance of protocol 0": b"(" + text(f"touch {MARK}") + b"ios\nsystem\n",
    "an object of protocol 1": b"(" + named("os", "system") + text(f"touch {MARK}") + b"o",
    "through a module": b"\x8c\x05numpy\x8c\x09os.system\x93(" + text(f"touch {MARK}") + b"tR",
    "through a method": b"\x8c\x0btorch.optim\x8c\x19Adam.__init__.__globals__\x93",
    "state of a class": named("os", "system") + b"}" + text("a") + text("b") + b"sb",
    "only named": named("os", "system"),
    "made and dropped": _call("os", "system", text(f"touch {MARK}")) + b"0N",
}  # fmt: skip


@pytest.mark.parametrize("name", GADGETS)
@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_runs_and_the_file_is_refused(
    tmp_path: Path, name: str, legacy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, path = tmp_path / "RAN", tmp_path / "x.pt"
    evil = GADGETS[name]
    if MARK.encode() in evil:  # texts carry their length, so the place is as long as its stand-in
        monkeypatch.chdir(tmp_path)
        evil, mark = evil.replace(MARK.encode(), b"RAN___"), tmp_path / "RAN___"
    pickled = state({"a": tensor("0", (4,), (1,)), "x": evil})
    if legacy:
        path.write_bytes(b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {})) + pickled)
    else:
        archive(path, pickled)
    before = set(sys.modules)
    with pytest.raises(MatchRTError) as caught:
        read_checkpoint(path)
    assert caught.value.code == "checkpoint-unsafe", caught.value
    assert not mark.exists() and "antigravity" not in set(sys.modules) - before
    today = {"__builtin__.eval": "builtins.eval", "commands.getoutput": "subprocess.getoutput"}.get(name, name)
    assert " " in name or today in caught.value.message


def test_messages_have_no_control_characters(tmp_path: Path) -> None:
    for evil in (
        named("os", "sys\x1b[2Jtem"),
        tensor("0", (4,), (1,), kind="\x1b[2JStorage"),
        b"\x8c\x02os\x8c\x03\nab\x93",
    ):
        archive(tmp_path / "x.pt", state({"a": evil}))
        with pytest.raises(MatchRTError) as caught:
            read_checkpoint(tmp_path / "x.pt")
        assert caught.value.message.isprintable()


def test_these_gadgets_do_run_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pickles above are not refused because they are broken."""
    monkeypatch.chdir(tmp_path)
    for name in ("os.mkdir", "builtins.eval", "os.system", "an instance of protocol 0", "an object of protocol 1"):
        evil = state({"x": GADGETS[name].replace(MARK.encode(), b"RAN___")})
        pickle.loads(evil)
        mark = tmp_path / "RAN___"
        assert mark.exists(), name
        mark.rmdir() if mark.is_dir() else mark.unlink()


def test_a_bare_pickle_without_code_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"state_dict": {"a": 1}}))
    with pytest.raises(MatchRTError) as caught:
        read_checkpoint(path)
    assert caught.value.code == "checkpoint-format" and "plain pickle" in caught.value.message


def test_tensors_beside_harmless_classes_are_read(tmp_path: Path) -> None:
    """The other side of the rule: data classes of the standard library are no reason to refuse."""
    import datetime
    import decimal
    import uuid
    from collections import Counter, deque

    beside = [datetime.datetime.now(datetime.timezone.utc), decimal.Decimal(1), uuid.uuid4(), deque([1]),
              Counter("aab"), ValueError("x"), range(3), slice(1), complex(1, 2), frozenset({1}), b"bytes",
              bytearray(b"b"), type(None), Path(), Ellipsis, {(1, 2): 3, 1.5: 2, 1 << 90: 4}]  # fmt: skip
    for protocol in range(2, 6):
        torch.save({"state_dict": {"a": torch.ones(2)}, "beside": beside}, tmp_path / "x.pt", pickle_protocol=protocol)
        assert list(read_checkpoint(tmp_path / "x.pt").tensors) == ["a"]
