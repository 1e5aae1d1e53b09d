"""RoMa v2 for tests: the tensors of the published file, and a network of a few thousand parameters."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from support.eloftr import manifest_state

# Tensors of the file that the network does not have; the family's key map says why.
_UNUSED = re.compile(r"f\.blocks\.(18|19|2\d)\.|f\.mask_token|matcher\.(temp|scale)$|.*(periods|bias_mask)$")


def published_state(shared: Path) -> dict[str, Tensor]:
    """The network's tensors in the seeded checkpoint, masks applied: the key map's work, done independently."""
    state = manifest_state(shared, "romav2")
    masked = {key: value * state[f"{key}_mask"] if f"{key}_mask" in state else value for key, value in state.items()}
    return {key: value for key, value in masked.items() if not _UNUSED.match(key)}
