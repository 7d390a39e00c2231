"""A run that is nested in another pauses, and both go on: what waits is told and decided at the root."""

from typing import Any

import openai.types.responses  # noqa: F401  # takes half a second: not inside of an event loop
import pytest

from millstream import (
    Agent,
    RunCancelledError,
    RunHooks,
    Runner,
    RunState,
    RunStateError,
    ToolOutputGuardrailData,
    tool,
    tool_output_guardrail,
)
from millstream.guardrail import ToolGuardrailFunctionOutput
from millstream.testing import ScriptedModel, check_stream, function_call


class Office:
    """A boss with two clerks as tools, each of whom wants to delete something."""

    def __init__(self, *calls: str, **options: Any) -> None:
        self.done: list[str] = []

        @tool(needs_approval=True)
        def delete(name: str) -> str:
            self.done.append(name)
            return f"deleted {name}"

        self.clerks = [
            Agent(
                name=name,
                tools=[delete],
                model=ScriptedModel(
                    [[function_call("delete", {"name": name}, call_id="d")], f"{name} is done."]
                ),
            )
            for name in ("ann", "bob")
        ]
        self.model = ScriptedModel(
            [
                [function_call(name, {"input": "Go."}, call_id=f"ask_{name}") for name in calls or ("ann",)],
                "Done.",
            ]
        )
        tools = [clerk.as_tool(clerk.name, f"Asks {clerk.name}.", **options) for clerk in self.clerks]
        self.boss = Agent(name="boss", tools=[*tools], model=self.model)


def waiting(result: Any) -> list[tuple[str, str]]:
    return [(item.agent.name, item.name) for item in result.interruptions]


async def going_on(state: RunState[Any, Any], office: Office, *, json: bool) -> Any:
    if json:
        state = await RunState.from_string(office.boss, state.to_string())
    handle = Runner.run_streamed(office.boss, state)
    entries = [entry async for entry in handle.entries()]
    assert check_stream(entries).ok
    return handle


@pytest.fixture(params=[False, True], ids=["at hand", "over json"])
def json(request: pytest.FixtureRequest) -> bool:
    """Whether the state goes over JSON."""
    return request.param


async def test_what_waits_inside_of_a_tool_waits_at_the_root_and_is_decided_there(json: bool) -> None:
    office = Office()
    paused = await Runner.run(office.boss, "Tidy up")
    assert waiting(paused) == [("ann", "delete")]
    assert [item.type for item in paused.new_items] == ["tool_call_item"]
    state = paused.to_state()
    state.approve(state.get_interruptions()[0])

    handle = await going_on(state, office, json=json)

    assert handle.final_output == "Done."
    assert office.done == ["ann"]
    model: Any = office.model
    assert model.last_call.input[-1]["output"] == "ann is done."
    assert handle.context_wrapper.usage.requests == 4


async def test_runs_side_by_side_pause_together_and_go_on_as_they_are_decided_over(json: bool) -> None:
    office = Office("ann", "bob")
    state = (await Runner.run(office.boss, "Tidy up")).to_state()
    ann, bob = state.get_interruptions()
    state.reject(bob, rejection_message="Not bob.")

    handle = await going_on(state, office, json=json)
    assert waiting(handle) == [("ann", "delete")]
    state = handle.to_state()
    state.approve("d")
    handle = await going_on(state, office, json=json)

    assert handle.final_output == "Done."
    assert (ann.agent.name, office.done) == ("ann", ["ann"])
    bobs: Any = office.clerks[1].model
    assert bobs.last_call.input[-1]["output"] == "Not bob."
    model: Any = office.model
    assert [item.get("output") for item in model.last_call.input[-2:]] == ["bob is done.", "ann is done."]


async def test_an_agent_that_is_a_tool_may_need_approval_itself(json: bool) -> None:
    office = Office(needs_approval=True)
    paused = await Runner.run(office.boss, "Tidy up")
    seen = [waiting(paused)]
    handle: Any = paused
    while handle.interruptions:
        state = handle.to_state()
        for item in state.get_interruptions():
            state.approve(item)
        handle = await going_on(state, office, json=json)
        seen.append(waiting(handle))

    assert seen == [[("boss", "ann")], [("ann", "delete")], []]
    assert office.done == ["ann"]
    assert handle.final_output == "Done."


async def test_a_run_may_wait_several_levels_down(json: bool) -> None:
    office = Office()
    chief = Agent(
        name="chief",
        tools=[office.boss.as_tool("boss", "Asks the boss.")],
        model=ScriptedModel([[function_call("boss", {"input": "Go."}, call_id="ask_boss")], "All done."]),
    )
    office.boss, boss = chief, office.boss
    state = (await Runner.run(chief, "Tidy up")).to_state()
    state.approve("d", always_approve=True)

    handle = await going_on(state, office, json=json)

    assert handle.final_output == "All done."
    assert office.done == ["ann"]
    assert boss.name == "boss"


async def test_the_log_tells_of_the_pause_from_the_inside_out() -> None:
    office = Office()
    handle = Runner.run_streamed(office.boss, "Tidy up")
    told = [
        (entry.depth, entry.type, getattr(entry.event, "status", ""))
        async for entry in handle.entries(types=["run.paused", "tool.started", "tool.finished"])
    ]

    assert told == [
        (0, "tool.started", ""),
        (1, "run.paused", ""),
        (0, "tool.finished", "paused"),
        (0, "run.paused", ""),
    ]


async def test_a_nested_run_that_goes_on_tells_what_it_has_used_in_all(json: bool) -> None:
    office = Office()
    state = (await Runner.run(office.boss, "Tidy up")).to_state()
    state.approve("d")

    handle = await going_on(state, office, json=json)
    ends = [entry async for entry in handle.entries(types=["run.completed"])]

    assert [(end.agent, end.event.usage["requests"]) for end in ends] == [("ann", 2), ("boss", 4)]


async def test_hooks_and_guardrails_see_the_output_of_the_tool_once() -> None:
    seen: list[str] = []

    class Watch(RunHooks[Any]):
        async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:
            seen.append(f"hook {result}")

    @tool_output_guardrail
    def watch(data: ToolOutputGuardrailData) -> ToolGuardrailFunctionOutput:
        seen.append(f"guardrail {data.output}")
        return ToolGuardrailFunctionOutput.allow()

    office = Office()
    for each in office.boss.tools:
        each.tool_output_guardrails = [watch]  # type: ignore[union-attr]
    state = (await Runner.run(office.boss, "Tidy up", hooks=Watch())).to_state()
    state.approve("d")
    await Runner.run(office.boss, state, hooks=Watch())

    assert seen == ["guardrail ann is done.", "hook ann is done."]


async def test_a_paused_tree_that_is_stopped_answers_every_call() -> None:
    office = Office("ann", "bob")
    paused = await Runner.run(office.boss, "Tidy up")

    handle = Runner.run_streamed(office.boss, paused.to_state())
    handle.cancel()
    with pytest.raises(RunCancelledError):
        await handle

    assert check_stream([entry async for entry in handle.entries()]).ok
    outputs = [item for item in handle.to_input_list() if item.get("type") == "function_call_output"]
    assert [item["call_id"] for item in outputs] == ["ask_ann", "ask_bob"]  # type: ignore[typeddict-item]


async def test_a_state_of_a_tool_that_is_no_agent_any_more_is_an_error() -> None:
    office = Office()
    document = (await Runner.run(office.boss, "Tidy up")).to_state().to_json()
    office.boss.tools = []

    with pytest.raises(
        RunStateError, match="a run is paused inside of the tool 'ann', and agent 'boss' has no agent"
    ):
        await RunState.from_json(office.boss, document)


async def test_who_listens_to_a_nested_run_hears_what_is_new() -> None:
    heard: list[str] = []
    office = Office(on_stream=lambda told: heard.append(getattr(told["event"], "name", "")))
    state = (await Runner.run(office.boss, "Tidy up")).to_state()
    before, heard[:] = [name for name in heard if name], []
    state.approve("d")

    await Runner.run(office.boss, state)

    assert before == ["tool_called"]
    assert [name for name in heard if name] == ["tool_output", "message_output_created"]


async def test_a_tree_that_goes_on_may_be_stopped_at_every_event(json: bool) -> None:
    at, is_over = 0, False
    while not is_over:
        at += 1
        office = Office("ann", "bob")
        state = (await Runner.run(office.boss, "Tidy up")).to_state()
        ann, bob = state.get_interruptions()
        state.approve(ann)
        state.reject(bob)
        if json:
            state = await RunState.from_string(office.boss, state.to_string())
        handle = Runner.run_streamed(office.boss, state)
        entries = []
        async for entry in handle.entries(after=handle.begins_after):
            entries.append(entry)
            if len(entries) == at:
                handle.cancel()
        is_over = len(entries) < at

        calls = [item for item in handle.new_items if item.type == "tool_call_item"]
        answers = [item for item in handle.new_items if item.type == "tool_call_output_item"]
        assert [item.call_id for item in calls] == ["ask_ann", "ask_bob"]
        assert sorted(str(item.call_id) for item in answers) == ["ask_ann", "ask_bob"]
        assert sum(entry.is_terminal and entry.depth == 0 for entry in entries) == 1
        assert check_stream([entry async for entry in handle.entries()]).ok
