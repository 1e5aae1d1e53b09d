"""Sessions for backend `jax`, which run the Flax model like an engine, on the CPU or a GPU."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from matchrt._version import __version__
from matchrt.errors import MatchRTError
from matchrt.families.definition import ModelSpec
from matchrt.families.registry import model_specs
from matchrt.flax.layout import Arrays as Weights
from matchrt.flax.models import flax_spec
from matchrt.flax.weights import BUNDLED, create_abstract, fill, read_flax_weights
from matchrt.manifest import EngineManifest, InputContract, Portability, Source, TensorSpec
from matchrt.models.loftr.flax.network import LoFTR
from matchrt.runtime.calling import CallingSession
from matchrt.runtime.session import Arrays, Device, SessionOptions, check_inputs

MAX_MATCHES = 2048
# JAX's name for true float32 products. Without it, GPUs round the factors of products to ten bits.
PRECISION = "highest"


class JaxSession(CallingSession):
    """The Flax network of a model at one size. It is compiled when it first runs."""

    def __init__(self, network: LoFTR, manifest: EngineManifest, options: SessionOptions) -> None:
        if options.threads is not None:
            raise MatchRTError(
                "jax-option",
                "JAX does not let a program choose its CPU threads.",
                "Leave --threads out, or bind the process to some cores, as with: taskset -c 0,1 matchrt …",
            )
        self._manifest = manifest
        self._device = jax_device(options.device)
        self._compiled: Any = _compiled(network, manifest.matching.max_matches, self._device)

    @property
    def manifest(self) -> EngineManifest:
        """The description of the network, in the form of an engine's manifest."""
        return self._manifest

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Runs the network on host arrays by name and returns its outputs by name.

        Errors: session-closed, and those of `check_inputs`.
        """
        if self._compiled is None:
            raise MatchRTError("session-closed", "The session is closed.", "Open a new one.")
        check_inputs(inputs, self._manifest)
        names = [spec.name for spec in self._manifest.inputs]
        with jax.default_matmul_precision(PRECISION):
            found = self._compiled(*(jax.device_put(inputs[name], self._device) for name in names))
        return {name: np.asarray(value) for name, value in found._asdict().items()}

    def close(self) -> None:
        """Frees the network. After that, `run` raises `session-closed`."""
        self._compiled = None


def open_jax(
    source: str | Path, options: SessionOptions | None = None, size: tuple[int, int] | None = None
) -> JaxSession:
    """Opens the Flax network of a bundled model, or of a file that `matchrt convert-flax` wrote.

    size: (height, width) of the network's input in pixels, None for the model's own. Images are letterboxed into it,
    because XLA compiles for one size.
    Errors: engine-missing, flax-model, those of `read_flax_weights`, flax-part, weights-unaccounted, device-missing,
    jax-option.
    """
    if str(source) not in BUNDLED and not Path(source).exists() and not Path(source).suffix:
        if str(source) in model_specs():
            flax_spec(str(source))  # a network other than LoFTR has none: no file of weights would help
        raise MatchRTError(
            "engine-missing",
            f"'{source}' is neither a bundled model ({', '.join(BUNDLED)}) nor a file of converted weights.",
            "Convert a checkpoint: matchrt convert-flax CHECKPOINT --output FILE.npz",
        )
    file = read_flax_weights(source)
    about = file.about
    if about is None or not about.model or about.part != "all":
        held = (
            "does not say which model its weights are of"
            if about is None or not about.model
            else f"holds only the {about.part}"
        )
        raise MatchRTError(
            "flax-part",
            f"'{source}' {held}.",
            "Convert the whole checkpoint: matchrt convert-flax CHECKPOINT --output FILE.npz",
        )
    spec = flax_spec(about.model)
    network = create_abstract(spec.family.config)
    fill(network, file.arrays, str(source))
    manifest = flax_manifest(spec, size or (spec.height, spec.width), file.arrays, file.path.name)
    return JaxSession(network, manifest, options or SessionOptions())


def flax_contract(spec: ModelSpec, size: tuple[int, int]) -> InputContract:
    """How images become the Flax network's input. size: (height, width) of the input in pixels."""
    preprocess = spec.preprocess
    return InputContract(
        preprocess.channels, preprocess.divisor, preprocess.static, preprocess.kernel, 1, size[0], size[1]
    )


def flax_manifest(spec: ModelSpec, size: tuple[int, int], arrays: Weights, name: str) -> EngineManifest:
    """The manifest of a Flax network, whose digest is that of the weights.

    size: (height, width) of the input in pixels. arrays: the weights. name: the file of the weights.
    """
    digest, count = _digest(arrays)
    images = [TensorSpec(f"image{index}", "uint8", (1, *size, 1)) for index in (0, 1)]
    sizes = [TensorSpec(f"size{index}", "int32", (1, 2)) for index in (0, 1)]
    outputs = [TensorSpec(f"keypoints{index}", "float32", (1, MAX_MATCHES, 2)) for index in (0, 1)]
    outputs += [TensorSpec("scores", "float32", (1, MAX_MATCHES)), TensorSpec("num_matches", "int32", (1,))]
    return EngineManifest(
        model=spec.name,
        family=spec.family.name,
        precision="fp32",
        backend="jax",
        backend_version=jax.__version__,
        portability=Portability(),
        source=Source(name, digest, spec.licence, spec.origin),
        onnx_sha256="",
        engine_sha256=digest,
        engine_bytes=count,
        inputs=(*images, *sizes),
        outputs=tuple(outputs),
        input=flax_contract(spec, size),
        matching=spec.family.match_contract(MAX_MATCHES, spec.default_score),
        matchrt_version=__version__,
    )


def _digest(arrays: Weights) -> tuple[str, int]:
    digest, count = hashlib.sha256(), 0
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
        count += array.nbytes
    return digest.hexdigest(), count


def jax_device(name: Device | None) -> Any:
    """JAX's device of that name; None for JAX's own choice. Error: device-missing."""
    if name is None:
        return jax.devices()[0]
    try:
        return jax.devices("gpu" if name == "cuda" else "cpu")[0]
    except RuntimeError as error:
        have = ", ".join(sorted({device.platform for device in jax.devices()}))
        raise MatchRTError(
            "device-missing",
            f"JAX has no {name} here; it has {have}.",
            "Leave --device out, or install jax[cuda13].",
        ) from error


def _compiled(network: LoFTR, max_matches: int, device: Any) -> Any:
    graph, state = nnx.split(network)
    state = jax.device_put(state, device)

    def run(state: Any, image0: Any, image1: Any, size0: Any, size1: Any) -> Any:
        first, second = image0.astype(jnp.float32) / 255.0, image1.astype(jnp.float32) / 255.0
        return nnx.merge(graph, state)(first, second, size0, size1, max_matches)

    compiled = jax.jit(run)
    return lambda *inputs: compiled(state, *inputs)
