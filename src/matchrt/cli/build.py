"""`matchrt build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from matchrt.cli.completion import backends, model_names
from matchrt.cli.options import (
    EmaOption,
    JsonOption,
    PrefixOption,
    SecondFileOption,
    StoreOption,
    require_new_output,
    store_at,
)
from matchrt.cli.output import print_json, stages, stderr, stdout
from matchrt.cli.sizes import parse_batch, parse_frames, parse_profile, parse_size
from matchrt.errors import MatchRTError
from matchrt.manifest import PIXELS
from matchrt.runtime.backend import building_backends, get_backend, require_builds
from matchrt.runtime.backends import DEFAULT_BACKEND

EPILOG = (
    "Example: matchrt build loftr-outdoor --checkpoint outdoor_ds.ckpt --backend tensorrt --precision fp16\n\n"
    "A model in two files: matchrt build matchanything-roma --checkpoint matchanything_roma.ckpt "
    "--dinov2 dinov2_vitl14_pretrain.pth --preset fast\n\n"
    "A training checkpoint with an average of the weights: matchrt build loftr-outdoor --checkpoint last.ckpt --ema\n\n"
    "For an RTX GPU, without a GPU: matchrt build eloftr-lite --backend tensorrt_rtx --target sm89\n\n"
    "For a camera of 1920x1080: matchrt build eloftr-lite --frames 1080x1920 --pixels nv12 --backend tensorrt_rtx\n\n"
    "In int8: matchrt build eloftr-lite --precision int8 --calibration my_pairs.txt"
)


def build(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Name of a model (`matchrt models` lists them), or an fp32 .onnx engine.",
            autocompletion=model_names,
        ),
    ],
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="File of the weights: .ckpt, .pth, .pt or .safetensors; default: a downloaded one."),
    ] = None,
    second_file: SecondFileOption = None,
    prefix: PrefixOption = None,
    ema: EmaOption = False,
    sha256: Annotated[
        str | None, typer.Option(help="Refuse weights with another digest (tensors_sha256 of the manifest).")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Preset, for models that have some. RoMa: official (default), fast or low-memory; RoMa v2: base "
            "(default), precise, fast or turbo."
        ),
    ] = None,
    coarse: Annotated[
        str | None, typer.Option(metavar="HxW", help="Size of the first pass, for models in two passes (RoMa).")
    ] = None,
    single_pass: Annotated[
        bool, typer.Option("--single-pass", help="Leave out the second pass, for models in two passes (RoMa).")
    ] = False,
    dense: Annotated[
        bool,
        typer.Option(
            "--dense",
            help="Return the warp and its certainty too, for dense models (RoMa); RoMa v2: its precision too.",
        ),
    ] = False,
    height: Annotated[int | None, typer.Option(min=1, help="Input height in pixels.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Input width in pixels.")] = None,
    batch: Annotated[
        str,
        typer.Option(
            metavar="N|1..N",
            help="Number of pairs that one run matches; 1..8 takes any number up to 8, for `serve` and Triton. "
            "`matchrt match` needs 1 or a range.",
        ),
    ] = "1",
    max_matches: Annotated[int, typer.Option(help="Largest number of matches that the engine returns.")] = 2048,
    threshold: Annotated[
        float | None, typer.Option(help="Smallest confidence of a match; default: the model's.")
    ] = None,
    mutual: Annotated[
        bool | None,
        typer.Option(
            "--mutual/--one-way",
            help="Keep only mutual nearest cells (dense models: match both directions); default: the model's rule.",
        ),
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Take the camera's frames of this size and resize them in the engine; HxW,HxW for images of two "
            "sizes, HxW..HxW or any for a range.",
        ),
    ] = None,
    pixels: Annotated[
        str | None, typer.Option(help=f"With --frames: how their pixels lie, {', '.join(PIXELS)}; default: rgb.")
    ] = None,
    dynamic: Annotated[
        str | None,
        typer.Option(
            metavar="MIN,OPT,MAX", help="Build for all sizes between MIN and MAX, such as 64x64,480x640,1280x1280."
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(help=f"Backend to build for: {', '.join(building_backends())}.", autocompletion=backends),
    ] = DEFAULT_BACKEND,
    precision: Annotated[
        str,
        typer.Option(help="fp32, fp16, int8 or fp8 (experimental); the build ends if too many matches are lost."),
    ] = "fp32",
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="DIR_OR_LIST", help="For int8 and fp8: image pairs to calibrate on; default: drawn ones."),
    ] = None,
    calibration_method: Annotated[
        str, typer.Option(help="For int8 and fp8: method of calibration: max, percentile or entropy.")
    ] = "percentile",
    calibration_seed: Annotated[
        int, typer.Option(min=0, help="For int8 and fp8: seed that decides which pairs are taken.")
    ] = 0,
    keep_fp32: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="For int8 and fp8: modules that stay in floating point; repeat for several."
        ),
    ] = None,
    only_faster: Annotated[
        bool,
        typer.Option("--only-faster", help="For int8 and fp8: quantise only what that makes faster on this GPU."),
    ] = False,
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR_OR_LIST",
            help="Pairs of images to judge the precision on, besides made ones and the package's photographs.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="SM,...", help="For tensorrt_rtx: GPUs to build for, such as sm80,sm89,sm120."),
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(min=1, metavar="MB", help="GPU memory that a layer may use, in MiB.")
    ] = None,
    optimization_level: Annotated[
        int | None, typer.Option(min=0, max=5, help="Level of the builder's search: 0 is the fastest, 5 the longest.")
    ] = None,
    tf32: Annotated[
        bool, typer.Option("--tf32", help="For fp32: multiply in TF32, which is faster and keeps 3 digits.")
    ] = False,
    hardware_compatible: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL", help="For tensorrt: also run on other GPUs: same-compute-capability or ampere-plus."
        ),
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="For tensorrt: also run on later versions.")
    ] = False,
    timing_cache: Annotated[
        Path | None, typer.Option(help="For tensorrt: file that keeps kernel timings, to build faster.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Copy the engine and its manifest to this file.")] = None,
    store: StoreOption = None,
    allow_missing: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Network tensors that the checkpoint may lack; they stay untrained. Repeat for several.",
        ),
    ] = None,
    accept_accuracy_loss: Annotated[
        bool, typer.Option("--accept-accuracy-loss", help="Build even if the precision loses too many matches.")
    ] = False,
    split: Annotated[
        bool,
        typer.Option(
            "--split",
            help="Build the engine's two parts beside it too: the features of one image, and the matching of two.",
        ),
    ] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build even if the store has the engine.")] = False,
    check_passes: Annotated[
        bool, typer.Option("--check-passes", help="Compare matches before and after every graph pass.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Build an engine from a checkpoint: load every tensor, export, compare with torch, write engine and manifest.

    eloftr-lite and loftr-lite are built from the graphs in the package, which needs no torch, unless an option changes
    the graph.
    """
    from matchrt.building.calibration.options import CalibrationOptions
    from matchrt.building.pipeline import BuildRequest
    from matchrt.building.pipeline import build as run
    from matchrt.cli.builder_options import builder_options
    from matchrt.export.precision import QUANTIZED

    if dynamic and (height or width):
        raise MatchRTError(
            "profile-syntax", "--dynamic and --height or --width contradict each other.", "Give only one of them."
        )
    pairs_a_run, any_batch = parse_batch(batch)
    require_new_output(output, [Path(model), *(file for file in (checkpoint, second_file) if file is not None)])
    request = BuildRequest(
        model=model,
        checkpoint=checkpoint,
        second_file=second_file,
        sha256=sha256,
        preset=preset,
        dense=dense,
        family_options=_family_options(coarse, single_pass),
        height=height,
        width=width,
        batch=pairs_a_run,
        any_batch=any_batch,
        max_matches=max_matches,
        threshold=threshold,
        mutual=mutual,
        profile=parse_profile(dynamic) if dynamic else None,
        frames=parse_frames(frames, pixels),
        backend=backend,
        precision=precision,
        calibration=CalibrationOptions(
            calibration, calibration_method, tuple(keep_fp32 or ()), calibration_seed, only_faster
        ),
        pairs=pairs,
        builder=builder_options(
            target, workspace, optimization_level, tf32, hardware_compatible, version_compatible, timing_cache
        ),
        allow_missing=tuple(allow_missing or ()),
        output=output,
        rebuild=rebuild,
        split=split,
        accept_accuracy_loss=accept_accuracy_loss,
        check_passes=check_passes,
        prefix=prefix,
        ema=ema,
    )
    require_builds(backend)
    chosen = get_backend(backend)
    if (said := chosen.advice(precision, chosen.version() if precision in QUANTIZED else None)) is not None:
        stderr().print(f"note: {said}", style="yellow")
    with stages(quiet=as_json) as tell:
        result = run(request, store_at(store), tell)
    if as_json:
        from dataclasses import asdict

        document: dict[str, Any] = {"path": str(result.path), "cached": result.cached, "weights": result.weights}
        document["notes"] = list(result.notes)
        document["downloaded"] = [str(path) for path in result.downloaded]
        document["seconds"] = {stage: round(value, 3) for stage, value in result.seconds.items()}
        if result.parts is not None:
            document["parts"] = asdict(result.parts)
        print_json(document | {"manifest": asdict(result.manifest)})
        return
    _print(result)


def _family_options(coarse: str | None, single_pass: bool) -> dict[str, object]:
    """The given options that only some families have, by name. Error: size-syntax."""
    given: dict[str, object] = {} if coarse is None else {"coarse": parse_size(coarse, "--coarse")}
    return given | ({"single_pass": True} if single_pass else {})


def _print(result: Any) -> None:
    manifest, console = result.manifest, stdout()
    console.print(f"{result.path}{' (already in the store)' if result.cached else ''}", style="bold")
    console.print(f"  {manifest.model}, {manifest.precision}, {manifest.backend} {manifest.backend_version}, "
                  f"{manifest.engine_bytes / 1e6:.1f} MB")  # fmt: skip
    if result.parts is not None:
        console.print(_parts(result))
    for line in _built_for(manifest, result.seconds):
        console.print(line)
    for path in result.downloaded:
        console.print(f"  file      {path} (downloaded, digest verified)")
    if result.weights is not None:
        console.print(f"  weights   {result.weights}")
    for note in result.notes:
        console.print(Text(f"  note      {note}"))
    changed = [record.name for record in manifest.passes if record.changed]
    console.print(f"  passes    {', '.join(changed)}")
    if "parity_matches" in (checks := manifest.checks):
        console.print(
            f"  parity    {int(checks['parity_matches'])} matches against torch, largest difference "
            f"{checks['parity_max_pixels']:.1e} px, {checks['parity_max_score']:.1e} in score"
        )
    if "bundled_matches" in checks:
        console.print(
            f"  bundled   {int(checks['bundled_matches'])} matches against the bundled engine in ONNX Runtime, largest "
            f"difference {checks['bundled_max_pixels']:.1e} px, {checks['bundled_max_score']:.1e} in score"
        )
    if checks.get("frames_matches"):
        console.print(
            f"  frames    {manifest.input.frames}; {checks['frames_same']:.2%} of {int(checks['frames_matches'])} "
            "matches as where the host resizes"
        )
    if "precision_kept" in checks:
        for line in _judged(manifest):
            console.print(line)
    if missing := manifest.source.allowed_missing:
        console.print(
            f"  UNTRAINED {len(missing)} tensors that the checkpoint lacks: {', '.join(missing)}", style="red"
        )


def _parts(result: Any) -> str:
    """A line about the engine's parts and where they are."""
    from matchrt.manifest.split import split_folder

    parts = (("features", result.parts.features), ("match", result.parts.match))
    sizes = (f"{name} {part.size / 1e6:.1f} MB" for name, part in parts)
    return f"  parts     {', '.join(sizes)}, in {split_folder(result.path)}"


def _judged(manifest: Any) -> list[str]:
    """Lines about the gate's figures and where they come from."""
    from matchrt.bench.gate import judged_how

    checks, matches = manifest.checks, int(manifest.checks["precision_matches"])
    if matches == 0:
        lines = [f"  {manifest.precision:9} not judged: fp32 finds no match in the pairs"]
    else:
        lines = [
            f"  {manifest.precision:9} {checks['precision_kept']:.2%} of {matches} fp32 matches within 1 px"
            f"{_count(checks)}{_accuracy(checks)}"
        ]
    if matches and "precision_warp_within" in checks:
        lines.append(
            f"  warp      {checks['precision_warp_within']:.2%} of the matches within 1 px of fp32's warp, median "
            f"{checks['precision_warp_median']:.3f} px, certainties differ by {checks['precision_warp_certainty']:.4f}"
        )
    if matches and manifest.judged:
        lines.append(f"  judged    {judged_how(manifest.judged)}")
    if "gpu_ms_fp16" in checks:
        ours, half = checks["gpu_ms"], checks["gpu_ms_fp16"]
        advice = f" SLOWER than fp16: build fp16, or {manifest.precision} with --only-faster" if ours > half else ""
        lines.append(f"  speed     {ours:.2f} ms on this GPU, fp16 {half:.2f} ms{advice}")
    return lines


def _count(checks: dict[str, float]) -> str:
    return f", count {checks['precision_count']:.2%}" if "precision_count" in checks else ""


def _accuracy(checks: dict[str, float]) -> str:
    if "precision_accuracy" not in checks:
        return ""
    return f", accuracy {checks['precision_accuracy']:.2%} instead of {checks['precision_accuracy_fp32']:.2%}"


def _built_for(manifest: Any, seconds: dict[str, float]) -> list[str]:
    """Lines about where the engine runs, the builder's options, and the times of the build in seconds."""
    lines, where = [], manifest.portability
    if where.compute_capabilities:
        gpus = ", ".join(where.compute_capabilities) + (" and later" if where.newer_gpus else "")
        version = {"exact": "this version of the backend only", "newer": "this version and later"}[where.version]
        lines.append(f"  runs on   compute capability {gpus}; {version}")
    if manifest.options:
        lines.append("  options   " + ", ".join(f"{name} {value}" for name, value in manifest.options.items()))
    if seconds:
        lines.append("  time      " + ", ".join(f"{stage} {value:.1f} s" for stage, value in seconds.items()))
    return lines
