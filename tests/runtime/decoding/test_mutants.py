"""The short form of `bench/image_mutants.py`: damaged images of nine formats."""

import pytest
from support.scripts import bench_script


@pytest.fixture(scope="module")
def tool():
    return bench_script("image_mutants")


@pytest.mark.parametrize("seed", range(3))
def test_mutants_are_right_refused_or_as_others_read_them(tool, seed):
    seen = tool.run(180, seed + 100)
    assert not seen.failures, "\n".join(seen.failures)
    assert len({kind for kind, _ in seen.counts}) == 9


def test_whole_files_are_right(tool):
    for kind, each in tool.files().items():
        for data in each:
            image = tool.decode_image(data, kind).rgb()
            same = [other for other in tool._others(data) if other.shape == image.shape]
            # Without imagecodecs, older OpenCV leaves Pillow alone with some formats.
            agreed = sum(abs(other.astype(float) - image).mean() <= tool.CLOSE for other in same)
            assert agreed >= min(2, len(same)) >= 1, kind
