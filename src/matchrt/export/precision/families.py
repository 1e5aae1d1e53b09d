"""Turns an fp32 graph into an fp16 one by the rules of its family."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from matchrt.errors import InternalError
from matchrt.export.passes.base import run_passes
from matchrt.export.passes.batch_norm import FoldBatchNorm
from matchrt.export.precision.graph_types import skeleton
from matchrt.export.precision.to_fp16 import Fp16Summary, to_fp16
from matchrt.export.precision.to_fp32 import to_fp32
from matchrt.families.registry import require_rules
from matchrt.families.rules import PrecisionRules
from matchrt.manifest import PassRecord


def rules_for(family: str) -> PrecisionRules:
    """The family's rules. Error: `precision-family`; nothing is cast without rules."""
    return require_rules(family, "fp16", lambda found: found.fp16)


def model_to_fp16(
    model: onnx.ModelProto, family: str, rules: PrecisionRules | None = None
) -> tuple[onnx.ModelProto, tuple[PassRecord, ...]]:
    """What `precision.apply` does for fp16; its errors are the same.

    rules: other rules than the family's, to measure the effect of one of them; None for the family's.
    """
    rules = rules or rules_for(family)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    to_fp32(copy)
    copy, records = run_passes(copy, [FoldBatchNorm()])
    done = to_fp16(copy, rules)
    _check(copy, model)
    return copy, (*records, *_records(rules, done))


def plain_to_fp16(model: onnx.ModelProto, family: str, in_fp32: Collection[str]) -> tuple[PassRecord, ...]:
    """Turns a plain fp32 graph into fp16, in place, and returns what each rule did.

    in_fp32: names of nodes that stay in fp32 whatever the rules say. Errors: those of `precision.apply`.
    """
    rules = rules_for(family)
    return _records(rules, to_fp16(model, rules, in_fp32))


def _records(rules: PrecisionRules, done: Fp16Summary) -> tuple[PassRecord, ...]:
    each = []
    for rule in rules.rules:
        count = done.claimed[rule.name]
        each.append(PassRecord(f"fp16:{rule.name}", count > 0, f"{count} nodes {rule.precision}: {rule.reason}"))
    summary = (
        f"{done.computing['fp16']} nodes compute in fp16, {done.computing['fp32']} in fp32; {done.casts} casts; "
        f"{done.weights} weights in fp16, {done.flushed} of their values became 0"
    )
    return (*each, PassRecord("fp16", True, summary))


def _check(half: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Types that fit everywhere, inputs and outputs as they were."""
    try:
        onnx.checker.check_model(skeleton(half), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InternalError(
            "pass-invalid", f"Writing fp16 left an invalid graph: {error}.", "Report this as a bug."
        ) from error
    for side in ("input", "output"):
        assert [*getattr(half.graph, side)] == [*getattr(model.graph, side)]
