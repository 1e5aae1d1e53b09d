"""`matchrt doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matchrt.cli.completion import engine_names
from matchrt.cli.options import DeviceOption, JsonOption, StoreOption, known_device, store_at
from matchrt.cli.output import print_error, print_json, stdout
from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.doctor.engine import TestedEngine
    from matchrt.doctor.machine import Gpus
    from matchrt.doctor.report import Examination
    from matchrt.doctor.verdicts import Verdict

EPILOG = "Example: matchrt doctor --json\n\nAn engine's self-test, on this machine: matchrt doctor lite.engine"
_SHOWN = 10
_NAMES = 16


def doctor(
    engine: Annotated[
        str | None,
        typer.Argument(
            metavar="ENGINE",
            help="Engine file, bundled model or model in the store: run its self-test here, and nothing else.",
            autocompletion=engine_names,
        ),
    ] = None,
    device: DeviceOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Say what is installed, which backends build and run here, and what helps if not. Exit code 0: matching works.

    With ENGINE, open that engine and compare what it computes here with what its fp32 graph answers. Exit code 0: it
    passes.
    """
    if engine is not None:
        return _check(engine, device, store, as_json)
    if device is not None:
        raise MatchRTError("usage", "--device is for the self-test of an engine.", "Name an engine.")
    from matchrt.doctor.report import examine

    found = examine(store_at(store))
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)
    return 0 if found.healthy else 1


def _check(engine: str, device: str | None, store: Path | None, as_json: bool) -> int:
    """Runs an engine's self-test. Returns 0 if it passes, else 1. Errors: those of `check_engine`."""
    from matchrt.doctor.engine import check_engine
    from matchrt.runtime.session import SessionOptions

    found = check_engine(engine, SessionOptions(device=known_device(device)), store_at(store))
    if as_json:
        print_json(found.to_json())
    else:
        _print_tested(found)
    return 0 if found.error is None else 1


def _print_tested(found: TestedEngine) -> None:
    manifest, test, result = found.manifest, found.test, found.result
    _line("engine", found.path)
    _line("model", f"{manifest.model}, {manifest.precision}")
    _line("judged", manifest.judged or "not judged when it was built")
    _line("run on", found.where)
    if result.compared:
        _line("within 1 px", f"{result.within:.1%} of {result.compared} matches (at least {test.within:.1%})")
        _line("distance", f"{result.pixels:.3g} px in the median (at most {test.pixels:g})")
        _line("scores", f"differ by {result.score:.3g} in the mean (at most {test.score:g})")
    else:
        _line("within 1 px", "there is no match that can be compared")
    _line("took", f"{1000 * found.seconds:.0f} ms")
    if found.error is None:
        _line("self-test", "passed", style="green")
        return
    _line("self-test", "FAILED", style="red")
    print_error(found.error, f"error[{found.error.code}]: ")


def _print(found: Examination) -> None:
    _print_installed(found)
    _print_gpus(found.gpus)
    _print_backends(found)
    _print_store(found)
    for warning in found.packages.warnings:
        stdout().print(f"warning: {warning}", style="yellow")


def _print_installed(found: Examination) -> None:
    versions = found.packages.versions
    present = [f"{name} {version}" for name, version in versions.items() if version is not None]
    absent = [name for name, version in versions.items() if version is None]
    _line("system", f"{found.system}, Python {found.python}")
    _line("installed", ", ".join(present))
    _line("not installed", ", ".join(absent) or "nothing that matchrt could use")
    _line("ONNX Runtime", ", ".join(found.providers) or "its providers could not be asked")


def _print_gpus(gpus: Gpus) -> None:
    for gpu in gpus.found:
        memory = f"{_gb(gpu.memory_free)} of {_gb(gpu.memory_total)} free"
        hidden = "" if gpu.cuda else "; CUDA does not see it"
        _line("GPU", f"{gpu.name}, compute capability {gpu.compute_capability or 'unknown'}, {memory}{hidden}")
    if not gpus.found:
        _line("GPU", f"none. {(gpus.why_none or {}).get('message', 'CUDA shows none.')}")
        return
    _line("driver", f"{gpus.driver or 'unknown'}, for CUDA {gpus.cuda_driver or 'unknown'}")
    _line("CUDA runtime", f"{gpus.cuda_runtime or 'unknown'} (of cuda-python)")


def _print_backends(found: Examination) -> None:
    for backend in found.backends:
        _line(backend.name, backend.version or "", style="bold")
        for what, verdict in (("builds", backend.builds), ("runs", backend.runs)):
            _print_verdict(what, verdict)


def _print_verdict(what: str, verdict: Verdict) -> None:
    answer = "yes" if verdict.works else "no"
    _line(f"  {what}", f"{answer}: {verdict.why}" if verdict.why else answer, style="green" if verdict.works else "red")
    if verdict.remedy:
        _line("", f"-> {verdict.remedy}")


def _print_store(found: Examination) -> None:
    store, console = found.store, stdout()
    writable = "writable" if store.writable else f"NOT writable: {store.why_unwritable} (set MATCHRT_STORE)"
    _line("store", f"{store.root}: {store.engines} engines, {store.size / 1e6:.1f} MB, {writable}")
    for misfit in store.misfits[:_SHOWN]:
        _line("  does not fit", misfit.path, style="yellow")
        _line("", f"[{misfit.code}] {misfit.message}")
        _line("", f"-> {misfit.remedy}")
    if len(store.misfits) > _SHOWN:
        console.print(f"… and {len(store.misfits) - _SHOWN} more that do not fit this machine (--json has all).")
    if store.untested:
        _line("  no self-test", f"{len(store.untested)} engines; nothing checks their results where they run")
        for path in store.untested[:_SHOWN]:
            _line("", path)
        if len(store.untested) > _SHOWN:
            _line("", f"… and {len(store.untested) - _SHOWN} more (--json has all)")
        _line("", "-> build them again with this matchrt: matchrt build")


def _line(name: str, value: str, style: str = "") -> None:
    """Prints a line that is never wrapped, because commands are there to be copied."""
    stdout().print(f"{name:<{_NAMES}}{value}".rstrip(), style=style)


def _gb(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"
