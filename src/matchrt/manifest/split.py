"""The two parts that an engine was built in besides itself, and the file that describes them.

They are in a folder beside the engine: `x.engine` has `x.engine.split/`. Everything that the engine's own manifest says
about model, versions and GPUs holds for the parts too; the file adds what differs. Machines that run whole engines
need none of this.

Errors: split-missing (there is no such file, or a part is missing), manifest-invalid, engine-digest (a part is not the
one that the file describes).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from matchrt._util import atomic
from matchrt._util.from_json import parse_json
from matchrt._util.reading import read_regular
from matchrt._util.strict_json import read_json
from matchrt._util.text import printable
from matchrt.errors import MatchRTError
from matchrt.manifest.fields import EngineManifest, TensorSpec
from matchrt.manifest.rules import check_values

FEATURES, MATCH = "features", "match"
_FILE = "split.json"
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class PartFacts:
    """What is known of one part.

    sha256: digest of its bytes.
    size: their number.
    onnx_sha256: digest of the ONNX graph that it was built from.
    inputs: its inputs, in order.
    outputs: its outputs, in order.
    """

    sha256: str
    size: int
    onnx_sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def manifest(self, whole: EngineManifest) -> EngineManifest:
        """The part's manifest: that of the whole engine, with the part's own tensors and digests. Raises nothing."""
        return replace(
            whole,
            engine_sha256=self.sha256,
            engine_bytes=self.size,
            onnx_sha256=self.onnx_sha256,
            inputs=self.inputs,
            outputs=self.outputs,
            self_test=None,
        )


@dataclass(frozen=True)
class SplitManifest:
    """What stands in the file.

    engine_sha256: digest of the whole engine's bytes, which the parts belong to.
    features: the part that computes the features of one image.
    match: the part that matches the features of two images.
    schema: the version of the file's form.
    """

    engine_sha256: str
    features: PartFacts
    match: PartFacts
    schema: Literal["matchrt-split-1"] = "matchrt-split-1"

    def write(self, folder: Path) -> None:
        """Writes the file into a folder atomically. Error: output-unwritable."""
        atomic.write_text(folder / _FILE, json.dumps(asdict(self), indent=2) + "\n")


def split_folder(engine: Path) -> Path:
    """The folder of an engine's parts: `x.onnx` -> `x.onnx.split`. Raises nothing."""
    return engine.with_name(engine.name + ".split")


def part_path(engine: Path, part: str) -> Path:
    """The file of a part, `features` or `match`, of an engine. Raises nothing."""
    return split_folder(engine) / f"{part}{engine.suffix}"


def read_split(engine: Path, whole: EngineManifest) -> SplitManifest | None:
    """What the file beside an engine says of its parts; None if the engine has none.

    whole: the engine's manifest. Errors: manifest-invalid, also for the parts of another engine.
    """
    path = split_folder(engine) / _FILE
    remedy = f"Build the parts again: matchrt build {whole.model} --split."
    try:
        data = read_regular(path, _MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise MatchRTError("manifest-invalid", f"'{path}' cannot be read: {error.strerror}.", remedy) from error
    try:
        raw: Any = read_json(data, unique_keys=True)
        split = parse_json(SplitManifest, raw, "split")
        assert isinstance(split, SplitManifest)
        for part in (split.features, split.match):
            check_values(part.manifest(whole))
    except ValueError as error:
        raise MatchRTError("manifest-invalid", f"'{path}': {printable(str(error))}.", remedy) from error
    if split.engine_sha256 != whole.engine_sha256:
        raise MatchRTError("manifest-invalid", f"'{path}' describes the parts of another engine.", remedy)
    return split
