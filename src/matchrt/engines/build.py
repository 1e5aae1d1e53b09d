"""Builds an engine and its manifest from an ONNX graph and the facts about it."""

from __future__ import annotations

from dataclasses import dataclass, field

from matchrt._util.digest import sha256_bytes
from matchrt._util.text import printable
from matchrt._version import __version__
from matchrt.manifest import EngineManifest, InputContract, MatchContract, PassRecord, SelfTest, Source
from matchrt.manifest.rules import LONGEST_TEXT
from matchrt.runtime.backend import Builder, Tell


@dataclass(frozen=True)
class GraphFacts:
    """What the manifest says about a graph, independent of the backend.

    model: the name of the model.
    family: the name of its family.
    precision: `fp32`, `fp16`, `int8` or `fp8`.
    source: where the weights come from.
    input: how an image becomes the graph's input.
    matching: thresholds and match slots of the matching stage.
    passes: what was done to the graph.
    build_key: digest of everything that decides the engine.
    checks: figures of parity and gate, by name.
    judged: where the precision was judged; empty if it was not.
    self_test: what engines of this graph must answer; None for none.
    """

    model: str
    family: str
    precision: str
    source: Source
    input: InputContract
    matching: MatchContract
    passes: tuple[PassRecord, ...]
    build_key: str
    checks: dict[str, float] = field(default_factory=dict)
    judged: str = ""
    self_test: SelfTest | None = None


@dataclass(frozen=True)
class Engine:
    """An engine that is not written to a file yet.

    data: the content of the engine file.
    manifest: what it is, what it was made from, and where it may run.
    """

    data: bytes
    manifest: EngineManifest


def build_engine(model: bytes, facts: GraphFacts, builder: Builder, tell: Tell | None = None) -> Engine:
    """Builds an engine from a graph.

    model: the ONNX graph as bytes. facts: what the manifest says about it.
    tell: called with the step that begins and the share (0..1) of the work done.
    Errors: those of the builder, such as onnx-rejected, engine-rejected and device-missing.
    """
    built = builder.build(model, facts.input, tell or (lambda what, done: None))
    manifest = EngineManifest(
        model=facts.model,
        family=facts.family,
        precision=facts.precision,
        backend=builder.name,
        backend_version=built.backend_version,
        portability=built.portability,
        source=_source(facts.source),
        onnx_sha256=sha256_bytes(model),
        engine_sha256=sha256_bytes(built.data),
        engine_bytes=len(built.data),
        inputs=built.inputs,
        outputs=built.outputs,
        input=facts.input,
        matching=facts.matching,
        matchrt_version=__version__,
        passes=tuple(PassRecord(told(record.name), record.changed, told(record.summary)) for record in facts.passes),
        checks=facts.checks,
        judged=told(facts.judged),
        self_test=facts.self_test,
        options=built.options,
        build_key=facts.build_key,
    )
    return Engine(built.data, manifest)


def told(text: str) -> str:
    """A text as a manifest may have it: the name of a file, for example, may have characters that no manifest takes."""
    return printable(text)[:LONGEST_TEXT]


def _source(source: Source) -> Source:
    return Source(
        told(source.name),
        source.tensors_sha256,
        told(source.licence),
        told(source.origin),
        tuple(map(told, source.allowed_missing)),
    )
