"""The sessions of an engine's two parts, and what they are run on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.opening import open_session
from matchrt.runtime.preprocess import PlannedPair, PreparedImage
from matchrt.runtime.session import Arrays, Pending, Session, SessionOptions
from matchrt.runtime.split.cut import feature_input
from matchrt.runtime.split.features import Features, HostMaps
from matchrt.runtime.split.parts import open_parts
from matchrt.runtime.streaming import PairRun


class PartSessions:
    """Both parts of one engine, ready to run in one thread.

    features: the session of the part that computes the features of one image.
    match: the session of the part that matches the features of two images.
    """

    def __init__(self, features: Session, match: Session) -> None:
        self._features, self._match = features, match

    @classmethod
    def open(cls, file: EngineFile, options: SessionOptions) -> PartSessions:
        """Loads both parts of an engine. Errors: those of `open_parts` and of the backend's session."""
        features, match = open_parts(file)
        first = open_session(features, options)
        try:
            return cls(first, open_session(match, options))
        except BaseException:
            first.close()
            raise

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

    def compute(self, adapter: PairAdapter, image: PreparedImage) -> Features:
        """The features of a prepared image, where the engine keeps them best: in host memory, or on its GPU.

        Errors: size-memory, out-of-memory, session-*.
        """
        inputs = adapter.inputs(image, image)
        wanted = {spec.name: inputs[spec.name] for spec in self._features.manifest.inputs}
        manifest = adapter.manifest
        return Features(image, self._run(wanted), manifest.engine_sha256, manifest.backend)

    def _run(self, inputs: Arrays) -> HostMaps:
        return HostMaps(self._features.run(inputs), {})

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
        given = dict(inputs)
        for side, features in enumerate((features0, features1)):
            assert isinstance(features.maps, HostMaps)
            given |= {feature_input(side, name): array for name, array in features.maps.as_computed().items()}
        return self._match.start({spec.name: given[spec.name] for spec in self._match.manifest.inputs})


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
