"""How long engines take on this machine's GPU, and which products of a network 8 bits make faster there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from matchrt._util.digest import sha256_bytes
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, SelfTestPair, TensorSpec
from matchrt.runtime.backend import Builder
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.opening import open_session
from matchrt.runtime.self_test.pair import self_test_inputs
from matchrt.runtime.session import Session, SessionOptions

if TYPE_CHECKING:
    from matchrt.export.quantization.quantize import QuantPlan
    from matchrt.export.quantization.single import ProductKind

_WARM_UP, _RUNS = 10, 50
# 8 bits must save at least this share of a product's time: less is noise, and costs accuracy for nothing.
_GAIN = 0.05


@dataclass(frozen=True)
class ProductTimes:
    """The times of one kind of product on this GPU.

    kind: operator and shapes.
    nodes: the network's products of that kind, by name.
    fp16, eighth: milliseconds of one product in fp16 and in 8 bits.
    """

    kind: ProductKind
    nodes: tuple[str, ...]
    fp16: float
    eighth: float

    @property
    def faster(self) -> bool:
        """Whether 8 bits are faster by more than noise."""
        return self.eighth < (1 - _GAIN) * self.fp16


def gpu_milliseconds(file: EngineFile) -> float:
    """The median time of the engine on the GPU, in milliseconds, on the self-test's images.

    Errors: those of `open_session` and of a run.
    """
    with closing(open_session(file, SessionOptions(self_test=False))) as session:
        return _median(session, self_test_inputs(file.manifest, SelfTestPair(1, (0, 0), 256)))


def time_products(
    plan: QuantPlan,
    shapes: Mapping[str, tuple[int, ...]],
    builder: Builder,
    manifest: EngineManifest,
    tell: Callable[[str, float], None],
) -> list[ProductTimes]:
    """Times every kind of product of a plan in fp16 and in 8 bits, each in a small engine of its own.

    shapes: of the activations, by tensor. builder: of the backend; its engines must run here.
    manifest: of the network's fp32 engine. tell: called with the step and the share (0..1) done.
    Errors: those of building and running.
    """
    from matchrt.export.quantization.single import COPIES, kinds_of, single_product

    found = []
    kinds = kinds_of(plan.model, plan.selection.products, shapes)
    with _quiet():
        for number, (kind, nodes) in enumerate(kinds.items()):
            tell(f"timing products, {number + 1} of {len(kinds)}: {kind}", number / len(kinds))
            times = [
                _time_graph(single_product(kind, activations).SerializeToString(), builder, manifest) / COPIES
                for activations in (None, plan.style.activations)
            ]
            found.append(ProductTimes(kind, nodes, *times))
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Holds back the runtime's warnings, which would be the same ones for each of many small engines."""
    logger = logging.getLogger("matchrt.runtime")
    logger.addFilter(_drop_warnings)
    try:
        yield
    finally:
        logger.removeFilter(_drop_warnings)


def _drop_warnings(record: logging.LogRecord) -> bool:
    return record.levelno > logging.WARNING


def faster_products(times: list[ProductTimes], precision: str) -> tuple[str, ...]:
    """Names of the products that 8 bits make faster. Error: precision-slower if there are none."""
    chosen = tuple(name for entry in times if entry.faster for name in entry.nodes)
    if not chosen:
        best = min(times, key=lambda entry: entry.eighth / entry.fp16)
        raise MatchRTError(
            "precision-slower",
            f"On this GPU no product of this network is faster in {precision} than in fp16; the best one, {best.kind}, "
            f"takes {best.eighth:.4f} ms instead of {best.fp16:.4f}.",
            "Build with --precision fp16.",
        )
    return chosen


def _time_graph(model: bytes, builder: Builder, manifest: EngineManifest) -> float:
    built = builder.build(model, None, lambda what, done: None)
    made = replace(
        manifest,
        backend=builder.name,
        backend_version=built.backend_version,
        portability=built.portability,
        engine_sha256=sha256_bytes(built.data),
        engine_bytes=len(built.data),
        inputs=built.inputs,
        outputs=built.outputs,
        input=replace(manifest.input, profile=None, height=1, width=1),
        self_test=None,
    )
    rng = np.random.default_rng(0)
    inputs = {spec.name: rng.normal(size=_static(spec)).astype(spec.dtype) for spec in built.inputs}
    options = SessionOptions(self_test=False, keep_kernels=False)
    with closing(open_session(EngineFile(Path("product"), built.data, made), options)) as session:
        return _median(session, inputs)


def _static(spec: TensorSpec) -> tuple[int, ...]:
    assert all(isinstance(side, int) for side in spec.shape)
    return tuple(int(side) for side in spec.shape)


def _median(session: Session, inputs: Mapping[str, npt.NDArray[Any]]) -> float:
    samples = []
    for turn in range(_WARM_UP + _RUNS):
        pending = session.start(inputs)
        pending.result()
        if turn >= _WARM_UP:
            samples.append(pending.timings()["gpu"])
    return float(np.median(samples))
