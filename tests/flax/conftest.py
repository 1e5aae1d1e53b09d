from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import Tensor


@pytest.fixture(scope="session")
def lite_state() -> dict[str, Tensor]:
    """The bundled model's tensors under the checkpoint's own keys."""
    from matchrt.export.weights.network import checkpoint_path
    from matchrt.export.weights.read import read_checkpoint
    from matchrt.families.registry import get_spec

    return dict(read_checkpoint(checkpoint_path(get_spec("loftr-lite"), None)).tensors)


@pytest.fixture(scope="session")
def lite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model in Flax's layout."""
    from matchrt.export.weights.network import checkpoint_path
    from matchrt.families.registry import get_spec
    from matchrt.flax.conversion import convert_file

    path = tmp_path_factory.mktemp("flax") / "lite.npz"
    convert_file(checkpoint_path(get_spec("loftr-lite"), None), path)
    return path
