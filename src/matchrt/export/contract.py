"""What a graph is made for, and the input contract that follows. It needs neither torch nor onnx."""

from __future__ import annotations

from dataclasses import dataclass

from matchrt.errors import MatchRTError
from matchrt.families.base import Preprocess
from matchrt.manifest import SIZELESS, InputContract, Profile


@dataclass(frozen=True)
class ExportOptions:
    """What the graph is built for.

    height: the height of both images, in pixels; padding is masked by the inputs `size0` and `size1`.
    width: the width of both images, in pixels.
    max_matches: the number of matches that one pair can give at most.
    profile: where given, images of any size within it, each at its own size, without padding and size inputs.
    batch: the number of pairs that one run matches; with `any_batch`, the largest.
    coarse: (height, width) of the smaller copies of the images, for models that take such.
    dense: whether the dense outputs are returned too, for models that have them.
    any_batch: whether a run takes any number of pairs from 1 to `batch`.
    """

    height: int
    width: int
    max_matches: int = 2048
    profile: Profile | None = None
    batch: int = 1
    coarse: tuple[int, int] | None = None
    dense: bool = False
    any_batch: bool = False


def input_contract(preprocess: Preprocess, options: ExportOptions) -> InputContract:
    """The contract that the manifest states.

    Errors: size-divisor, size-range, size-square, dynamic-unsupported, matches-range, batch-range.
    """
    sizes = [(options.height, options.width)]
    if options.profile is not None:
        profile = options.profile
        sizes = [profile.minimum, profile.optimum, profile.maximum]
        if not all(a <= b <= c for a, b, c in zip(*sizes, strict=True)):
            raise MatchRTError("size-range", "A profile must have MIN <= OPT <= MAX.", "Reorder the three sizes.")
    divisor = preprocess.divisor if options.coarse is not None else max(preprocess.divisor, preprocess.coarse_divisor)
    for height, width in sizes:
        _require_size(height, width, divisor)
    if options.coarse is not None:
        _require_size(*options.coarse, preprocess.coarse_divisor, "coarse ")
    if not 1 <= options.max_matches <= 65536:
        raise MatchRTError(
            "matches-range", f"--max-matches {options.max_matches} is outside 1..65536.", "Use 2048, say."
        )
    if not 1 <= options.batch <= 64 or (options.batch > 1 and options.profile is not None):
        raise MatchRTError(
            "batch-range",
            f"--batch {options.batch} is outside 1..64, or above 1 in a dynamic engine.",
            "Use e.g. --batch 8 with --height and --width.",
        )
    if options.any_batch and (options.batch == 1 or preprocess.static in SIZELESS):
        raise MatchRTError(
            "batch-range",
            f"--batch 1..{options.batch} is no range, or this model's graph takes a fixed number of pairs only.",
            "Use e.g. --batch 1..8 with a model of the LoFTR or EfficientLoFTR family, or --batch 8.",
        )
    channels, kernel, batch = preprocess.channels, preprocess.kernel, options.batch
    if options.profile is None:
        if preprocess.static in ("pad-square", "square") and options.height != options.width:
            raise MatchRTError(
                "size-square",
                f"This model pads images to a square; {options.height}x{options.width} is not a square.",
                "Give --height and --width the same value.",
            )
        size = (options.height, options.width)
        return InputContract(
            channels,
            divisor,
            preprocess.static,
            kernel,
            batch,
            *size,
            coarse=options.coarse,
            any_batch=options.any_batch,
        )
    if preprocess.dynamic is None:
        raise MatchRTError(
            "dynamic-unsupported",
            "This model's input has a fixed size, and its preprocessing brings every image to it.",
            "Leave --dynamic out; choose the size with --height and --width.",
        )
    return InputContract(channels, divisor, preprocess.dynamic, kernel, profile=options.profile)


def _require_size(height: int, width: int, divisor: int, which: str = "") -> None:
    for name, side in (("height", height), ("width", width)):
        if side % divisor:
            low = max(divisor, side // divisor * divisor)
            raise MatchRTError(
                "size-divisor",
                f"The {which}{name} {side} is not a multiple of {divisor}.",
                f"The nearest multiples are {low} and {low + divisor}.",
            )
        # Below 64 hardly a cell of 8 pixels is left inside the border.
        low = max(64, 2 * divisor)
        if not low <= side <= 256 * divisor:
            raise MatchRTError(
                "size-range",
                f"The {which}{name} {side} is outside {low}..{256 * divisor}.",
                "Position codes end at 256 cells; choose a size within that range.",
            )
