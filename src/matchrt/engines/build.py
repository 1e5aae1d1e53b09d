"""An ONNX graph and what is known of it to an engine with its manifest."""

from __future__ import annotations

from dataclasses import dataclass, field

from matchrt._util.digest import sha256_bytes
from matchrt._version import __version__
from matchrt.manifest import EngineManifest, InputContract, MatchContract, PassRecord, Source
from matchrt.runtime.backend import Builder, Tell


@dataclass(frozen=True)
class GraphFacts:
    """What the manifest says of the graph, whatever runs it."""

    model: str
    family: str
    precision: str
    source: Source
    input: InputContract
    matching: MatchContract
    passes: tuple[PassRecord, ...]
    build_key: str
    checks: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Engine:
    """Engine bytes and their manifest."""

    data: bytes
    manifest: EngineManifest


def build_engine(model: bytes, facts: GraphFacts, builder: Builder, tell: Tell | None = None) -> Engine:
    """Builds `model` (ONNX bytes) with `builder`; `tell` hears how far it is."""
    built = builder.build(model, facts.input.profile, tell or (lambda what, done: None))
    manifest = EngineManifest(
        model=facts.model,
        family=facts.family,
        precision=facts.precision,
        backend=builder.name,
        backend_version=built.backend_version,
        portability=built.portability,
        source=facts.source,
        onnx_sha256=sha256_bytes(model),
        engine_sha256=sha256_bytes(built.data),
        engine_bytes=len(built.data),
        inputs=built.inputs,
        outputs=built.outputs,
        input=facts.input,
        matching=facts.matching,
        matchrt_version=__version__,
        passes=facts.passes,
        checks=facts.checks,
        options=built.options,
        build_key=facts.build_key,
    )
    return Engine(built.data, manifest)
