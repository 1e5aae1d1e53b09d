"""What `match-many` prints at its end: which images are connected, and the map."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from matchrt.cli.output import stderr, stdout
from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.batch.mapping import MapReport, MapWork
    from matchrt.batch.view_graph import ViewGraph

_SHOWN, _BAR = 10, 30


def check_page(path: Path | None) -> None:
    """Checks before any work that a page can be written. Errors: output-format, output-unwritable."""
    from matchrt._util.atomic import require_writable

    if path is None:
        return
    if path.suffix.lower() not in (".html", ".htm"):
        raise MatchRTError("output-format", f"--report '{path}' has no known suffix.", "Name it report.html.")
    require_writable(path)


def print_graph(graph: ViewGraph) -> None:
    """Prints failures by reason, a histogram of inliers, connected components and images without a partner."""
    from matchrt.batch.names import one_line

    console = stdout()
    if graph.failed_by:
        reasons = ", ".join(f"{count} {code}" for code, count in graph.failed_by.items())
        stderr().print(f"failed by reason: {reasons}", style="red")
    bars = graph.histogram()
    most = max(bar.count for bar in bars)
    if most:
        console.print("inliers of verified pairs:")
        ends = [f"{bar.least}-{after.least - 1}" for bar, after in pairwise(bars)]
        for bar, span in zip(bars, [*ends, f"{bars[-1].least}+"], strict=True):
            console.print(f"  {span:>8} {'#' * round(_BAR * bar.count / most):<{_BAR}} {bar.count}")
    sizes = [str(len(group)) for group in graph.components]
    shown = ", ".join(sizes[:_SHOWN]) + (", …" if len(sizes) > _SHOWN else "")
    parts = f"{len(sizes)} connected component{'' if len(sizes) == 1 else 's'}"
    console.print(f"view graph: {parts}{f' of {shown} images' if sizes else ''}")
    if graph.alone:
        names = ", ".join(one_line(graph.names[index]) for index in graph.alone[:_SHOWN])
        more = ", …" if len(graph.alone) > _SHOWN else ""
        console.print(f"{len(graph.alone)} images without a partner: {names}{more}")


def print_map(work: MapWork, report: MapReport) -> None:
    """Prints the models of a map."""
    console = stdout()
    for number, model in enumerate(report.models[:_SHOWN]):
        console.print(
            f"model {number}: {model.registered} of {report.images} images registered, {model.points} points, "
            f"reprojection error {model.reprojection_px:.2f} px, tracks of {model.track_length:.1f} images"
        )
    console.print(f"{'wrote' if report.made else 'up to date:'} {work.folder}")
