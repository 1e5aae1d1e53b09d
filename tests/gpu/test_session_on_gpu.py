"""Sessions on a real GPU (`pytest -m gpu`): needs cuda-python and a TensorRT module; RTX 1.4 on an H100 is known."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from matchrt.bench.scene import image_pair
from matchrt.building.pipeline import BuildRequest, build
from matchrt.errors import MatchRTError
from matchrt.manifest import manifest_path, read_manifest
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.matches import Matches
from matchrt.runtime.options import MatcherOptions
from matchrt.store import EngineStore

pytestmark = pytest.mark.gpu
BACKENDS = ("tensorrt_rtx", "tensorrt")
BUNDLED = Path(__file__).resolve().parents[2] / "src" / "matchrt" / "assets" / "loftr-lite.onnx"


@pytest.fixture(scope="module")
def backend() -> str:
    from matchrt.nvidia.device import find_gpus
    from matchrt.nvidia.modules import open_dialect

    if not find_gpus():
        pytest.skip("there is no NVIDIA GPU here")
    for name in BACKENDS:
        try:
            open_dialect(name)
        except MatchRTError:
            continue
        return name
    pytest.skip("neither tensorrt_rtx nor tensorrt is installed")


@pytest.fixture(scope="module")
def engines(backend: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("gpu")
    return {
        precision: build(
            BuildRequest(str(BUNDLED), backend=backend, precision=precision, output=folder / f"{precision}.engine"),
            EngineStore(folder / "store"),
        ).path
        for precision in ("fp32", "fp16")
    }


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    first, second = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in image_pair(480, 640)[:2])
    return first, second


@pytest.fixture
def matcher(engines: dict[str, Path]) -> Iterator[Matcher]:
    with Matcher(engines["fp16"]) as opened:
        yield opened


def _kept(expected: Matches, actual: Matches, pixels: float) -> float:
    known = {tuple(point): index for index, point in enumerate(actual.keypoints0.tolist())}
    rows = [known.get(tuple(point)) for point in expected.keypoints0.tolist()]
    near = [
        row is not None and np.abs(actual.keypoints1[row] - expected.keypoints1[index]).max() <= pixels
        for index, row in enumerate(rows)
    ]
    return float(np.mean(near))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_matches_are_those_of_onnx_runtime(
    engines: dict[str, Path], pair: tuple[np.ndarray, np.ndarray], precision: str
) -> None:
    """Within a pixel: TensorRT-RTX 1.4 computes fp32 products in TF32. Of the best, since 2048 slots are not enough."""
    with Matcher("loftr-lite") as reference, Matcher(engines[precision]) as tested:
        expected, actual = reference.match(*pair), tested.match(*pair)
    assert len(expected) > 1000
    assert _kept(expected.top(1000), actual, 1.0) >= 0.99
    assert 0.98 <= len(actual) / len(expected) <= 1.02


def test_the_graph_changes_no_bit(engines: dict[str, Path], pair: tuple[np.ndarray, np.ndarray]) -> None:
    with Matcher(engines["fp16"], MatcherOptions(cuda_graph=False)) as plain, Matcher(engines["fp16"]) as graphed:
        expected = plain.match(*pair)
        results = [graphed.match(*pair) for _ in range(20)]
        assert graphed.session.launch_mode() == "graph" and plain.session.launch_mode().startswith("enqueue")
    assert all(np.array_equal(result.keypoints1, expected.keypoints1) for result in results)
    assert set(results[-1].timings) >= {"upload", "gpu", "download", "inference"}


def test_sizes_in_turn(matcher: Matcher) -> None:
    """Memory grows with the shapes, graphs come and go, and every size gives what it gave before."""
    # The network sees them at a long side of 640: five shapes, not in the order of their size.
    sizes = [(480, 640), (320, 640), (640, 480), (640, 640), (480, 640), (400, 640)] * 3
    first: dict[tuple[int, int], Matches] = {}
    for size in sizes:
        images = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in image_pair(*size)[:2]]
        found = matcher.match(*images)
        expected = first.setdefault(size, found)
        assert np.array_equal(found.keypoints1, expected.keypoints1) and len(found) > 50


def test_threads_give_the_serial_bits(matcher: Matcher, pair: tuple[np.ndarray, np.ndarray]) -> None:
    expected, differing = matcher.match(*pair), []

    def work() -> None:
        with matcher.fork() as mine:
            differing.extend(
                index for index in range(30) if not np.array_equal(mine.match(*pair).keypoints1, expected.keypoints1)
            )

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert differing == []


def test_many_pairs_overlap_and_keep_their_order(matcher: Matcher, pair: tuple[np.ndarray, np.ndarray]) -> None:
    one, two = matcher.match(*pair), matcher.match(pair[0], pair[0])
    results = list(matcher.match_many([pair, (pair[0], pair[0])] * 5 + [("missing.png", pair[0])], return_errors=True))
    assert isinstance(results[-1], MatchRTError) and len(results) == 11
    for index, found in enumerate(results[:10]):
        assert isinstance(found, Matches)
        assert np.array_equal(found.keypoints1, (one, two)[index % 2].keypoints1)


@pytest.mark.parametrize("with_stream", [True, False])
@pytest.mark.parametrize("dlpack", [True, False])
def test_images_on_the_gpu(
    matcher: Matcher, pair: tuple[np.ndarray, np.ndarray], with_stream: bool, dlpack: bool
) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")

    class OnlyDLPack:
        def __init__(self, tensor: object) -> None:
            self.tensor = tensor

        def __dlpack__(self, **options: object) -> object:
            return self.tensor.__dlpack__(**options)  # type: ignore[attr-defined]

        def __dlpack_device__(self) -> object:
            return self.tensor.__dlpack_device__()  # type: ignore[attr-defined]

    expected = matcher.match(*pair)
    stream = torch.cuda.Stream() if with_stream else None
    with torch.cuda.stream(stream):
        images = [torch.from_numpy(image).cuda() for image in pair]
    given = [OnlyDLPack(image) if dlpack else image for image in images]
    found = matcher.match(*given, stream=stream)
    assert np.array_equal(found.keypoints1, expected.keypoints1)
    on_gpu = matcher.match_on_gpu(*given, stream=stream)
    torch.cuda.synchronize()
    count = int(on_gpu.num_matches.to_host()[0])
    points = torch.as_tensor(on_gpu.keypoints1, device="cuda")
    assert points.data_ptr() == on_gpu.keypoints1.pointer and count >= len(expected)
    assert np.array_equal(points[0, : len(expected)].cpu().numpy(), expected.keypoints1)
    cut = [image[:470] for image in pair]
    assert np.array_equal(
        matcher.match(*(image[:470] for image in images), stream=stream).keypoints1, matcher.match(*cut).keypoints1
    )


def test_refusals_come_before_loading(engines: dict[str, Path], tmp_path: Path) -> None:
    source = engines["fp16"]
    changes = {
        "engine-version": ('"backend_version": "', '"backend_version": "99.'),
        "engine-gpu": ('"newer_gpus": true', '"newer_gpus": false'),
        "engine-digest": (read_manifest(manifest_path(source)).engine_sha256, "0" * 64),
    }
    for code, (old, new) in changes.items():
        engine = tmp_path / f"{code}.engine"
        engine.write_bytes(source.read_bytes())
        text = manifest_path(source).read_text()
        if code == "engine-gpu" and read_manifest(manifest_path(source)).portability.compute_capabilities == ():
            continue
        assert old in text
        manifest_path(engine).write_text(text.replace(old, new))
        with pytest.raises(MatchRTError) as caught:
            Matcher(engine)
        assert caught.value.code == code and "matchrt build" in caught.value.remedy


def test_memory_is_given_back(engines: dict[str, Path], pair: tuple[np.ndarray, np.ndarray]) -> None:
    from matchrt.nvidia.device import free_memory

    def once() -> int:
        with Matcher(engines["fp16"]) as opened:
            for _ in range(4):
                opened.match(*pair)
        return free_memory()

    once()
    after = [once() for _ in range(4)]
    assert max(after) - min(after) <= 32 * 2**20
