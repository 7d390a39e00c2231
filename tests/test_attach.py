"""Runs that were started elsewhere: read, awaited, cancelled, decided over and gone on with by their log."""

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest
from pydantic import BaseModel

from millstream import (
    Agent,
    AttachedRun,
    MaxTurnsExceeded,
    MemoryLog,
    Partial,
    RunConfig,
    RunFailedError,
    Runner,
    RunResult,
    RunResultStreaming,
    UserError,
    tool,
)
from millstream.errors import (
    ApprovalError,
    LogBrokenError,
    LogError,
    LogGapError,
    RunCancelledError,
    RunStateError,
    StaleOwnerError,
    UnknownRunError,
)
from millstream.events import RunItemStreamEvent
from millstream.items import AgentRef, ToolApprovalItem
from millstream.log import Batch, Cursor, EventLog, LogInfo, NewRun, RunStore
from millstream.log.sqlite import SQLiteLog
from millstream.run.state import new_run_id
from millstream.testing import ModelStep, ScriptedModel, check_stream, function_call
from millstream.usage import Usage

DEADLINE = 30


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RunStore]:
    """A store, as the process of the run has it."""
    log: RunStore = MemoryLog() if request.param == "memory" else SQLiteLog(tmp_path / "runs.db")
    yield log
    await log.aclose()


@pytest.fixture
async def elsewhere(store: RunStore, tmp_path: Path) -> AsyncIterator[RunStore]:
    """The same store, as another process has it."""
    log = store if isinstance(store, MemoryLog) else SQLiteLog(tmp_path / "runs.db")
    yield log
    await log.aclose()


class Weather(BaseModel):
    city: str
    degrees: int


@tool
async def weather(city: str) -> str:
    return f"cold in {city}"


WIPED: list[str] = []


@pytest.fixture(autouse=True)
def nothing_wiped() -> None:
    WIPED.clear()


@tool(needs_approval=True)
async def wipe(disk: str) -> str:
    WIPED.append(disk)
    return f"wiped {disk}"


def calls_weather() -> Agent[Any]:
    calls = [function_call("weather", {"city": city}, call_id=city) for city in ("Oslo", "Bergen")]
    usage = Usage(requests=1, input_tokens=3, output_tokens=2, total_tokens=5)
    return Agent(name="A", model=ScriptedModel([calls, "It is cold."], default_usage=usage), tools=[weather])


def wipes(*disks: str, call_id: str = "c{}", then: str = "Done.") -> Agent[Any]:
    """An agent whose first turn calls `wipe` for each of `disks`."""
    calls = [function_call("wipe", {"disk": d}, call_id=call_id.format(n)) for n, d in enumerate(disks, 1)]
    return Agent(name="A", model=ScriptedModel([calls, then]), tools=[wipe])


def silent(*then: Any) -> Agent[Any]:
    """An agent whose model falls silent after "Hello", and says `then` when it is asked again."""
    return Agent(name="A", model=ScriptedModel([ModelStep("Hello there.", hang_after=5), *then]))


def failing() -> Agent[Any]:
    return Agent(
        name="A", model=ScriptedModel([ModelStep("Hello there.", fail_after=6, error=ValueError("x"))])
    )


def start(agent: Agent[Any], store: RunStore, input: Any = "Hi", **config: Any) -> RunResultStreaming:
    return Runner.run_streamed(agent, input, run_config=RunConfig(log=store, **config))


async def finished(agent: Agent[Any], store: RunStore, input: Any = "Hi", **config: Any) -> RunResult:
    return await Runner.run(agent, input, run_config=RunConfig(log=store, **config))


async def paused(agent: Agent[Any], store: RunStore) -> str:
    """The id of a run that waits for decisions."""
    result = await finished(agent, store)
    assert result.interruptions
    return result.run_id


def jsons(events: list[Any]) -> list[bytes]:
    return [event.to_json() for event in events]


async def types(run: AttachedRun) -> list[str]:
    return [entry.type async for entry in run.entries()]


async def until_text(run: RunResultStreaming, text: str) -> None:
    """Return when the run has said that much."""
    said = ""
    async for delta in run.text():
        said += delta
        if said == text:
            return


# --- finding it ------------------------------------------------------------------------------


async def test_attaching_looks_for_nothing_and_the_first_use_tells_of_an_unknown_run(store: RunStore) -> None:
    run = Runner.attach("run_gone", log=store)
    agent = wipes("a")
    uses: list[Any] = [
        run.record, run.status, run.result, run.cancel,
        lambda: run.send("Hi"), lambda: run.approve("c1"), lambda: run.reject("c1"),
        lambda: run.state(agent), lambda: run.resume(agent),
        lambda: anext(run.entries()), lambda: anext(run.stream_events()), lambda: anext(run.text()),
        lambda: anext(run.tool_arguments()), lambda: anext(run.partial_output()),
    ]  # fmt: skip

    for use in uses:
        with pytest.raises(UnknownRunError, match="run_gone"):
            await asyncio.wait_for(use(), DEADLINE)


async def test_a_log_that_keeps_no_records_cannot_be_attached_to() -> None:
    class Plain(EventLog):
        durability = "memory"

        async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None: ...
        def cursor(self, run_id: str, after: int = 0) -> Cursor:
            raise NotImplementedError

        async def info(self, run_id: str) -> LogInfo:
            raise NotImplementedError

        async def trim(self, run_id: str, first: int) -> None: ...
        def break_off(self, run_id: str) -> None: ...

    with pytest.raises(UserError, match="not Plain"):
        Runner.attach("run_1", log=cast("Any", Plain()))


@pytest.mark.may_block
async def test_a_run_is_found_by_the_address_of_its_store(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'runs.db'}"
    result = await Runner.run(calls_weather(), "Hi", run_config=RunConfig(log=address))

    assert (await Runner.attach(result.run_id, log=address)).final_output == "It is cold."


async def test_its_record_and_its_status_are_at_hand(store: RunStore, elsewhere: RunStore) -> None:
    run = start(silent(), store, caller="ada")
    await until_text(run, "Hello")
    attached = Runner.attach(run.run_id, log=elsewhere)

    record = await attached.record()
    status = await attached.status()
    await run.aclose()

    assert (record.agent, record.caller, record.is_owned, status) == ("A", "ada", True, "running")
    assert await attached.status() == "cancelled"
    assert repr(attached) == f"AttachedRun('{run.run_id}')"


# --- reading it ------------------------------------------------------------------------------


async def test_it_reads_as_the_handle_of_the_process_that_runs_it(
    store: RunStore, elsewhere: RunStore
) -> None:
    run = start(calls_weather(), store)
    await anext(run.entries())
    attached = Runner.attach(run.run_id, log=elsewhere)

    async def all_of(reader: Any) -> list[Any]:
        return [each async for each in reader]

    for name, options in (
        ("entries", {}),
        ("entries", {"after": 4}),
        ("entries", {"types": ["tool.started", "response.completed"]}),
        ("stream_events", {}),
        ("stream_events", {"early": True}),
    ):
        theirs, ours = await asyncio.gather(
            all_of(getattr(run, name)(**options)), all_of(getattr(attached, name)(**options))
        )
        assert jsons(ours) == jsons(theirs)
        assert ours
    for name in ("text", "tool_arguments", "partial_output"):
        assert await all_of(getattr(attached, name)()) == await all_of(getattr(run, name)())
    assert jsons(await all_of(attached)) == jsons(await all_of(run))


async def test_it_is_read_while_it_goes_on(store: RunStore, elsewhere: RunStore) -> None:
    run = start(silent(), store)
    await anext(run.entries())
    reader = Runner.attach(run.run_id, log=elsewhere).text()

    said = ""
    while said != "Hello":
        said += await asyncio.wait_for(anext(reader), DEADLINE)
    run.cancel()

    assert [piece async for piece in reader] == []


async def test_a_run_is_named_by_its_id(store: RunStore) -> None:
    run = start(silent(), store)

    for wrong in (run, None):
        with pytest.raises(UserError, match="takes the id of a run"):
            Runner.attach(cast("Any", wrong), log=store)
    run.cancel()
    async for _ in run.entries():
        pass


async def test_what_an_entry_is_may_not_be_asked_for_in_the_wrong_way(store: RunStore) -> None:
    run = Runner.attach("run_1", log=store)

    with pytest.raises(UserError, match="positions count from 1"):
        run.entries(-1)
    with pytest.raises(UserError, match="type of no event"):
        run.entries(types=["nonsense"])
    with pytest.raises(UserError, match="'end' or 'pause'"):
        run.entries(until=cast("Any", "noon"))


async def test_readers_of_events_raise_at_their_end_what_the_log_tells_of_a_failure(
    store: RunStore, elsewhere: RunStore
) -> None:
    run = start(failing(), store)
    with pytest.raises(ValueError, match="x"):
        await run
    attached = Runner.attach(run.run_id, log=elsewhere)

    for reader in (attached.stream_events(), attached.text(), attached.partial_output()):
        with pytest.raises(RunFailedError, match=r"\(internal\)"):
            async for _ in reader:
                pass
    assert (await types(attached))[-1] == "run.failed"


async def test_a_cancelled_run_just_ends(store: RunStore, elsewhere: RunStore) -> None:
    run = start(silent(), store)
    await until_text(run, "Hello")
    await run.aclose()

    attached = Runner.attach(run.run_id, log=elsewhere)

    assert "".join([piece async for piece in attached.text()]) == "Hello"


async def test_the_output_grows_in_the_form_of_the_type_that_is_asked_for(
    store: RunStore, elsewhere: RunStore
) -> None:
    text = '{"city": "Oslo", "degrees": -3}'
    agent = Agent(name="A", model=ScriptedModel([text]), output_type=Weather)
    run = (await finished_streamed(agent, store)).run_id
    attached = Runner.attach(run, log=elsewhere)

    *growing, output = [each async for each in attached.partial_output(Weather)]

    assert output == Weather(city="Oslo", degrees=-3)
    assert all(isinstance(each, Partial) for each in growing)
    assert isinstance(growing[-1], Partial)
    assert growing[-1].value == {"city": "Oslo", "degrees": -3}
    with pytest.raises(TypeError, match="no int"):
        async for _ in attached.partial_output(int):
            pass


async def finished_streamed(agent: Agent[Any], store: RunStore) -> RunResultStreaming:
    run = start(agent, store)
    await run
    return run


async def test_entries_go_on_through_a_pause_and_events_end_there(
    store: RunStore, elsewhere: RunStore
) -> None:
    agent = wipes("a")
    attached = Runner.attach(await paused(agent, store), log=elsewhere)

    to_the_pause = [entry.type async for entry in attached.entries(until="pause")]
    entries = attached.entries()
    through = [(await anext(entries)).type for _ in to_the_pause]
    events = [event async for event in attached.stream_events()]
    await attached.approve("c1")
    await (await attached.resume(agent))
    through += [entry.type async for entry in entries]

    assert to_the_pause[-1] == "run.paused"
    assert [each.name for each in events if isinstance(each, RunItemStreamEvent)] == ["tool_called"]
    assert through[: len(to_the_pause)] == to_the_pause
    assert through[len(to_the_pause)] == "run.decided"
    assert through[-1] == "run.completed"


async def test_a_pause_that_is_over_ends_no_reader(store: RunStore, elsewhere: RunStore) -> None:
    agent = wipes("a")
    attached = Runner.attach(await paused(agent, store), log=elsewhere)
    await attached.approve("c1")
    await (await attached.resume(agent))

    until_pause = [entry.type async for entry in attached.entries(until="pause")]
    events = [event async for event in attached.stream_events()]

    assert until_pause[-1] == "run.completed"
    names = [each.name for each in events if isinstance(each, RunItemStreamEvent)]
    assert names == ["tool_called", "tool_output", "message_output_created"]


async def test_a_reader_that_begins_at_the_pause_ends_at_once(store: RunStore, elsewhere: RunStore) -> None:
    attached = Runner.attach(await paused(wipes("a"), store), log=elsewhere)
    last = (await attached.record()).last

    assert [entry async for entry in attached.entries(last, until="pause")] == []


async def test_a_position_that_is_no_longer_held_is_a_gap(store: RunStore, elsewhere: RunStore) -> None:
    run_id = (await finished(calls_weather(), store)).run_id
    await store.trim(run_id, 5)
    attached = Runner.attach(run_id, log=elsewhere)

    with pytest.raises(LogGapError) as gap:
        await anext(attached.entries())
    with pytest.raises(LogGapError):
        await attached

    assert (await anext(attached.entries(gap.value.first - 1))).position == 5


async def test_a_reader_of_a_run_that_is_deleted_is_told_so(store: RunStore, elsewhere: RunStore) -> None:
    run_id = await paused(wipes("a"), store)
    attached = Runner.attach(run_id, log=elsewhere)
    reader = attached.entries((await attached.record()).last)
    waiting = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)

    await elsewhere.delete(run_id)

    with pytest.raises((LogBrokenError, UnknownRunError)):
        await asyncio.wait_for(waiting, DEADLINE)


async def test_a_reader_that_begins_when_the_run_is_deleted_waits_for_no_other(
    store: RunStore, elsewhere: RunStore
) -> None:
    runs = [start(calls_weather(), store), start(wipes("a"), store)]
    for run in runs:
        await run._result()
        await elsewhere.delete(run.run_id)
        attached = Runner.attach(run.run_id, log=elsewhere)

        for reader in (
            run.entries(), run.entries(3), run.stream_events(), run.text(), attached.entries(), attached.text(),
        ):  # fmt: skip
            with pytest.raises(UnknownRunError):
                await asyncio.wait_for(anext(reader), DEADLINE)
        with pytest.raises(UnknownRunError):
            await asyncio.wait_for(attached.result(), DEADLINE)


async def test_leaving_a_reader_and_dropping_the_handle_leave_the_run_alone(
    store: RunStore, elsewhere: RunStore
) -> None:
    run = start(silent("Again."), store)
    attached: AttachedRun | None = Runner.attach(run.run_id, log=elsewhere)
    assert attached is not None
    await until_text(run, "Hello")

    async for _ in attached.text():
        break
    awaiting = asyncio.ensure_future(attached.result())
    await asyncio.sleep(0)
    awaiting.cancel()
    await asyncio.wait([awaiting])
    reader: Any = attached.stream_events()
    await anext(reader)
    await reader.aclose()
    attached = None
    gc.collect()
    run.send("Go on.")

    assert (await run).final_output == "Again."


# --- its result ------------------------------------------------------------------------------


async def test_its_result_is_that_of_the_process_that_ran_it(store: RunStore, elsewhere: RunStore) -> None:
    theirs = await finished(calls_weather(), store)

    ours = await Runner.attach(theirs.run_id, log=elsewhere)

    assert (ours.run_id, ours.status, ours.final_output) == (theirs.run_id, "completed", "It is cold.")
    assert [type(item) for item in ours.new_items] == [type(item) for item in theirs.new_items]
    assert ours.to_input_list() == theirs.to_input_list()
    assert ours.usage.to_dict() == theirs.context_wrapper.usage.to_dict()
    assert ours.last_agent == AgentRef("A")
    assert ours.interruptions == []
    assert "completed" in str(ours)
    assert "It is cold." in str(ours)


async def test_it_is_waited_for(store: RunStore, elsewhere: RunStore) -> None:
    run = start(silent("Again."), store)
    await until_text(run, "Hello")
    awaiting = asyncio.ensure_future(Runner.attach(run.run_id, log=elsewhere).result())

    run.send("Go on.")
    result = await asyncio.wait_for(awaiting, DEADLINE)

    assert result.final_output == "Again."
    assert [item.type for item in result.new_items] == [
        "message_output_item",
        "input_item",
        "message_output_item",
    ]
    assert result.to_input_list() == (await run).to_input_list()


async def test_the_output_has_the_form_of_json_and_is_given_its_type(
    store: RunStore, elsewhere: RunStore
) -> None:
    agent = Agent(name="A", model=ScriptedModel(['{"city": "Oslo", "degrees": -3}']), output_type=Weather)

    result = await Runner.attach((await finished(agent, store)).run_id, log=elsewhere)

    assert result.final_output == {"city": "Oslo", "degrees": -3}
    assert result.final_output_as(Weather) == Weather(city="Oslo", degrees=-3)
    with pytest.raises(TypeError, match="no int"):
        result.final_output_as(int)


async def test_a_run_that_failed_raises_what_its_log_tells_of_that(
    store: RunStore, elsewhere: RunStore
) -> None:
    with pytest.raises(MaxTurnsExceeded) as theirs:
        await Runner.run(calls_weather(), "Hi", max_turns=1, run_config=RunConfig(log=store))
    assert theirs.value.run_data is not None
    assert theirs.value.run_data.run_id is not None

    with pytest.raises(RunFailedError) as ours:
        await Runner.attach(theirs.value.run_data.run_id, log=elsewhere)

    error = ours.value
    assert (error.code, error.message, error.retryable) == (
        "max_turns",
        "The run took more turns than it may.",
        False,
    )
    assert error.run_id == theirs.value.run_data.run_id
    assert error.error_id.startswith("err_")
    assert error.error_id in str(error)


async def test_a_run_that_was_cancelled_has_no_result(store: RunStore, elsewhere: RunStore) -> None:
    run = start(silent(), store)
    await run.aclose()

    with pytest.raises(RunCancelledError):
        await Runner.attach(run.run_id, log=elsewhere)


async def test_the_result_of_a_run_that_waits_says_for_what(store: RunStore, elsewhere: RunStore) -> None:
    result = await Runner.attach(await paused(wipes("a", "b"), store), log=elsewhere)

    assert (result.status, result.final_output) == ("paused", None)
    assert await Runner.attach(result.run_id, log=elsewhere).waiting() == ["c1", "c2"]
    assert [(item.name, item.call_id) for item in result.interruptions] == [("wipe", "c1"), ("wipe", "c2")]
    assert all(isinstance(item, ToolApprovalItem) for item in result.interruptions)
    assert result.usage.requests == 1


async def test_a_log_that_made_room_still_tells_the_result() -> None:
    store = MemoryLog(max_events=60)
    calls = [[function_call("weather", {"city": "Oslo"}, call_id=f"c{n}")] for n in range(5)]
    run = start(Agent(name="A", model=ScriptedModel([*calls, "Cold."]), tools=[weather]), store)
    await run
    attached = Runner.attach(run.run_id, log=store)

    with pytest.raises(LogGapError):
        await types(attached)
    result = await attached

    assert result.final_output == "Cold."
    assert result.to_input_list() == run.to_input_list()


# --- acting on it ----------------------------------------------------------------------------


async def test_it_is_cancelled_from_elsewhere(store: RunStore, elsewhere: RunStore) -> None:
    run = start(silent(), store)
    await until_text(run, "Hello")
    attached = Runner.attach(run.run_id, log=elsewhere)

    await attached.cancel()
    with pytest.raises(RunCancelledError):
        await asyncio.wait_for(run._result(), DEADLINE)
    await attached.cancel()
    await attached.cancel("after_turn")

    assert run.is_cancelled
    assert (await attached.record()).status == "cancelled"
    with pytest.raises(UserError, match="after_tool"):
        await attached.cancel(cast("Any", "sometime"))


async def test_to_cancel_a_run_that_has_ended_changes_nothing(store: RunStore, elsewhere: RunStore) -> None:
    attached = Runner.attach((await finished(calls_weather(), store)).run_id, log=elsewhere)

    await attached.cancel()

    assert (await attached).final_output == "It is cold."


async def test_a_run_that_waits_is_ended_by_whoever_cancels_it(store: RunStore, elsewhere: RunStore) -> None:
    attached = Runner.attach(await paused(wipes("a", "b"), store), log=elsewhere)

    await attached.cancel("after_turn")

    entries = [entry async for entry in attached.entries()]
    assert (await attached.status()) == "cancelled"
    assert [entry.type for entry in entries][-5:] == [
        "run.resumed",
        "agent_updated_stream_event",
        "run_item_stream_event",
        "run_item_stream_event",
        "run.cancelled",
    ]
    assert cast("Any", entries[-1].event).mode == "after_turn"
    assert cast("Any", entries[-1].event).usage["requests"] == 1
    check_stream(entries).raise_for_problems()
    assert not (await attached.record()).is_owned
    with pytest.raises(RunCancelledError):
        await attached


async def test_a_run_that_waits_inside_of_a_tool_is_ended_too(store: RunStore, elsewhere: RunStore) -> None:
    inner = wipes("a")
    call = function_call("ask", {"input": "Wipe a."}, call_id="outer")
    outer = Agent(name="Outer", model=ScriptedModel([[call], "Done."]), tools=[inner.as_tool("ask", "Asks.")])
    attached = Runner.attach(await paused(outer, store), log=elsewhere)

    await attached.cancel()

    entries = [entry async for entry in attached.entries()]
    assert entries[-1].type == "run.cancelled"
    assert entries[-1].depth == 0
    check_stream(entries).raise_for_problems()


async def test_a_run_that_has_not_begun_is_ended_by_whoever_cancels_it(
    store: RunStore, elsewhere: RunStore
) -> None:
    run_id = new_run_id()
    request = (await store.record(await paused(wipes("a"), store))).request
    assert request is not None
    await store.create(NewRun(run_id=run_id, agent="A", request=request))
    attached = Runner.attach(run_id, log=elsewhere)

    await attached.cancel()

    entries = [entry async for entry in attached.entries()]
    assert [entry.type for entry in entries] == ["run.started", "run.cancelled"]
    assert cast("Any", entries[0].event).input == "Hi"
    check_stream(entries).raise_for_problems()


async def test_a_run_that_somebody_has_taken_up_is_theirs_to_cancel(
    store: RunStore, elsewhere: RunStore
) -> None:
    run_id = await paused(wipes("a"), store)
    last = (await store.record(run_id)).last
    await store.claim(run_id, owner="somebody", lease=1000)

    await Runner.attach(run_id, log=elsewhere).cancel()

    record = await store.record(run_id)
    assert (record.status, record.last) == ("paused", last)
    assert [command.kind for command in await store.mail(run_id)] == ["cancel"]


async def test_a_run_that_is_taken_up_at_the_same_moment_is_theirs_to_cancel(store: RunStore) -> None:
    run_id = await paused(wipes("a"), store)
    claim = store.claim
    epochs: list[int] = []

    async def somebody_is_faster(run_id: str, **kwargs: Any) -> int:
        epoch = await claim(run_id, **kwargs)
        await store.let_go(run_id, epoch=epoch)
        epochs.append(await claim(run_id, owner="somebody", lease=1000))
        return epoch

    store.claim = cast("Any", somebody_is_faster)
    await Runner.attach(run_id, log=store).cancel()

    assert (await store.record(run_id)).status == "paused"
    await store.renew(run_id, epoch=epochs[0], lease=1000)
    with pytest.raises(StaleOwnerError):
        await store.renew(run_id, epoch=epochs[0] - 1, lease=1000)


async def test_it_is_given_input_from_elsewhere(store: RunStore, elsewhere: RunStore) -> None:
    run = start(silent("Again."), store)
    await until_text(run, "Hello")

    await Runner.attach(run.run_id, log=elsewhere).send("Go on.")

    assert (await asyncio.wait_for(run._result(), DEADLINE)).final_output == "Again."
    assert {"role": "user", "content": "Go on."} in run.to_input_list()


async def test_a_run_that_waits_has_its_input_when_it_goes_on(store: RunStore, elsewhere: RunStore) -> None:
    agent = wipes("a")
    attached = Runner.attach(await paused(agent, store), log=elsewhere)

    await attached.send("And hurry.")
    await attached.approve("c1")
    result = await (await attached.resume(agent))

    assert {"role": "user", "content": "And hurry."} in result.to_input_list()
    assert WIPED == ["a"]


async def test_a_run_that_is_over_takes_no_input(store: RunStore, elsewhere: RunStore) -> None:
    attached = Runner.attach((await finished(calls_weather(), store)).run_id, log=elsewhere)

    with pytest.raises(UserError, match="is over"):
        await attached.send("More.")
    with pytest.raises(UserError, match="nothing to send"):
        await attached.send([])
    with pytest.raises(UserError, match="not 'soon'"):
        await attached.send("More.", cast("Any", "soon"))


# --- deciding --------------------------------------------------------------------------------


async def test_a_call_is_approved_from_elsewhere_and_the_run_goes_on_in_its_log(
    store: RunStore, elsewhere: RunStore
) -> None:
    agent = wipes("a", "b")
    attached = Runner.attach(await paused(agent, store), log=elsewhere)

    await attached.approve("c1")
    await attached.reject("c2", rejection_message="Not that one.")
    run = await attached.resume(agent)
    result = await run

    assert run.run_id == attached.run_id
    assert WIPED == ["a"]
    outputs = [item["output"] for item in cast("Any", result.to_input_list()) if "output" in item]
    assert outputs == ["wiped a", "Not that one."]
    assert (await attached).final_output == "Done."
    (await check_stream(attached.entries())).raise_for_problems()


async def test_a_call_is_decided_over_by_its_item_with_other_arguments(
    store: RunStore, elsewhere: RunStore
) -> None:
    agent = wipes("a", "b")
    attached = Runner.attach(await paused(agent, store), log=elsewhere)
    one, two = (await attached).interruptions

    await attached.approve(one, arguments={"disk": "z"})
    await attached.approve(two)
    await (await attached.resume(agent))

    assert sorted(WIPED) == ["b", "z"]
    with pytest.raises(ApprovalError, match="JSON object"):
        await attached.approve(one, arguments="[1]")


async def test_what_is_decided_for_always_holds_for_later_calls(store: RunStore, elsewhere: RunStore) -> None:
    calls = [[function_call("wipe", {"disk": disk}, call_id=disk)] for disk in "ab"]
    agent = Agent(name="A", model=ScriptedModel([*calls, "Done."]), tools=[wipe])
    attached = Runner.attach(await paused(agent, store), log=elsewhere)

    await attached.approve("a", always_approve=True)

    assert (await (await attached.resume(agent))).final_output == "Done."
    assert WIPED == ["a", "b"]


async def test_a_call_is_decided_over_once_and_may_be_told_again(
    store: RunStore, elsewhere: RunStore
) -> None:
    attached = Runner.attach(await paused(wipes("a"), store), log=elsewhere)

    await attached.approve("c1")
    await attached.approve("c1")

    assert len(await store.mail(attached.run_id)) == 1
    assert await attached.waiting() == []
    with pytest.raises(ApprovalError, match="the first decision counts"):
        await attached.reject("c1")
    with pytest.raises(ApprovalError, match="the first decision counts"):
        await attached.approve("c1", arguments={"disk": "z"})


async def test_a_call_that_does_not_wait_is_told_with_those_that_do(
    store: RunStore, elsewhere: RunStore
) -> None:
    attached = Runner.attach(await paused(wipes("a", "b"), store), log=elsewhere)
    over = Runner.attach((await finished(calls_weather(), store)).run_id, log=elsewhere)

    with pytest.raises(ApprovalError, match="These do: c1 of wipe, c2 of wipe"):
        await attached.approve("c9")
    with pytest.raises(ApprovalError, match="These do: none"):
        await over.approve("c1")
    with pytest.raises(ApprovalError, match="not int"):
        await attached.approve(cast("Any", 1))


async def test_calls_that_are_the_same_are_decided_over_one_by_one(
    store: RunStore, elsewhere: RunStore
) -> None:
    agent = wipes("a", "a", call_id="same")
    attached = Runner.attach(await paused(agent, store), log=elsewhere)

    with pytest.raises(ApprovalError, match="2 calls wait"):
        await attached.approve("same")
    one, two = (await attached).interruptions
    await attached.approve(one)
    await attached.reject(two)
    await (await attached.resume(agent))

    assert WIPED == ["a"]


async def test_a_call_that_comes_again_word_for_word_is_decided_over_again(
    store: RunStore, elsewhere: RunStore
) -> None:
    call = function_call("wipe", {"disk": "a"}, call_id="again")
    agent = Agent(name="A", model=ScriptedModel([[call], [call], "Done."]), tools=[wipe])
    attached = Runner.attach(await paused(agent, store), log=elsewhere)

    await attached.approve("again")
    assert (await (await attached.resume(agent))).interruptions
    state = await attached.state(agent)
    await attached.approve("again")
    result = await (await attached.resume(agent))

    assert state._progress.context_wrapper.decisions.once == {}
    assert result.final_output == "Done."
    assert WIPED == ["a", "a"]


async def test_a_call_that_comes_again_is_decided_over_again_also_where_the_state_is_at_hand(
    store: RunStore, elsewhere: RunStore
) -> None:
    call = function_call("wipe", {"disk": "a"}, call_id="again")
    agent = Agent(name="A", model=ScriptedModel([[call], [call], "Done."]), tools=[wipe])
    result = await finished(agent, store)
    attached = Runner.attach(result.run_id, log=elsewhere)

    for _ in range(2):
        await attached.approve("again")
        result = await Runner.run(agent, result.to_state())

    assert result.final_output == "Done."
    assert WIPED == ["a", "a"]


# --- going on with it ------------------------------------------------------------------------


async def test_its_state_has_what_was_decided_and_is_run_on_from(
    store: RunStore, elsewhere: RunStore
) -> None:
    agent = wipes("a", "b")
    attached = Runner.attach(await paused(agent, store), log=elsewhere)
    await attached.approve("c1")

    state = await attached.state(agent)
    for item in state.get_interruptions()[1:]:
        state.approve(item)
    with pytest.raises(ApprovalError, match="was approved before"):
        state.reject("c1")
    result = await Runner.run(agent, state)

    assert result.run_id == attached.run_id
    assert sorted(WIPED) == ["a", "b"]
    assert (await attached).final_output == "Done."


async def test_a_run_is_gone_on_with_once(store: RunStore, elsewhere: RunStore) -> None:
    agent = wipes("a")
    attached = Runner.attach(await paused(agent, store), log=elsewhere)
    await attached.approve("c1")

    async def go_on() -> str:
        try:
            return (await (await attached.resume(agent))).final_output
        except (RunStateError, LogError):
            return "somebody else did"

    outcomes = await asyncio.gather(go_on(), go_on())

    assert WIPED == ["a"]
    assert sorted(outcomes) == ["Done.", "somebody else did"]


async def test_a_run_that_does_not_wait_has_no_state_to_go_on_from(
    store: RunStore, elsewhere: RunStore
) -> None:
    run = start(silent(), store)
    await until_text(run, "Hello")
    running = Runner.attach(run.run_id, log=elsewhere)
    over = Runner.attach((await finished(calls_weather(), store)).run_id, log=elsewhere)

    with pytest.raises(RunStateError, match="is running"):
        await running.resume(silent())
    with pytest.raises(RunStateError, match="is completed"):
        await over.state(calls_weather())
    await run.aclose()


async def test_a_run_goes_on_in_its_own_log(store: RunStore, elsewhere: RunStore) -> None:
    agent = wipes("a")
    attached = Runner.attach(await paused(agent, store), log=elsewhere)

    with pytest.raises(UserError, match="goes on in its own"):
        await attached.resume(agent, run_config=RunConfig(log=MemoryLog()))
    run = await attached.resume(agent, run_config=replace(RunConfig(), log=elsewhere))

    assert (await run).interruptions


async def test_a_context_that_is_no_json_is_passed_again(store: RunStore, elsewhere: RunStore) -> None:
    class Desk:
        pass

    agent = wipes("a")
    result = await Runner.run(agent, "Hi", context=Desk(), run_config=RunConfig(log=store))
    attached = Runner.attach(result.run_id, log=elsewhere)
    await attached.approve("c1")

    with pytest.raises(RunStateError, match="context"):
        await attached.resume(agent)
    desk = Desk()
    run = await attached.resume(agent, context=desk)

    assert (await run).context_wrapper.context is desk
    assert WIPED == ["a"]


# --- other processes -------------------------------------------------------------------------

AGENTS = """
import sys
from pathlib import Path

from millstream import Agent, tool
from millstream.testing import ModelStep, ScriptedModel, function_call

@tool(needs_approval=True)
def wipe(disk: str) -> str:
    with Path("wiped").open("a") as file:
        file.write(disk)
    return f"wiped {disk}"

def talker(name="talker"):
    return Agent(name="A", model=ScriptedModel([ModelStep("Hello there.", hang_after=5), "Again."]))

def quick():
    return Agent(name="A", model=ScriptedModel(["Hello there."]))

def janitor(call=function_call("wipe", {"disk": "a"}, call_id="c1")):
    return Agent(name="A", model=ScriptedModel([[call], "Done."]), tools=[wipe])
"""

PROGRAM = """
import asyncio
import contextlib
import sys

import agents
from millstream import RunCancelledError, RunConfig, Runner
from millstream.log.sqlite import SQLiteLog

async def main(agent):
    log = SQLiteLog("runs.db")
    run = Runner.run_streamed(getattr(agents, agent)(), "Hi", run_config=RunConfig(log=log, lease=0.5))
    await anext(run.entries())
    print(run.run_id, flush=True)
    try:
        result = await run
        print("waits" if result.interruptions else result.final_output)
    except RunCancelledError:
        print("cancelled")
    await log.aclose()

asyncio.run(main(sys.argv[1]))
"""


class Elsewhere:
    """A process that runs one of `AGENTS`, in a folder that has its store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "agents.py").write_text(AGENTS)
        (folder / "program.py").write_text(PROGRAM)
        self.store = SQLiteLog(folder / "runs.db")

    async def start(self, agent: str) -> AttachedRun:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "program.py", agent, cwd=self.folder, stdout=asyncio.subprocess.PIPE
        )
        return Runner.attach(await self.told(), log=self.store)

    async def told(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), DEADLINE)
        return line.decode().strip()

    def agent(self, name: str) -> Agent[Any]:
        """The same agent, in this process."""
        names: dict[str, Any] = {}
        exec(AGENTS, names)  # as the program imports it
        return names[name]()


@pytest.fixture
async def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Elsewhere]:
    """Another process, which is killed at the end of the test."""
    monkeypatch.chdir(tmp_path)
    made = Elsewhere(tmp_path)
    yield made
    with contextlib.suppress(ProcessLookupError):
        made.process.kill()
    await made.process.wait()
    await made.store.aclose()


async def heard(reader: Any, text: str) -> None:
    said = ""
    while said != text:
        said += await asyncio.wait_for(anext(reader), DEADLINE)


@pytest.mark.slow
async def test_a_run_of_another_process_is_read_and_cancelled(other: Elsewhere) -> None:
    run = await other.start("talker")
    reader = run.text()

    await heard(reader, "Hello")
    await run.cancel()

    assert [piece async for piece in reader] == []
    assert await other.told() == "cancelled"
    with pytest.raises(RunCancelledError):
        await run
    (await check_stream(run.entries())).raise_for_problems()


@pytest.mark.slow
async def test_a_run_of_another_process_is_given_input_and_awaited(other: Elsewhere) -> None:
    run = await other.start("talker")

    await heard(run.text(), "Hello")
    await run.send("Go on.")

    assert (await asyncio.wait_for(run.result(), DEADLINE)).final_output == "Again."
    assert await other.told() == "Again."


@pytest.mark.slow
@pytest.mark.may_block
async def test_a_run_that_waits_goes_on_here_when_its_process_is_gone(other: Elsewhere) -> None:
    run = await other.start("janitor")
    assert await other.told() == "waits"
    await other.process.wait()

    await run.approve("c1")
    agent = other.agent("janitor")
    agent.model = ScriptedModel(["Done."])
    result = await (await run.resume(agent))

    assert result.final_output == "Done."
    assert (other.folder / "wiped").read_text() == "a"
    (await check_stream(run.entries())).raise_for_problems()


@pytest.mark.slow
async def test_a_reader_follows_a_run_from_the_process_that_died_to_the_one_that_goes_on(
    other: Elsewhere,
) -> None:
    run = await other.start("talker")
    everything = asyncio.ensure_future(_all(run.entries()))
    text = run.text()
    await heard(text, "Hello")
    other.process.kill()

    handles: list[RunResultStreaming] = []
    while not handles:  # its lease has to end
        handles = await Runner.recover(other.store, other.agent("quick"))
    entries = await asyncio.wait_for(everything, DEADLINE)

    assert [entry.position for entry in entries] == list(range(1, len(entries) + 1))
    assert [entry.type for entry in entries].count("run.attempt") == 1
    assert "".join([piece async for piece in text]) == "Hello there."
    result = await run
    assert result.final_output == "Hello there."
    assert [item.type for item in result.new_items] == ["message_output_item"]
    assert result.to_input_list() == (await handles[0]).to_input_list()
    check_stream(entries).raise_for_problems()


@pytest.mark.slow
async def test_a_run_whose_process_died_is_cancelled_when_it_is_recovered(other: Elsewhere) -> None:
    run = await other.start("talker")
    await heard(run.text(), "Hello")
    other.process.kill()
    await other.process.wait()

    await run.cancel()
    handles: list[RunResultStreaming] = []
    while not handles:
        handles = await Runner.recover(other.store, other.agent("quick"))

    with pytest.raises(RunCancelledError):
        await asyncio.wait_for(run.result(), DEADLINE)
    (await check_stream(run.entries())).raise_for_problems()


async def _all(reader: Any) -> list[Any]:
    return [each async for each in reader]
