"""Reads a pickle without running it: containers, numbers, texts and torch's tensors, and placeholders for the rest.

The opcodes are parsed by `pickletools` of the standard library, which builds nothing. What they ask for is done here.
Real are dicts, lists, tuples, sets, numbers, texts, bytes, and torch's rebuild functions, of which records come
(`rebuild.py`). A class or function of any other name becomes a `Name`, and its objects become `Inert`: nothing is
imported, called, or given attributes. There is no recursion, and what is made is in proportion to the pickle's size.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from matchrt.export.weights.files.calls import Budget, Calls, as_key
from matchrt.export.weights.files.inert import Aside, Inert
from matchrt.export.weights.files.problems import DamagedError, UnsafeError
from matchrt.export.weights.files.rebuild import storage
from matchrt.export.weights.files.records import StorageRecord

_MARK = object()
_LONGEST_LINE = 1 << 16
# Operations of one byte that take more memory than others, in steps: an empty set has 216 bytes.
_COSTS = {"EMPTY_SET": 4, "FROZENSET": 4}
_ERRORS = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, struct.error)


class _Bounded:
    """A stream of which no more can be asked than there is, so that no memory is taken for a length that is a lie."""

    def __init__(self, stream: BinaryIO, end: int) -> None:
        self._stream = stream
        self._end = end

    def read(self, number: int) -> bytes:
        if number > self._end - self._stream.tell():
            raise DamagedError("a length in its pickle is larger than the rest of it")
        return self._stream.read(number)

    def readline(self) -> bytes:
        return self._stream.readline(max(0, min(_LONGEST_LINE, self._end - self._stream.tell())))

    def tell(self) -> int:
        return self._stream.tell()


def unpickle(stream: BinaryIO, end: int, aside: Aside, storages: dict[str, StorageRecord]) -> Any:
    """What a pickle holds. The stream stands behind it afterwards.

    end: where the stream's bytes end.
    aside: counts what is put aside, and collects names that no checkpoint has a use for.
    storages: gets every storage that the pickle names, by key.
    Raises DamagedError and UnsafeError.
    """
    machine = _Machine(aside, storages)
    try:
        for operation, argument, _ in pickletools.genops(cast(BinaryIO, _Bounded(stream, end))):
            if operation.name == "STOP":
                return machine.result()
            machine.run(operation.name, argument)
    except (DamagedError, UnsafeError):
        raise
    except _ERRORS as error:
        # Whatever a damaged pickle makes of the stack, of lengths, and of arguments.
        raise DamagedError(f"its pickle breaks off or makes no sense ({type(error).__name__})") from error
    raise DamagedError("its pickle has no end")


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self, aside: Aside, storages: dict[str, StorageRecord]) -> None:
        self.storages = storages
        self.budget = Budget()
        self.calls = Calls(aside, self.budget)
        self.stack: list[Any] = []
        # A list would grow to the largest number that a pickle names.
        self.memo: dict[int, Any] = {}

    def run(self, operation: str, argument: Any) -> None:
        """One operation, by the name that pickletools has for it."""
        self.budget.spend(_COSTS.get(operation, 1))
        if operation in _VALUES:
            self.stack.append(argument)
        elif operation in _CONSTANTS:
            self.stack.append(_CONSTANTS[operation]())
        elif operation in _OPERATIONS:
            _OPERATIONS[operation](self, argument)
        elif operation.startswith("EXT"):
            raise UnsafeError("names a class by a number that only another program knows")
        else:
            raise DamagedError(f"its pickle has the operation {operation}, which no checkpoint has")

    def result(self) -> Any:
        """What is left on the stack at the end."""
        if len(self.stack) != 1:
            raise DamagedError("its pickle ends before its objects do")
        return self.pop()

    def pop(self) -> Any:
        """The last object."""
        self.top()
        return self.stack.pop()

    def top(self) -> Any:
        """The last object, which stays."""
        if self.stack[-1] is _MARK:
            raise DamagedError("its pickle takes a mark for an object")
        return self.stack[-1]

    def last(self, number: int) -> list[Any]:
        """The last objects, in the order of the file."""
        return [self.pop() for _ in range(number)][::-1]

    def to_mark(self) -> list[Any]:
        """The objects above the last mark, which goes too."""
        taken: list[Any] = []
        while (value := self.stack.pop()) is not _MARK:
            taken.append(value)
        taken.reverse()
        return taken

    def drop(self) -> None:
        """Forgets the last object, or a mark."""
        self.stack.pop()

    def put(self, number: int | None) -> None:
        """Keeps the last object in the memo, under the next number if none is given."""
        self.memo[len(self.memo) if number is None else number] = self.top()

    def append(self, values: list[Any]) -> None:
        """Puts values at the end of the list below them."""
        target = self.top()
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Inert):
            raise DamagedError("its pickle appends to something that is no list")

    def add(self, values: list[Any]) -> None:
        """Puts values into the set below them."""
        target = self.top()
        if isinstance(target, set):
            target.update(map(as_key, values))
        elif not isinstance(target, Inert):
            raise DamagedError("its pickle adds to something that is no set")

    def set_items(self, values: list[Any]) -> None:
        """Puts keys and values into the dict below them, or into the placeholder of a dict of a foreign class."""
        target = self.top()
        _fill(target.items if isinstance(target, Inert) else target, values)

    def build(self) -> None:
        """Attributes of an object. A placeholder keeps them, and no method of anything runs; others lose them."""
        state, target = self.pop(), self.top()
        if isinstance(target, Inert):
            target.state = state[0] if isinstance(state, tuple) and state else state

    def new(self, number: int) -> None:
        """An object of a class with `number` arguments on the stack, of which named ones are dropped."""
        kind, arguments = self.last(number)[:2]
        self.stack.append(self.calls.create(kind, arguments))

    def refer(self) -> None:
        """The storage that is named by the last object."""
        record = storage(self.pop())
        if self.storages.setdefault(record.key, record) != record:
            raise DamagedError("two tensors state different sizes or types of their storage")
        self.stack.append(record)

    def instance(self, argument: str | None) -> None:
        """An object as protocols 0 and 1 write it. argument: module and name; None if the class is on the stack."""
        values = self.to_mark()
        kind = values.pop(0) if argument is None else self.calls.name(*argument.split(" ", 1))
        self.stack.append(self.calls.create(kind, tuple(values)))


def _fill(target: Any, values: list[Any]) -> Any:
    if not isinstance(target, dict) or len(values) % 2:
        raise DamagedError("its pickle puts entries into something that is no dict")
    for key, value in zip(values[::2], values[1::2], strict=True):
        target[as_key(key)] = value
    return target


def _old_text(value: str) -> str:
    """A text of Python 2, which pickletools reads as latin-1, and torch as UTF-8."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


_VALUES = frozenset({
    "INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
})  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "MARK": lambda: _MARK,
}
# By name: what to do with the machine and the operation's argument.
_OPERATIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda m, argument: None,
    "FRAME": lambda m, argument: None,
    "STRING": lambda m, argument: m.stack.append(_old_text(argument)),
    "BINSTRING": lambda m, argument: m.stack.append(_old_text(argument)),
    "SHORT_BINSTRING": lambda m, argument: m.stack.append(_old_text(argument)),
    "TUPLE1": lambda m, argument: m.stack.append(tuple(m.last(1))),
    "TUPLE2": lambda m, argument: m.stack.append(tuple(m.last(2))),
    "TUPLE3": lambda m, argument: m.stack.append(tuple(m.last(3))),
    "TUPLE": lambda m, argument: m.stack.append(tuple(m.to_mark())),
    "LIST": lambda m, argument: m.stack.append(m.to_mark()),
    "DICT": lambda m, argument: m.stack.append(_fill({}, m.to_mark())),
    "FROZENSET": lambda m, argument: m.stack.append(set(map(as_key, m.to_mark()))),
    "APPEND": lambda m, argument: m.append(m.last(1)),
    "APPENDS": lambda m, argument: m.append(m.to_mark()),
    "SETITEM": lambda m, argument: m.set_items(m.last(2)),
    "SETITEMS": lambda m, argument: m.set_items(m.to_mark()),
    "ADDITEMS": lambda m, argument: m.add(m.to_mark()),
    "POP": lambda m, argument: m.drop(),
    "POP_MARK": lambda m, argument: m.to_mark(),
    "DUP": lambda m, argument: m.stack.append(m.top()),
    "PUT": lambda m, argument: m.put(argument),
    "BINPUT": lambda m, argument: m.put(argument),
    "LONG_BINPUT": lambda m, argument: m.put(argument),
    "MEMOIZE": lambda m, argument: m.put(None),
    "GET": lambda m, argument: m.stack.append(m.memo[argument]),
    "BINGET": lambda m, argument: m.stack.append(m.memo[argument]),
    "LONG_BINGET": lambda m, argument: m.stack.append(m.memo[argument]),
    "GLOBAL": lambda m, argument: m.stack.append(m.calls.name(*argument.split(" ", 1))),
    "STACK_GLOBAL": lambda m, argument: m.stack.append(m.calls.name(*m.last(2))),
    "REDUCE": lambda m, argument: m.stack.append(m.calls.call(*m.last(2))),
    "NEWOBJ": lambda m, argument: m.new(2),
    "NEWOBJ_EX": lambda m, argument: m.new(3),
    "OBJ": lambda m, argument: m.instance(None),
    "INST": lambda m, argument: m.instance(argument),
    "BUILD": lambda m, argument: m.build(),
    "BINPERSID": lambda m, argument: m.refer(),
}
