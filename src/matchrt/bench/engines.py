"""Facts about measured engines: backend, precision, how runs are launched, and how much memory they take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, InputContract, manifest_path, read_manifest
from matchrt.runtime.backend import get_backend
from matchrt.runtime.engine_file import engine_path
from matchrt.store import EngineStore

if TYPE_CHECKING:
    from matchrt.runtime.matcher import Matcher
    from matchrt.runtime.session import SessionMemory


@dataclass(frozen=True)
class Choice:
    """An engine to open.

    engine: file of an engine, or a model's name.
    backend: which backend's engine is meant if a name has several; None if there is only one.
    cuda_graph: whether runs are launched as CUDA graphs, where the backend has them.
    """

    engine: str
    backend: str | None = None
    cuda_graph: bool = True


@dataclass(frozen=True)
class EngineFacts:
    """What a report says about a measured engine.

    name: the engine's name in the report.
    model: the name of the model.
    backend: the name of the backend.
    backend_version: the backend's version.
    precision: `fp32`, `fp16`, `int8` or `fp8`.
    input: height x width in pixels as text, or the range of sizes of a dynamic engine.
    launch: how runs were launched, as `Session.launch_mode` said after the runs.
    engine_bytes: size of the engine file in bytes.
    memory: memory of one session; None if the backend does not tell.
    """

    name: str
    model: str
    backend: str
    backend_version: str
    precision: str
    input: str
    launch: str
    engine_bytes: int
    memory: SessionMemory | None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def engine_facts(name: str, matcher: Matcher) -> EngineFacts:
    """The facts about an open engine. Call it after a few runs: only then is the launch mode known."""
    manifest: EngineManifest = matcher.manifest
    return EngineFacts(
        name=name,
        model=manifest.model,
        backend=manifest.backend,
        backend_version=manifest.backend_version,
        precision=manifest.precision,
        input=_size(manifest.input),
        launch=matcher.session.launch_mode(),
        engine_bytes=manifest.engine_bytes,
        memory=matcher.session.memory(),
    )


def without_graphs(named: dict[str, Choice], store: EngineStore) -> dict[str, Choice]:
    """The engines, each TensorRT one followed by itself without CUDA graphs. Error: bench-nothing if there is none."""
    expanded: dict[str, Choice] = {}
    for name, choice in named.items():
        expanded[name] = choice
        path = engine_path(choice.engine, store, choice.backend)
        if get_backend(read_manifest(manifest_path(path)).backend).cuda_graphs:
            expanded[f"{name}, no graph"] = Choice(choice.engine, choice.backend, cuda_graph=False)
    if len(expanded) == len(named):
        raise MatchRTError(
            "bench-nothing",
            "--compare-launch has no TensorRT engine to compare.",
            "Name a TensorRT engine, or leave the option out.",
        )
    return expanded


def name_engines(engines: Iterable[str], backends: Iterable[str | None]) -> dict[str, Choice]:
    """Engines by a short, unique name. The name has no folders, because private paths do not belong in a report."""
    backends = tuple(backends)
    named: dict[str, Choice] = {}
    for given in engines:
        for backend in backends:
            name = given.replace("\\", "/").rsplit("/", 1)[-1]
            name = name if len(backends) == 1 else f"{name} {backend}"
            label, repeat = name, 2
            while label in named:
                label, repeat = f"{name} #{repeat}", repeat + 1
            named[label] = Choice(given, backend)
    return named


def _size(contract: InputContract) -> str:
    profile = contract.profile
    if profile is None:
        frames = "" if contract.frames is None else f", frames of {contract.frames}"
        return f"{contract.height}x{contract.width}{frames}"
    (low_h, low_w), (high_h, high_w) = profile.minimum, profile.maximum
    return f"{low_h}x{low_w} to {high_h}x{high_w}"
