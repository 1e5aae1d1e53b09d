"""`matchrt models` and `matchrt engines`."""

from __future__ import annotations

from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from matchrt.cli.options import JsonOption, StoreOption, store_at
from matchrt.cli.output import print_json, stdout

EPILOG = "Example: matchrt models"
ENGINES_EPILOG = "Example: matchrt engines --json"


def models(as_json: JsonOption = False) -> None:
    """List the models that can be built, with their licence and where the weights come from."""
    from matchrt.families.registry import model_specs

    specs = list(model_specs().values())
    if as_json:
        rows = [(s.name, s.family.name, s.description, s.licence, s.origin, s.weights is not None) for s in specs]
        keys = ("name", "family", "description", "licence", "weights", "bundled")
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
        return
    table = Table("model", "what", "licence", box=None, padding=(0, 2, 0, 0))
    for spec in specs:
        table.add_row(spec.name, spec.description, spec.licence)
        table.add_row("", Text(f"weights: {spec.origin}", style="dim"), "")
    stdout().print(table)


def engines(
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the engines in the store, newest first."""
    opened = store_at(store)
    found = opened.engines()
    if as_json:
        print_json([{"path": str(engine.path), "manifest": asdict(engine.manifest)} for engine in found])
        return
    console = stdout()
    if not found:
        console.print(f"No engines in {opened.root}. Build one: matchrt build MODEL --checkpoint FILE")
    for engine in found:
        manifest = engine.manifest
        console.print(
            f"{engine.path}\n  {manifest.model}, {manifest.precision}, {manifest.backend} {manifest.backend_version}, "
            f"{manifest.engine_bytes / 1e6:.1f} MB"
        )
