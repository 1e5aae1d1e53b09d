"""A request is a plain value: other processes and files can have it."""

from __future__ import annotations

import copy
import pickle
from dataclasses import asdict, replace

import pytest

from matchrt import BuildRequest

_REQUESTS = [BuildRequest("loftr-lite"), BuildRequest("roma-outdoor", family_options={"coarse": (56, 56)})]


@pytest.mark.parametrize("request_", _REQUESTS, ids=["plain", "family options"])
def test_a_request_is_pickled_copied_and_replaced_without_change(request_: BuildRequest) -> None:
    assert pickle.loads(pickle.dumps(request_)) == request_
    assert copy.deepcopy(request_) == request_
    assert replace(request_, batch=1) == request_
    assert asdict(request_)["family_options"] == request_.family_options
    assert hash(request_) == hash(replace(request_))


def test_later_changes_of_the_callers_options_do_not_reach_the_request() -> None:
    options: dict[str, object] = {"coarse": (56, 56)}
    request = BuildRequest("roma-outdoor", family_options=options)
    options["coarse"] = (112, 112)
    assert request.family_options == {"coarse": (56, 56)}
