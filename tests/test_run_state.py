"""The state of a run as JSON: what it keeps, who may read it, and what damaged ones do."""

import copy
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai.types.responses  # noqa: F401  # takes half a second: not inside of an event loop
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from millstream import (
    Agent,
    ApprovalError,
    GuardrailFunctionOutput,
    MemoryLog,
    RunConfig,
    RunContextWrapper,
    Runner,
    RunState,
    RunStateError,
    RunStateVersionError,
    ToolGuardrailFunctionOutput,
    ToolInputGuardrailData,
    ToolOutputImage,
    UserError,
    handoff,
    input_guardrail,
    tool,
    tool_input_guardrail,
)
from millstream.testing import (
    AwkwardValue,
    ScriptedModel,
    awkward_values,
    check_stream,
    function_call,
    reasoning,
)

DONE: list[str] = []


@pytest.fixture(autouse=True)
def nothing_is_done() -> None:
    DONE.clear()


@tool
def look(name: str) -> Any:
    DONE.append(f"look {name}")
    return f"saw {name}"


@tool(needs_approval=True)
def delete(name: str) -> str:
    DONE.append(f"delete {name}")
    return f"deleted {name}"


def agent_of(*steps: Any, **options: Any) -> Agent[Any]:
    steps = steps or ([call("look", "a"), call("delete", "b")], "Done.")
    return Agent(name="A", tools=[look, delete], model=ScriptedModel(steps), **options)


def call(name: str, what: str) -> Any:
    return function_call(name, {"name": what}, call_id=f"{name}_{what}")


async def paused(agent: Agent[Any], **options: Any) -> RunState[Any, Any]:
    return (await Runner.run(agent, "Tidy up", **options)).to_state()


async def over_json(agent: Agent[Any], state: RunState[Any, Any], **options: Any) -> RunState[Any, Any]:
    return await RunState.from_string(agent, state.to_string(), **options)


# --- what it keeps ------------------------------------------------------------------------------


async def test_a_state_goes_over_json_and_the_run_goes_on() -> None:
    agent = agent_of()
    state = await paused(agent)
    state.approve(state.get_interruptions()[0])

    result = await Runner.run(agent, await over_json(agent, state))

    assert result.final_output == "Done."
    assert DONE == ["look a", "delete b"]
    assert [item.type for item in result.new_items] == [
        "tool_call_item", "tool_call_item", "tool_call_output_item", "tool_approval_item",
        "tool_call_output_item", "message_output_item",
    ]  # fmt: skip
    assert all(item.agent is agent for item in result.new_items)
    assert result.context_wrapper.usage.requests == 2


async def test_a_state_is_the_same_however_often_it_goes_over_json() -> None:
    agent = agent_of([reasoning("Hm."), call("look", "a"), call("delete", "b")], "Done.")
    state = await paused(agent, context={"user": 1}, previous_response_id="resp_1")
    state.approve("delete_b", always_approve=True, arguments={"name": "c"})
    state.add_input("Thanks.")

    once = await over_json(agent, state)
    twice = await over_json(agent, once)

    assert once.to_json() == twice.to_json() == state.to_json()


async def test_a_state_is_plain_json_with_a_schema() -> None:
    document = (await paused(agent_of(), context={"user": 1})).to_json()

    assert document["schema"] == "millstream.run_state/1"
    assert json.loads(json.dumps(document)) == document
    assert document["context"]["value"] == {"user": 1}


async def test_decisions_and_added_input_are_in_the_state() -> None:
    agent = agent_of([call("delete", "a"), call("delete", "b")], "Done.")
    state = await paused(agent)
    state.approve("delete_a")
    state.reject("delete_b", rejection_message="No.")
    state.add_input("Thanks.")

    state = await over_json(agent, state)
    with pytest.raises(ApprovalError):
        state.reject("delete_a")
    result = await Runner.run(agent, state)

    model: Any = agent.model
    assert [item.get("output") or item.get("content") for item in model.last_call.input[3:]] == [
        "deleted a", "No.", "Thanks.",
    ]  # fmt: skip
    assert result.final_output == "Done."


async def test_what_a_tool_returned_is_told_to_the_model_as_before() -> None:
    @tool
    def draw() -> Any:
        return ToolOutputImage(image_url="data:image/png;base64,x")

    agent = agent_of([function_call("draw", {}, call_id="d"), call("delete", "b")], "Done.")
    agent.tools.append(draw)
    state = await paused(agent)
    state.approve("delete_b")
    before = state.to_go_on().input_items()

    state = await over_json(agent, state)

    assert state.to_go_on().input_items() == before
    assert (await Runner.run(agent, state)).final_output == "Done."


@pytest.mark.hostile
@pytest.mark.parametrize("awkward", awkward_values(), ids=lambda each: each.name)
async def test_a_state_can_be_kept_whatever_a_tool_returned(awkward: AwkwardValue) -> None:
    @tool
    def give() -> Any:
        return awkward.value

    agent = agent_of([function_call("give", {}, call_id="d"), call("delete", "b")], "Done.")
    agent.tools.append(give)
    state = await paused(agent)
    state.approve("delete_b")

    result = await Runner.run(agent, await over_json(agent, state))

    assert result.final_output == "Done."


async def test_what_the_models_server_keeps_is_known_to_the_state() -> None:
    agent = agent_of()
    state = await paused(agent, auto_previous_response_id=True)
    state.approve("delete_b")

    await Runner.run(agent, await over_json(agent, state))

    model: Any = agent.model
    assert model.last_call.previous_response_id == "resp-789"
    assert [item["call_id"] for item in model.last_call.input] == ["look_a", "delete_b"]


async def test_what_guardrails_have_found_is_kept_by_their_names() -> None:
    @input_guardrail(name="greets")
    def of_input(context: Any, agent: Any, input: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput({"words": 2}, tripwire_triggered=False)

    @tool_input_guardrail
    def of_tool(data: ToolInputGuardrailData) -> ToolGuardrailFunctionOutput:
        return ToolGuardrailFunctionOutput.allow("fine")

    agent = agent_of(input_guardrails=[of_input])
    agent.tools = [dataclasses.replace(look, tool_input_guardrails=[of_tool]), delete]  # type: ignore[type-var]
    before = await Runner.run(agent, "Tidy up")
    state = await over_json(agent, before.to_state())
    state.approve("delete_b")

    result = await Runner.run(agent, state)

    (found,) = result.input_guardrail_results
    assert (found.guardrail.get_name(), found.output.output_info) == ("greets", {"words": 2})
    (allowed,) = result.tool_input_guardrail_results
    assert (allowed.guardrail.get_name(), allowed.output.behavior) == ("of_tool", {"type": "allow"})
    assert len(before.input_guardrail_results) == 1


# --- agents ---------------------------------------------------------------------------------------


async def test_agents_are_found_by_name_among_those_that_can_be_reached() -> None:
    inner = agent_of()
    inner.name = "Inner"
    off = handoff(inner, is_enabled=lambda context, agent: not context.context["handed"])
    outer = Agent(
        name="Outer", handoffs=[off], model=ScriptedModel([[function_call("transfer_to_inner", {})]])
    )
    state = await paused(outer, context={"handed": False})
    state.approve("delete_b")

    state = await over_json(outer, state, context_override={"handed": True})
    result = await Runner.run(outer, state)

    assert (result.final_output, result.last_agent) == ("Done.", inner)


async def test_an_agent_that_is_not_there_or_is_there_twice_is_an_error() -> None:
    agent = agent_of()
    document = (await paused(agent)).to_json()
    twin = Agent(name="A", handoffs=[Agent(name="A")])

    with pytest.raises(RunStateError, match=r"agent 'A', which is not here. There are: B"):
        await RunState.from_json(Agent(name="B"), document)
    with pytest.raises(RunStateError, match="2 agents have that name"):
        await RunState.from_json(twin, document)


# --- the context ----------------------------------------------------------------------------------


class User:
    """A context that is no JSON."""

    def __init__(self, name: str) -> None:
        self.name = name


class Model(BaseModel):
    name: str


@dataclasses.dataclass
class Data:
    name: str


async def test_a_context_that_is_no_json_is_kept_by_a_serializer() -> None:
    agent = agent_of()
    state = await paused(agent, context=User("Ada"))

    document = state.to_json(context_serializer=lambda user: {"name": user.name})
    back = await RunState.from_json(agent, document, context_deserializer=lambda data: User(**data))
    result = await Runner.run(agent, back)

    assert result.context_wrapper.context.name == "Ada"


@pytest.mark.parametrize("context", [User("Ada"), Model(name="Ada"), Data("Ada")])
async def test_a_context_that_was_not_kept_must_be_passed(
    context: Any, caplog: pytest.LogCaptureFixture
) -> None:
    agent = agent_of()
    state = await paused(agent, context=context)
    back = await over_json(agent, state)

    with pytest.raises(RunStateError, match="context_override="):
        await over_json(agent, state, strict_context=True)
    with pytest.raises(RunStateError, match=f"{type(context).__name__}, is not in its state as it was"):
        await Runner.run(agent, back)
    result = await Runner.run(agent, back, context=context)

    assert result.context_wrapper.context is context
    assert ("kept without its context" in caplog.text) == isinstance(context, User)


async def test_a_context_that_was_not_read_is_kept_for_who_can_read_it() -> None:
    agent = agent_of()
    state = await paused(agent, context=User("Ada"))
    document = state.to_json(context_serializer=lambda user: {"name": user.name})

    again = (await RunState.from_json(agent, document)).to_json()
    back = await RunState.from_json(agent, again, context_deserializer=lambda data: User(**data))

    assert again == document
    assert (await Runner.run(agent, back)).context_wrapper.context.name == "Ada"


async def test_a_strict_state_refuses_a_context_that_is_no_mapping() -> None:
    state = await paused(agent_of(), context=User("Ada"))

    with pytest.raises(RunStateError, match=r"a User, which is no mapping. Pass context_serializer="):
        state.to_json(strict_context=True)


@pytest.mark.parametrize("made", [["Ada"], {"user": object()}])
async def test_a_serializer_gives_a_mapping_of_json(made: Any) -> None:
    state = await paused(agent_of(), context=User("Ada"))

    with pytest.raises(RunStateError, match="context_serializer returned"):
        state.to_json(context_serializer=lambda _: made)


async def test_a_mapping_that_json_cannot_hold_is_an_error_that_says_where() -> None:
    state = await paused(agent_of(), context={"user": {"db": object()}})

    with pytest.raises(RunStateError, match=r"The context has no JSON at user\.db"):
        state.to_string()


async def test_a_whole_wrapper_may_be_given() -> None:
    agent = agent_of()
    wrapper = RunContextWrapper(User("Ada"))

    state = await over_json(agent, await paused(agent), context_override=wrapper)

    assert state.to_go_on().context_wrapper.context is wrapper.context
    assert wrapper.usage.requests == 1


@pytest.mark.parametrize("context", [None, {"a": [1]}, "text", 5, ["a"]])
async def test_what_json_can_hold_is_kept_as_it_is(context: Any) -> None:
    agent = agent_of()

    state = await over_json(agent, await paused(agent, context=context))

    assert (await Runner.run(agent, state)).context_wrapper.context == context


# --- logs -----------------------------------------------------------------------------------------


async def test_a_state_that_was_read_back_goes_on_in_its_log_where_that_is_at_hand() -> None:
    log = MemoryLog()
    agent = agent_of()
    first = Runner.run_streamed(agent, "Tidy up", run_config=RunConfig(log=log))
    text = (await first).to_state().to_string()
    states = [await RunState.from_string(agent, text) for _ in range(3)]

    handle = Runner.run_streamed(agent, states[0], run_config=RunConfig(log=log))
    with pytest.raises(RunStateError, match="has gone on since"):
        Runner.run_streamed(agent, states[1], run_config=RunConfig(log=log))
    await handle
    with pytest.raises(RunStateError, match="has gone on since"):
        await Runner.run(agent, states[2], run_config=RunConfig(log=log))

    assert handle.run_id == first.run_id


async def test_without_its_log_the_run_goes_on_in_one_that_names_it() -> None:
    agent = agent_of()
    first = await Runner.run(agent, "Tidy up")
    state = await over_json(agent, first.to_state())
    state.reject("delete_b")

    handle = Runner.run_streamed(agent, state)
    entries: list[Any] = [entry async for entry in handle.entries()]

    assert check_stream(entries).ok
    assert [entry.type for entry in entries[:4]] == [
        "run.started", "run.decided", "run.resumed", "agent_updated_stream_event",
    ]  # fmt: skip
    assert entries[2].event.of == first.run_id != handle.run_id


# --- another process ------------------------------------------------------------------------------

PROGRAM = """
import asyncio, json, sys
from millstream import Agent, Runner, RunState, tool
from millstream.testing import ScriptedModel

@tool(needs_approval=True)
def delete(name: str) -> str:
    print("deleting", name)
    return f"deleted {name}"

@tool
def look(name: str) -> str:
    raise SystemExit("a tool that has run is not run again")

agent = Agent(name="A", tools=[look, delete], model=ScriptedModel(["Done over there."]))

async def main():
    state = await RunState.from_string(agent, sys.stdin.read())
    result = await Runner.run(agent, state)
    print(result.final_output)
    print(result.to_state().to_json()["outcome"])

asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_run_goes_on_in_another_process() -> None:
    state = await paused(agent_of())
    state.approve("delete_b", arguments={"name": "c"})
    text = state.to_string()

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=text, capture_output=True, text=True, check=False
    )

    assert done.stdout.split("\n")[:3] == ["deleting c", "Done over there.", "completed"], done.stderr


# --- states that cannot be used ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("", "This is not the state of a run, which is JSON"),
        ("{", "This is not the state of a run, which is JSON"),
        ("[]", "it has no `schema` of the form 'millstream.run_state/1'"),
        ({}, "it has no `schema`"),
        ({"schema": 1}, "it has no `schema`"),
        ({"schema": "millstream.run_state"}, "it has no `schema`"),
        ({"schema": "millstream.run_state/x"}, "it has no `schema`"),
        ({"schema": "millstream.run_state/²"}, "it has no `schema`"),
        ({"schema": "millstream.run_state/" + "9" * 5000}, "it has no `schema`"),
        ({"$schemaVersion": "1.21"}, "written by the OpenAI Agents SDK"),
        ({"schema": "millstream.run_state/1"}, "missing required field `run_id`"),
        ({"schema": object()}, "which is JSON"),
        ({"schema": "\ud800"}, "which is JSON"),
        (None, "it has no `schema`"),
    ],
)  # fmt: skip
async def test_what_is_no_state_is_refused(document: Any, said: str) -> None:
    with pytest.raises(RunStateError, match=said.replace("(", r"\(").replace("$", r"\$")):
        await RunState.from_json(Agent(name="A"), document)


@pytest.mark.parametrize("version", [0, 2, 300])
async def test_a_state_of_another_version_names_both(version: int) -> None:
    agent = agent_of()
    document = (await paused(agent)).to_json() | {"schema": f"millstream.run_state/{version}"}

    with pytest.raises(RunStateVersionError, match=f"version {version} .* reads versions 1 to 1") as caught:
        await RunState.from_json(agent, document)
    assert (caught.value.version, caught.value.known) == (version, 1)
    assert isinstance(caught.value, UserError)


async def test_what_a_later_version_has_added_is_passed_over() -> None:
    agent = agent_of()
    document = (await paused(agent)).to_json() | {"something": {"new": True}}

    assert len((await RunState.from_json(agent, document)).get_interruptions()) == 1


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("turn",), -1, r"at `\$.turn`"),
        (("turn",), "1", r"at `\$.turn`"),
        (("max_turns",), 0, r"at `\$.max_turns`"),
        (("outcome",), "lost", r"at `\$.outcome`"),
        (("items", 0), [], r"at `\$.items\[0\]`"),
        (("items", 0, "type"), "no_such_item", r"items\[0\]: 'no_such_item' is not the type of an item"),
        (("items", 0, "raw_item"), None, r"items\[0\]"),
        (("items", 0, "raw_item", "name"), None, "lacks name, call_id or arguments"),
        (("items", 1, "raw_item"), {"type": "message", "_fields_set": 1}, r"items\[1\]"),
        (("new_items", 0), 99, "new_items names an item that is not there"),
        (("waiting", "1"), 0, "waiting names an item that asks for no approval"),
        (("waiting",), {"7": 3}, "its turn has no call '7'"),
        (("waiting",), {"x": 3}, "its turn has no call 'x'"),
        (("input",), [{"type": "bad"}], "input: "),
        (("responses", 0, "output", 0), 1, r"at `\$.responses\[0\].output\[0\]`"),
        (("usage", "requests"), None, r"at `\$.usage.requests`"),
        (("context", "kind"), "code", r"at `\$.context.kind`"),
    ],
)
async def test_a_damaged_state_is_refused_and_says_where(
    path: tuple[Any, ...], value: Any, said: str
) -> None:
    agent = agent_of()
    document = (await paused(agent)).to_json()
    changed(document, path, value)

    with pytest.raises(RunStateError, match=said):
        await RunState.from_json(agent, document)


def changed(document: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


async def test_the_document_that_is_read_may_change_afterwards() -> None:
    agent = agent_of()
    document = (await paused(agent)).to_json()
    state = await RunState.from_json(agent, document)
    before = copy.deepcopy(state.to_json())

    document["items"].clear()

    assert state.to_json() == before


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(
        [
            "tool_call_item",
            "function_call",
            "message",
            "_fields_set",
            "__class__",
            "millstream.run_state/1",
            "A",
        ]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in a document."""
    keys: Any = (
        value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    return [path, *(each for key in keys for each in places(value[key], (*path, key)))]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The state of a run that waits, with everything in it."""
    agent = agent_of([reasoning("Hm."), call("look", "a"), call("delete", "b")], "Done.")
    state = Runner.run_sync(agent, "Tidy up", context={"user": 1}).to_state()
    state.approve("delete_b", arguments={"name": "c"}, always_approve=True)
    state.add_input("Thanks.")
    return state.to_json()


@pytest.mark.hostile
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_state_that_somebody_has_changed_is_refused_or_read(
    document: dict[str, Any], data: st.DataObject
) -> None:
    agent = agent_of("Done.")
    damaged = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(damaged)[1:]))
        parent: Any = damaged
        for key in path[:-1]:
            parent = parent[key]
        if data.draw(st.booleans()):
            parent[path[-1]] = data.draw(VALUES)
        elif isinstance(parent, dict) and data.draw(st.booleans()):
            parent[data.draw(st.text(max_size=8))] = data.draw(VALUES)
        else:
            del parent[path[-1]]
        if not damaged:
            break

    coroutine = RunState.from_json(agent, damaged)
    try:
        coroutine.send(None)
    except StopIteration as read:
        state = read.value
        assert isinstance(state, RunState)
        state.to_json()
        state.get_interruptions()
    except RunStateError:
        pass


@pytest.mark.hostile
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_text_that_was_cut_or_garbled_is_refused_or_read(
    document: dict[str, Any], data: st.DataObject
) -> None:
    text = json.dumps(document)
    at = data.draw(st.integers(0, len(text)))
    garbled = text[:at] + data.draw(st.text(max_size=3)) + text[data.draw(st.integers(at, len(text))) :]

    coroutine = RunState.from_string(agent_of("Done."), garbled)
    try:
        coroutine.send(None)
    except (StopIteration, RunStateError):
        pass


@pytest.mark.hostile
async def test_nothing_that_stands_in_a_state_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: dict[str, Any]
) -> None:
    (tmp_path / "trap_of_a_state.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    names = (
        "trap_of_a_state",
        "trap_of_a_state:Trap",
        "trap_of_a_state.Trap",
        "__import__('trap_of_a_state')",
    )

    for path in places(document)[1:]:
        for name in names:
            for value in (name, {"$type": name, "__class__": name, "class_path": name}):
                damaged = copy.deepcopy(document)
                changed(damaged, path, value)
                try:
                    await RunState.from_json(agent_of("Done."), damaged)
                except RunStateError:
                    pass

    assert "trap_of_a_state" not in sys.modules
