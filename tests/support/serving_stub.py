"""An engine whose runs take as long as a test says, for the ways of requests; what it finds is made of its inputs."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from matchrt.manifest import EngineManifest, TensorSpec, read_manifest
from matchrt.runtime.engine_file import engine_path
from support.plain_session import PlainSession

SIDE, MATCHES = 64, 4


def manifest(batch: int) -> EngineManifest:
    """The bundled engine's, as if built for 64x64 images and `batch` pairs."""
    path = engine_path("loftr-lite")
    bundled = read_manifest(path.with_name(path.name + ".json"))
    images = tuple(TensorSpec(f"image{i}", "uint8", (batch, SIDE, SIDE, 1)) for i in (0, 1))
    sizes = tuple(TensorSpec(f"size{i}", "int32", (batch, 2)) for i in (0, 1))
    points = tuple(TensorSpec(f"keypoints{i}", "float32", (batch, MATCHES, 2)) for i in (0, 1))
    rest = (TensorSpec("scores", "float32", (batch, MATCHES)), TensorSpec("num_matches", "int32", (batch,)))
    fixed = dataclasses.replace(bundled.input, batch=batch, height=SIDE, width=SIDE, profile=None, fitting="letterbox")
    return dataclasses.replace(bundled, input=fixed, inputs=(*images, *sizes), outputs=(*points, *rest))


class StubSession(PlainSession):
    """Answers with one match a pair: at the mean values of its two images. Runs wait until `go` is set."""

    def __init__(self, batch: int = 1) -> None:
        self.manifest = manifest(batch)
        self.go = threading.Event()
        self.go.set()
        self.runs: list[int] = []
        self.entered = 0
        self.closed = 0
        self.failure: Exception | None = None

    def run(self, inputs: Any) -> dict[str, npt.NDArray[Any]]:
        self.entered += 1
        assert self.go.wait(30)
        batch = self.manifest.input.batch
        means = [inputs[f"image{i}"].mean(axis=(1, 2, 3)) for i in (0, 1)]
        self.runs.append(len(np.unique(np.stack(means), axis=1).T))
        if self.failure is not None:
            raise self.failure
        points = [np.repeat(mean.astype(np.float32), MATCHES * 2).reshape(batch, MATCHES, 2) for mean in means]
        scores = np.tile(np.array([1, 0, 0, 0], np.float32), (batch, 1))
        counts = np.ones(batch, np.int32)
        return dict(zip(("keypoints0", "keypoints1", "scores", "num_matches"), (*points, scores, counts), strict=True))

    def close(self) -> None:
        self.closed += 1


@contextmanager
def opened(monkeypatch: pytest.MonkeyPatch, session: StubSession, **options: Any) -> Iterator[Any]:
    """A service of one engine, `loftr-lite`, on that session."""
    from matchrt.serving import service as serving
    from matchrt.serving.options import ServeOptions

    monkeypatch.setattr(serving, "open_session", lambda file, options: session)
    service = serving.Service(["loftr-lite"], ServeOptions(**options))
    session.runs.clear()
    session.entered = 0
    try:
        yield service
    finally:
        session.go.set()
        service.close()
