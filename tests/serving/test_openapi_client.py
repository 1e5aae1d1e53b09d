"""A client that openapi-python-client generates from the service's own description calls every route of it."""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage
from support.serving import Running

VARIABLE = "MATCHRT_OPENAPI_CLIENT"
PACKAGE = "generated_matchrt_client"


def find() -> str | None:
    """The generator's program. It may be in an environment of its own: it holds other packages back."""
    beside = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    return os.environ.get(VARIABLE) or shutil.which("openapi-python-client", path=beside)


@pytest.fixture(scope="module")
def description(server: Running) -> dict[str, Any]:
    with urllib.request.urlopen(f"{server.url}/openapi.json") as answer:
        return dict(json.load(answer))


@pytest.fixture(scope="module")
def generated(description: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Imports a module of the generated package."""
    program = find()
    if program is None:
        pytest.skip(f"openapi-python-client is not installed, and ${VARIABLE} does not name it")
    pytest.importorskip("attrs")
    if sys.version_info < (3, 11):
        pytest.skip("the generated clients need Python 3.11")
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_text(json.dumps(description))
    # The generator calls ruff, which it has beside it.
    path = os.pathsep.join((str(Path(program).parent), os.environ.get("PATH", os.defpath)))
    command = [program, "generate", "--fail-on-warning", "--meta", "none"]
    subprocess.run(
        [*command, "--path", "openapi.json", "--output-path", PACKAGE],
        cwd=folder, env={**os.environ, "PATH": path}, check=True, capture_output=True,
    )  # fmt: skip
    sys.path.insert(0, str(folder))
    try:
        importlib.import_module(PACKAGE)
    finally:
        sys.path.remove(str(folder))
    return lambda name: importlib.import_module(f"{PACKAGE}.{name}")


def test_every_route(server: Running, pair: Any, generated: Callable[[str], Any], description: dict[str, Any]) -> None:
    models, types = generated("models"), generated("types")
    client = generated("client").Client(base_url=server.url, timeout=120)
    pixels = [np.array(PILImage.open(path).convert("L"))[:, :, None] for path in pair.paths]

    def file(data: bytes, name: str) -> Any:
        return types.File(payload=io.BytesIO(data), file_name=name, mime_type="image/jpeg")

    tensors = [
        models.Tensor(name=f"image{i}", datatype="UINT8", shape=list(one.shape), data=one.ravel().tolist())
        for i, one in enumerate(pixels)
    ]
    request = models.InferRequest(inputs=tensors, id="7")
    form = models.MatchRequest(
        image0=file(pair.files[0], "a.jpg"),
        image1=file(pair.files[1], "b.jpg"),
        verify=models.MatchRequestVerify.HOMOGRAPHY,
        min_score=0.4,
        engine="loftr-lite",
    )
    one = {"model": "loftr-lite"}
    version = {**one, "version": "1"}
    calls: dict[str, dict[str, Any]] = {
        **{name: {} for name in ("live", "server_ready", "metrics", "server", "engines", "all_statistics")},
        **dict.fromkeys(("model_ready", "metadata", "config", "model_statistics"), one),
        **dict.fromkeys(("version_ready", "version_metadata", "version_config", "version_statistics"), version),
        "match": {"body": form},
        "model_infer": {**one, "body": request},
        "version_infer": {**version, "body": request, "x_request_timeout": 100.0},
        "index": {"body": models.IndexRequest(ready=True)},
    }
    operations = {
        entry["operationId"]: entry["tags"][0] for path in description["paths"].values() for entry in path.values()
    }
    assert set(operations) == set(calls)
    found = {}
    for name, arguments in calls.items():
        answer = generated(f"api.{operations[name]}.{name}").sync_detailed(client=client, **arguments)
        assert answer.status_code == 200, (name, answer.content)
        found[name] = answer.parsed
    assert np.array_equal(np.array(found["match"].keypoints0, np.float32), pair.expected.keypoints0)
    assert found["match"].geometry.kind == "homography" and found["match"].geometry.inliers > 100
    assert found["model_infer"].id == "7" and found["model_infer"].outputs[0].name == "keypoints0"
    assert found["engines"][0].name == "loftr-lite" and found["engines"][0].default_score == 0.4
    assert found["config"].max_batch_size == 0 and found["index"][0].state == "READY"
    assert found["model_statistics"].model_stats[0].inference_stats.success.count >= 0
    assert "matchrt_requests" in found["metrics"]


def test_an_error_is_an_object(server: Running, generated: Callable[[str], Any]) -> None:
    client = generated("client").Client(base_url=server.url, timeout=120)
    found = generated("api.protocol.metadata").sync(client=client, model="nothing")
    assert isinstance(found, generated("models").Error) and found.code == "model-not-served" and found.remedy
