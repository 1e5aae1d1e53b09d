"""Checkpoints of training frameworks: the tensors are read, the rest is listed, nothing foreign is imported."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from support.training_files import STYLES, foreign, small_state

from matchrt.errors import MatchRTError
from matchrt.export.weights.read import digest_tensors, read_checkpoint

FOREIGN = ("pytorch_lightning", "lightning", "omegaconf", "trainer", "project")


@pytest.mark.parametrize(
    "how", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}, {"pickle_protocol": 5}]
)
@pytest.mark.parametrize("style", STYLES)
def test_every_style_loads_and_says_what_is_put_aside(tmp_path: Path, style: str, how: dict[str, Any]) -> None:
    state = small_state()
    aside = STYLES[style](state, tmp_path / "x.ckpt", **how)
    found = read_checkpoint(tmp_path / "x.ckpt")
    assert {entry.name: entry.objects for entry in found.put_aside} == aside
    assert list(found.tensors) == list(state) and found.tensors_sha256 == digest_tensors(state)
    for key, tensor in state.items():
        assert found.tensors[key].dtype == tensor.dtype and torch.equal(found.tensors[key], tensor)
    assert found.wrapper == ("model" if style == "averaged" else "state_dict")
    assert {"epoch", "global_step", "optimizer_states"} <= set(found.ignored)
    assert not any(module.split(".")[0] in FOREIGN for module in sys.modules)


@pytest.mark.parametrize("old", [False, True])
def test_old_protocols_of_pickle(tmp_path: Path, old: bool) -> None:
    for style, write in STYLES.items():
        write(small_state(), tmp_path / "x.ckpt", pickle_protocol=1, _use_new_zipfile_serialization=not old)
        assert read_checkpoint(tmp_path / "x.ckpt").tensors_sha256 == digest_tensors(small_state()), style


@pytest.mark.parametrize("style", STYLES)
def test_nothing_is_imported(tmp_path: Path, style: str) -> None:
    """Modules of the file's names lie on the path; whoever imports one of them leaves a mark."""
    STYLES[style](small_state(), tmp_path / "x.ckpt")
    for name in FOREIGN:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('{name} was imported')")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from matchrt.export.weights.read import read_stored\n"
        "print(len(read_stored(Path(sys.argv[1]) / 'x.ckpt').tensors), 'torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert ran.stdout == "5 False\n", ran.stderr


def test_a_dict_of_a_foreign_class_is_looked_into(tmp_path: Path) -> None:
    config = type("Config", (OrderedDict,), {})
    with foreign(("easydict.EasyDict", config)):
        torch.save(config(state_dict=config(small_state()), epoch=3), tmp_path / "x.pt")
    found = read_checkpoint(tmp_path / "x.pt")
    assert found.wrapper == "state_dict" and found.ignored == ("epoch",)
    assert found.tensors_sha256 == digest_tensors(small_state())
    assert [str(entry) for entry in found.put_aside] == ["easydict.EasyDict, 2 objects"]


def test_a_foreign_object_among_the_tensors_hides_none(tmp_path: Path) -> None:
    extra = type("Extra", (), {})
    with foreign(("project.state.Extra", extra)):
        torch.save({**small_state(), "module._extra_state": extra()}, tmp_path / "x.pt")
    found = read_checkpoint(tmp_path / "x.pt")
    assert found.ignored == ("module._extra_state",) and len(found.tensors) == len(small_state())


def test_placeholders_run_no_method_of_a_pickle(tmp_path: Path) -> None:
    """All ways in which a pickle makes an object and gives it state, with every protocol."""

    class Plain:
        pass

    class Reduced:
        def __reduce__(self) -> tuple[Any, ...]:
            return type(self), (1, 2), {"a": 1}, iter([1, 2]), iter([("k", "v")])

    class Slotted:
        __slots__ = ("a",)

    class Named:
        def __getnewargs_ex__(self) -> tuple[tuple[int], dict[str, int]]:
            return (1,), {"b": 2}

    kinds = {"a.Plain": Plain, "a.Reduced": Reduced, "a.Slotted": Slotted, "a.Named": Named}
    with foreign(*kinds.items()):
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            made = {name: kind() for name, kind in kinds.items()}
            made["a.Plain"].itself = made  # type: ignore[attr-defined]
            made["a.Slotted"].a = 1  # type: ignore[attr-defined]
            torch.save(
                {"state_dict": small_state(), "objects": made}, tmp_path / f"{protocol}.pt", pickle_protocol=protocol
            )
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        found = read_checkpoint(tmp_path / f"{protocol}.pt")
        assert {entry.name: entry.objects for entry in found.put_aside} == dict.fromkeys(kinds, 1) or protocol < 4
        assert set(kinds) <= {entry.name for entry in found.put_aside}


def test_names_of_a_file_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    odd = type("Odd", (), {})
    with foreign(("project.odd.Odd", odd)):
        odd.__qualname__ = odd.__name__ = "Odd"
        torch.save({"state_dict": small_state(), "a\x1b]0;title\x07\n": odd()}, tmp_path / "x.pt", pickle_protocol=4)
    data = (tmp_path / "x.pt").read_bytes()
    found = read_checkpoint(tmp_path / "x.pt")
    assert b"\x1b" in data and all(text.isprintable() for text in found.ignored)


def test_a_whole_module_is_named_with_what_to_do(tmp_path: Path) -> None:
    network = type("LoFTR", (torch.nn.Linear,), {})
    with foreign(("src.loftr.LoFTR", network)):
        torch.save(network(2, 2), tmp_path / "bare.pt")
        torch.save({"model": network(2, 2), "epoch": 3}, tmp_path / "inside.pt")
    for name in ("bare", "inside"):
        with pytest.raises(MatchRTError) as caught:
            read_checkpoint(tmp_path / f"{name}.pt")
        assert caught.value.code == "checkpoint-unsafe" and "whole module (src.loftr.LoFTR)" in caught.value.message
        assert "state_dict()" in caught.value.remedy
