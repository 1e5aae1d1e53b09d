"""Whether an engine may run on this machine, asked before a byte of it is loaded."""

from __future__ import annotations

from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.runtime.engine_file import BUNDLED

# Of the builder's options those that are a matter of the engine, not of the machine: by the manifest's names.
_OPTIONS = (("tf32", "--tf32"), ("version_compatible", "--version-compatible"))


def require_version(manifest: EngineManifest, version: str) -> None:
    """Raises `engine-version` when the installed version of the backend cannot run the engine."""
    rule = manifest.portability.version
    same = manifest.backend_version == version
    if rule == "any" or same or (rule == "newer" and _numbers(version) >= _numbers(manifest.backend_version)):
        return
    need = "that version" if rule == "exact" else "that version or a later one"
    raise MatchRTError(
        "engine-version",
        f"The engine's backend_version is {manifest.backend_version}; here is {manifest.backend} {version}, and it "
        f"needs {need}.",
        f"Build it with what is installed: {build_command(manifest)}.",
    )


def require_gpu(manifest: EngineManifest, capability: str, name: str) -> None:
    """Raises `engine-gpu` when the engine was built for other GPUs. capability: as `8.9`."""
    where = manifest.portability
    listed = where.compute_capabilities
    if not listed or capability in listed:
        return
    if where.newer_gpus and _numbers(capability) > min(_numbers(entry) for entry in listed):
        return
    later = " and later" if where.newer_gpus else ""
    raise MatchRTError(
        "engine-gpu",
        f"The engine's compute_capabilities are {', '.join(listed)}{later}; this GPU, {name}, has {capability}.",
        f"Build it for this GPU: {build_command(manifest)}.",
    )


def build_command(manifest: EngineManifest) -> str:
    """The command that builds the same engine for here."""
    parts = [f"matchrt build {manifest.model} --backend {manifest.backend} --precision {manifest.precision}"]
    contract = manifest.input
    if contract.profile is not None:
        sizes = (contract.profile.minimum, contract.profile.optimum, contract.profile.maximum)
        parts.append("--dynamic " + ",".join(f"{height}x{width}" for height, width in sizes))
    else:
        parts.append(f"--height {contract.height} --width {contract.width}")
    if contract.batch != 1:
        parts.append(f"--batch {contract.batch}")
    if manifest.dense:
        parts.append("--dense")
    parts += [option for name, option in _OPTIONS if name in manifest.options]
    if manifest.model not in BUNDLED:
        parts.append(f"--checkpoint {manifest.source.name}")
    return " ".join(parts)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
