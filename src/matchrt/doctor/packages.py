"""The installed packages and their versions, read from their metadata. No package is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

from matchrt._version import __version__
from matchrt.runtime.backend import get_backend
from matchrt.runtime.backends import DEFAULT_BACKEND, backend_names

# Name in reports -> names under which the package is distributed; the first one found counts. Backends name their own.
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
# ONNX Runtime with CUDA, which is reported apart from the backend's own packages.
ORT_CUDA = "onnxruntime-gpu"
# Each of these two packages has files of the same names. The one that was installed last is used, wholly or in part.
_CLASHES = ((DEFAULT_BACKEND, ORT_CUDA), ("opencv-python", "opencv-python-headless"))
EXPORT = ("torch", "onnx", "onnxscript", "onnx-graphsurgeon", "safetensors")


@dataclass(frozen=True)
class Packages:
    """The packages that matchrt can use.

    versions: by name; None for packages that are not installed.
    warnings: sentences about packages that disturb each other.
    """

    versions: Mapping[str, str | None]
    warnings: tuple[str, ...] = ()

    def has(self, name: str) -> bool:
        """Whether the package is installed."""
        return self.versions.get(name) is not None

    def missing(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the packages that are not installed."""
        return tuple(name for name in names if not self.has(name))


def installed_packages() -> Packages:
    """The versions of all packages that matchrt can use."""
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
