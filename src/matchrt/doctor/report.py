"""The whole report of `matchrt doctor`."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from typing import Any

from matchrt.doctor.ask import ask
from matchrt.doctor.machine import Gpus, read_gpus
from matchrt.doctor.packages import ORT_CUDA, Packages, installed_packages
from matchrt.doctor.stored import StoreState, examine_store
from matchrt.doctor.verdicts import BackendState, judge
from matchrt.nvidia.modules import BACKENDS as NVIDIA
from matchrt.runtime.backends import DEFAULT_BACKEND
from matchrt.store import EngineStore, open_store


@dataclass(frozen=True)
class Examination:
    """What was found on this machine.

    system: operating system and architecture.
    python: Python's version.
    packages: the installed packages and their versions.
    providers: names of ONNX Runtime's execution providers; empty if it could not be asked.
    gpus: the GPUs, and the driver's and CUDA's versions.
    backends: for each backend that has engines, whether it builds and runs here.
    store: the engine store.
    """

    system: str
    python: str
    packages: Packages
    providers: tuple[str, ...]
    gpus: Gpus
    backends: tuple[BackendState, ...]
    store: StoreState

    @property
    def healthy(self) -> bool:
        """Whether the default task works: matching with the bundled engine on the CPU."""
        return next(backend.runs.works for backend in self.backends if backend.name == DEFAULT_BACKEND)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        found = asdict(self)
        found["packages"] = dict(self.packages.versions)
        found["warnings"] = list(self.packages.warnings)
        found["gpus"]["why_none"] = dict(self.gpus.why_none) if self.gpus.why_none else None
        return {"healthy": self.healthy, **found}


def examine(store: EngineStore | None = None) -> Examination:
    """Examines this machine. Everything that may crash is tried in its own process.

    store: the store to examine; None for the default one.
    """
    packages = installed_packages()
    answers = ask(_probes(packages))
    gpus = read_gpus(answers["gpus"])
    backends = judge(packages, answers, gpus)
    matching = answers["matching"].value
    return Examination(
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        packages=packages,
        providers=tuple(matching["providers"]) if matching else (),
        gpus=gpus,
        backends=backends,
        store=examine_store(store or open_store(), backends, gpus),
    )


def _probes(packages: Packages) -> tuple[str, ...]:
    """The names of the probes that make sense here."""
    nvidia = tuple(name for name in NVIDIA if _importable(name))
    cuda = ("onnxruntime-cuda",) if packages.has(ORT_CUDA) else ()
    openvino = ("openvino",) if packages.has("openvino") else ()
    return ("matching", "gpus", *openvino, *cuda, *nvidia)


def _importable(module: str) -> bool:
    """Whether the module can be imported. Vendors' images also install modules without package metadata."""
    from importlib.util import find_spec

    return find_spec(module) is not None
