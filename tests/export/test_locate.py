"""The search for the network in a file: neighbours do not hide it, and damaged keys are no neighbours."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import training_files
from support.commands import CommandLine
from support.weights import coarse_loftr_state, sharp_state
from torch import Tensor

from matchrt.errors import MatchRTError
from matchrt.export.weights.account import account
from matchrt.export.weights.averaged import is_averaged
from matchrt.export.weights.diagnose import diagnose
from matchrt.export.weights.locate import TRANSPARENT, Selection, canonical
from matchrt.export.weights.network import expected_tensors, fitting_models, load_network
from matchrt.export.weights.read import read_checkpoint
from matchrt.export.weights.report import LoadReport
from matchrt.families.loftr import COARSE_LOFTR
from matchrt.families.registry import get_spec, model_specs
from matchrt.models.loftr.config import LOFTR_LITE
from matchrt.models.loftr.network import LoFTR

State = dict[str, Tensor]
SPEC = get_spec("coarse-loftr")
EXPECTED = expected_tensors(SPEC)
CONSTANTS = SPEC.family.constants()
COUNTS = {"loaded": 161, "dropped": 4}


@pytest.fixture(scope="module")
def state() -> State:
    return coarse_loftr_state()


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def inside(module: str, wrapper: str, state: State) -> State:
    """As a state dict of a network of which one module is wrapped: `backbone._orig_mod.`."""
    return {key.replace(f"{module}.", f"{module}.{wrapper}.", 1): value for key, value in state.items()}


def _account(tensors: State, selection: Selection | None = None, model: str = "coarse-loftr") -> LoadReport:
    spec = get_spec(model)
    expected = EXPECTED if model == "coarse-loftr" else expected_tensors(spec)
    return account(tensors, expected, spec.key_map, spec.name, constants=spec.family.constants(), selection=selection)[
        1
    ]


ONE = {"pos_weight": torch.ones(1)}
OTHER = {f"features.{i}.weight": torch.ones(8, 8, 3, 3) for i in range(300)}
# A classifier whose names are partly LoFTR's, with other shapes.
RESNET = {
    f"backbone.layer{stage}.{block}.{part}": torch.ones(7)
    for stage in (1, 2, 3, 4)
    for block in (0, 1)
    for part in ("conv1.weight", "bn1.weight", "bn1.bias", "conv2.weight", "bn2.weight", "bn2.bias")
}
COUNT = {"n_averaged": torch.tensor(7)}
LAYOUTS: dict[str, tuple[Callable[[State], State], str]] = {
    "averaged model": (lambda s: COUNT | under("module.matcher.", s), "module.matcher."),
    "averaged bare model": (lambda s: COUNT | under("module.", s), "module."),
    "loss": (lambda s: under("matcher.", s) | under("loss.", ONE), "matcher."),
    "loss first": (lambda s: under("loss.", ONE) | under("matcher.", s), "matcher."),
    "larger loss": (lambda s: under("loss.vgg.", OTHER) | under("matcher.", s), "matcher."),
    "other network": (lambda s: under("depth.", RESNET) | under("matcher.", s), "matcher."),
    "twin": (lambda s: under("matcher.", s) | under("ema_matcher.", s), "matcher."),
    "twin first": (lambda s: under("ema.module.", s) | under("ema.", COUNT) | under("matcher.", s), "matcher."),
    "twin of parameters": (
        lambda s: under("matcher.", s) | under("model_ema.", {k: v for k, v in s.items() if "running" not in k}),
        "matcher.",
    ),
    "teacher": (lambda s: under("teacher.matcher.", s) | under("matcher.", s), "matcher."),
    "smaller teacher": (lambda s: under("net.a.", s) | under("net.b.", dict(list(s.items())[:40])), "net.a."),
    "shared module": (
        lambda s: under("matcher.", s) | {k: v for k, v in s.items() if k.startswith("backbone.")},
        "matcher.",
    ),
    "unknown prefix": (lambda s: under("lightning.net.0.", s) | under("lightning.loss.", ONE), "lightning.net.0."),
    "bare, twin": (lambda s: s | under("ema.", s) | {"ema.decay": torch.ones(1)}, ""),
    "bare, twin without buffers": (
        lambda s: s | under("ema.", {k: v for k, v in s.items() if "bn" not in k}) | {"ema_decay": torch.ones(1)},
        "",
    ),
    "bare, loss": (lambda s: s | under("loss.", ONE) | under("val_metrics.", ONE), ""),
    "compiled": (lambda s: under("_orig_mod.matcher.", s), "_orig_mod.matcher."),
    "compiled inside": (lambda s: under("matcher._orig_mod.", s) | under("loss.", ONE), "matcher._orig_mod."),
    "compiled backbone": (lambda s: under("matcher.", inside("backbone", "_orig_mod", s)), "matcher."),
    "compiled backbone, bare": (lambda s: inside("backbone", "_orig_mod", s), ""),
    "compiled layers": (lambda s: under("matcher.", inside("layers.0", "_orig_mod", s)), "matcher."),
    "parallel": (lambda s: under("module._orig_mod.", s), "module._orig_mod."),
    "parallel inside": (lambda s: under("matcher.module.", s) | under("loss.", ONE), "matcher.module."),
    "parallel backbone": (lambda s: under("model.", inside("backbone", "module", s)), "model."),
    "sharded": (
        lambda s: under("_fsdp_wrapped_module.", inside("layers.1", "_checkpoint_wrapped_module", s)),
        "_fsdp_wrapped_module.",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_neighbours_do_not_hide_the_network(state: State, layout: str) -> None:
    make, prefix = LAYOUTS[layout]
    tensors = make(state)
    report = _account(tensors)
    assert report.complete, report.problems[:5]
    assert report.prefix == prefix
    others = len(tensors) - len(state)
    assert report.counts()["file"] == COUNTS | ({"neighbour": others} if others else {})
    assert sum(report.neighbours.values()) == others and bool(report.notes()) == bool(others)


def _edits(key: str) -> Iterator[str]:
    """The key with one fault in each of its parts, without its first part, and moved into another module."""
    parts = key.split(".")
    for at, part in enumerate(parts):
        yield ".".join([*parts[:at], f"{part}x", *parts[at + 1 :]])
        yield ".".join([*parts[:at], *parts[at + 1 :]])
    yield f"copy.{key}"
    yield key.replace(".", "_", 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_damaged_key_is_never_a_neighbour(state: State, layout: str) -> None:
    """Each edit of each of some keys of the network is refused, and so is a tensor that is lost."""
    make, prefix = LAYOUTS[layout]
    tensors = make(state)
    own = [key for key in tensors if key.startswith(prefix) and _account_cache(layout, tensors)[key] == "loaded"]
    for key in own[::23]:
        rest = {k: v for k, v in tensors.items() if k != key}
        assert not _account(rest).complete
        # A whole part that wrappers add may be missing: the name is the same.
        for edited in _edits(key):
            gone = set(key.split(".")) - set(edited.split("."))
            if edited in tensors or (len(edited) < len(key) and gone and gone <= TRANSPARENT):
                continue
            try:
                report = _account(rest | {edited: tensors[key]})
            except MatchRTError as error:
                assert error.code == "checkpoint-ambiguous"
                continue
            assert not report.complete, edited


_FATES: dict[str, dict[str, str]] = {}


def _account_cache(layout: str, tensors: State) -> dict[str, str]:
    if layout not in _FATES:
        _FATES[layout] = {entry.key: entry.fate for entry in _account(tensors).file}
    return _FATES[layout]


@pytest.mark.parametrize("prefix", ["", "matcher.", "net."])
@pytest.mark.parametrize(
    "extra",
    [
        "{p}head.weight",
        "{p}backbone.extra.weight",
        "{p}fine_matching2.weight",
        "copy.{p}backbone.conv1.weight",
        "copy.backbone.conv1.weight",
        "mather.loftr_coarse.layers.0.norm1.weight",
        "mather.backbone.layer3_outconv.weight",
        "mather.coarse_matching.bin_score",
        "mather.pos_encoding.pe",
    ],
)
def test_what_may_be_a_part_of_the_network_is_no_neighbour(state: State, prefix: str, extra: str) -> None:
    key = extra.format(p=prefix)
    report = _account(under(prefix, state) | {key: torch.ones(3)})
    assert [entry.key for entry in report.problems] == [key]


def test_the_user_says_that_a_stray_tensor_is_a_neighbour(state: State) -> None:
    tensors = under("matcher.", state) | {"copy.matcher.backbone.bn1.bias": torch.ones(3)}
    (problem,) = _account(tensors).problems
    assert "--prefix matcher says so" in problem.detail
    assert _account(tensors, Selection("matcher")).complete
    for inner in ("matcher.head.weight", "matcher.loss.weight"):
        assert not _account(under("matcher.", state) | {inner: torch.ones(3)}, Selection("matcher")).complete


def _twin(state: State) -> State:
    return {key: value + 1 if value.is_floating_point() else value for key, value in state.items()}


@pytest.mark.parametrize(
    ("own", "twin"),
    [
        ("matcher.", "ema_matcher."),
        ("matcher.", "matcher_ema."),
        ("matcher.", "model_ema.module."),
        ("matcher.", "ema.module.matcher."),
        ("matcher.", "averaged_model.module."),
        ("", "ema."),
        ("net.", "swa_net."),
        ("matcher.", "matcher.ema."),
        ("a.", "modelEMA."),
    ],
)
def test_the_average_is_taken_on_request(tmp_path: Path, state: State, own: str, twin: str) -> None:
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": under(twin, _twin(state)) | under(own, state)}, path)
    plain, averaged = (load_network(SPEC, path, selection=Selection(ema=ema)) for ema in (False, True))
    key = "backbone.conv1.weight"
    assert torch.equal(plain.network.state_dict()[key], state[key])
    assert torch.equal(averaged.network.state_dict()[key], state[key] + 1)
    assert plain.weights_sha256 != averaged.weights_sha256
    assert plain.report.prefix == own and averaged.report.prefix == twin
    assert any("--ema takes it" in note for note in plain.notes)
    assert any("running average" in note for note in averaged.notes)
    named = load_network(SPEC, path, selection=Selection(prefix=twin))
    assert named.weights_sha256 == averaged.weights_sha256
    assert load_network(SPEC, path, selection=Selection(prefix=own)).weights_sha256 == plain.weights_sha256


ENTRIES: dict[str, Callable[[State, State], dict[str, Any]]] = {
    "state_dict_ema": lambda own, twin: {"state_dict": own, "state_dict_ema": twin, "epoch": 1},
    "model_ema": lambda own, twin: {"model": own, "model_ema": COUNT | under("module.", twin)},
    "callbacks": lambda own, twin: {"state_dict": own, "callbacks": {"EMACallback": {"ema_state_dict": twin}}},
    "callback's name": lambda own, twin: {"state_dict": own, "callbacks": {"EMA": {"decay": 0.9, "weights": twin}}},
    "Lightning": lambda own, twin: {"state_dict": twin, "current_model_state": own, "averaging_state": COUNT},
    "MMEngine": lambda own, twin: {
        "state_dict": twin,
        "ema_state_dict": COUNT | under("module.", own),
        "message_hub": {},
    },
    "without a known name": lambda own, twin: {"generator": own, "ema": twin, "step": 3},
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_average_in_an_entry_of_its_own(tmp_path: Path, state: State, entry: str) -> None:
    torch.save(ENTRIES[entry](under("matcher.", state), under("matcher.", _twin(state))), tmp_path / "x.ckpt")
    loaded = load_network(SPEC, tmp_path / "x.ckpt", selection=Selection(ema=True))
    key = "backbone.conv1.weight"
    assert torch.equal(loaded.network.state_dict()[key], state[key] + 1)
    plain = load_network(SPEC, tmp_path / "x.ckpt")
    # Lightning and MMEngine have replaced the last weights by the average, and both loaders take that.
    offset = 1 if entry in ("Lightning", "MMEngine") else 0
    assert torch.equal(plain.network.state_dict()[key], state[key] + offset)
    assert "running average" in " ".join(plain.notes) or entry.startswith("callback")


def test_the_average_in_an_object_of_a_foreign_class(tmp_path: Path, state: State) -> None:
    """A callback that is its own key, and an object whose attribute holds the average. Nothing of them is run."""
    training_files.averaged(under("matcher.", state), tmp_path / "x.ckpt")
    loaded = load_network(SPEC, tmp_path / "x.ckpt", selection=Selection(ema=True))
    assert loaded.checkpoint.wrapper == "ema.shadow" and loaded.report.complete
    callback = type("EMA", (), {})
    with training_files.foreign(("project.callbacks.EMA", callback)):
        callbacks = {callback: {"decay": 0.9, "ema_weights": under("matcher.", _twin(state))}}
        torch.save({"state_dict": under("matcher.", state), "callbacks": callbacks}, tmp_path / "y.ckpt")
    loaded = load_network(SPEC, tmp_path / "y.ckpt", selection=Selection(ema=True))
    assert torch.equal(loaded.network.state_dict()["backbone.conv1.weight"], state["backbone.conv1.weight"] + 1)


def test_without_an_average_ema_is_an_error(tmp_path: Path, state: State) -> None:
    for extra in ({}, {"model_ema.backboneconv1weight": torch.ones(3)}):
        torch.save({"state_dict": under("matcher.", state) | extra}, tmp_path / "x.ckpt")
        for selection in (Selection(ema=True), Selection("matcher", ema=True)):
            with pytest.raises(MatchRTError) as caught:
                load_network(SPEC, tmp_path / "x.ckpt", selection=selection)
            assert caught.value.code == "checkpoint-no-average"
            assert ("model_ema" in caught.value.message) == bool(extra)


def test_a_file_of_averages_only_needs_no_option(tmp_path: Path, state: State) -> None:
    torch.save(COUNT | under("module.", state), tmp_path / "x.ckpt")
    one, other = (load_network(SPEC, tmp_path / "x.ckpt", selection=Selection(ema=ema)) for ema in (False, True))
    assert one.report.averaged and one.weights_sha256 == other.weights_sha256


def test_two_networks_must_be_told_apart_by_the_user(tmp_path: Path, state: State) -> None:
    joined = under("student.", state) | under("teacher.", _twin(state))
    for file in (joined, {"student": state, "teacher": _twin(state), "epoch": 3}):
        torch.save(file, tmp_path / "x.ckpt")
        with pytest.raises(MatchRTError) as caught:
            load_network(SPEC, tmp_path / "x.ckpt")
        assert caught.value.code == "checkpoint-ambiguous" and "--prefix student" in caught.value.remedy
        assert "'student.'" in caught.value.message and "'teacher.'" in caught.value.message
        loaded = load_network(SPEC, tmp_path / "x.ckpt", selection=Selection("teacher"))
        assert torch.equal(loaded.network.state_dict()["backbone.conv1.weight"], state["backbone.conv1.weight"] + 1)
        with pytest.raises(MatchRTError) as caught:
            load_network(SPEC, tmp_path / "x.ckpt", selection=Selection("pupil"))
        assert caught.value.code == "checkpoint-prefix" and "'teacher.'" in caught.value.message
        assert "coarse-loftr" in [
            n for n, r in fitting_models(read_checkpoint(tmp_path / "x.ckpt")).items() if r.complete
        ]


def test_a_teacher_of_another_size_does_not_hide_the_student(state: State) -> None:
    with torch.device("meta"):
        teacher = dict(LoFTR(get_spec("loftr-outdoor").family.config).state_dict())
    tensors = under("teacher.", teacher) | under("student.", state)
    small, large = _account(tensors), _account(tensors, model="loftr-outdoor")
    assert small.complete and small.prefix == "student."
    assert large.complete and large.prefix == "teacher."


def test_damage_does_not_change_which_network_is_taken(state: State) -> None:
    """The twin is complete, and yet the damaged network is the one that was meant."""
    own = {key: value for key, value in under("matcher.", state).items() if "layers.2.merge" not in key}
    for twin in ("ema_matcher.", "other."):
        report = _account(own | under(twin, state))
        assert report.prefix == "matcher." and [e.key for e in report.problems] == [
            "loftr_coarse.layers.2.merge.weight"
        ]
        assert any(twin in note for note in report.notes())


WORDS = ("matcher", "module", "_orig_mod", "model", "net", "backbone", "loss", "ema", "teacher", "0", "loftr_coarse")
PLAIN = ("", "matcher.", "module.matcher.", "_orig_mod.", "model.", "matcher.model.")


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_whatever_stands_beside_it_what_loads_is_the_network(state: State, start: int) -> None:
    """Random files of random neighbours, half of them with one damaged key: all values are right, or it is refused."""
    complete = 0
    for seed in range(start, start + 50):
        draw = random.Random(seed)
        own = under(draw.choice(PLAIN), state)
        file = dict(own)
        for _ in range(draw.randrange(4)):
            prefix = ".".join(draw.choices(WORDS, k=draw.randint(1, 3)))
            part = dict(draw.sample(sorted(_twin(state).items()), draw.choice((1, 3, len(state) // 2, len(state)))))
            file |= {k: v for k, v in under(f"{prefix}.", part).items() if k not in file}
        damaged = draw.random() < 0.5
        if damaged:
            key = draw.choice(sorted(key for key in own if "outconv." not in key and "outconv2" not in key))
            edited = draw.choice([*_edits(key), f"ema.{key}", f"loss.{key}"])
            value = file.pop(key)
            file.setdefault(edited, value)
        items = list(file.items())
        draw.shuffle(items)
        try:
            loaded, report = account(dict(items), EXPECTED, SPEC.key_map, SPEC.name, constants=CONSTANTS)
        except MatchRTError as error:
            assert error.code == "checkpoint-ambiguous"
            continue
        if report.complete:
            complete += 1
            harmless = damaged and edited != key and canonical(edited) == canonical(key)
            assert not damaged or harmless, (seed, key, edited, report.prefix)
            assert all(torch.equal(loaded[key], state[key]) for key in EXPECTED), (seed, report.prefix)
    assert complete > 5


def test_half_a_network_is_not_replaced_by_its_average(state: State) -> None:
    own = dict(list(under("matcher.", state).items())[: len(state) * 6 // 10])
    report = _account(own | under("ema_matcher.", state))
    assert report.prefix == "matcher." and not report.complete
    assert _account(own | under("ema_matcher.", state), Selection(ema=True)).complete


def test_a_tensor_under_two_wrapped_names_is_refused(state: State) -> None:
    tensors = under("matcher.", inside("backbone", "_orig_mod", state))
    report = _account(tensors | {"matcher.backbone.conv1.weight": torch.ones(3)})
    assert {e.fate for e in report.problems} == {"duplicated"}


def test_names_of_wrappers_are_no_names_of_networks() -> None:
    for spec in model_specs().values():
        assert not any(TRANSPARENT.intersection(key.split(".")) for key in expected_tensors(spec))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ema", True), ("ema_matcher", True), ("model_ema", True), ("state_dict_ema", True), ("modelEMA", True),
        ("EMACallback", True), ("emaModel", True), ("averaged_model", True), ("swa_model", True), ("avg", True),
        ("schema", False), ("cinema", False), ("email", False), ("average_pooling", True), ("matcher", False),
        ("swallow", False), ("semantic", False), ("avgpool", False),
    ],
)  # fmt: skip
def test_names_of_averages(name: str, expected: bool) -> None:
    assert is_averaged(name) is expected


@pytest.mark.parametrize("name", ["eloftr_outdoor", "eloftr_outdoor_deploy", "hf_efficientloftr", "loftr_outdoor_ds"])
def test_official_files_with_neighbours(shared: Path, name: str) -> None:
    """On meta tensors RepVGG blocks cannot be fused, so they are drawn."""
    entries = json.loads((shared / "manifests" / f"{name}.json").read_text())["tensors"]
    tensors = {
        entry["key"]: torch.rand(entry["shape"]) + 0.5 if entry["dtype"] == "float32" else torch.tensor(1)
        for entry in entries
    }
    tensors = {key.removeprefix("matcher."): tensor for key, tensor in tensors.items()}
    model = "loftr-outdoor" if name.startswith("loftr") else "eloftr"
    base = len(tensors)
    for prefix, more in (("matcher.", "ema_matcher."), ("module.matcher.", "averaged.module.")):
        report = _account(under(prefix, tensors) | under(more, tensors) | under("loss.", ONE), model=model)
        assert report.complete and report.prefix == prefix
        assert report.counts()["file"]["neighbour"] == base + 1


def _lite() -> State:
    return sharp_state(LoFTR(LOFTR_LITE))


def test_the_closest_model_is_the_one_that_most_tensors_fit(tmp_path: Path) -> None:
    state = {key: value for key, value in _lite().items() if "layers.3" not in key}
    torch.save(under("net.matcher.", state) | under("loss.", ONE), tmp_path / "x.ckpt")
    found = diagnose(tmp_path / "x.ckpt", "eloftr")
    assert found.closest == "loftr-lite" and "loftr-lite" in found.verdict


def test_weights_of_optimal_transport_are_told_what_they_are(tmp_path: Path) -> None:
    state = under("matcher.", _lite())
    state["matcher.coarse_matching.bin_score"] = torch.tensor(1.0)
    torch.save({"state_dict": state | under("loss.", ONE)}, tmp_path / "ot.ckpt")
    found = diagnose(tmp_path / "ot.ckpt", "loftr-lite")
    assert found.state == "another-variant" and found.closest == "loftr-lite" and not found.explained
    for words in ("bin_score", "optimal transport", "dual softmax", "_ds"):
        assert words in found.verdict
    with pytest.raises(MatchRTError) as caught:
        load_network(get_spec("loftr-lite"), tmp_path / "ot.ckpt")
    assert "optimal transport" in caught.value.message and "allow-missing" not in caught.value.remedy


def test_what_stands_beside_the_network_does_not_change_the_digest(tmp_path: Path, state: State) -> None:
    torch.save(under("matcher.", state), tmp_path / "one.ckpt")
    torch.save(under("matcher.", state) | under("loss.", ONE), tmp_path / "two.ckpt")
    digests = {load_network(SPEC, tmp_path / name).weights_sha256 for name in ("one.ckpt", "two.ckpt")}
    assert len(digests) == 1
    assert diagnose(tmp_path / "two.ckpt", "coarse-loftr").checkpoint.tensors_sha256 in digests


def test_copies_beside_the_network_are_no_copies_in_it(tmp_path: Path, state: State) -> None:
    """A running average begins as a copy, and a teacher may share modules."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained = {key: value.clone() for key, value in LoFTR(COARSE_LOFTR).state_dict().items()}
    trained["backbone.layer3.0.bn2.bias"] = torch.arange(32) / 32
    trained["backbone.layer3.0.downsample.1.bias"] = trained["backbone.layer3.0.bn2.bias"].clone()
    torch.save(under("matcher.", trained) | under("ema_matcher.", trained), tmp_path / "x.ckpt")
    found = diagnose(tmp_path / "x.ckpt", "coarse-loftr")
    assert found.explained and not found.repeated and len(found.tied) == 1
    trained["backbone.layer3.1.bn2.bias"] = trained["backbone.layer3.0.bn2.bias"].clone()
    torch.save(under("matcher.", trained), tmp_path / "y.ckpt")
    found = diagnose(tmp_path / "y.ckpt", "coarse-loftr")
    assert found.state == "repeated" and len(found.repeated[0]) == 3


def test_commands(tmp_path: Path, state: State, cli: CommandLine) -> None:
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": under("student.", state) | under("teacher.", _twin(state))}, path)
    cli.fails("checkpoint-ambiguous", "diagnose", path, "--model", "coarse-loftr")
    found = cli("diagnose", path, "--model", "coarse-loftr", "--prefix", "teacher", "--json").json
    assert found["explained"] and found["prefix"] == "teacher." and "--prefix teacher" in found["next"]
    assert found["counts"]["file"]["neighbour"] == len(state)
    assert found["parts"]["neighbours"][0]["part"].startswith("student.")
    assert any("--prefix student" in note for note in found["notes"])
    cli.fails("checkpoint-prefix", "diagnose", path, "--model", "coarse-loftr", "--prefix", "pupil")
    cli.fails("checkpoint-no-average", "build", "coarse-loftr", "--checkpoint", path, "--ema")
    cli.fails("checkpoint-ambiguous", "build", "coarse-loftr", "--checkpoint", path)
    inspected = cli("inspect", path, "--json").json
    assert inspected["models"] == ["coarse-loftr"] and inspected["notes"]
