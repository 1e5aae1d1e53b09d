"""Which packages are installed, and which versions: read from their metadata, without importing any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

from matchrt._version import __version__
from matchrt.runtime.backend import get_backend
from matchrt.runtime.backends import DEFAULT_BACKEND, backend_names

# what it is called here -> names under which it is distributed, the first found counts; backends say theirs themselves
_DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "numpy": ("numpy",),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
    "pillow": ("pillow",),
    "cuda-python": ("cuda-python", "cuda-bindings"),
    "nvidia-ml-py": ("nvidia-ml-py",),
    "torch": ("torch",),
    "onnx": ("onnx",),
    "onnxscript": ("onnxscript",),
    "onnx-graphsurgeon": ("onnx-graphsurgeon",),
    "safetensors": ("safetensors",),
    "flax": ("flax",),
    "h5py": ("h5py",),
    "matplotlib": ("matplotlib",),
    "poselib": ("poselib",),
}
# Besides what a backend is distributed as: ONNX Runtime with CUDA.
ORT_CUDA = "onnxruntime-gpu"
# Files of the same name in two packages: whichever was installed last is used, whole or in part.
_CLASHES = ((DEFAULT_BACKEND, ORT_CUDA), ("opencv-python", "opencv-python-headless"))
EXPORT = ("torch", "onnx", "onnxscript", "onnx-graphsurgeon", "safetensors")


@dataclass(frozen=True)
class Packages:
    """versions: by name, None where missing. warnings: for people."""

    versions: Mapping[str, str | None]
    warnings: tuple[str, ...] = ()

    def has(self, name: str) -> bool:
        """Whether it is installed."""
        return self.versions.get(name) is not None

    def missing(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Those that are not."""
        return tuple(name for name in names if not self.has(name))


def installed_packages() -> Packages:
    """Every package that matchrt can use."""
    versions: dict[str, str | None] = {"matchrt": __version__}
    backends = {name: get_backend(name).distributions for name in backend_names()}
    for name, distributions in {**backends, ORT_CUDA: (ORT_CUDA,), **_DISTRIBUTIONS}.items():
        versions[name] = next((v for v in map(_version, distributions) if v is not None), None)
    warnings = tuple(
        f"{first} and {second} are both installed and hold the same files: remove one (pip uninstall {first})."
        for first, second in _CLASHES
        if _version(first) and _version(second)
    )
    return Packages(versions, warnings)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
