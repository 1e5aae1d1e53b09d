"""`matchrt doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matchrt.cli.options import JsonOption, StoreOption, store_at
from matchrt.cli.output import print_json, stdout

if TYPE_CHECKING:
    from matchrt.doctor.machine import Gpus
    from matchrt.doctor.report import Examination
    from matchrt.doctor.verdicts import Verdict

EPILOG = "Example: matchrt doctor --json"
_MISFITS_SHOWN = 10
_NAMES = 16


def doctor(
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Say what is installed, which backends build and run here, and what helps if not. Exit code 0: matching works."""
    from matchrt.doctor.report import examine

    found = examine(store_at(store))
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)
    return 0 if found.healthy else 1


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
    writable = "writable" if store.writable else "NOT writable (set MATCHRT_STORE)"
    _line("store", f"{store.root}: {store.engines} engines, {store.size / 1e6:.1f} MB, {writable}")
    for misfit in store.misfits[:_MISFITS_SHOWN]:
        _line("  does not fit", misfit.path, style="yellow")
        _line("", f"[{misfit.code}] {misfit.message}")
        _line("", f"-> {misfit.remedy}")
    if len(store.misfits) > _MISFITS_SHOWN:
        console.print(
            f"… and {len(store.misfits) - _MISFITS_SHOWN} more that do not fit this machine (--json has all)."
        )


def _line(name: str, value: str, style: str = "") -> None:
    """Prints a line that is never wrapped, because commands are there to be copied."""
    stdout().print(f"{name:<{_NAMES}}{value}".rstrip(), style=style)


def _gb(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"
