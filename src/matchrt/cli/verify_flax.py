"""`matchrt verify --flax`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from matchrt._util.packages import packages_for
from matchrt.cli.output import print_json, stages, stdout
from matchrt.cli.sizes import parse_size

if TYPE_CHECKING:
    from matchrt.flax.proof import FlaxProof
    from matchrt.runtime.session import Device


def verify_flax(
    model: str,
    checkpoint: Path | None,
    images: tuple[Path, Path] | None,
    size: str | None,
    threshold: float | None,
    device: Device,
    prefix: str | None,
    ema: bool,
    as_json: bool,
) -> int:
    """Compares a model in Flax with torch and prints the result. Returns 0 if all stages and the matches agree, else 1.

    Parameters are as in `prove_flax`; size is `HxW`; prefix and ema are as in `Selection`.
    Errors: package-missing, size-syntax, those of `prove_flax`.
    """
    with packages_for("Comparing torch with Flax"):
        from matchrt.export.weights.locate import Selection
        from matchrt.flax.proof import prove_flax
    with stages(as_json) as tell:
        proof = prove_flax(
            model,
            checkpoint,
            images,
            size=None if size is None else parse_size(size, "--size"),
            threshold=threshold,
            device=device,
            selection=Selection(prefix, ema),
            tell=tell,
        )
    if as_json:
        print_json(proof.to_json())
    else:
        show(proof)
    return 0 if proof.same else 1


def show(proof: FlaxProof) -> None:
    """Prints the differences as a table."""
    console = stdout()
    height, width = proof.size
    padded = ", padding masked" if proof.padded else ""
    versions = ", ".join(f"{name} {version}" for name, version in proof.versions.items())
    console.print(f"{proof.model}: torch and Flax on {proof.pair} at {height}x{width}{padded}", style="bold")
    console.print(f"{versions}, on {proof.device}, float32, highest matmul precision; {proof.weights}")
    table = Table(
        "stage", "values", "alone", "torch, Flax from float64", "in the chain", "", box=None, padding=(0, 2, 0, 0)
    )
    for stage in proof.stages:
        rounding = "" if stage.rounding is None else " ".join(f"{side:.1e}" for side in stage.rounding)
        row = (stage.name, str(stage.values), f"{stage.relative:.1e}", rounding, f"{stage.chained:.1e}", stage.verdict)
        table.add_row(*row, style="red" if stage.verdict == "differs" else None)
    console.print(table)
    console.print(
        "alone: largest difference divided by the largest value, if the stage gets torch's inputs; in the chain: if it "
        "gets Flax's inputs"
    )
    found = proof.matches
    console.print(
        f"{found.matches} matches in both, {found.lost} lost, {found.extra} extra; largest difference "
        f"{found.pixels:.1e} px, score {found.score:.1e}"
    )
    console.print(
        f"first difference: {proof.first or 'none'}", style="bold green" if proof.same else "bold red"
    )  # fmt: skip
    if proof.arbiter is not None:
        ours, theirs = proof.arbiter.torch, proof.arbiter.flax
        console.print(f"from torch in float64: torch {ours.pixels:.1e} px, Flax {theirs.pixels:.1e} px")
    if not found.matches:
        console.print("There is no match to compare. Give a lower --threshold, or other images.", style="bold red")
