"""Decides which backends can build and run here, from the installed packages and the answers of the probes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matchrt.doctor.ask import Answer
from matchrt.doctor.machine import Gpus
from matchrt.doctor.packages import EXPORT, Packages
from matchrt.nvidia.modules import BACKENDS as NVIDIA
from matchrt.runtime.backend import Backend, get_backend
from matchrt.runtime.backends import DEFAULT_BACKEND, backend_names, built_for

_NO_GPU = (
    "Run on a machine with an NVIDIA GPU and its driver; in a container, start it with --gpus all "
    "(docker run --gpus all)."
)


@dataclass(frozen=True)
class Verdict:
    """Whether something works.

    works: yes or no.
    why: the reason if it does not work; else what to know about it. It may be empty.
    remedy: a command or action that helps; empty if none is needed.
    """

    works: bool
    why: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class BackendState:
    """A backend on this machine.

    name: the backend's name.
    version: of its package; None if it is not installed.
    builds: whether it can build engines.
    runs: whether it can run engines.
    """

    name: str
    version: str | None
    builds: Verdict
    runs: Verdict


def judge(packages: Packages, answers: Mapping[str, Answer], gpus: Gpus) -> tuple[BackendState, ...]:
    """The state of every backend that has engines. answers: those of the probes, by name."""
    export = _export(packages)

    def state(name: str) -> BackendState:
        if name == DEFAULT_BACKEND:
            return BackendState(name, packages.versions.get(name), export, _onnxruntime(answers))
        if name in NVIDIA:
            return _nvidia(name, packages, answers.get(name), gpus, export)
        if name in answers:
            return _borrowing(name, packages, answers[name])
        return _untried(get_backend(name), packages)

    return tuple(state(name) for name in backend_names() if not get_backend(name).takes_weights)


def install(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'matchrt[{extra}]'"


def _borrowing(name: str, packages: Packages, answer: Answer) -> BackendState:
    """The state of a backend that runs the engines of another one, by the answer of its probe."""
    builds = Verdict(False, f"it runs the engines of {built_for(name)}", f"Build with --backend {built_for(name)}.")
    runs = _no(answer) if answer.value is None else Verdict(True, f"on the {answer.value['device']}")
    return BackendState(name, packages.versions.get(name), builds, runs)


def _untried(backend: Backend, packages: Packages) -> BackendState:
    """The state of a backend that has no probe. Only its package is looked for."""
    version = packages.versions.get(backend.name)
    if version is None and backend.distributions:
        package = backend.distributions[0]
        remedy = install(backend.extra) if backend.extra else f"pip install {package}"
        absent = Verdict(False, f"the package {package} is not installed", remedy)
        return BackendState(backend.name, None, absent, absent)
    return BackendState(backend.name, version, *(Verdict(True, "not tried"),) * 2)


def _export(packages: Packages) -> Verdict:
    """Whether ONNX engines can be built from checkpoints."""
    missing = packages.missing(EXPORT)
    if missing:
        return Verdict(False, f"checkpoints need {', '.join(missing)}", install("export"))
    return Verdict(True, "from checkpoints")


def _onnxruntime(answers: Mapping[str, Answer]) -> Verdict:
    answer = answers["matching"]
    if answer.value is None:
        return _no(answer)
    if not answer.value["matches"]:
        return Verdict(False, "the bundled engine finds no match in an image and itself", "Report this as a bug.")
    cuda = answers.get("onnxruntime-cuda")
    if cuda is None:
        return Verdict(True, "on the CPU (the bundled engine was run)")
    if cuda.value is None:
        refused = _no(cuda)
        return Verdict(True, f"on the CPU; not on CUDA: {refused.why}", refused.remedy)
    return Verdict(True, "on the CPU, and on CUDA by --device cuda (the bundled engine was loaded on both)")


def _nvidia(name: str, packages: Packages, answer: Answer | None, gpus: Gpus, export: Verdict) -> BackendState:
    if answer is None:
        absent = Verdict(False, f"the package {name} is not installed", install(NVIDIA[name]))
        return BackendState(name, None, absent, absent)
    if answer.value is None:
        return BackendState(name, packages.versions.get(name), _no(answer), _no(answer))
    version = str(answer.value["version"])
    runs = _runs(name, packages, answer, gpus)
    return BackendState(name, version, _builds(name, answer, gpus, export), runs)


def _builds(name: str, answer: Answer, gpus: Gpus, export: Verdict) -> Verdict:
    assert answer.value is not None
    if get_backend(name).builds_on_gpu and not gpus.usable:
        return Verdict(
            False, "it builds on the GPU that the engine is for", "Build there, or with --backend tensorrt_rtx."
        )
    if answer.value["builder"] is not None:
        return Verdict(False, f"it makes no builder: {answer.value['builder']}", f"{install(NVIDIA[name])} again.")
    if export.works:
        return Verdict(True, "from checkpoints and ONNX engines")
    return Verdict(True, f"from ONNX engines only: {export.why}", export.remedy)


def _runs(name: str, packages: Packages, answer: Answer, gpus: Gpus) -> Verdict:
    assert answer.value is not None
    if not packages.has("cuda-python"):
        return Verdict(False, "the package cuda-python is not installed", install(NVIDIA[name]))
    if not gpus.usable:
        return _no_gpu(gpus)
    if answer.value["runtime"] is not None:
        return Verdict(False, f"it makes no runtime: {answer.value['runtime']}", f"{install(NVIDIA[name])} again.")
    if answer.value["refusal"] is not None:
        return Verdict(
            False,
            f"it refuses {gpus.usable[0].name}: {answer.value['refusal']}",
            "Install a version that knows this GPU, or use --backend tensorrt or onnxruntime.",
        )
    loaded = not get_backend(name).builds_on_gpu  # see the probe
    tried = "a small engine was loaded" if loaded else "a runtime was made; loading was not tried"
    return Verdict(True, f"on {gpus.usable[0].name} ({tried})")


def _no_gpu(gpus: Gpus) -> Verdict:
    said = (gpus.why_none or {}).get("message", "CUDA shows no GPU.").rstrip(".")
    if gpus.found:
        shown = gpus.found[0]
        return Verdict(
            False,
            f"the driver {gpus.driver} shows {shown.name}, CUDA does not: {said}",
            "Check CUDA_VISIBLE_DEVICES. If it is right, update the driver to one that supports the CUDA version of "
            "cuda-python, or install an older cuda-python.",
        )
    return Verdict(False, said, _NO_GPU)


def _no(answer: Answer) -> Verdict:
    error = answer.error or {"message": "unknown", "remedy": "Report this as a bug."}
    return Verdict(False, error["message"].rstrip("."), error["remedy"])
