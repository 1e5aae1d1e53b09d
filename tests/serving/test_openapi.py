"""Schemathesis over the OpenAPI description: every answer is one that it promises, and none is our mistake.

The long form is `st run URL/openapi.json` against a service with a real engine (bench/README.md).
"""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from support.serving_stub import StubSession, opened

from matchrt.serving.http_app import make_app
from matchrt.serving.models import models_of

# No schema can say which bytes are an image and which lists fit a shape: what it allows may still be a 400.
UNSAYABLE = [positive_data_acceptance]
PATHS = 18


def test_every_answer_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    # Schemathesis names its host `testserver`.
    with opened(monkeypatch, StubSession(), host="0.0.0.0", open_to_all=True) as service:
        models = models_of(service)
        app = make_app(service, models)
        schema = schemathesis.openapi.from_asgi("/openapi.json", app)
        # Names are examples in it. Here they are all that is tried, or nearly every request would be for no model.
        for path in schema.raw_schema["paths"].values():
            for operation in path.values():
                for entry in operation.get("parameters", []):
                    if entry["in"] == "path":
                        entry["schema"]["enum"] = entry["schema"]["examples"]
        tried, paths = 0, set()
        for found in schema.get_all_operations():
            operation = found.ok()

            @settings(
                max_examples=10,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy())
            def check(case: Any) -> None:
                # A request that asks for less time than anything takes gets 504, as it should.
                paths.add(case.formatted_path)
                if case.headers and "X-Request-Timeout" in case.headers:
                    case.headers["X-Request-Timeout"] = "30"
                case.call_and_validate(excluded_checks=UNSAYABLE)

            check()
            tried += 1
        assert tried == PATHS and "/v2/models/loftr-lite-files/infer" in paths
