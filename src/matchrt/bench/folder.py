"""Reading an evaluation folder: its pairs of images, and the truth that is known about them.

A folder has one or more of these, each with a `pairs.json` whose file names are relative to the folder:

| path          | truth                                                                                           |
| ------------- | ----------------------------------------------------------------------------------------------- |
| `homography/` | `H`: x1 ~ H x0, and `width0`, `height0`, `width1`, `height1`                                      |
| `pose/`       | `images`: `file`, `width`, `height`, `K`; a pair: `R`, `t`, X1 = R X0 + t in camera coordinates   |
| `stereo/`     | `disparity`: .npz, `arr_0` [H, W]; (x, y) left is (x - d, y) right; not finite = unknown          |
| `multimodal/` | none                                                                                            |
| `nogt/`       | none; `negative`: the images show different places                                              |

All values are in pixels of the stored files, without their EXIF rotation: match with `apply_exif=False`.
The set of a pair is the part of its id before the slash, or its field `set`.

Errors: `eval-missing` (no such folder, nothing known in it, or a file that it names is absent), `eval-invalid`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from matchrt._util.npz import read_npz
from matchrt._util.reading import read_regular
from matchrt._util.strict_json import read_json
from matchrt.errors import MatchRTError

_MOST_BYTES = 1 << 28
_MOST_DISPARITY = 1 << 30
FloatArray = npt.NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class ImagePair:
    """Two image files.

    id: unique in the folder; baselines list the pair under it.
    set: the name of the group of pairs whose figures are reported together.
    image0, image1: the image files.
    """

    id: str
    set: str
    image0: Path
    image1: Path


@dataclass(frozen=True, eq=False)
class HomographyPair(ImagePair):
    """A pair of images of a plane.

    homography: float64 [3, 3], from pixels of image 0 to pixels of image 1: x1 ~ H x0.
    image0_hw, image1_hw: (height, width) of the stored files, in pixels.
    """

    homography: FloatArray
    image0_hw: tuple[int, int]
    image1_hw: tuple[int, int]


@dataclass(frozen=True, eq=False)
class PosePair(ImagePair):
    """A pair of images with a known relative pose: X1 = R X0 + t in camera coordinates.

    rotation: R, float64 [3, 3].
    translation: t, float64 [3]; only its direction is used.
    intrinsics0, intrinsics1: K of the cameras, float64 [3, 3], in pixels.
    image0_hw, image1_hw: (height, width) of the stored files, in pixels.
    """

    rotation: FloatArray
    translation: FloatArray
    intrinsics0: FloatArray
    intrinsics1: FloatArray
    image0_hw: tuple[int, int]
    image1_hw: tuple[int, int]


@dataclass(frozen=True, eq=False)
class StereoPair(ImagePair):
    """A rectified stereo pair.

    disparity: float64 [H, W] for image 0, in pixels: (x, y) lies at (x - d, y) in image 1; not finite where unknown.
    """

    disparity: FloatArray


@dataclass(frozen=True, eq=False)
class PlainPair(ImagePair):
    """A pair without truth.

    negative: whether the images show different places, so that every verified match is false.
    """

    negative: bool


@dataclass(frozen=True)
class EvalFolder:
    """The pairs of a folder, in the order of the files.

    homography: pairs with a known homography.
    pose: pairs with a known relative pose.
    stereo: pairs with a known disparity.
    plain: pairs without truth.
    """

    homography: tuple[HomographyPair, ...] = ()
    pose: tuple[PosePair, ...] = ()
    stereo: tuple[StereoPair, ...] = ()
    plain: tuple[PlainPair, ...] = ()

    def __len__(self) -> int:
        return len(self.homography) + len(self.pose) + len(self.stereo) + len(self.plain)

    def first(self, count: int) -> EvalFolder:
        """The first `count` pairs of every set, for a quick measurement."""
        return EvalFolder(
            _first_of_sets(self.homography, count),
            _first_of_sets(self.pose, count),
            _first_of_sets(self.stereo, count),
            _first_of_sets(self.plain, count),
        )

    def only(self, sets: tuple[str, ...]) -> EvalFolder:
        """The pairs of these sets. Error: eval-set."""
        chosen = EvalFolder(
            tuple(p for p in self.homography if p.set in sets),
            tuple(p for p in self.pose if p.set in sets),
            tuple(p for p in self.stereo if p.set in sets),
            tuple(p for p in self.plain if p.set in sets),
        )
        unknown = [name for name in sets if name not in self.sets()]
        if unknown:
            raise MatchRTError(
                "eval-set", f"The folder has no set '{unknown[0]}'.", f"Its sets are {', '.join(self.sets())}."
            )
        return chosen

    def sets(self) -> tuple[str, ...]:
        """The names of all sets, in order."""
        pairs: tuple[ImagePair, ...] = (*self.homography, *self.pose, *self.stereo, *self.plain)
        return tuple(dict.fromkeys(pair.set for pair in pairs))


def read_folder(root: Path) -> EvalFolder:
    """Reads every `pairs.json` of the folder and checks that the image files exist. Errors: eval-missing, eval-invalid.

    Image files are not opened.
    """
    if not root.is_dir():
        raise MatchRTError("eval-missing", f"There is no evaluation folder '{root}'.", "Name an existing folder.")
    found = EvalFolder(
        homography=_read(root, "homography", _homography_pairs),
        pose=_read(root, "pose", _pose_pairs),
        stereo=_read(root, "stereo", _stereo_pairs),
        plain=(*_read(root, "multimodal", _plain_pairs("mm")), *_read(root, "nogt", _plain_pairs("ng"))),
    )
    if len(found) == 0:
        raise MatchRTError(
            "eval-missing",
            f"'{root}' holds no evaluation pairs.",
            "Add homography/, pose/, stereo/, multimodal/ or nogt/ with a pairs.json (see bench/README.md).",
        )
    return found


Reader = Callable[[Path, dict[str, Any]], list[T]]


def _read(root: Path, part: str, reader: Reader[T]) -> tuple[T, ...]:
    path = root / part / "pairs.json"
    if not path.is_file():
        return ()
    try:
        return tuple(reader(root, read_json(read_regular(path, _MOST_BYTES))))
    except KeyError as error:
        raise _invalid(path, f"lacks the field {error}") from error
    except (OSError, ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise _invalid(path, f"cannot be used: {error}") from error


def _homography_pairs(root: Path, raw: dict[str, Any]) -> list[HomographyPair]:
    return [
        HomographyPair(
            entry["id"],
            _set_of(entry["id"]),
            _file(root, entry["image0"]),
            _file(root, entry["image1"]),
            _array(entry["H"], (3, 3), f"H of {entry['id']}"),
            (int(entry["height0"]), int(entry["width0"])),
            (int(entry["height1"]), int(entry["width1"])),
        )
        for entry in raw["pairs"]
    ]


def _pose_pairs(root: Path, raw: dict[str, Any]) -> list[PosePair]:
    pairs = []
    for entry in raw["pairs"]:
        first, second = raw["images"][entry["image0"]], raw["images"][entry["image1"]]
        pairs.append(
            PosePair(
                entry["id"],
                entry["set"],
                _file(root, first["file"]),
                _file(root, second["file"]),
                _array(entry["R"], (3, 3), f"R of {entry['id']}"),
                _array(entry["t"], (3,), f"t of {entry['id']}"),
                _array(first["K"], (3, 3), f"K of {entry['image0']}"),
                _array(second["K"], (3, 3), f"K of {entry['image1']}"),
                (int(first["height"]), int(first["width"])),
                (int(second["height"]), int(second["width"])),
            )
        )
    return pairs


def _stereo_pairs(root: Path, raw: dict[str, Any]) -> list[StereoPair]:
    pairs = []
    for entry in raw["pairs"]:
        arrays = read_npz(read_regular(_file(root, entry["disparity"])), _MOST_DISPARITY)
        disparity = np.asarray(arrays["arr_0"], np.float64)
        if disparity.ndim != 2:
            raise ValueError(f"the disparity of {entry['id']} has the shape {disparity.shape}, not [H, W]")
        pairs.append(
            StereoPair(
                entry["id"],
                _set_of(entry["id"], "stereo"),
                _file(root, entry["image0"]),
                _file(root, entry["image1"]),
                disparity,
            )
        )
    return pairs


def _plain_pairs(prefix: str) -> Reader[PlainPair]:
    def read(root: Path, raw: dict[str, Any]) -> list[PlainPair]:
        pairs = []
        for entry in raw["pairs"]:
            negative = bool(entry.get("negative", False))
            name = "negative" if negative else {"mm": "multimodal", "ng": "no-truth"}[prefix]
            files = _file(root, entry["image0"]), _file(root, entry["image1"])
            pairs.append(PlainPair(f"{prefix}/{entry['id']}", name, *files, negative))
        return pairs

    return read


def _first_of_sets(pairs: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    seen: dict[str, int] = {}
    kept = []
    for pair in pairs:
        seen[pair.set] = seen.get(pair.set, 0) + 1
        if seen[pair.set] <= count:
            kept.append(pair)
    return tuple(kept)


def _set_of(identity: str, default: str | None = None) -> str:
    if "/" not in identity and default is not None:
        return default
    return identity.split("/", 1)[0]


def _file(root: Path, name: str) -> Path:
    path = root / name
    if not path.is_file():
        raise MatchRTError("eval-missing", f"'{path}' is missing.", "Complete the evaluation folder.")
    return path


def _array(value: Any, shape: tuple[int, ...], what: str) -> FloatArray:
    array = np.asarray(value, np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{what} is not a finite array of shape {list(shape)}")
    return array


def _invalid(path: Path, why: str) -> MatchRTError:
    return MatchRTError(
        "eval-invalid", f"'{path}' {why}.", "Correct the file; bench/README.md says where the format is described."
    )
