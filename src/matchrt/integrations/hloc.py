"""An engine as a dense matcher of hloc (github.com/cvg/Hierarchical-Localization, 1.5), for its own `match_dense`.

>>> from hloc import match_dense
>>> from matchrt.integrations.hloc import dense_conf, register
>>> register()
>>> match_dense.main(dense_conf("loftr-outdoor"), pairs, images, export_dir=outputs)

`matchrt match-many --output matches.h5` writes the same files without hloc, and resumes; this here is for pipelines
that call hloc.
"""

from __future__ import annotations

import sys
from typing import Any

from matchrt.integrations.tensors import match_batch
from matchrt.runtime.bundled import DEFAULT_MODEL
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.options import MatcherOptions

# hloc imports the module `hloc.matchers.NAME` and takes the one class that is defined in it.
NAME = "matchrt"


def register() -> None:
    """Makes hloc's `conf["model"]["name"] = "matchrt"` mean an engine of matchrt. It may be called again.

    Error: ModuleNotFoundError without hloc.
    """
    from types import ModuleType

    from hloc import matchers
    from hloc.utils.base_model import BaseModel

    place = f"{matchers.__name__}.{NAME}"

    def init(self: Any, conf: dict[str, Any]) -> None:
        self.matcher = Matcher(conf["engine"], MatcherOptions(min_score=conf["min_score"]))

    def forward(self: Any, data: dict[str, Any]) -> dict[str, Any]:
        # hloc wants the refined points in image 0, and LoFTR refines those of its second image.
        found = match_batch(self.matcher, data["image1"], data["image0"])
        return {"keypoints0": found.keypoints1, "keypoints1": found.keypoints0, "scores": found.confidence}

    members = {
        "__module__": place,
        "__doc__": "An engine of matchrt.",
        "default_conf": {"engine": DEFAULT_MODEL, "min_score": None},
        "required_inputs": ["image0", "image1"],
        "_init": init,
        "_forward": forward,
    }
    module = ModuleType(place)
    module.Matchrt = type("Matchrt", (BaseModel,), members)  # type: ignore[attr-defined]
    sys.modules[place] = module


def dense_conf(
    engine: str = DEFAULT_MODEL, *, resize_max: int = 1024, min_score: float | None = None
) -> dict[str, Any]:
    """A configuration for `hloc.match_dense.main`, like those in its `confs`. Raises nothing.

    engine: as `Matcher` takes it. resize_max: long side in pixels of the images that hloc prepares; the engine resizes
        them to what it takes. min_score: as in `MatcherOptions`.
    """
    return {
        "output": f"matches-matchrt-{engine.replace('/', '_')}",
        "model": {"name": NAME, "engine": engine, "min_score": min_score},
        "preprocessing": {"grayscale": True, "resize_max": resize_max, "dfactor": 8},
        "max_error": 1,
        "cell_size": 1,
    }
