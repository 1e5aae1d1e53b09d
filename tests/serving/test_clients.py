"""Triton's own clients, curl, and the friendly endpoint: to the bit what `matchrt match` gives."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PILImage
from support.commands import CommandLine
from support.serving import Running

from matchrt.runtime.matches import Matches

NAMES = ("keypoints0", "keypoints1", "scores")


def check(answer: Any, expected: Matches) -> None:
    for name in NAMES:
        array = answer.as_numpy(name)
        assert array.dtype == np.float32 and np.array_equal(array, getattr(expected, name)), name


def arrays(paths: tuple[Path, Path]) -> list[npt.NDArray[np.uint8]]:
    pictures = [np.array(PILImage.open(path)) for path in paths]
    return [picture[:, :, None] if picture.ndim == 2 else picture for picture in pictures]


def inputs_of(module: Any, values: list[npt.NDArray[Any]], **options: Any) -> list[Any]:
    made = []
    for index, value in enumerate(values):
        kind = "BYTES" if value.dtype == object else "UINT8"
        one = module.InferInput(f"image{index}", list(value.shape), kind)
        one.set_data_from_numpy(value, **options)
        made.append(one)
    return made


def files(pair: Any) -> list[npt.NDArray[np.object_]]:
    return [np.array([data], object) for data in pair.files]


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_tritonclient_http(server: Running, pair: Any, binary: bool) -> None:
    http = pytest.importorskip("tritonclient.http")
    client = http.InferenceServerClient(f"127.0.0.1:{server.http}")
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("loftr-lite")
    assert client.get_server_metadata()["name"] == "matchrt"
    metadata = client.get_model_metadata("loftr-lite")
    assert [entry["name"] for entry in metadata["inputs"]] == ["image0", "image1"]
    inputs = inputs_of(http, arrays(pair.paths), binary_data=binary)
    outputs = [http.InferRequestedOutput(name, binary_data=binary) for name in NAMES]
    answer = client.infer("loftr-lite", inputs, outputs=outputs, request_id="7", model_version="1", timeout=50_000_000)
    check(answer, pair.expected)
    assert answer.get_response()["id"] == "7"
    check(client.infer("loftr-lite", inputs), pair.expected)
    client.close()


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritonclient_http_with_files(server: Running, pair: Any, compression: str | None) -> None:
    http = pytest.importorskip("tritonclient.http")
    client = http.InferenceServerClient(f"127.0.0.1:{server.http}")
    answer = client.infer(
        "loftr-lite-files", inputs_of(http, files(pair)), request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )  # fmt: skip
    check(answer, pair.expected)
    client.close()


def test_tritonclient_grpc(server: Running, pair: Any) -> None:
    grpc = pytest.importorskip("tritonclient.grpc")
    client = grpc.InferenceServerClient(f"127.0.0.1:{server.grpc}")
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("loftr-lite", "1")
    assert client.get_server_metadata().name == "matchrt"
    metadata = client.get_model_metadata("loftr-lite-engine")
    assert {entry.name for entry in metadata.outputs} == {*NAMES, "num_matches"}
    check(client.infer("loftr-lite", inputs_of(grpc, arrays(pair.paths)), client_timeout=50), pair.expected)
    outputs = [grpc.InferRequestedOutput(name) for name in NAMES[::-1]]
    answer = client.infer("loftr-lite-files", inputs_of(grpc, files(pair)), outputs=outputs, request_id="8")
    check(answer, pair.expected)
    assert answer.get_response().id == "8"
    assert [entry.name for entry in answer.get_response().outputs] == list(NAMES[::-1])
    client.close()


def test_min_score_is_a_parameter(server: Running, pair: Any) -> None:
    http = pytest.importorskip("tritonclient.http")
    client = http.InferenceServerClient(f"127.0.0.1:{server.http}")
    answer = client.infer("loftr-lite", inputs_of(http, arrays(pair.paths)), parameters={"min_score": 0.9})
    check(answer, pair.expected.filter(0.9))
    client.close()


def test_the_engines_own_tensors(server: Running, pair: Any) -> None:
    """What comes out of the engine is what its session gives for the same tensors."""
    grpc = pytest.importorskip("tritonclient.grpc")
    from matchrt.runtime.matcher import Matcher

    with Matcher("loftr-lite") as matcher:
        prepared = matcher.adapter.inputs(*pair.paths)
        expected = matcher.session.run(prepared)
    client = grpc.InferenceServerClient(f"127.0.0.1:{server.grpc}")
    answer = client.infer("loftr-lite-engine", inputs_of(grpc, [prepared["image0"], prepared["image1"]]))
    for name, array in expected.items():
        assert np.array_equal(answer.as_numpy(name), array), name
    client.close()


def test_curl_and_the_command_line(server: Running, pair: Any, cli: CommandLine, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    first, second = pair.paths
    saved = tmp_path / "matches.json"
    assert cli("match", first, second, "--engine", "loftr-lite", "--save", saved, "--verify", "homography").code == 0
    sent = subprocess.run(
        [curl, "-sS", "-F", f"image0=@{first}", "-F", f"image1=@{second}", "-F", "verify=homography",
         "-F", "picture=png", f"{server.url}/v1/match"], capture_output=True, check=True,
    ).stdout  # fmt: skip
    answer, expected = json.loads(sent), json.loads(saved.read_text())
    for name in NAMES:
        ours, theirs = (np.array(record[name], np.float32) for record in (answer, expected))
        assert np.array_equal(ours, theirs) and len(ours) == len(pair.expected), name
    assert answer["inliers"] == expected["inliers"]
    assert answer["geometry"]["matrix"] == expected["matrix"]
    assert answer["image0"] == {"name": "a.jpg", "height": 120, "width": 160, "orientation": 1}
    picture = np.array(PILImage.open(io.BytesIO(base64.b64decode(answer["picture"]))))
    assert picture.shape[1] > 2 * 160 and picture.std() > 20


def test_json_alone_is_enough(server: Running, pair: Any) -> None:
    """Numbers and base64 in plain JSON, as a shell script would send them."""
    import urllib.request

    first, second = arrays(pair.paths)
    whole = [(name, "UINT8", list(a.shape), a.tolist(), {}) for name, a in (("image0", first), ("image1", second))]
    texts = [
        (f"image{i}", "BYTES", [1], [base64.b64encode(data).decode()], {"content_type": "base64"})
        for i, data in enumerate(pair.files)
    ]
    for model, tensors in (("loftr-lite", whole), ("loftr-lite-files", texts)):
        keys = ("name", "datatype", "shape", "data", "parameters")
        body = json.dumps({"inputs": [dict(zip(keys, tensor, strict=True)) for tensor in tensors]}).encode()
        with urllib.request.urlopen(f"{server.url}/v2/models/{model}/infer", body) as answer:
            outputs = {entry["name"]: entry for entry in json.load(answer)["outputs"]}
        for name in NAMES:
            array = np.array(outputs[name]["data"], np.float32).reshape(outputs[name]["shape"])
            assert np.array_equal(array, getattr(pair.expected, name))
