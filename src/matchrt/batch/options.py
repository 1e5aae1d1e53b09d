"""The user's options for an output of `match-many`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from matchrt.batch.merging import MergeOptions

Layout = Literal["dense", "sparse"]
Cameras = Literal["per-image", "per-folder", "single"]


@dataclass(frozen=True)
class ColmapOptions:
    """How images are written to a COLMAP database.

    camera_model: COLMAP's name of the camera model.
    cameras: which images share a camera; images that share one must have the same size.
    verify: whether to estimate two-view geometries, of pairs whose verdict is `match`; COLMAP's mapper uses no pair
        without them.
    """

    camera_model: str = "SIMPLE_RADIAL"
    cameras: Cameras = "per-image"
    verify: bool = True


@dataclass(frozen=True)
class OutputOptions:
    """The options of all formats. Each format uses its own.

    merge: how points become keypoints, for .h5 and .db.
    layout: hloc's layout, for .h5.
    features: file of hloc's keypoints, for .h5; None for `feats_OUTPUT` beside the output.
    colmap: cameras and geometries, for .db.
    """

    merge: MergeOptions = field(default_factory=MergeOptions)
    layout: Layout = "dense"
    features: Path | None = None
    colmap: ColmapOptions = field(default_factory=ColmapOptions)

    def features_of(self, output: Path) -> Path:
        """The file of hloc's keypoints. The default name is the one that hloc uses."""
        return self.features or output.with_name(f"feats_{output.name}")
