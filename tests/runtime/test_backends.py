"""The registry: names in one place, facts without heavy imports, and what each backend refuses."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import matchrt
from matchrt.errors import MatchRTError
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.runtime.backend import building_backends, get_backend
from matchrt.runtime.backends import DEFAULT_BACKEND, backend_names
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.runtime.opening import open_session
from matchrt.runtime.session import SessionOptions

Run = Callable[[str], subprocess.CompletedProcess[str]]


def test_the_default_backends_name_stands_in_one_place() -> None:
    root = Path(matchrt.__file__).parent
    places = [
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value == DEFAULT_BACKEND
    ]
    assert places == ["runtime/backends.py"]


def test_no_code_compares_backends_by_name() -> None:
    """Differences are facts of `Backend`. Only the choice of NVIDIA's module goes by the name."""
    root = Path(matchrt.__file__).parent
    places = [
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare)
        for constant in ast.walk(node)
        if isinstance(constant, ast.Constant) and constant.value in backend_names()
    ]
    assert places == ["nvidia/modules.py"]


def test_facts_cost_no_heavy_import(run_python: Run) -> None:
    heavy = ["torch", "jax", "onnxruntime", "onnx", "cv2", "numpy", "PIL", "cuda", "tensorrt", "tensorrt_rtx"]
    ran = run_python(f"""
import sys
from matchrt.runtime.backend import get_backend
from matchrt.runtime.backends import backend_names
for name in backend_names():
    backend = get_backend(name)
    assert backend.name == name and backend.suffix.startswith('.') and backend.device() in ('cpu', 'cuda')
    assert backend.title and backend.distributions and isinstance(backend.builds, bool)
print([module for module in {heavy!r} if module in sys.modules])
""")
    assert ran.stdout.strip() == "[]", ran.stderr


def test_each_backend_says_what_it_is() -> None:
    backends = {name: get_backend(name) for name in backend_names()}
    assert building_backends() == ("onnxruntime", "tensorrt", "tensorrt_rtx")
    assert [name for name, backend in backends.items() if backend.host_memory] == ["onnxruntime", "openvino"]
    assert [name for name, backend in backends.items() if backend.onnx_engines] == ["onnxruntime", "openvino"]
    assert [name for name, backend in backends.items() if backend.takes_weights] == ["jax"]
    assert [name for name, backend in backends.items() if backend.cuda_graphs] == ["tensorrt", "tensorrt_rtx"]
    assert [name for name, backend in backends.items() if backend.triton] == ["onnxruntime", "tensorrt"]
    assert [name for name, backend in backends.items() if backend.builds_on_gpu] == ["tensorrt"]
    assert {name: backend.lowest_target for name, backend in backends.items() if backend.lowest_target} == {
        "tensorrt_rtx": "8.0"
    }
    assert {name: backend.extra for name, backend in backends.items()} == {
        "onnxruntime": None, "tensorrt": "tensorrt", "tensorrt_rtx": "rtx", "openvino": "openvino",
        "jax": "flax",
    }  # fmt: skip
    assert [backends[name].device("cuda") for name in backends] == ["cuda"] * 5
    assert [backends[name].device() for name in backends] == ["cpu", "cuda", "cuda", "cpu", "cpu"]


def test_what_a_backend_does_not_do_is_refused() -> None:
    options, engine = SessionOptions(), read_engine("loftr-lite")
    jax = get_backend("jax")
    with pytest.raises(MatchRTError) as caught:
        jax.builder(BuilderOptions())
    assert caught.value.code == "backend-unknown" and "tensorrt_rtx" in caught.value.remedy
    with pytest.raises(MatchRTError) as caught:
        jax.open(engine, options)
    assert caught.value.code == "engine-backend"
    with pytest.raises(MatchRTError) as caught:
        get_backend(DEFAULT_BACKEND).open_weights("loftr-lite", options)
    assert caught.value.code == "engine-backend"
    with pytest.raises(MatchRTError) as caught:
        jax.quantization("int8")
    assert caught.value.code == "precision-backend"


def test_an_engine_whose_tensors_are_not_the_manifests_is_refused() -> None:
    engine = read_engine("loftr-lite")
    fewer = replace(engine.manifest, outputs=engine.manifest.outputs[:-1])
    renamed = replace(engine.manifest.inputs[0], name="picture0")
    other = replace(engine.manifest, inputs=(renamed, *engine.manifest.inputs[1:]))
    for manifest, named in ((fewer, engine.manifest.outputs[-1].name), (other, "picture0")):
        with pytest.raises(MatchRTError) as caught:
            open_session(EngineFile(engine.path, engine.data, manifest))
        assert caught.value.code == "engine-graph" and named in caught.value.message


def test_jax_that_is_not_installed_says_what_to_install(run_python: Run) -> None:
    ran = run_python("""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('jax', 'flax'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Blocked())
from matchrt import Matcher, MatcherOptions
from matchrt.errors import MatchRTError
try:
    Matcher('loftr-lite', MatcherOptions(backend='jax'))
except MatchRTError as error:
    print(error.code, error.remedy)
""")
    assert ran.stdout.startswith("package-missing") and "matchrt[flax]" in ran.stdout, ran.stderr
