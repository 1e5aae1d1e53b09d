"""What stands for the classes, functions and calls of a pickle.

Containers, bytes and records of tensors are made here, by functions of this package. Everything else becomes a
placeholder.
"""

from __future__ import annotations

from typing import Any

from matchrt.export.weights.files.inert import Aside, Inert
from matchrt.export.weights.files.names import Name, is_refused, parse_name
from matchrt.export.weights.files.problems import DamagedError, UnsafeError, shown
from matchrt.export.weights.files.rebuild import FUNCTIONS, is_known

# Operations and copied entries. A Lightning file of RoMa with its optimizer has 200,000.
_STEPS = 2_000_000
_CHARACTERS = 64  # as many are copied in one step
_LONGEST_NAME = 1 << 12  # of a class; each is compared with lists of names
_SMALL = 1 << 31

_CONTAINERS: dict[Name, type] = {
    Name("collections", "OrderedDict"): dict,
    Name("collections", "Counter"): dict,
    Name("builtins", "dict"): dict,
    Name("builtins", "list"): list,
    Name("builtins", "tuple"): tuple,
    Name("builtins", "set"): set,
    Name("builtins", "frozenset"): set,
}
_DEFAULTDICT = Name("collections", "defaultdict")
_ENCODE = Name("_codecs", "encode")
_GETATTR = Name("builtins", "getattr")
_TYPE = Name("builtins", "type")
_BYTES = (Name("builtins", "bytes"), Name("builtins", "bytearray"))
_RECONSTRUCTOR = Name("copyreg", "_reconstructor")
_NEW = (Name("copyreg", "__newobj__"), Name("copyreg", "__newobj_ex__"))
_PYTHON = (_DEFAULTDICT, _ENCODE, _GETATTR, _TYPE, *_BYTES, _RECONSTRUCTOR, *_NEW)


class Budget:
    """Bounds the work of reading one pickle, and with it the memory."""

    def __init__(self) -> None:
        self._left = _STEPS

    def spend(self, steps: int) -> None:
        """Raises UnsafeError if there are too many steps in all."""
        self._left -= steps
        if self._left < 0:
            raise UnsafeError(f"has a pickle of more than {_STEPS:,} steps, which no checkpoint needs")


class Calls:
    """Names and calls of one pickle.

    aside: counts the placeholders, and collects the names that no checkpoint has a use for.
    """

    def __init__(self, aside: Aside, budget: Budget) -> None:
        self._aside = aside
        self._budget = budget

    def name(self, module: object, name: object) -> Name:
        """A class or function that the pickle names. Raises DamagedError."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise DamagedError("its pickle names a class by something that is no text")
        if len(module) + len(name) > _LONGEST_NAME:
            raise DamagedError(f"its pickle names a class by a text of {len(module) + len(name):,} characters")
        found = parse_name(module, name)
        if not _is_real(found):
            self._aside.names(found)
        return found

    def create(self, kind: object, arguments: object) -> Any:
        """An object of a class. Raises DamagedError and UnsafeError."""
        if not isinstance(kind, Name) or not isinstance(arguments, tuple):
            raise DamagedError("its pickle makes an object of something that is no class")
        return self.call(kind, arguments)

    def call(self, function: Any, arguments: Any) -> Any:
        """What stands for the result of a call. Nothing that the pickle names is called.

        Raises DamagedError and UnsafeError; TypeError and ValueError if the arguments are not those of the function.
        """
        if not isinstance(arguments, tuple):
            raise DamagedError("its pickle calls something without arguments")
        if isinstance(function, Inert):
            return self._aside.makes(function.name)
        if not isinstance(function, Name):
            raise DamagedError("its pickle calls something that is no function")
        if function in FUNCTIONS:
            return FUNCTIONS[function](*arguments)
        if function in _CONTAINERS:
            return self._container(_CONTAINERS[function], arguments)
        if function in _PYTHON:
            return self._python(function, arguments)
        return self._aside.makes(function)

    def _container(self, kind: type, arguments: tuple[Any, ...]) -> Any:
        source = arguments[0] if arguments else ()
        if len(arguments) > 1 or not isinstance(source, list | tuple | set | dict):
            raise UnsafeError(f"makes a {kind.__name__} of something that may have any number of entries")
        self._budget.spend(len(source))
        if kind is set:
            return {as_key(value) for value in source}
        if kind is not dict:
            return kind(source)
        if isinstance(source, dict):
            return dict(source)
        return {as_key(key): value for key, value in source}

    def _python(self, function: Name, arguments: tuple[Any, ...]) -> Any:
        """Functions that pickle itself writes for ordinary data."""
        if function == _DEFAULTDICT:
            return self._container(dict, arguments[1:])
        if function == _ENCODE:
            return self._encode(*arguments)
        if function in _BYTES:
            return self._bytes(function, arguments)
        if function == _TYPE:
            return _type(arguments)
        if function == _GETATTR:
            return self._getattr(*arguments)
        made = self.create(arguments[0], ())
        if function == _RECONSTRUCTOR and isinstance(made, Inert) and isinstance(arguments[2], dict):
            made.items = arguments[2]
        return made

    def _encode(self, text: object, encoding: object = "latin1") -> bytes:
        """Bytes, which protocol 2 writes as a text of the same characters."""
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise UnsafeError("encodes a text as no pickle of a checkpoint does")
        self._budget.spend(len(text) // _CHARACTERS)
        return text.encode("latin-1")

    def _bytes(self, function: Name, arguments: tuple[Any, ...]) -> bytes:
        source = arguments[0] if arguments else b""
        if isinstance(source, int):
            raise UnsafeError(f"asks for memory without saying what to put there ({function.name} of {shown(source)})")
        if isinstance(source, str):
            return self._encode(*arguments)
        if not isinstance(source, bytes | bytearray | list):
            raise UnsafeError(f"makes {function.name} of something else than bytes")
        self._budget.spend(len(source) // _CHARACTERS if isinstance(source, bytes) else len(source))
        return bytes(source)

    def _getattr(self, owner: object, name: object) -> Inert:
        """A member of an enumeration, a method, or how an object is made, where pickle writes getattr(owner, name)."""
        plain = isinstance(name, str) and name.isidentifier() and (name[0] != "_" or name == "__new__")
        foreign = isinstance(owner, Inert) or (
            isinstance(owner, Name) and not _is_real(owner) and not is_refused(owner)
        )
        if not plain or not foreign:
            self._aside.refuse(_GETATTR)
        return self._aside.makes(f"{owner.name if isinstance(owner, Inert) else owner}.{name}")


def as_key(value: Any) -> Any:
    """A value as a key of a dict or an entry of a set.

    Texts, bytes, small numbers, names and placeholders are themselves. Any other key is replaced by an object that is
    equal to nothing: hashing a tuple of tuples may take for ever, and numbers can be chosen so that all have one hash.
    Keys of tensors are texts, so nothing is lost. Raises DamagedError for a container.
    """
    if value is None or isinstance(value, str | bytes | bool | Name | Inert):
        return value
    if isinstance(value, int) and -_SMALL < value < _SMALL:
        return value
    if isinstance(value, list | dict | set):
        raise DamagedError("its pickle takes a container for a key")
    return Inert(type(value).__name__)


def _is_real(name: Name) -> bool:
    return name in FUNCTIONS or name in _CONTAINERS or name in _PYTHON or is_known(name)


def _type(arguments: tuple[Any, ...]) -> Inert:
    """The class of None, which pickle writes as type(None). With three arguments it would make a class."""
    if len(arguments) != 1:
        raise UnsafeError("makes a class")
    return Inert("builtins.type")
