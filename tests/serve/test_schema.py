"""Whatever the service's own OpenAPI allows or forbids: never a 500."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

schemathesis = pytest.importorskip("schemathesis")

#: Examples of each route: for every run, and for a long one.
FEW, MANY = 6, 400
MOST = {
    "max_tokens": 8,
    "max_completion_tokens": 8,
    "num_beams": 2,
    "n": 3,
    "steps": 4,
    "at_most": 2,
    "at_least": 2,
}


def _search(server: Any, examples: int) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 12
    names = ["t5", "pair", "taste"]
    for operation in operations:
        _ask_for(operation, names, examples)
    assert server.http.get("/readyz").status_code == 200


def _ask_for(operation: Any, names: list[str], examples: int) -> None:
    @given(data=st.data())
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(data: Any) -> None:
        mode = data.draw(st.sampled_from(list(schemathesis.GenerationMode)))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if isinstance(case.body, dict) and data.draw(st.booleans()):
            # A name that is known, so that the request gets further.
            case.body["model"] = data.draw(st.sampled_from(names))
            # What takes long by right is asked for in small.
            for name, most in MOST.items():
                if isinstance(case.body.get(name), (int, float)):
                    case.body[name] = min(case.body[name], most)
        answer = case.call(timeout=120)
        assert answer.status_code < 500, (case.as_curl_command(), answer.text)

    ask()


def test_nothing_makes_it_fail(server: Any) -> None:
    _search(server, FEW)


@pytest.mark.long
def test_nothing_at_all_makes_it_fail(server: Any) -> None:
    _search(server, MANY)
