"""Calls that wait for approval: which they are, what a decision does, and where the run goes on."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import openai.types.responses  # noqa: F401  # takes half a second: not inside of an event loop
import pytest

from millstream import (
    Agent,
    ApprovalError,
    MaxTurnsExceeded,
    MemoryLog,
    RunCancelledError,
    RunConfig,
    RunContextWrapper,
    RunHooks,
    Runner,
    RunResult,
    RunState,
    RunStateError,
    ToolApprovalItem,
    ToolContext,
    ToolErrorFormatterArgs,
    UserError,
    tool,
)
from millstream.events import Entry, ToolStarted
from millstream.testing import ScriptedModel, check_stream, function_call, reasoning


class Disk:
    """What the tools of a test did, and the agent that has them."""

    def __init__(self, *steps: Any, needs_approval: Any = True, **options: Any) -> None:
        self.done: list[str] = []

        @tool
        async def look(name: str) -> str:
            self.done.append(f"look {name}")
            return f"saw {name}"

        @tool(needs_approval=needs_approval)
        async def delete(context: ToolContext[Any], name: str) -> str:
            self.done.append(f"delete {name}")
            return f"deleted {name}"

        self.model = ScriptedModel(steps or [[self.look("a", "c1"), self.delete("b", "c2")], "Done."])
        self.agent = Agent(name="A", tools=[look, delete], model=self.model, **options)

    @staticmethod
    def look(name: str, call_id: str) -> Any:
        return function_call("look", {"name": name}, call_id=call_id)

    @staticmethod
    def delete(name: str, call_id: str) -> Any:
        return function_call("delete", {"name": name}, call_id=call_id)

    @property
    def told(self) -> list[Any]:
        """The outputs that the model was given last."""
        last: Any = self.model.last_call
        return [item["output"] for item in last.input if item.get("type") == "function_call_output"]


def kinds(result: Any) -> list[str]:
    return [item.type for item in result.new_items]


def ids(result: Any) -> list[str]:
    return [item.call_id for item in result.interruptions]


async def types(entries: Any) -> list[str]:
    return [entry.type async for entry in entries if entry.type != "raw_response_event"]


Door = Callable[..., Any]


async def streamed(*args: Any, **options: Any) -> RunResult:
    handle = Runner.run_streamed(*args, **options)
    async for _ in handle:
        pass
    return await handle


@pytest.fixture(params=[Runner.run, streamed], ids=["plain", "streamed"])
def run(request: pytest.FixtureRequest) -> Door:
    """A door: the plain one, or the streamed one with a reader."""
    return request.param


# --- a run pauses, and goes on ------------------------------------------------------------------


async def test_tools_that_need_no_approval_run_and_the_others_wait(run: Door) -> None:
    disk = Disk()

    result = await run(disk.agent, "Tidy up")

    assert disk.done == ["look a"]
    assert result.final_output is None
    assert [(item.name, item.call_id, item.arguments) for item in result.interruptions] == [
        ("delete", "c2", '{"name":"b"}')
    ]
    assert kinds(result) == [
        "tool_call_item",
        "tool_call_item",
        "tool_call_output_item",
        "tool_approval_item",
    ]
    assert len(disk.model.calls) == 1


async def test_what_is_approved_runs_and_the_run_goes_on(run: Door) -> None:
    disk = Disk()
    paused = await run(disk.agent, "Tidy up")
    state = paused.to_state()
    state.approve(paused.interruptions[0])

    result = await run(disk.agent, state)

    assert result.final_output == "Done."
    assert disk.done == ["look a", "delete b"]
    assert disk.told == ["saw a", "deleted b"]
    assert kinds(result) == [*kinds(paused), "tool_call_output_item", "message_output_item"]
    assert result.interruptions == []
    assert result.context_wrapper.usage.requests == 2
    assert ids(paused) == ["c2"], "a result does not change when its state goes on"


async def test_what_is_rejected_does_not_run_and_the_model_is_told(run: Door) -> None:
    disk = Disk()
    paused = await run(disk.agent, "Tidy up")
    state = paused.to_state()
    state.reject(paused.interruptions[0], rejection_message="Keep b, please.")

    result = await run(disk.agent, state)

    assert disk.done == ["look a"]
    assert disk.told == ["saw a", "Keep b, please."]
    assert result.final_output == "Done."


async def test_a_rejection_without_a_word_is_told_in_a_usual_one_or_by_the_formatter(run: Door) -> None:
    seen: list[ToolErrorFormatterArgs[Any]] = []

    def words(args: ToolErrorFormatterArgs[Any]) -> str | None:
        seen.append(args)
        return f"Nobody let {args.tool_name} run." if args.call_id == "c2" else None

    disk = Disk([Disk.delete("a", "c1"), Disk.delete("b", "c2")], "Done.")
    state = (await run(disk.agent, "Tidy up")).to_state()
    for item in state.get_interruptions():
        state.reject(item)

    await run(disk.agent, state, run_config=RunConfig(tool_error_formatter=words))

    assert disk.told == ["Tool execution was not approved.", "Nobody let delete run."]
    assert [(each.kind, each.tool_type) for each in seen] == [("approval_rejected", "function")] * 2


async def test_calls_may_be_decided_over_one_by_one(run: Door) -> None:
    disk = Disk([Disk.delete("a", "c1"), Disk.delete("b", "c2"), Disk.delete("c", "c3")], "Done.")
    result = await run(disk.agent, "Tidy up")
    steps = [ids(result)]

    for decide in ("approve", "reject", "approve"):
        state = result.to_state()
        getattr(state, decide)(state.get_interruptions()[0])
        result = await run(disk.agent, state)
        steps.append(ids(result))

    assert steps == [["c1", "c2", "c3"], ["c2", "c3"], ["c3"], []]
    assert disk.done == ["delete a", "delete c"]
    assert kinds(result).count("tool_approval_item") == 3
    assert result.final_output == "Done."


async def test_a_run_that_goes_on_without_a_decision_pauses_again(run: Door) -> None:
    disk = Disk()
    paused = await run(disk.agent, "Tidy up")

    again = await run(disk.agent, paused.to_state())

    assert ids(again) == ["c2"]
    assert again.new_items == paused.new_items
    assert disk.done == ["look a"]
    assert len(disk.model.calls) == 1


async def test_a_decision_for_always_is_about_later_calls_of_that_tool_too(run: Door) -> None:
    for decide, done in (("approve", ["delete a", "delete b"]), ("reject", [])):
        disk = Disk([Disk.delete("a", "c1")], [Disk.delete("b", "c2")], "Done.")
        state = (await run(disk.agent, "Tidy up")).to_state()
        item = state.get_interruptions()[0]
        if decide == "approve":
            state.approve(item, always_approve=True)
        else:
            state.reject(item, always_reject=True, rejection_message="Never.")

        result = await run(disk.agent, state)

        assert result.final_output == "Done."
        assert disk.done == done
        assert result.context_wrapper.is_tool_approved("delete", "any") is (decide == "approve")
        assert result.context_wrapper.get_rejection_message("delete", "c2") == (
            None if decide == "approve" else "Never."
        )


async def test_a_decision_for_always_is_about_the_agent_that_asked(run: Door) -> None:
    disk = Disk([function_call("transfer_to_b", {}, call_id="h")], "Done.")
    other = Disk([Disk.delete("y", "c2")])
    other.agent.name = "B"
    first = Disk(
        [Disk.delete("x", "c1")], [function_call("transfer_to_b", {}, call_id="h")], handoffs=[other.agent]
    )
    state = (await run(first.agent, "Tidy up")).to_state()
    state.approve("c1", always_approve=True)

    result = await run(first.agent, state)

    assert (ids(result), result.last_agent.name) == (["c2"], "B")
    assert (first.done, other.done, disk.done) == (["delete x"], [], [])


async def test_the_arguments_of_a_call_may_be_edited(run: Door) -> None:
    disk = Disk()
    paused = await run(disk.agent, "Tidy up")
    state = paused.to_state()
    state.approve("c2", arguments={"name": "trash/b"})

    result = await run(disk.agent, state)

    assert disk.done == ["look a", "delete trash/b"]
    assert [item.raw_item.arguments for item in result.new_items if item.type == "tool_call_item"] == [
        '{"name":"a"}',
        '{"name":"b"}',
    ]


@pytest.mark.parametrize("arguments", [[1], "[1]", "{", "1", {"x": object()}, {1j: 2}])
async def test_edited_arguments_are_a_json_object(arguments: Any) -> None:
    disk = Disk()
    state = (await Runner.run(disk.agent, "Tidy up")).to_state()

    with pytest.raises(ApprovalError, match="arguments= must be a JSON object"):
        state.approve("c2", arguments=arguments)


async def test_a_hook_may_decide_before_anybody_is_asked(run: Door) -> None:
    class Guard(RunHooks[Any]):
        async def on_llm_end(self, context: RunContextWrapper[Any], agent: Any, response: Any) -> None:
            for call in response.output:
                if getattr(call, "name", "") == "delete":
                    context.approve_tool(ToolApprovalItem(agent, call))

    disk = Disk()

    result = await run(disk.agent, "Tidy up", hooks=Guard())

    assert result.final_output == "Done."
    assert disk.done == ["look a", "delete b"]


# --- which calls wait ---------------------------------------------------------------------------


async def test_a_function_may_tell_whether_a_call_needs_approval(run: Door) -> None:
    asked: list[Any] = []

    async def is_important(context: RunContextWrapper[Any], arguments: dict[str, Any], call_id: str) -> bool:
        asked.append((context.context, arguments, call_id))
        return arguments["name"] == "b"

    disk = Disk([Disk.delete("a", "c1"), Disk.delete("b", "c2")], "Done.", needs_approval=is_important)
    paused = await run(disk.agent, "Tidy up", context="mine")
    state = paused.to_state()
    state.approve("c2")

    await run(disk.agent, state)

    assert ids(paused) == ["c2"]
    assert disk.done == ["delete a", "delete b"]
    assert asked == [("mine", {"name": "a"}, "c1"), ("mine", {"name": "b"}, "c2")], "nobody is asked twice"


@pytest.mark.parametrize("arguments", ['{"name":', "[]", '""', ""])
async def test_a_call_whose_arguments_cannot_be_judged_needs_approval(arguments: str) -> None:
    disk = Disk([function_call("delete", arguments, call_id="c1")], "Done.", needs_approval=lambda *_: False)

    assert ids(await Runner.run(disk.agent, "Tidy up")) == ["c1"]


async def test_a_function_that_raises_ends_the_run(run: Door) -> None:
    def breaks(*_: Any) -> bool:
        raise ValueError("no idea")

    disk = Disk(needs_approval=breaks)

    with pytest.raises(UserError, match="Error running tool delete: no idea") as raised:
        await run(disk.agent, "Tidy up")

    assert raised.value.__notes__ == ["Raised by needs_approval of tool 'delete', which has not run."]


async def test_a_handoff_of_the_same_turn_waits_with_the_calls(run: Door) -> None:
    other = Agent(name="B", model=ScriptedModel(["From B."]))
    disk = Disk([Disk.delete("b", "c1"), function_call("transfer_to_b", {}, call_id="h")], handoffs=[other])
    paused = await run(disk.agent, "Tidy up")
    state = paused.to_state()
    state.approve("c1")

    result = await run(disk.agent, state)

    assert kinds(paused) == ["tool_call_item", "handoff_call_item", "tool_approval_item"]
    assert paused.last_agent.name == "A"
    assert (result.final_output, result.last_agent.name) == ("From B.", "B")
    assert kinds(result)[3:] == ["tool_call_output_item", "handoff_output_item", "message_output_item"]


async def test_results_of_tools_are_the_output_when_all_calls_are_dealt_with(run: Door) -> None:
    outputs = []
    for calls in (
        [Disk.look("a", "c1"), Disk.delete("b", "c2")],
        [Disk.delete("b", "c2"), Disk.look("a", "c1")],
    ):
        disk = Disk(calls, tool_use_behavior="stop_on_first_tool")
        paused = await run(disk.agent, "Tidy up")
        state = paused.to_state()
        state.approve("c2")
        outputs.append((paused.final_output, (await run(disk.agent, state)).final_output))

    assert outputs == [(None, "saw a"), (None, "deleted b")]


async def test_two_calls_that_are_the_same_in_everything_are_decided_over_each(run: Door) -> None:
    disk = Disk([Disk.delete("b", "c1"), Disk.delete("b", "c1")], "Done.")
    paused = await run(disk.agent, "Tidy up")
    state = paused.to_state()
    first, second = state.get_interruptions()
    state.approve(first)
    state.reject(second, rejection_message="Once will do.")

    await run(disk.agent, state)

    assert disk.done == ["delete b"]
    assert disk.told == ["deleted b", "Once will do."]


async def test_an_approval_is_good_for_one_call_also_where_the_server_uses_its_id_again(run: Door) -> None:
    disk = Disk([Disk.delete("b", "call_0")], [Disk.delete("b", "call_0")], "Done.")
    state = (await run(disk.agent, "Tidy up")).to_state()
    state.approve("call_0")

    result = await run(disk.agent, state)

    assert ids(result) == ["call_0"]
    assert disk.done == ["delete b"]


# --- decisions that cannot be taken ---------------------------------------------------------------


async def test_to_decide_the_same_again_changes_nothing_and_to_decide_otherwise_is_an_error() -> None:
    disk = Disk()
    state = (await Runner.run(disk.agent, "Tidy up")).to_state()
    (item,) = state.get_interruptions()
    state.approve(item)

    state.approve(item)
    with pytest.raises(ApprovalError, match=r"'c2' of delete was approved before"):
        state.reject(item)
    with pytest.raises(ApprovalError, match="in another way"):
        state.approve(item, arguments={"name": "c"})

    await Runner.run(disk.agent, state)
    assert disk.done == ["look a", "delete b"]


async def test_what_the_model_is_told_of_a_rejection_is_text() -> None:
    state = (await Runner.run(Disk().agent, "Tidy up")).to_state()
    message: Any = {"reason": "no"}

    with pytest.raises(ApprovalError, match=r"rejection_message is text, .* not dict"):
        state.reject("c2", rejection_message=message)
    state.reject("c2", rejection_message="no")


async def test_a_call_that_does_not_wait_cannot_be_decided_over() -> None:
    disk = Disk()
    paused = await Runner.run(disk.agent, "Tidy up")
    state = paused.to_state()
    state.approve("c2")
    done = await Runner.run(disk.agent, state)

    with pytest.raises(ApprovalError, match="c2 does not wait"):
        done.to_state().approve("c2")
    with pytest.raises(RunStateError, match="comes too late"):
        paused.to_state().approve("c2")
    with pytest.raises(ApprovalError, match=r"c1 does not wait .* These do: none"):
        done.to_state().reject("c1")


@pytest.mark.parametrize("item", [None, {"call_id": "c2"}, 2])
async def test_a_decision_is_over_an_item_or_a_call_id(item: Any) -> None:
    state = (await Runner.run(Disk().agent, "Tidy up")).to_state()

    with pytest.raises(ApprovalError, match=f"or a call id, not {type(item).__name__}"):
        state.approve(item)


async def test_an_item_from_elsewhere_stands_for_the_call_that_it_tells_of() -> None:
    disk = Disk()
    paused = await Runner.run(disk.agent, "Tidy up")
    state = await RunState.from_string(disk.agent, paused.to_state().to_string())

    state.approve(paused.interruptions[0])

    assert (await Runner.run(disk.agent, state)).final_output == "Done."


async def test_items_of_calls_that_are_the_same_are_taken_one_after_the_other() -> None:
    disk = Disk([Disk.delete("b", "c1"), Disk.delete("b", "c1")], "Done.")
    paused = await Runner.run(disk.agent, "Tidy up")
    state = await RunState.from_string(disk.agent, paused.to_state().to_string())
    with pytest.raises(ApprovalError, match="2 calls wait that have the id 'c1'"):
        state.approve("c1")

    for item in paused.interruptions:
        state.approve(item)
    await Runner.run(disk.agent, state)

    assert disk.done == ["delete b", "delete b"]


async def test_a_store_that_cannot_tell_at_once_is_asked_when_the_run_goes_on() -> None:
    class Slow(MemoryLog):
        def info_nowait(self, run_id: str) -> None:
            return None

    disk, config = Disk(), RunConfig(log=Slow())
    paused = await Runner.run(disk.agent, "Tidy up", run_config=config)
    text = paused.to_state().to_string()

    there = await Runner.run(disk.agent, await RunState.from_string(disk.agent, text), run_config=config)

    assert there.run_id == paused.run_id
    with pytest.raises(RunStateError, match="is gone on with elsewhere, or was"):
        await Runner.run(disk.agent, paused.to_state(), run_config=config)


def test_a_state_tells_what_it_is_of() -> None:
    state = Runner.run_sync(Disk().agent, "Tidy up").to_state()

    assert repr(state).endswith("agent 'A', turn 1, 1 call(s) waiting)")


async def test_whether_reasoning_keeps_its_id_may_be_said_anew() -> None:
    ids: list[bool] = []
    for policy, config in (("omit", None), (None, None), (None, {"reasoning_item_id_policy": "omit"})):
        fresh = Disk([reasoning("Hm."), Disk.delete("b", "c1")], "Done.")
        state = (await Runner.run(fresh.agent, "Tidy up")).to_state()
        state.set_reasoning_item_id_policy(policy)  # type: ignore[arg-type]
        state.approve("c1")
        await Runner.run(fresh.agent, state, run_config=config)
        last: Any = fresh.model.last_call
        ids.append(any("id" in item for item in last.input if item.get("type") == "reasoning"))

    assert ids == [False, True, False]


async def test_what_is_decided_when_the_run_goes_on_comes_too_late() -> None:
    disk = Disk()
    state = (await Runner.run(disk.agent, "Tidy up")).to_state()
    handle = Runner.run_streamed(disk.agent, state)

    with pytest.raises(RunStateError, match="comes too late"):
        state.approve("c2")
    with pytest.raises(RunStateError, match="comes too late"):
        state.add_input("And c.")
    await handle


# --- the log ------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [None, {"name": "c"}])
async def test_the_log_says_that_a_call_which_was_approved_is_not_begun_again(arguments: Any) -> None:
    disk = Disk()
    paused = await Runner.run(disk.agent, "hi")
    state = paused.to_state()
    state.approve(paused.interruptions[0], arguments=arguments)

    handle = Runner.run_streamed(disk.agent, state)
    entries = [entry async for entry in handle.entries()]

    began = {e.event.call_id: e.event.once for e in entries if isinstance(e.event, ToolStarted)}
    assert began == {"c1": False, "c2": True}


async def test_the_log_stays_open_and_the_run_goes_on_in_it() -> None:
    disk = Disk()
    handle = Runner.run_streamed(disk.agent, "Tidy up")
    assert (await types(handle.entries()))[-5:] == [
        "model.completed", "tool.started", "tool.finished", "run_item_stream_event", "run.paused",
    ]  # fmt: skip
    state = handle.to_state()
    state.approve("c2", arguments={"name": "c"})

    on = Runner.run_streamed(disk.agent, state)
    entries: list[Entry] = [entry async for entry in on.entries()]

    assert on.run_id == handle.run_id
    assert check_stream(entries).ok
    paused = next(entry.position for entry in entries if entry.type == "run.paused")
    behind: list[Any] = [e for e in entries if e.position > paused and e.type != "raw_response_event"]
    assert [entry.type for entry in behind] == [
        "run.decided", "run.resumed", "agent_updated_stream_event", "tool.started", "tool.finished",
        "run_item_stream_event", "model.started", "run_item_stream_event", "model.completed", "run.completed",
    ]  # fmt: skip
    decided = behind[0].event
    assert (decided.call_id, decided.tool, decided.decision) == ("c2", "delete", "approved")
    assert (decided.arguments, decided.always, decided.message) == ('{"name":"c"}', False, None)
    assert (await types(handle.entries()))[-1] == "run.paused", "a handle shows what it was a handle of"


async def test_a_follower_of_the_log_sees_the_run_to_its_end_across_the_pause() -> None:
    log = MemoryLog()
    disk = Disk()
    handle = Runner.run_streamed(disk.agent, "Tidy up", run_config=RunConfig(log=log))
    state = (await handle).to_state()
    followed = log.follow(handle.run_id)
    seen: list[str] = []
    async for entry in followed:
        seen.append(entry.type)
        if entry.type == "run.paused":
            state.approve("c2")
            Runner.run_streamed(disk.agent, state, run_config=RunConfig(log=log))

    assert seen[-1] == "run.completed"
    assert seen.count("run.started") == 1


async def test_a_reader_of_the_paused_run_ends_without_an_error_and_the_next_sees_what_is_new() -> None:
    disk = Disk()
    handle = Runner.run_streamed(disk.agent, "Tidy up")
    first = [event async for event in handle.stream_events() if event.type != "raw_response_event"]
    state = handle.to_state()
    state.approve("c2")

    on = Runner.run_streamed(disk.agent, state)
    second: list[Any] = [event async for event in on.stream_events() if event.type != "raw_response_event"]

    assert (handle.is_complete, handle.is_cancelled, handle.final_output) == (True, False, None)
    assert [getattr(event, "name", "agent") for event in first] == [
        "agent", "tool_called", "tool_called", "tool_output",
    ]  # fmt: skip
    assert [getattr(event, "name", "agent") for event in second] == [
        "agent", "tool_output", "message_output_created",
    ]  # fmt: skip


async def test_outputs_behind_a_pause_come_in_the_order_of_the_calls() -> None:
    fast = asyncio.Event()

    @tool(needs_approval=True)
    async def wait(name: str) -> str:
        if name == "slow":
            await fast.wait()
        fast.set()
        return name

    calls = [function_call("wait", {"name": name}, call_id=name) for name in ("slow", "fast")]
    agent = Agent(name="A", tools=[wait], model=ScriptedModel([calls, "Done."]))
    state = (await Runner.run(agent, "Hi")).to_state()
    for item in state.get_interruptions():
        state.approve(item)

    events: list[Any] = [event async for event in Runner.run_streamed(agent, state)]

    outputs = [event.item.output for event in events if getattr(event, "name", "") == "tool_output"]
    assert outputs == ["slow", "fast"]


# --- going on, once -----------------------------------------------------------------------------


async def test_a_state_is_run_on_from_once() -> None:
    disk = Disk()
    paused = await Runner.run(disk.agent, "Tidy up")
    state, another = paused.to_state(), paused.to_state()
    for each in (state, another):
        each.approve("c2")
    await Runner.run(disk.agent, state)
    read = await RunState.from_json(disk.agent, state.to_json())

    for each in (state, another, read):
        with pytest.raises(RunStateError, match="was run on from already"):
            await Runner.run(disk.agent, each)

    assert disk.done == ["look a", "delete b"]


async def test_a_start_that_fails_uses_nothing_up() -> None:
    disk = Disk()
    state = (await Runner.run(disk.agent, "Tidy up")).to_state()
    state.approve("c2")

    with pytest.raises(UserError):
        await Runner.run(disk.agent, state, run_config={"no_such_field": 1})
    result = await Runner.run(disk.agent, state)

    assert result.final_output == "Done."


async def test_a_run_that_is_complete_has_nothing_to_go_on_with() -> None:
    disk = Disk("Done.")
    state = (await Runner.run(disk.agent, "Hi")).to_state()

    with pytest.raises(RunStateError, match="complete, and takes no more input"):
        state.add_input("More.")
    with pytest.raises(RunStateError, match="is complete"):
        await Runner.run(disk.agent, state)


async def test_turns_are_counted_over_all_parts_of_a_run(run: Door) -> None:
    disk = Disk()
    state = (await run(disk.agent, "Tidy up", max_turns=1)).to_state()
    state.approve("c2")

    with pytest.raises(MaxTurnsExceeded):
        await run(disk.agent, state, max_turns=5)
    assert disk.done == ["look a", "delete b"]


async def test_a_context_may_be_passed_anew(run: Door) -> None:
    disk = Disk()
    paused = await run(disk.agent, "Tidy up", context={"user": 1})
    state = paused.to_state()

    result = await run(disk.agent, state, context={"user": 2})

    assert result.context_wrapper.context == {"user": 2}
    assert paused.context_wrapper.context == {"user": 1}


async def test_input_that_was_added_is_given_to_the_model_behind_the_answers(run: Door) -> None:
    disk = Disk()
    state = (await run(disk.agent, "Tidy up")).to_state()
    state.add_input("Never mind.")
    state.clear_pending_input()
    state.add_input("Thanks.")
    state.add_input([{"role": "user", "content": "And be quick."}])
    assert state.pending_input == [
        {"role": "user", "content": "Thanks."},
        {"role": "user", "content": "And be quick."},
    ]
    state.approve("c2")

    result = await run(disk.agent, state)

    last: Any = disk.model.last_call
    assert [item.get("content") for item in last.input if "role" in item] == [
        "Tidy up",
        "Thanks.",
        "And be quick.",
    ]
    assert last.input[-1]["content"] == "And be quick."
    assert kinds(result)[-4:] == ["tool_call_output_item", "input_item", "input_item", "message_output_item"]
    assert result.to_state().pending_input == []


async def test_a_run_that_is_stopped_answers_what_waits() -> None:
    disk = Disk()
    paused = Runner.run_streamed(disk.agent, "Tidy up")
    await paused
    paused.cancel()  # is done already: nothing to stop

    handle = Runner.run_streamed(disk.agent, paused.to_state())
    handle.cancel()
    with pytest.raises(RunCancelledError):
        await handle

    entries = [entry async for entry in handle.entries()]
    assert check_stream(entries).ok
    assert entries[-1].type == "run.cancelled"
    outputs = [i for i in handle.to_input_list() if i.get("type") == "function_call_output"]
    assert [item["call_id"] for item in outputs] == ["c1", "c2"]  # type: ignore[typeddict-item]


async def test_a_run_that_was_asked_to_stop_does_not_wait() -> None:
    disk = Disk()
    handle = Runner.run_streamed(disk.agent, "Tidy up")
    handle.cancel("after_turn")

    with pytest.raises(RunCancelledError):
        await handle

    assert handle.interruptions == []


async def test_a_run_that_failed_goes_on_where_it_was(run: Door) -> None:
    disk = Disk([Disk.look("a", "c1")], ConnectionError("down"), "Done.")
    handle = Runner.run_streamed(disk.agent, "Hi")
    with pytest.raises(ConnectionError):
        await handle

    result = await run(disk.agent, handle.to_state())

    assert result.final_output == "Done."
    assert disk.done == ["look a"]
    assert result.run_id != handle.run_id
    assert disk.told == ["saw a"]


async def test_what_was_approved_is_not_done_again_when_the_run_fails_behind_it(run: Door) -> None:
    disk = Disk([Disk.delete("b", "c1")], ConnectionError("down"), "Done.")
    state = (await run(disk.agent, "Hi")).to_state()
    state.approve("c1")
    with pytest.raises(ConnectionError) as caught:
        await run(disk.agent, state)

    result = await run(disk.agent, RunState.after(caught.value))

    assert result.final_output == "Done."
    assert disk.done == ["delete b"]


async def test_only_what_a_run_ended_with_has_a_state(run: Door) -> None:
    disk = Disk()
    with pytest.raises(UserError) as caught:
        await run(disk.agent, "Hi", max_turns=0)

    for error in (caught.value, ValueError("mine")):
        with pytest.raises(RunStateError, match="is not what a run ended with"):
            RunState.after(error)


async def test_the_log_of_a_run_that_goes_on_elsewhere_names_the_one_before() -> None:
    disk = Disk([Disk.look("a", "c1")], ConnectionError("down"), "Done.")
    handle = Runner.run_streamed(disk.agent, "Hi")
    with pytest.raises(ConnectionError):
        await handle

    entries: list[Any] = [
        entry async for entry in Runner.run_streamed(disk.agent, handle.to_state()).entries()
    ]

    assert check_stream(entries).ok
    assert [entry.type for entry in entries[:3]] == [
        "run.started",
        "run.resumed",
        "agent_updated_stream_event",
    ]
    assert entries[1].event.of == handle.run_id


async def test_a_state_may_be_described_by_hand(run: Door) -> None:
    disk = Disk("Hello.")
    state = RunState(RunContextWrapper("mine"), "Hi", disk.agent, max_turns=3)

    result = await run(disk.agent, state)

    assert (result.final_output, result.input, result.max_turns) == ("Hello.", "Hi", 3)
    assert result.context_wrapper.context == "mine"


def test_runs_pause_and_go_on_without_an_event_loop() -> None:
    disk = Disk()
    paused = Runner.run_sync(disk.agent, "Tidy up")
    state = paused.to_state()
    state.approve("c2")

    stream = Runner.run_streamed_sync(disk.agent, state)
    names = [getattr(event, "name", "") for event in stream]

    assert "tool_output" in names
    assert stream.result().final_output == "Done."
    assert disk.done == ["look a", "delete b"]


def test_of_many_threads_with_one_state_one_goes_on() -> None:
    disk = Disk()
    state = Runner.run_sync(disk.agent, "Tidy up").to_state()
    state.approve("c2")
    barrier = Barrier(8)

    def go_on(_: int) -> str:
        barrier.wait()
        try:
            return str(asyncio.run(Runner.run(disk.agent, state)).final_output)
        except RunStateError:
            return "too late"

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(go_on, range(8)))

    assert sorted(outcomes) == ["Done.", *["too late"] * 7]
    assert disk.done == ["look a", "delete b"]
