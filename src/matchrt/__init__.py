"""matchrt: image-matching networks from their published checkpoint to a fast, verified engine.

>>> from matchrt import Matcher
>>> matches = Matcher().match("a.jpg", "b.jpg")

Importing the package costs nothing: what is used is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from matchrt._version import __version__
from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.building.pipeline import BuildRequest, BuildResult, build
    from matchrt.manifest import Profile
    from matchrt.runtime.geometry import Geometry
    from matchrt.runtime.image import Image, read_image
    from matchrt.runtime.matcher import Matcher
    from matchrt.runtime.matches import Matches
    from matchrt.runtime.nv12 import Nv12
    from matchrt.runtime.options import MatcherOptions
    from matchrt.runtime.split.features import Features

_LAZY = {
    "BuildRequest": "matchrt.building.pipeline",
    "BuildResult": "matchrt.building.pipeline",
    "Features": "matchrt.runtime.split.features",
    "Geometry": "matchrt.runtime.geometry",
    "Image": "matchrt.runtime.image",
    "Matcher": "matchrt.runtime.matcher",
    "MatcherOptions": "matchrt.runtime.options",
    "Matches": "matchrt.runtime.matches",
    "Nv12": "matchrt.runtime.nv12",
    "Profile": "matchrt.manifest",
    "build": "matchrt.building.pipeline",
    "read_image": "matchrt.runtime.image",
}

__all__ = [
    "BuildRequest",
    "BuildResult",
    "Features",
    "Geometry",
    "Image",
    "MatchRTError",
    "Matcher",
    "MatcherOptions",
    "Matches",
    "Nv12",
    "Profile",
    "__version__",
    "build",
    "read_image",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'matchrt' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
