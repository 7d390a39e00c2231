"""However a run that pauses goes on (streamed or plain, at hand or over JSON, all at once or call by call), it comes to the same."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import openai.types.responses  # noqa: F401  # takes half a second: not inside of an event loop
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream import Agent, RunConfig, Runner, RunState, tool
from millstream.items import as_input_item
from millstream.testing import ScriptedModel, check_stream, function_call

DEADLINE = 30.0

CALLS = ("looks", "deletes", "asks", "asks with leave", "hands over", "no such tool")


@dataclass(frozen=True)
class Plan:
    """A run, by the calls of its turns, and what is decided over each call that waits."""

    turns: tuple[tuple[str, ...], ...]
    decisions: tuple[str, ...]
    behavior: str


plans = st.builds(
    Plan,
    turns=st.lists(
        st.lists(st.sampled_from(CALLS), min_size=1, max_size=4).map(tuple), min_size=1, max_size=3
    ).map(tuple),
    decisions=st.lists(
        st.sampled_from(["approve", "reject", "edit", "always approve", "always reject"]),
        min_size=4,
        max_size=4,
    ).map(tuple),
    behavior=st.sampled_from(["run_llm_again", "run_llm_again", "stop_on_first_tool"]),
)


class World:
    """Agents of a plan, made anew, and what their tools did."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.done: list[str] = []

        @tool
        async def look(name: str) -> str:
            self.done.append(f"look {name}")
            return f"saw {name}"

        @tool(needs_approval=True)
        async def delete(name: str) -> str:
            self.done.append(f"delete {name}")
            return f"deleted {name}"

        def clerk(name: str) -> Agent[Any]:
            steps: list[Any] = []
            for number in range(20):
                steps += [
                    [function_call("delete", {"name": f"{name} {number}"}, call_id="d")],
                    f"{name} is done.",
                ]
            return Agent(name=name, tools=[delete], model=ScriptedModel(steps))

        tools = [
            look,
            delete,
            clerk("ann").as_tool("ask", "Asks."),
            clerk("bob").as_tool("ask_with_leave", "Asks.", needs_approval=True),
        ]
        last = Agent(name="last", model=ScriptedModel(["The end."] * 2))
        steps = [
            [call(f"{turn}.{place}", each) for place, each in enumerate(calls)]
            for turn, calls in enumerate(plan.turns)
        ]
        self.agent = Agent(
            name="A",
            tools=[*tools],
            handoffs=[last],
            model=ScriptedModel([*steps, "Done."]),
            tool_use_behavior=plan.behavior,  # type: ignore[arg-type]
        )


def call(where: str, what: str) -> Any:
    name, arguments = {
        "looks": ("look", {"name": where}),
        "deletes": ("delete", {"name": where}),
        "asks": ("ask", {"input": where}),
        "asks with leave": ("ask_with_leave", {"input": where}),
        "hands over": ("transfer_to_last", {}),
        "no such tool": ("nothing", {}),
    }[what]
    return function_call(name, arguments, call_id=where)


def decide(world: World, state: RunState[Any, Any], *, one: bool) -> None:
    """What the plan says of a call follows from the call alone, so that it does not matter when it is asked."""
    waiting = state.get_interruptions()
    for item in waiting[:1] if one else waiting:
        text = f"{item.agent.name} {item.name} {item.arguments}"
        decision = world.plan.decisions[sum(map(ord, text)) % len(world.plan.decisions)]
        if "approve" in decision:
            state.approve(item, always_approve="always" in decision and item.agent.name == "A")
        elif "reject" in decision:
            state.reject(item, rejection_message="No.")
        else:
            state.approve(item, arguments=json.loads(item.arguments or "{}"))


Way = Callable[[World], Awaitable[Any]]
CONFIG = RunConfig(tool_not_found_behavior="return_error_to_model")


def way(*, streamed: bool, over_json: bool, one: bool) -> Way:
    async def go(world: World) -> Any:
        async def run(given: Any) -> Any:
            if not streamed:
                return await Runner.run(world.agent, given, run_config=CONFIG)
            handle = Runner.run_streamed(world.agent, given, run_config=CONFIG)
            entries = [entry async for entry in handle.entries()]
            assert check_stream(entries).ok
            return await handle

        result = await run("Go")
        for _ in range(60):
            if not result.interruptions:
                return result
            state = result.to_state()
            decide(world, state, one=one)
            if over_json:
                state = await RunState.from_string(world.agent, state.to_string())
            result = await run(state)
        raise AssertionError("it pauses without end")

    return go


def told(world: World, result: Any) -> Any:
    """What a run came to, whatever the order in which its tools were let run."""
    answers = {
        item.call_id: str(item.output) for item in result.new_items if item.type == "tool_call_output_item"
    }
    return {
        "output": result.final_output,
        "agent": result.last_agent.name,
        "answers": answers,
        "others": [
            as_input_item(item.raw_item)
            for item in result.new_items
            if item.type not in ("tool_call_output_item", "tool_approval_item")
        ],
        "asked": sum(item.type == "tool_approval_item" for item in result.new_items),
        "requests": result.context_wrapper.usage.requests,
        "done": sorted(world.done),
        "turns": result._progress.current_turn,
    }


@settings(max_examples=25)
@given(plan=plans)
def test_a_run_that_pauses_comes_to_the_same_however_it_goes_on(plan: Plan) -> None:
    async def outcome(go: Way) -> Any:
        world = World(plan)
        return told(world, await asyncio.wait_for(go(world), DEADLINE))

    whole = asyncio.run(outcome(way(streamed=False, over_json=False, one=False)))

    for streamed, over_json, one in ((True, False, False), (False, True, False), (True, True, True)):
        again = asyncio.run(outcome(way(streamed=streamed, over_json=over_json, one=one)))
        assert again == whole
