"""The HTML of `matchrt verify`: it explains its columns and limits, and shows no verdict as what it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from matchrt.bench.agreement import Agreement
from matchrt.bench.folder import PlainPair
from matchrt.bench.gate import FP16, INT8, Limits, Verdict
from matchrt.bench.pairs import JudgedPair
from matchrt.bench.per_block import BlockCost, Sensitivity
from matchrt.bench.verify import Verification, VerifiedPair
from matchrt.bench.verify_html import to_html
from matchrt.bench.verify_report import sensitivity_table, verification_table


def verdict_of(kept: int, expected: int, limits: Limits) -> Verdict:
    truth = PlainPair("a-b", "<photos>", Path("a"), Path("b"), False)
    agreement = Agreement(expected, expected, (kept, kept, kept), 0.999)
    pair = VerifiedPair(JudgedPair(None, None, truth), (agreement,), (0.9, 0.895), ({}, {}))
    return Verdict(Verification("fp32", "int8 & co", (0.4,), (pair,)), limits, "CPU, onnxruntime")


SENSITIVITY = Sensitivity("int8", "onnxruntime", 2, 900, BlockCost("(all)", 9, 0.03, 0.99), ())


def test_every_column_is_explained() -> None:
    page = to_html(verdict_of(995, 1000, FP16), SENSITIVITY, [])
    explained = re.findall(r"<dt>(.+?)</dt>", page)
    for heading in verification_table(verdict_of(995, 1000, FP16)).headings:
        group = "within 0.5, 1, 3 px" if heading.startswith("within") else heading
        assert group in explained, heading
    assert set(sensitivity_table(SENSITIVITY).headings) <= set(explained)


@pytest.mark.parametrize(("limits", "says"), [(FP16, "At least 99%"), (INT8, "At least 95%")])
def test_the_limits_are_those_of_the_gate(limits: Limits, says: str) -> None:
    page = to_html(verdict_of(1000, 1000, limits), None, [])
    assert says in page and f"{limits.count[0]:.0%} to {limits.count[1]:.0%}" in page and "score from 0.4 on" in page


@pytest.mark.parametrize(
    ("kept", "expected", "says", "colour"),
    [(1000, 1000, "passed", "#2e7d32"), (900, 1000, "FAILED", "#c62828"), (3, 3, "no verdict", "#b26a00")],
)
def test_the_verdict_has_its_colour(kept: int, expected: int, says: str, colour: str) -> None:
    page = to_html(verdict_of(kept, expected, FP16), None, [])
    assert re.search(rf"border-color:{colour}'>gate: {says}", page)


def test_names_are_escaped_and_pictures_are_inside() -> None:
    page = to_html(verdict_of(1000, 1000, FP16), None, [("<a> & b", b"jpeg")])
    assert "&lt;photos&gt;" in page and "int8 &amp; co" in page and "&lt;a&gt; &amp; b" in page
    assert "<photos>" not in page and page.count("data:image/jpeg;base64,anBlZw==") == 1
