"""The engine store and manifests: whole entries or none."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from matchrt._util.digest import sha256_bytes
from matchrt.engines.build import Engine
from matchrt.errors import MatchRTError
from matchrt.manifest import (
    EngineManifest,
    InputContract,
    MatchContract,
    PassRecord,
    Portability,
    Profile,
    Source,
    TensorSpec,
    manifest_path,
    read_manifest,
)
from matchrt.store import EngineStore, open_store


def _engine(data: bytes = b"engine", key: str = "0123456789abcdef0123") -> Engine:
    manifest = EngineManifest(
        model="m", family="loftr", precision="fp32", backend="onnxruntime", backend_version="1",
        portability=Portability(),
        source=Source("x.ckpt", "aa", "Apache-2.0", "somewhere"), onnx_sha256="bb", engine_sha256=sha256_bytes(data),
        engine_bytes=len(data), inputs=(TensorSpec("image0", "uint8", (1, "height0", 8, 1)),), outputs=(),
        input=InputContract(1, 8, "aspect", "area-linear", profile=Profile((64, 64), (480, 640), (640, 640))),
        matching=MatchContract(2048, 0.2, 2, True, 8), matchrt_version="0", build_key=key,
        passes=(PassRecord("fold", True, "folded"),), checks={"parity_max_pixels": 0.0},
    )  # fmt: skip
    return Engine(data, manifest)


def test_put_and_find(tmp_path: Path) -> None:
    store = EngineStore(tmp_path)
    engine = _engine()
    assert store.find("m", engine.manifest.build_key) is None
    stored = store.put(engine.data, engine.manifest, "m.onnx")
    assert stored.path.read_bytes() == b"engine"
    found = store.find("m", engine.manifest.build_key)
    assert found is not None and found.manifest == engine.manifest and found.path == stored.path
    assert [e.path for e in store.engines()] == [stored.path] == [e.path for e in store.engines("m")]
    assert store.engines("other") == []
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]


@pytest.mark.parametrize("damage", ["bytes", "truncated", "gone", "manifest", "key"])
def test_damaged_entries_count_as_absent_and_are_replaced(tmp_path: Path, damage: str) -> None:
    store, engine = EngineStore(tmp_path), _engine()
    path = store.put(engine.data, engine.manifest, "m.onnx").path
    if damage == "bytes":
        path.write_bytes(b"enginf")
    elif damage == "truncated":
        path.write_bytes(b"eng")
    elif damage == "gone":
        path.unlink()
    elif damage == "manifest":
        manifest_path(path).write_text("{")
    else:
        # Same first characters, another build: the whole key decides.
        assert store.find("m", engine.manifest.build_key[:-1] + "4") is None
        return
    assert store.find("m", engine.manifest.build_key) is None
    store.put(engine.data, engine.manifest, "m.onnx")
    assert store.find("m", engine.manifest.build_key) is not None


def test_two_builds_of_the_same_thing_at_once(tmp_path: Path) -> None:
    store, engine = EngineStore(tmp_path), _engine(b"x" * 100_000)
    errors: list[Exception] = []

    def put() -> None:
        try:
            for _ in range(20):
                store.put(engine.data, engine.manifest, "m.onnx")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=put) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(e, MatchRTError) and e.code == "store-busy" for e in errors)
    assert store.find("m", engine.manifest.build_key) is not None


def test_unwritable_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(MatchRTError) as caught:
        EngineStore(tmp_path / "file").put(_engine().data, _engine().manifest, "m.onnx")
    assert caught.value.code == "store-unwritable" and "MATCHRT_STORE" in caught.value.remedy


def test_store_location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATCHRT_STORE", str(tmp_path / "a"))
    assert open_store().root == tmp_path / "a"
    assert open_store(tmp_path / "b").root == tmp_path / "b"
    monkeypatch.delenv("MATCHRT_STORE")
    assert "matchrt" in str(open_store().root)


def test_manifest_round_trip(tmp_path: Path) -> None:
    manifest = _engine().manifest
    manifest.write(tmp_path / "m.json")
    assert read_manifest(tmp_path / "m.json") == manifest


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        ({"schema": 99}, "manifest-schema", "99"),
        ({"engine_bytes": "many"}, "manifest-invalid", "engine_bytes"),
        ({"engine_bytes": True}, "manifest-invalid", "engine_bytes"),
        ({"surprise": 1}, "manifest-invalid", "surprise"),
        ({"model": None}, "manifest-invalid", "model"),
        ({"inputs": [{"name": "a", "dtype": "uint8"}]}, "manifest-invalid", "inputs[0]"),
        ({"source": []}, "manifest-invalid", "source"),
        ({"checks": {"a": "b"}}, "manifest-invalid", "checks.a"),
        ({"passes": {}}, "manifest-invalid", "passes"),
    ],
)
def test_manifest_errors_name_the_field(tmp_path: Path, change: dict[str, object], code: str, named: str) -> None:
    raw = json.loads(_engine().manifest.to_json()) | change
    (tmp_path / "m.json").write_text(json.dumps(raw))
    with pytest.raises(MatchRTError) as caught:
        read_manifest(tmp_path / "m.json")
    assert caught.value.code == code and named in caught.value.message


def test_manifest_lacks_a_field(tmp_path: Path) -> None:
    raw = json.loads(_engine().manifest.to_json())
    del raw["model"]
    (tmp_path / "m.json").write_text(json.dumps(raw))
    with pytest.raises(MatchRTError, match="lacks model"):
        read_manifest(tmp_path / "m.json")


@pytest.mark.parametrize("text", ["", "[]", "null", "\x00\x01", "{"])
def test_manifest_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(MatchRTError) as caught:
        read_manifest(tmp_path / "m.json")
    assert caught.value.code == "manifest-invalid"
