"""Schemathesis over the OpenAPI description: every answer is one that it promises, and none is our mistake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from support.serving_stub import StubSession, opened

from matchrt.serving.http_app import make_app
from matchrt.serving.models import models_of


@pytest.fixture
def described() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch, opened(patch, StubSession()) as service:
        yield schemathesis.openapi.from_asgi("/openapi.json", make_app(service, models_of(service)))


schema = schemathesis.pytest.from_fixture("described")
# No schema can say which bytes are an image and which lists fit a shape: what it allows may still be a 400.
UNSAYABLE = [positive_data_acceptance]


@schema.parametrize()
@settings(max_examples=8, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate],
          suppress_health_check=list(HealthCheck))  # fmt: skip
def test_every_answer_is_promised(case: Any) -> None:
    case.call_and_validate(excluded_checks=UNSAYABLE)
