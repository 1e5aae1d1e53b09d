"""matchrt behind the interfaces of kornia, vismatch and hloc: the matches of a direct call."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.pictures import shifted_pair

from matchrt.errors import MatchRTError
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.matches import Matches

torch = pytest.importorskip("torch", reason="these libraries pass torch's tensors")
PAIR = shifted_pair(96, 128, (16, 8))


def _tensor(grey: np.ndarray, channels: int = 1) -> Any:
    return torch.from_numpy(grey).float().div(255)[None, None].expand(1, channels, -1, -1)


@pytest.fixture(scope="module")
def direct() -> Matches:
    with Matcher() as matcher:
        found = matcher.match(*PAIR)
    assert len(found) > 50
    return found


def test_a_module_takes_and_gives_what_kornia_s_loftr_does(direct: Matches) -> None:
    from matchrt.integrations.kornia import KorniaMatcher

    matcher = KorniaMatcher().eval()
    first, second = (_tensor(grey) for grey in PAIR)
    found = matcher({"image0": torch.cat([first, first]), "image1": torch.cat([second, second])})
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in found.items()} == {
        "keypoints0": (torch.float32, (2 * len(direct), 2)),
        "keypoints1": (torch.float32, (2 * len(direct), 2)),
        "confidence": (torch.float32, (2 * len(direct),)),
        "batch_indexes": (torch.int64, (2 * len(direct),)),
    }
    for index in (0, 1):
        of_pair = found["batch_indexes"] == index
        assert np.array_equal(found["keypoints0"][of_pair].numpy(), direct.keypoints0)
        assert np.array_equal(found["keypoints1"][of_pair].numpy(), direct.keypoints1)
        assert np.array_equal(found["confidence"][of_pair].numpy(), direct.scores)


def test_kornia_s_own_loftr_has_these_names_and_types() -> None:
    feature = pytest.importorskip("kornia.feature", reason="kornia is not installed (extra dev)")
    from matchrt.integrations.kornia import KorniaMatcher

    data = dict(zip(("image0", "image1"), (_tensor(grey) for grey in PAIR), strict=True))
    torch.manual_seed(0)
    with torch.no_grad():
        theirs = feature.LoFTR(pretrained=None).eval()(dict(data))
    ours = KorniaMatcher()(data)
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype and tensor.ndim == theirs[name].ndim, name


def test_tensors_that_are_no_images_are_refused() -> None:
    from matchrt.integrations.kornia import KorniaMatcher

    matcher, good = KorniaMatcher(), _tensor(PAIR[0])
    for bad in (good[0], good.expand(1, 4, -1, -1), good.repeat(2, 1, 1, 1), good.int(), good * float("nan")):
        with pytest.raises(MatchRTError) as refused:
            matcher({"image0": good, "image1": bad})
        assert refused.value.code == "image-array"
    with pytest.raises(MatchRTError) as refused:
        matcher({"image0": good, "image1": good, "mask0": good})
    assert refused.value.code == "option-range"


def test_vismatch_runs_an_engine_like_its_own_matchers(direct: Matches) -> None:
    pytest.importorskip("vismatch", reason="vismatch is not installed")
    from matchrt.integrations.vismatch import VismatchMatcher

    matcher = VismatchMatcher(ransac_reproj_thresh=2)
    found = matcher(*(_tensor(grey, 3)[0] for grey in PAIR))
    assert np.array_equal(found["matched_kpts0"], direct.keypoints0)
    assert np.array_equal(found["matched_kpts1"], direct.keypoints1)
    assert np.array_equal(found["matched_confidences"], direct.scores)
    assert found["num_inliers"] > 0.9 * len(direct)
    assert np.abs(found["H"] / found["H"][2, 2] - [[1, 0, -16], [0, 1, -8], [0, 0, 1]]).max() < 0.5


@pytest.fixture
def hloc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """hloc, or where it is not installed a package with its two rules: a base class, and how matchers are found."""
    try:
        import hloc as real
    except ModuleNotFoundError:
        for folder in ("matchers", "utils"):
            (tmp_path / "hloc" / folder).mkdir(parents=True)
            (tmp_path / "hloc" / folder / "__init__.py").touch()
        (tmp_path / "hloc" / "__init__.py").touch()
        (tmp_path / "hloc" / "utils" / "base_model.py").write_text(
            "import torch\n"
            "class BaseModel(torch.nn.Module):\n"
            "    default_conf, required_inputs = {}, []\n"
            "    def __init__(self, conf):\n"
            "        super().__init__()\n"
            "        self.conf = {**self.default_conf, **conf}\n"
            "        self._init(self.conf)\n"
            "    def forward(self, data):\n"
            "        assert all(key in data for key in self.required_inputs)\n"
            "        return self._forward(data)\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        import hloc as real
    yield real
    for name in [name for name in sys.modules if name.split(".")[0] == "hloc"]:
        del sys.modules[name]


def test_hloc_finds_the_matcher_by_its_name(hloc: Any, direct: Matches) -> None:
    import inspect
    from importlib import import_module

    from hloc.utils.base_model import BaseModel

    from matchrt.integrations.hloc import dense_conf, register

    register()
    conf = dense_conf(resize_max=640)
    module = import_module(f"{hloc.__name__}.matchers.{conf['model']['name']}")
    classes = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__]
    assert len(classes) == 1 and issubclass(classes[0], BaseModel)
    model = classes[0](conf["model"]).eval()
    # The other way round: hloc's image 0 gets the refined points.
    found = model({"image0": _tensor(PAIR[1]), "image1": _tensor(PAIR[0])})
    assert np.array_equal(found["keypoints0"].numpy(), direct.keypoints1)
    assert np.array_equal(found["keypoints1"].numpy(), direct.keypoints0)
    assert np.array_equal(found["scores"].numpy(), direct.scores)
    assert conf["preprocessing"] == {"grayscale": True, "resize_max": 640, "dfactor": 8}
