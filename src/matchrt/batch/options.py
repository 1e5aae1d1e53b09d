"""What the user chooses about an output of `match-many`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from matchrt.batch.merging import MergeOptions

Layout = Literal["dense", "sparse"]
Cameras = Literal["per-image", "per-folder", "single"]


@dataclass(frozen=True)
class ColmapOptions:
    """How images stand in a COLMAP database.

    camera_model: COLMAP's name for it.
    cameras: which images share a camera; those of one camera must be of one size.
    verify: whether to estimate two-view geometries, without which COLMAP's mapper sees no pair.
    """

    camera_model: str = "SIMPLE_RADIAL"
    cameras: Cameras = "per-image"
    verify: bool = True


@dataclass(frozen=True)
class OutputOptions:
    """Options of all formats; each format takes its own.

    merge: how points become keypoints; .h5 and .db.
    layout: which of hloc's two layouts; .h5.
    features: file of hloc's keypoints; None for `feats_OUTPUT` beside the output; .h5.
    colmap: cameras and geometries; .db.
    """

    merge: MergeOptions = field(default_factory=MergeOptions)
    layout: Layout = "dense"
    features: Path | None = None
    colmap: ColmapOptions = field(default_factory=ColmapOptions)

    def features_of(self, output: Path) -> Path:
        """Where hloc's keypoints go; hloc names the file so."""
        return self.features or output.with_name(f"feats_{output.name}")
