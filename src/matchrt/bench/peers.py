"""Peers of an engine in the same run: the same network in torch, eager and compiled, and other runtimes of its graph.

Only runs are measured, from prepared inputs in host memory to outputs in host memory, in turn with the engine's own. A
peer that is not installed, or cannot run the network, is left out with its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from matchrt.bench.latency import LatencyOptions, LatencyReport, Subject, measure, session_subject
from matchrt.bench.scene import engine_inputs
from matchrt.errors import MatchRTError
from matchrt.runtime.backend import get_backend
from matchrt.runtime.backends import DEFAULT_BACKEND, backend_names, built_for
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.opening import open_session
from matchrt.runtime.session import Device, Session, SessionOptions

if TYPE_CHECKING:
    from contextlib import ExitStack

OURS = "this engine"


@dataclass(frozen=True)
class PeerReport:
    """An engine and its peers.

    engine: its name in the report.
    latency: the runs, in turn; the engine comes first.
    skipped: why a peer was left out, by its name.
    """

    engine: str
    latency: LatencyReport
    skipped: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"engine": self.engine, "skipped": self.skipped, **self.latency.to_json()}


def measure_peers(
    name: str,
    file: EngineFile,
    session: Session,
    options: LatencyOptions,
    stack: ExitStack,
    advance: Callable[[], None] | None = None,
    threads: int | None = None,
) -> PeerReport:
    """Measures an engine beside its peers.

    name: in the report. file: the engine. session: that runs it. stack: closes the peers. threads: CPU threads of one
    run; None for each runtime's choice. Error: bench-runs.
    """
    inputs = engine_inputs(file.manifest)
    subjects: dict[str, Subject] = {OURS: session_subject(session, inputs)}
    skipped: dict[str, str] = {}
    for peer, make in _peers(file, session, inputs, stack, threads).items():
        try:
            subject = make()
            subject()  # compiles, and shows whether it runs at all
            subjects[peer] = subject
        except MatchRTError as error:
            skipped[peer] = error.message
        except Exception as error:  # torch and its compiler raise dozens of types of their own
            skipped[peer] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    return PeerReport(name, measure(subjects, options, advance=advance), skipped)


def _peers(
    file: EngineFile, session: Session, inputs: Any, stack: ExitStack, threads: int | None
) -> dict[str, Callable[[], Subject]]:
    manifest = file.manifest
    peers: dict[str, Callable[[], Subject]] = {}
    if get_backend(manifest.backend).onnx_engines:
        for backend, device in _runtimes(manifest.backend):
            label = backend if device is None else f"{backend}, {device}"
            peers[label] = lambda b=backend, d=device: _other(file, b, d, inputs, stack, threads)  # type: ignore[misc]
    where = "cuda" if session.asynchronous else "cpu"
    for label, compiled in ((f"torch eager, {where}", False), (f"torch compiled, {where}", True)):
        peers[label] = lambda c=compiled: _torch(manifest, inputs, where, c, threads)  # type: ignore[misc]
    return peers


def _runtimes(own: str) -> list[tuple[str, Device | None]]:
    """Other ways of running the same ONNX graph."""
    same = [name for name in backend_names() if name != own and built_for(name) == built_for(own)]
    return [*((name, None) for name in same), (DEFAULT_BACKEND, "cuda")]


def _other(
    file: EngineFile, backend: str, device: Device | None, inputs: Any, stack: ExitStack, threads: int | None
) -> Subject:
    options = SessionOptions(threads=threads, device=device)
    session = open_session(replace(file, manifest=replace(file.manifest, backend=backend)), options)
    stack.callback(session.close)
    return session_subject(session, inputs)


def _torch(manifest: Any, inputs: Any, where: str, compiled: bool, threads: int | None) -> Subject:
    """The deployed network in torch; in float16 by autocast on a GPU, as the engine's products are."""
    if find_spec("torch") is None:
        raise MatchRTError("package-missing", "torch is not installed.", "pip install torch")
    import torch

    from matchrt.export.weights.network import load_network
    from matchrt.families.registry import get_spec

    spec, matching = get_spec(manifest.model), manifest.matching
    size = (manifest.input.height, manifest.input.width)
    fixed = None if None in size else size
    loaded = load_network(spec, None, threshold=matching.threshold, mutual=matching.mutual, size=fixed)
    if loaded.checkpoint.tensors_sha256 != manifest.source.tensors_sha256:
        raise MatchRTError("bench-peer", "The checkpoint at hand is not the engine's.", "Build the engine from it.")
    if threads is not None:
        torch.set_num_threads(threads)
    graph: Any = loaded.spec.family.graph(loaded.network, matching.max_matches, published=False).eval().to(where)
    run: Any = torch.compile(graph) if compiled else graph
    names = [spec.name for spec in manifest.inputs]

    def call() -> None:
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=where == "cuda"):
            for value in run(*(torch.from_numpy(inputs[name]).to(where) for name in names)):
                value.cpu()

    return call
