"""How much memory there is, and what fits into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from matchrt._util import memory
from matchrt.errors import MatchRTError

SIZE, STRIDE = (480, 640), 8
# Five matrices of all cells with all cells, in float32.
NEEDED = 5 * 4 * (60 * 80) ** 2


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The container's limit, on a system that says nothing else."""
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP_LIMIT", tmp_path / "memory.max")
    return tmp_path / "memory.max"


def test_available_memory_counts_the_file_cache(limit: Path) -> None:
    assert memory.available_bytes() is None
    memory.require_memory((10_000, 10_000), (10_000, 10_000), 8)  # unknown: nothing is refused
    assert memory.pairs_that_fit(SIZE, SIZE, STRIDE) is None
    limit.with_name("meminfo").write_text("MemTotal: 9000000 kB\nMemFree: 1000 kB\nMemAvailable: 8000000 kB\n")
    limit.write_text("max\n")
    assert memory.available_bytes() == 8_000_000 * 1024
    limit.write_text("1000000000\n")
    assert memory.available_bytes() == 1_000_000_000


def test_memory_is_for_five_matrices_of_all_cells_with_all_cells(limit: Path) -> None:
    limit.write_text(str(NEEDED))
    memory.require_memory(SIZE, SIZE, STRIDE)
    limit.write_text(str(NEEDED - 1))
    with pytest.raises(MatchRTError) as caught:
        memory.require_memory(SIZE, SIZE, STRIDE)
    assert caught.value.code == "size-memory" and f"about {NEEDED / 1e9:.1f} GB" in caught.value.message
    # Each image has its own number of cells.
    memory.require_memory((240, 640), SIZE, STRIDE)
    memory.require_memory(SIZE, (480, 320), STRIDE)
    memory.require_memory(SIZE, SIZE, 2 * STRIDE)


@pytest.mark.parametrize(("available", "pairs"), [(NEEDED - 1, 0), (NEEDED, 1), (3 * NEEDED + 5, 3)])
def test_pairs_that_fit(limit: Path, available: int, pairs: int) -> None:
    limit.write_text(str(available))
    assert memory.pairs_that_fit(SIZE, SIZE, STRIDE) == pairs
