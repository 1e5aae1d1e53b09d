"""The classes and functions that a pickle names: which are data, and which no checkpoint has a use for.

Nothing that a pickle names is ever imported or called, so the difference is not what keeps the program safe. It tells a
training checkpoint with foreign classes beside the weights from a file that somebody made to run code elsewhere.
"""

from __future__ import annotations

import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from dataclasses import dataclass


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names. It is never imported.

    module: dotted.
    name: inside the module, dotted if it is nested.
    """

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


# Modules of former Pythons that have no other name today.
_FORMER = frozenset({"imp", "new", "popen2"})

# The standard library's classes that hold data only, and the functions that pickle itself writes for data.
_DATA: dict[str, frozenset[str]] = {
    module: frozenset(names.split())
    for module, names in {
        "_codecs": "encode",
        "_io": "BytesIO StringIO",
        "_operator": "getitem",  # typing.Optional[int] is pickled with it
        "argparse": "Namespace",
        "array": "array _array_reconstructor",
        "builtins": "object type dict list tuple set frozenset str bytes bytearray int float complex bool slice range "
        "NotImplemented Ellipsis abs len max min round sum",
        "collections": "OrderedDict defaultdict deque Counter ChainMap UserDict UserList UserString",
        "configparser": "ConfigParser RawConfigParser SectionProxy ConverterMapping BasicInterpolation Interpolation "
        "ExtendedInterpolation",
        "copyreg": "_reconstructor __newobj__ __newobj_ex__",
        "datetime": "date time datetime timedelta timezone",
        "decimal": "Decimal",
        "enum": "Enum IntEnum StrEnum Flag IntFlag auto",
        "fractions": "Fraction",
        "functools": "partial",
        "itertools": "count cycle repeat chain",
        "logging": "Logger getLogger",
        "numbers": "Number Real Integral",
        "optparse": "Values",
        "pathlib": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
        "pathlib._local": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
        "random": "Random",
        "re": "_compile",
        "signal": "Signals",
        "time": "struct_time",
        "types": "SimpleNamespace MappingProxyType NoneType GenericAlias",
        "uuid": "UUID SafeUUID",
        "zoneinfo": "ZoneInfo ZoneInfo._unpickle",
    }.items()
}

# Functions and modules of packages, often installed beside torch, that run or load what they are given. All are
# compared in one step, because a pickle may hold a million names.
_RUNNERS = tuple(f"{runner}." for runner in (
    "IPython",
    "_pytest",
    "distutils",
    "numpy.distutils",
    "numpy.f2py",
    "numpy.load",
    "numpy.testing",
    "pip",
    "pkg_resources",
    "pytest",
    "setuptools",
    "torch._dynamo.guards",
    "torch._inductor",
    "torch.compile",
    "torch.distributed.elastic",
    "torch.distributed.rpc",
    "torch.distributed.run",
    "torch.fx",
    "torch.hub",
    "torch.jit",
    "torch.load",
    "torch.ops",
    "torch.package",
    "torch.serialization.load",
    "torch.storage._load_from_bytes",
    "torch.utils.bottleneck",
    "torch.utils.cpp_extension",
))  # fmt: skip


def parse_name(module: str, name: str) -> Name:
    """The name as Python 3 has it; protocol 2, which torch uses, writes Python 2's. Raises nothing."""
    return Name(*NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name)))


def is_refused(name: Name) -> bool:
    """Whether no checkpoint has a use for what is named, as for `os.system`. Raises nothing."""
    if f"{name}.".startswith(_RUNNERS):
        return True
    root, path = name.module.split(".")[0], name.name.split(".")
    if root in sys.stdlib_module_names or root in _FORMER:
        return not _is_data(name)
    # A way through a module to what it imports, such as ("numpy", "os.system"), or to what every object has.
    return any(part in sys.stdlib_module_names for part in path[:-1]) or any(_is_special(part) for part in path)


def _is_data(name: Name) -> bool:
    if name.name in _DATA.get(name.module, ()):
        return True
    if name.module == "builtins":
        return name.name.isidentifier() and name.name.endswith(("Error", "Exception", "Warning"))
    if name.module == "math":
        return True
    return name.module == "typing" and name.name.isidentifier() and name.name[:1].isupper()


def _is_special(part: str) -> bool:
    return part.startswith("__") and part.endswith("__")
