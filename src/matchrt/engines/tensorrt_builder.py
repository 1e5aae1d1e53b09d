"""The builder of engines for TensorRT and TensorRT for RTX from ONNX graphs."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass
from typing import Any

from matchrt._util.digest import sha256_json
from matchrt.engines.progress import BuildProgress, interruptible, make_monitor
from matchrt.engines.timing_cache import load_timings, save_timings
from matchrt.errors import InternalError, MatchRTError
from matchrt.manifest import Dimension, InputContract, TensorSpec
from matchrt.nvidia.device import Gpu, find_gpus
from matchrt.nvidia.dialect import BuilderOptions, Dialect, dtype_name
from matchrt.nvidia.log import make_log
from matchrt.runtime.backend import BuiltEngine, Tell, get_backend
from matchrt.runtime.engine_checks import fits_gpu

_SHOWN_ERRORS = 3


@dataclass(frozen=True)
class TensorRTBuilder:
    """Builds strongly typed engines, in which every tensor has the type that the graph gives it.

    dialect: hides the differences between TensorRT's versions and TensorRT for RTX.
    options: what the user chose for the builder.
    """

    dialect: Dialect
    options: BuilderOptions

    @property
    def name(self) -> str:
        """The name of the backend, as `--backend` takes it."""
        return self.dialect.backend

    @property
    def suffix(self) -> str:
        """The suffix of the engine file. Both backends have the same; the manifest tells their engines apart."""
        return ".engine"

    @property
    def version(self) -> str:
        """The version of the module. It decides which layers can be 8-bit."""
        return self.dialect.version

    @property
    def tf32(self) -> bool:
        """Whether fp32 products are computed in TF32, as the options say."""
        return self.options.tf32

    @property
    def rounds_products(self) -> bool:
        """Whether the backend rounds the factors of fp32 products, as the dialect says."""
        return self.dialect.rounds_products(self.options)

    @property
    def fuses_reductions(self) -> bool:
        """True: TensorRT generates such kernels."""
        return True

    def runs_here(self) -> bool:
        """Whether the first GPU of this machine is one of those that the engine is for."""
        gpu = _gpu()
        if gpu is None:
            return False
        where = self.dialect.portability(self.options, gpu.compute_capability)
        return fits_gpu(where, gpu.compute_capability)

    def identity(self) -> str:
        """Digest of version, options and the GPUs that the engine is for. The timing cache does not change it."""
        options = {k: v for k, v in asdict(self.options).items() if k != "timing_cache"}
        gpu = _gpu()
        portability = self.dialect.portability(self.options, gpu.compute_capability if gpu else None)
        return sha256_json({"version": self.dialect.version, "options": options, "where": asdict(portability)})

    def build(self, model: bytes, contract: InputContract | None, tell: Tell) -> BuiltEngine:
        """Parses the graph and builds the engine.

        model: the ONNX graph as bytes. contract: the engine's input, with the ranges of sizes and of
            pairs; None for a graph of fixed shapes.
        tell: called with the step that begins and the share (0..1) of the work done.
        Errors: onnx-rejected (with names of nodes), engine-rejected, device-missing, timing-cache, output-unwritable.
        """
        gpu = self.require_gpu()
        trt, log = self.dialect.trt, make_log(self.dialect.trt)
        builder = _make_builder(log, self.dialect)
        network = builder.create_network(self.dialect.network_flags())
        tell("parsing ONNX", 0.0)
        _parse(trt, network, log, model, self.dialect)
        config = builder.create_builder_config()
        self.dialect.configure(config, self.options)
        if contract is not None and (ranges := _ranges(contract)) is not None:
            config.add_optimization_profile(_optimization_profile(builder, network, ranges))
        data = self._serialize(builder, network, config, tell, log)
        return BuiltEngine(
            data=data,
            inputs=tuple(_spec(network.get_input(i), i, contract) for i in range(network.num_inputs)),
            outputs=tuple(_spec(network.get_output(i), i, contract) for i in range(network.num_outputs)),
            backend_version=self.dialect.version,
            portability=self.dialect.portability(self.options, gpu.compute_capability if gpu else None),
            options=_told(self.options),
        )

    def require_gpu(self) -> Gpu | None:
        """The GPU of this machine; None if there is none and the backend builds without one. Error: device-missing.

        Full TensorRT needs a GPU, because it times its kernels on it.
        """
        gpu = _gpu()
        if gpu is None and get_backend(self.name).builds_on_gpu:
            raise MatchRTError(
                "device-missing",
                "TensorRT builds on the GPU that the engine is for, and this machine has none.",
                "Build on that machine, or build for NVIDIA RTX GPUs here with --backend tensorrt_rtx.",
            )
        return gpu

    def _serialize(self, builder: Any, network: Any, config: Any, tell: Tell, log: Any) -> bytes:
        progress = BuildProgress(tell)
        config.progress_monitor = make_monitor(self.dialect.trt, progress)
        cache = self.options.timing_cache
        # The builder reads the cache until it is done, so the name keeps the cache alive.
        timings = load_timings(config, cache) if cache is not None else None
        plan = interruptible(lambda: builder.build_serialized_network(network, config), progress.cancelled)
        if plan is None:
            raise InternalError(
                "engine-rejected",
                f"{self.name} {self.dialect.version} could not build the engine: {log.take_errors()}.",
                "Try a smaller size or another backend; report it with the model and its options.",
            )
        if cache is not None and timings is not None:
            save_timings(config, cache)
        return bytes(plan)


def _gpu() -> Gpu | None:
    try:
        gpus = find_gpus()
    except MatchRTError as error:
        if error.code != "package-missing":
            raise
        return None  # an RTX engine can be built without CUDA
    return gpus[0] if gpus else None


def _make_builder(log: Any, dialect: Dialect) -> Any:
    try:
        return dialect.trt.Builder(log)
    except TypeError as error:  # pybind11 raises it if the library returned no builder
        raise MatchRTError(
            "engine-rejected",
            f"{dialect.backend} {dialect.version} cannot build here: {log.take_errors()}.",
            "Run `matchrt doctor`, which says what is missing.",
        ) from error


def _parse(trt: Any, network: Any, log: Any, model: bytes, dialect: Dialect) -> None:
    parser = trt.OnnxParser(network, log)
    if parser.parse(model):
        return
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    told = [f"{e.node_operator() or 'graph'} '{e.node_name()}': {e.desc().strip()}" for e in errors[:_SHOWN_ERRORS]]
    more = f" and {len(errors) - len(told)} more" if len(errors) > len(told) else ""
    raise InternalError(
        "onnx-rejected",
        f"{dialect.backend} {dialect.version} rejects the graph: {'; '.join(told) or log.take_errors()}{more}.",
        "Update the package, or use another backend, and report this with these node names.",
    )


def _ranges(contract: InputContract) -> tuple[tuple[int, ...], ...] | None:
    """The smallest, the best and the largest of an engine's dynamic dimensions; None for an engine of fixed shapes.

    They are (height, width) of a dynamic engine's images or of frames of a range, or the number of pairs.
    """
    frames = contract.frames
    if frames is not None and frames.minimum is not None and frames.maximum is not None:
        wanted = (2 * (contract.height or 1), 2 * (contract.width or 1))
        return frames.minimum, frames.nearest(wanted, 0), frames.maximum
    if contract.profile is not None:
        return astuple(contract.profile)
    # Full runs are those that must be fast.
    return ((1,), (contract.batch,), (contract.batch,)) if contract.any_batch else None


def _optimization_profile(builder: Any, network: Any, ranges: tuple[tuple[int, ...], ...]) -> Any:
    """The smallest, the best and the largest shape of each input. ranges: those of the dynamic dimensions."""
    made = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        # The one dynamic dimension of a resize's columns is the width.
        turned = [sides[::-1] for sides in ranges] if tensor.name.endswith(("columns0", "columns1")) else ranges
        made.set_shape(tensor.name, *(_sized(tuple(tensor.shape), sides) for sides in turned))
    return made


def _sized(shape: tuple[int, ...], sides: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with its dynamic dimensions filled in: the height and then the width, or the number of pairs."""
    given = iter(sides)
    return tuple(next(given) if dimension < 0 else dimension for dimension in shape)


def _spec(tensor: Any, index: int, contract: InputContract | None) -> TensorSpec:
    """The description of a tensor.

    Its dynamic dimensions are the height and then the width of image `index`, or the number of pairs.
    """
    names = iter(("pairs",) if contract is not None and contract.any_batch else (f"height{index}", f"width{index}"))
    shape: tuple[Dimension, ...] = tuple(next(names) if d < 0 else int(d) for d in tensor.shape)
    return TensorSpec(tensor.name, dtype_name(tensor.dtype), shape)


def _told(options: BuilderOptions) -> dict[str, str]:
    """The options that differ from the defaults, as text, for the manifest."""
    given, usual = asdict(options), asdict(BuilderOptions())
    told = {name: value for name, value in given.items() if value != usual[name] and name != "timing_cache"}
    return {name: ", ".join(value) if isinstance(value, tuple) else str(value) for name, value in told.items()}
