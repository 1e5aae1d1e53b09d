"""What was measured: an engine's backend and precision, how its runs are launched, what memory they take."""

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
    """An engine to open: by file or model name, of which backend (None: the one that there is), with graphs or not."""

    engine: str
    backend: str | None = None
    cuda_graph: bool = True


@dataclass(frozen=True)
class EngineFacts:
    """launch: as `Session.launch_mode` said after the runs. memory: of one session, None where it is not known."""

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
    """Of an open engine; its launch mode is known after a few runs."""
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
    """Each TensorRT engine once more, launched kernel by kernel, right after itself. Error: bench-nothing."""
    expanded: dict[str, Choice] = {}
    for name, choice in named.items():
        expanded[name] = choice
        path = engine_path(choice.engine, store, choice.backend)
        if get_backend(read_manifest(manifest_path(path)).backend).cuda_graphs:
            expanded[f"{name}, no graph"] = Choice(choice.engine, choice.backend, cuda_graph=False)
    if len(expanded) == len(named):
        raise MatchRTError(
            "bench-nothing", "--compare-launch has no TensorRT engine to compare.", "Name one, or leave it out."
        )
    return expanded


def name_engines(engines: Iterable[str], backends: Iterable[str | None]) -> dict[str, Choice]:
    """Engines by a short name that tells them apart: no folders, which are nobody's business in a report."""
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
        return f"{contract.height}x{contract.width}"
    (low_h, low_w), (high_h, high_w) = profile.minimum, profile.maximum
    return f"{low_h}x{low_w} to {high_h}x{high_w}"
