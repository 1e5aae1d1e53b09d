"""Quantization of a graph: from an fp32 graph to a plan, and from the plan and measured ranges to the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx

from matchrt.errors import InternalError, MatchRTError
from matchrt.export.passes.base import run_passes
from matchrt.export.passes.batch_norm import FoldBatchNorm
from matchrt.export.precision.families import plain_to_fp16
from matchrt.export.precision.graph_types import skeleton
from matchrt.export.precision.to_fp32 import to_fp32
from matchrt.export.quantization.equalising import Peaks, equalisable, equalise
from matchrt.export.quantization.moments import Moments
from matchrt.export.quantization.rounding import round_weights
from matchrt.export.quantization.scale_types import eight_bit_nodes, require_float_scales
from matchrt.export.quantization.selection import Selection, quant_rules, select
from matchrt.export.quantization.styles import QuantStyle
from matchrt.export.quantization.writing import Placement, Ranges, Written, place, write
from matchrt.families.rules import QuantRules
from matchrt.manifest import PassRecord


@dataclass(frozen=True)
class QuantPlan:
    """What is to be quantized in a graph, before ranges are measured.

    model: the plain fp32 graph.
    rules: the rules of the network's family.
    selection: the products that the rules choose.
    placement: the activations that get a Q/DQ pair; ranges are needed for `placement.tensors`.
    style: the runtime's style of Q/DQ.
    folded: the records of the passes that made the graph plain.
    """

    model: onnx.ModelProto
    rules: QuantRules
    selection: Selection
    placement: Placement
    style: QuantStyle
    folded: tuple[PassRecord, ...]

    @property
    def compensated(self) -> bool:
        """Whether the graph is to be equalised (`equalised`) and `quantize` needs moments (`measure_moments`)."""
        return self.rules.compensated and self.style.activations != "fp8"

    def equalised(self, peaks: Peaks) -> QuantPlan:
        """The plan for the equalised graph. peaks: of the channels of the tensors in `equalisable`."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        count = equalise(model, peaks)
        why = f"channels of {count} tensors brought to one range; the weights around them make up for it"
        return replace(self, model=model, folded=(*self.folded, PassRecord("equalise-channels", count > 0, why)))

    @property
    def equalisable(self) -> tuple[str, ...]:
        """The tensors with one scale whose channels can get one range."""
        return equalisable(self.model, self.placement.everywhere)

    @property
    def layers(self) -> dict[str, tuple[str, ...]]:
        """The chosen products by the module that they belong to."""
        found: dict[str, list[str]] = {}
        for name in self.selection.products:
            found.setdefault(name.rpartition("/")[0], []).append(name)
        return {module: tuple(names) for module, names in found.items()}


def plan_quantization(
    model: onnx.ModelProto,
    family: str,
    style: QuantStyle,
    keep: Sequence[str] = (),
    only: Sequence[str] = (),
    name: str = "",
) -> QuantPlan:
    """What would be quantized. The given model is not changed.

    name: of the network's model, which may have rules of its own; empty for those of the family.
    keep: patterns of modules that stay in floating point.
    only: quantize these nodes and no others; empty for no limit.
    Errors: precision-family, precision-unruled, keep-unused, quantized-nothing.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    to_fp32(copy)
    copy, folded = run_passes(copy, [FoldBatchNorm()])
    rules = quant_rules(family, name)
    selection = _taken(copy, select(copy, rules, style.activations, keep, only), style)
    if not selection.products:
        raise MatchRTError(
            "quantized-nothing",
            "No layer of this graph is left to quantise.",
            "Hold less back with --keep-fp32, or build with fp16.",
        )
    return QuantPlan(copy, rules, selection, place(copy, selection.products, style), style, folded)


def _taken(model: onnx.ModelProto, selection: Selection, style: QuantStyle) -> Selection:
    """The selection without the products that the style does not quantise."""
    if style.convolutions:
        return selection
    convolutions = {node.name for node in model.graph.node if node.op_type == "Conv"}
    products = {name: rule for name, rule in selection.products.items() if name not in convolutions}
    return Selection(products, selection.claimed, selection.kept, selection.computed)


def quantize(
    plan: QuantPlan, ranges: Ranges, moments: Moments | None = None
) -> tuple[onnx.ModelProto, tuple[PassRecord, ...]]:
    """The quantised graph, its rest in the type that the style says, and what each rule did.

    moments: of what the products read, if the plan is `compensated`; without them, weights become the nearest steps.
    Inputs and outputs keep their types. All scales are float32 (`require_float_scales`). Errors: pass-invalid, and
    those of `to_fp16`.
    """
    model = onnx.ModelProto()
    model.CopyFrom(plan.model)
    rounded = round_weights(model, plan.selection.products, moments or {})
    written = write(model, plan.selection.products, plan.placement, ranges, plan.style, rounded)
    in_fp16: tuple[PassRecord, ...] = ()
    if plan.style.rest == "fp16":
        in_fp16 = plain_to_fp16(model, plan.rules.family, eight_bit_nodes(model))
    try:
        onnx.checker.check_model(skeleton(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InternalError(
            "pass-invalid", f"Writing Q/DQ left an invalid graph: {error}.", "Report this as a bug."
        ) from error
    require_float_scales(model)
    return model, (*plan.folded, *_records(plan, written, len(rounded)), *in_fp16)


def _records(plan: QuantPlan, written: Written, compensated: int) -> tuple[PassRecord, ...]:
    kind = "fp8" if plan.style.activations == "fp8" else "int8"
    chosen = Counter(plan.selection.products.values())
    records = []
    for rule in plan.rules.rules:
        quantised = rule.quantizes(plan.style.activations)
        count = chosen[rule.name] if quantised else plan.selection.claimed[rule.name]
        what = "quantised" if quantised else "in floating point"
        records.append(PassRecord(f"{kind}:{rule.name}", quantised, f"{count} products {what}: {rule.reason}"))
    records += [
        PassRecord(f"{kind}:{name}", False, f"in floating point: {reason}") for name, reason in plan.rules.float_parts
    ]
    held = f"; {plan.selection.kept} more held back" if plan.selection.kept else ""
    if compensated:
        why = f"weights of {compensated} convolutions rounded so that their errors cancel on the calibration pairs"
        records.append(PassRecord(f"{kind}:compensated-weights", True, why))
    summary = (
        f"{len(plan.selection.products)} products quantised{held}; {written.pairs} activations, {written.weights} "
        f"weights and biases; {written.weight_bytes} bytes of weights saved; style {plan.style.name}"
    )
    return (*records, PassRecord(kind, True, summary))
