"""torch's exporter, asked once a run for the same graph: an export takes ten seconds of pure Python.

For tests of what comes after the export. Tests of the export itself do without.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from filelock import FileLock


class _Content(pickle.Pickler):
    """Writes tensors as their digests, so that equal networks give equal bytes."""

    def persistent_id(self, value: object) -> object:
        if not isinstance(value, torch.Tensor):
            return None
        plain = value.detach().contiguous()
        digest = hashlib.sha256(plain.numpy().tobytes()).hexdigest()
        return str(plain.dtype), tuple(plain.shape), digest


def content_key(*values: object) -> str:
    """Hex digest of everything in these values: configurations, weights, arguments."""
    stream = io.BytesIO()
    _Content(stream, protocol=4).dump(values)
    return hashlib.sha256(stream.getvalue()).hexdigest()


@contextmanager
def exported_once(folder: Path) -> Iterator[None]:
    """Within it, `torch.onnx.export` keeps the graphs of static networks in that folder and reads them again."""
    folder.mkdir(parents=True, exist_ok=True)
    real = torch.onnx.export

    def export(graph: torch.nn.Module, arguments: tuple[Any, ...], **options: Any) -> Any:
        if options.get("dynamic_shapes") is not None:
            return real(graph, arguments, **options)
        path = folder / f"{content_key(graph, arguments, sorted(options.items()))}.onnx"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                made = real(graph, arguments, **options)
                assert made is not None
                path.write_bytes(made.model_proto.SerializeToString())
            return SimpleNamespace(model_proto=onnx.load_model_from_string(path.read_bytes()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", export)
        yield
