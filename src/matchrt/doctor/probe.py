"""The probes, which try what cannot be read from metadata. Each runs in its own process, because it may crash."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from matchrt.errors import MatchRTError
from matchrt.nvidia.modules import BACKENDS as NVIDIA
from matchrt.runtime.bundled import DEFAULT_MODEL, photographs_folder

MARK = "matchrt-probe:"
_SIDE = 128


def matching() -> dict[str, Any]:
    """Runs the default task: the bundled engine on ONNX Runtime's CPU provider matches a photograph with itself."""
    import onnxruntime

    from matchrt.runtime.matcher import Matcher
    from matchrt.runtime.options import MatcherOptions

    photograph = photographs_folder() / "cup_0.jpg"
    with Matcher(DEFAULT_MODEL, MatcherOptions(resize=_SIDE, threads=1)) as matcher:
        found = len(matcher.match(photograph, photograph))
    return {"matches": found, "providers": onnxruntime.get_available_providers()}


def openvino() -> dict[str, Any]:
    """Loads the bundled engine on OpenVINO. Errors: those of opening a session."""
    from matchrt.runtime.engine_file import read_engine
    from matchrt.runtime.opening import open_session

    session = open_session(read_engine(DEFAULT_MODEL, backend="openvino"))
    session.close()
    return {"device": session.device()}


def onnxruntime_cuda() -> dict[str, Any]:
    """Loads the bundled engine on ONNX Runtime's CUDA provider. Errors: those of opening a session."""
    from matchrt.runtime.engine_file import read_engine
    from matchrt.runtime.opening import open_session
    from matchrt.runtime.session import SessionOptions

    open_session(read_engine(DEFAULT_MODEL), SessionOptions(device="cuda")).close()
    return {}


def gpus() -> dict[str, Any]:
    """Lists what the driver and CUDA see: `boards`, `cuda`, and `error` with code, message and remedy, or None."""
    from matchrt.nvidia.boards import read_boards
    from matchrt.nvidia.cuda import call, cuda_runtime
    from matchrt.nvidia.device import find_gpus

    boards = read_boards()
    seen: dict[str, Any] = {"boards": [asdict(board) for board in boards], "cuda": [], "error": None}
    try:
        runtime = cuda_runtime()
        call(runtime.cudaGetDeviceCount)  # its error says why there is no GPU, which find_gpus does not
        for gpu in find_gpus():
            bus = call(runtime.cudaDeviceGetPCIBusId, 32, gpu.index)
            text = bus.decode() if isinstance(bus, bytes) else str(bus)
            seen["cuda"].append(asdict(gpu) | {"bus": text.rstrip("\0"), "free": None if boards else _free(gpu.index)})
    except MatchRTError as error:
        seen["error"] = {"code": error.code, "message": error.message, "remedy": error.remedy}
    return seen


def tensorrt(backend: str) -> dict[str, Any]:
    """Tries whether the module loads, and makes a builder and a runtime.

    For a backend that builds on any machine, it also tries whether the GPU here is accepted.

    Errors: package-missing, package-version.
    """
    from matchrt.nvidia.log import make_log
    from matchrt.nvidia.modules import open_dialect
    from matchrt.runtime.backend import get_backend

    dialect = open_dialect(backend)
    log = make_log(dialect.trt)
    builder, no_builder = _made(lambda: dialect.trt.Builder(log), log)
    runtime, no_runtime = _made(lambda: dialect.trt.Runtime(log), log)
    refusal = None
    # A builder that needs a GPU has checked it already when it was made, and takes seconds to build anything.
    quick = not get_backend(backend).builds_on_gpu
    if quick and builder is not None and runtime is not None and _has_gpu():
        refusal = _refusal(dialect, builder, runtime, log)
    return {"version": dialect.version, "builder": no_builder, "runtime": no_runtime, "refusal": refusal}


def _made(make: Callable[[], Any], log: Any) -> tuple[Any, str | None]:
    """The object that `make` returns, and the reason if there is none."""
    try:
        made = make()
    except Exception as error:
        # pybind11 raises a TypeError if the library returns nothing.
        said = log.take_errors()
        return None, str(error) if said == "no reason given" else said
    return made, None if made is not None else log.take_errors()


def _refusal(dialect: Any, builder: Any, runtime: Any, log: Any) -> str | None:
    """Builds a very small engine and loads it. Returns why the GPU is refused; None if it is not."""
    from matchrt.nvidia.dialect import BuilderOptions

    trt = dialect.trt
    network = builder.create_network(dialect.network_flags())
    values = network.add_input("values", trt.float32, (8,))
    network.mark_output(network.add_unary(values, trt.UnaryOperation.ABS).get_output(0))
    config = builder.create_builder_config()
    dialect.configure(config, BuilderOptions())
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return f"it cannot build: {log.take_errors()}"
    data = bytes(plan)
    refused: str | None = dialect.refusal(runtime, data)
    if refused is None and runtime.deserialize_cuda_engine(data) is not None:
        return None
    # The library's log says more than the check of the header, if it says anything.
    said: str = log.take_errors()
    return said if refused is None or said != "no reason given" else refused


def _has_gpu() -> bool:
    from matchrt.nvidia.device import find_gpus

    try:
        return bool(find_gpus())
    except MatchRTError:
        return False


def _free(index: int) -> int:
    from matchrt.nvidia.cuda import call, cuda_runtime
    from matchrt.nvidia.device import free_memory

    call(cuda_runtime().cudaSetDevice, index)
    return free_memory()


PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "matching": matching,
    "onnxruntime-cuda": onnxruntime_cuda,
    "openvino": openvino,
    "gpus": gpus,
    **{backend: partial(tensorrt, backend) for backend in NVIDIA},
}


def main(name: str) -> None:
    """Runs a probe and prints its answer as a marked line, because libraries may print other lines around it."""
    answer: dict[str, Any] = {"value": None, "error": None}
    try:
        answer["value"] = PROBES[name]()
    except MatchRTError as error:
        answer["error"] = {"code": error.code, "message": error.message, "remedy": error.remedy}
    except Exception as error:
        # Anything that a broken package raises becomes the answer.
        answer["error"] = {
            "code": "package-broken",
            "message": f"{type(error).__name__}: {error}",
            "remedy": "Install the package again.",
        }
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(f"\n{MARK}{json.dumps(answer)}\n")
        sys.stdout.flush()
