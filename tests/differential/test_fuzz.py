"""Generated agents and scripts through both packages.

`HYPOTHESIS_PROFILE=explore` looks for new ones; what fails is printed as a description that
`scenario_of` takes.
"""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st

from tests.differential.compare import told_apart
from tests.differential.differences import GENERATED, excused
from tests.differential.fuzz import OUTPUT_TYPES, scenario_of
from tests.differential.kit import OURS
from tests.differential.peer import Peer
from tests.differential.record import MODES, record

texts = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=12)
values = st.one_of(
    texts, st.integers(-5, 5), st.none(), st.booleans(), st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(texts, st.integers(0, 9), max_size=2),
)  # fmt: skip

tools = st.fixed_dictionaries(
    {
        "steps": st.integers(0, 3),
        "raises": st.sampled_from([False, False, False, False, "to the model", "to the model", "to the end"]),
        "result": values,
        "is_enabled": st.sampled_from([True, True, True, False]),
    }
)
agents = st.fixed_dictionaries(
    {
        "instructions": st.none() | texts,
        "tools": st.lists(tools, min_size=2, max_size=3),
        "handoffs": st.sampled_from([[0, 1, 2], [1, 2], [0], []]),
        "tool_choice": st.sampled_from([None, "required", "tool_0"]),
        "output_type": st.sampled_from(["text", "text", *OUTPUT_TYPES]),
        "behavior": st.sampled_from(
            ["run_llm_again", "run_llm_again", "stop_on_first_tool", {"stop_at_tool_names": ["tool_1"]}]
        ),
        "reset": st.booleans(),
    }
)
named = st.sampled_from(["tool_0", "tool_0", "tool_1", "tool_1", "tool_2"])
calls = st.tuples(st.just("call"), st.tuples(named, st.integers(0, 9)))
handovers = st.tuples(st.just("hand over"), st.sampled_from("abc"))
messages = st.tuples(st.just("say"), texts | st.sampled_from(['{"response": 1}', '{"response": [1]}']))
acting = st.lists(st.one_of(calls, calls, calls, handovers, messages), min_size=1, max_size=4)
ending = st.one_of(
    st.lists(messages, min_size=1, max_size=2), st.lists(messages, min_size=1, max_size=1), acting,
    st.sampled_from([[], "raise"]),
)  # fmt: skip
scripts = st.builds(
    lambda first, last: first + last, st.lists(acting, max_size=3), st.lists(ending, min_size=4, max_size=4)
)
specs = st.fixed_dictionaries(
    {
        "agents": st.lists(agents, min_size=3, max_size=3),
        "script": scripts,
        "max_turns": st.sampled_from([4, 5, 6, 2, 1]),
        "input": texts
        | st.lists(st.builds(lambda text: {"role": "user", "content": text}, texts), max_size=3),
        "not_found": st.sampled_from(["return_error_to_model", "return_error_to_model", "raise_error"]),
        "handlers": st.lists(st.sampled_from(["max_turns", "invalid_final_output"]), unique=True),
        "conversation": st.sampled_from(
            [{}, {}, {"conversation_id": "c"}, {"auto_previous_response_id": True}]
        ),
    }
)

ANSWERING: dict[str, Any] = {
    "instructions": None, "tools": [], "handoffs": [], "tool_choice": None, "output_type": "text",
    "behavior": "run_llm_again", "reset": True,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(300)
@settings(
    max_examples=settings().max_examples // 4,  # each is run four times
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(spec=specs)
@example(
    spec={
        "agents": [ANSWERING], "script": [[["say", "Hello."]]], "max_turns": 1, "input": "Hello",
        "not_found": "raise_error", "handlers": [], "conversation": {},
    }
)  # fmt: skip
def test_both_packages_do_the_same_with_generated_agents(spec: dict[str, Any], peer: Peer) -> None:
    note(f"spec = {json.dumps(spec, ensure_ascii=False)}")
    for mode in MODES:
        sdk = peer.ask(fuzz=spec, mode=mode)
        ours = json.loads(json.dumps(record(OURS, scenario_of(spec), mode)))

        excused(GENERATED, sdk, ours)

        if sdk != ours:
            pytest.fail(f"{mode}:\n{told_apart(sdk, ours)}", pytrace=False)
