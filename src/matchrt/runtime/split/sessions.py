"""The sessions of an engine's two parts, and what they are run on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt

from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.calling import CallingSession
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.gpu.kept import KeptMaps, KeptTensor
from matchrt.runtime.opening import open_session
from matchrt.runtime.preprocess import PlannedPair, PreparedImage
from matchrt.runtime.self_test.prove import prove
from matchrt.runtime.session import Arrays, Pending, Session, SessionOptions
from matchrt.runtime.split.cut import IMAGE_INPUTS, feature_input
from matchrt.runtime.split.features import Features, HostMaps, Maps
from matchrt.runtime.split.parts import open_parts
from matchrt.runtime.streaming import PairRun


@runtime_checkable
class _KeepsOnGpu(Protocol):
    """A session that leaves the outputs of a run on its GPU, and takes them as inputs of another run."""

    def run_kept(self, inputs: Arrays) -> KeptMaps: ...

    def start_on_kept(self, inputs: Mapping[str, npt.NDArray[Any] | KeptTensor]) -> Pending: ...


class PartSessions:
    """Both parts of one engine, ready to run in one thread.

    features: the session of the part that computes the features of one image.
    match: the session of the part that matches the features of two images.
    """

    def __init__(self, features: Session, match: Session) -> None:
        self._features, self._match = features, match

    @classmethod
    def open(cls, file: EngineFile, options: SessionOptions) -> PartSessions:
        """Loads both parts of an engine.

        On a GPU, they answer the whole engine's self-test first. Errors: those of `open_parts` and of the backend's
        session; engine-self-test.
        """
        features, match = open_parts(file)
        first = open_session(features, options)
        try:
            parts = cls(first, open_session(match, options))
        except BaseException:
            first.close()
            raise
        try:
            if options.self_test:
                prove(_Whole(file.manifest, first, parts._match))
        except BaseException:
            parts.close()
            raise
        return parts

    @property
    def digests(self) -> tuple[str, str]:
        """The digests of both parts' bytes."""
        return self._features.manifest.engine_sha256, self._match.manifest.engine_sha256

    def fork(self) -> PartSessions:
        """The same parts for another thread. Error: session-closed."""
        first = self._features.fork()
        try:
            return type(self)(first, self._match.fork())
        except BaseException:
            first.close()
            raise

    def close(self) -> None:
        """Frees both parts; more than one call does no harm. Raises nothing."""
        self._features.close()
        self._match.close()

    def compute(self, adapter: PairAdapter, image: PreparedImage, on_host: bool = False) -> Features:
        """The features of a prepared image, where the engine keeps them best: in host memory, or on its GPU.

        on_host: whether they are brought to host memory. Errors: size-memory, out-of-memory, session-*.
        """
        inputs, manifest = adapter.inputs(image, image), adapter.manifest
        wanted = {spec.name: inputs[spec.name] for spec in self._features.manifest.inputs}
        maps: Maps
        if isinstance(self._features, _KeepsOnGpu) and not on_host:
            maps = self._features.run_kept(wanted)
        else:
            maps = HostMaps(self._features.run(wanted), {})
        return Features(image, maps, manifest.engine_sha256, manifest.backend)

    def start(self, adapter: PairAdapter, features0: Features, features1: Features) -> PairRun:
        """Starts matching the features of two images.

        Errors: features-engine, features-size, size-memory, out-of-memory, session-*.
        """
        for features in (features0, features1):
            require_fitting(features, adapter)
        images = features0.image, features1.image
        inputs = adapter.inputs(*images)
        start = time.perf_counter()
        pending = self._start(inputs, features0, features1)
        return PairRun(adapter, PlannedPair(*images), images, pending, start)

    def _start(self, inputs: Arrays, features0: Features, features1: Features) -> Pending:
        given: dict[str, Any] = dict(inputs)
        for side, maps in enumerate((features0.maps, features1.maps)):
            tensors = maps.tensors() if isinstance(maps, KeptMaps) else _on_host(maps)
            given |= {feature_input(side, name): tensor for name, tensor in tensors.items()}
        wanted = {spec.name: given[spec.name] for spec in self._match.manifest.inputs}
        if isinstance(self._match, _KeepsOnGpu):
            return self._match.start_on_kept(wanted)
        return self._match.start(wanted)


def _on_host(maps: Maps) -> dict[str, npt.NDArray[Any]]:
    assert isinstance(maps, HostMaps)
    return maps.as_computed()


class _Whole(CallingSession):
    """Both parts as one engine, for the whole engine's self-test."""

    def __init__(self, manifest: EngineManifest, features: Session, match: Session) -> None:
        self.manifest, self._features, self._match = manifest, features, match

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        given = dict(inputs)
        names = [spec.name for spec in self._features.manifest.inputs]
        for side, own in enumerate(IMAGE_INPUTS):
            of_one = dict(zip(IMAGE_INPUTS[0], own, strict=True))
            maps = self._features.run({name: inputs[of_one[name]] for name in names})
            given |= {feature_input(side, name): array for name, array in maps.items()}
        return self._match.run({spec.name: given[spec.name] for spec in self._match.manifest.inputs})

    def device(self) -> str:
        return self._match.device()

    def circumstances(self) -> str | None:
        told = []
        for session in self._sessions():
            where = session.circumstances()
            if where is None:
                return None
            told.append(f"{where}, part {session.manifest.engine_sha256}")
        return "; ".join(told)

    def drop_kept_kernels(self) -> bool:
        dropped = [session.drop_kept_kernels() for session in self._sessions()]
        return any(dropped)

    def close(self) -> None:
        """Nothing: the sessions are another's."""

    def _sessions(self) -> tuple[Session, Session]:
        return self._features, self._match


def require_fitting(features: Features, adapter: PairAdapter) -> None:
    """Raises `features-engine` or `features-size` for features that another engine made, or of another size."""
    manifest = adapter.manifest
    if (features.engine_sha256, features.backend) != (manifest.engine_sha256, manifest.backend):
        raise MatchRTError(
            "features-engine",
            f"The features of '{features.ref.name}' are of another engine than this {manifest.model} on "
            f"{manifest.backend}.",
            "Compute them with this matcher's features().",
        )
    wanted = adapter.fit_of(features.image)
    if wanted != features.image.fit:
        raise MatchRTError(
            "features-size",
            f"The features of '{features.ref.name}' are of {_words(features.network_size)} pixels; this matcher sees "
            f"the image at {_words(wanted.canvas_hw)}.",
            "Compute them with this matcher's features(), or give both matchers the same resize.",
        )


def _words(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


class SharedParts:
    """The parts of one engine for all forks of a matcher; they are loaded when the first features are asked for.

    read: reads the whole engine. Errors of `fork`: those of `read` and of `PartSessions.open`.
    """

    def __init__(self, read: Callable[[], EngineFile], options: SessionOptions) -> None:
        self._read, self._options = read, options
        self._lock = threading.Lock()
        self._parts: PartSessions | None = None

    def fork(self) -> PartSessions:
        """The parts for one thread."""
        with self._lock:
            if self._parts is None:
                self._parts = PartSessions.open(self._read(), self._options)
            return self._parts.fork()

    def close(self) -> None:
        """Frees the parts; forks stay. Raises nothing."""
        with self._lock:
            if self._parts is not None:
                self._parts.close()
                self._parts = None


def same_engine(file: EngineFile, manifest: EngineManifest) -> EngineFile:
    """The file, if it is still the engine of that manifest. Error: engine-digest."""
    if file.manifest.engine_sha256 == manifest.engine_sha256:
        return file
    raise MatchRTError(
        "engine-digest", f"'{file.path}' has been replaced since it was opened.", "Open the matcher again."
    )
