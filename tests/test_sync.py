"""A streamed run for programs without a loop: a plain `for`, in scripts, notebooks and threads."""

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, RunConfig, RunItemStreamEvent, Runner, SyncStream, UserError, tool
from millstream.errors import RunCancelledError
from millstream.sync import PATIENCE
from millstream.testing import ManualClock, ModelStep, ScriptedModel, function_call

OUTPUT = "It is cold."
DEADLINE = 10

pytestmark = pytest.mark.may_block  # it is there for programs that may


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("millstream run"):
            thread.join(DEADLINE)
            assert not thread.is_alive()


def threads() -> int:
    return sum(thread.name == "millstream run" for thread in threading.enumerate())


@tool
async def weather() -> str:
    return "cold"


def two_turns() -> ScriptedModel:
    return ScriptedModel([[function_call("weather", call_id="c1")], OUTPUT])


def start(model: ScriptedModel | None = None, *tools: Any, **config: Any) -> SyncStream:
    agent = Agent(name="A", model=model or two_turns(), tools=list(tools) or [weather])
    return Runner.run_streamed_sync(agent, "Hi", run_config=RunConfig(**config))


def silent() -> SyncStream:
    return start(ScriptedModel([ModelStep("Hello there.", hang_after=5)]))


def broken() -> SyncStream:
    return start(ScriptedModel([ModelStep("Hello there.", fail_after=6, error=ValueError("broken"))]))


def item_names(events: Any) -> list[str]:
    return [event.name for event in events if isinstance(event, RunItemStreamEvent)]


ITEMS = ["tool_called", "tool_output", "message_output_created"]


# --- where it may be used ----------------------------------------------------------------------


def in_a_script() -> list[str]:
    return item_names(start())


def in_a_notebook() -> list[str]:
    async def cell() -> list[str]:
        return item_names(start())

    return asyncio.run(cell())


def in_a_thread() -> list[str]:
    names: Future[list[str]] = Future()
    thread = threading.Thread(target=lambda: names.set_result(item_names(start())))
    thread.start()
    thread.join()
    return names.result()


def in_another_thread_than_it_was_made() -> list[str]:
    stream = start()
    names: Future[list[str]] = Future()
    thread = threading.Thread(target=lambda: names.set_result(item_names(stream)))
    thread.start()
    thread.join()
    return names.result()


@pytest.mark.parametrize(
    "somewhere", [in_a_script, in_a_notebook, in_a_thread, in_another_thread_than_it_was_made]
)
def test_a_plain_for_sees_the_whole_stream(
    somewhere: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    assert somewhere() == ITEMS
    assert not caplog.records


# --- reading and looking -----------------------------------------------------------------------


def test_several_loops_see_the_same_one_in_the_other_or_after_it() -> None:
    stream = start()

    nested = [(event, list(stream)) for event in stream if isinstance(event, RunItemStreamEvent)]
    after = list(stream.stream_events())

    assert [event.name for event, _ in nested] == ITEMS
    assert all(events == after for _, events in nested)
    assert len(list(stream.stream_events(early=True))) == len(after)


def test_entries_text_and_result() -> None:
    stream = start()

    assert "".join(stream.text()) == OUTPUT
    assert stream.result().final_output == OUTPUT
    entries = list(stream.entries())
    assert entries[-1].type == "run.completed"
    assert list(stream.entries(after=3)) == entries[3:]
    with pytest.raises(UserError, match="count from 1"):
        stream.entries(after=-1)


def test_the_attributes_of_the_run_may_be_read_on_the_way_and_after() -> None:
    stream = start()

    turns = [stream.current_turn for event in stream if isinstance(event, RunItemStreamEvent)]

    assert turns == [1, 1, 2]
    assert stream.is_complete
    assert (stream.final_output, stream.current_agent.name) == (OUTPUT, "A")
    assert len(stream.new_items) == 3
    assert stream.final_output_as(str) == OUTPUT
    with pytest.raises(AttributeError):
        _ = stream.no_such_thing
    with pytest.raises(AttributeError):
        _ = stream._no_such_thing


def test_a_failure_is_raised_behind_what_came_before_it() -> None:
    stream = broken()
    seen = []

    def read() -> None:
        seen.extend(event.type for event in stream.entries() if event.type == "run.failed")
        for event in stream:
            seen.append(event.type)  # noqa: PERF401  # what was seen before it raised

    with pytest.raises(ValueError, match="broken"):
        read()
    with pytest.raises(ValueError, match="broken"):
        stream.result()
    with pytest.raises(ValueError, match="broken"):
        list(stream.text())

    assert seen[0] == "run.failed"
    assert seen.count("raw_response_event") == 6


class Odd(BaseException):
    """What frameworks of testing raise, say."""


@pytest.mark.parametrize("error", [SystemExit, Odd])
@pytest.mark.parametrize("read", [list, SyncStream.result])
def test_what_is_no_exception_of_the_usual_kind_is_raised_as_well(
    error: type[BaseException], read: Callable[[SyncStream], Any]
) -> None:
    def leave(_context: Any, _agent: Any) -> str:
        raise error

    stream = Runner.run_streamed_sync(Agent(name="A", instructions=leave, model=ScriptedModel([])), "Hi")

    with pytest.raises(error):
        read(stream)


def test_an_interrupt_that_a_tool_raises_ends_the_run_and_is_told_of_by_its_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: Future[Any] = Future()
    monkeypatch.setattr(threading, "excepthook", lambda args: told.set_result(args.exc_type))

    @tool
    async def interrupt() -> None:
        raise KeyboardInterrupt

    stream = start(ScriptedModel([[function_call("interrupt", call_id="c1")]]), interrupt)
    list(stream)

    assert told.result(DEADLINE) is KeyboardInterrupt
    assert stream.is_cancelled
    stream.close()


def test_a_start_that_is_refused_leaves_no_thread() -> None:
    with pytest.raises(UserError, match="must be an Agent"):
        Runner.run_streamed_sync("A", "Hi")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    assert threads() == 0


def test_a_thread_that_cannot_have_a_loop_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(asyncio, "run", refuse)
    # The coroutine that is not run is dropped in the thread, where nobody can close it.
    monkeypatch.setattr("millstream.sync._LoopThread._serve", lambda _: None)

    with pytest.raises(OSError, match="too many open files"):
        start()


# --- how far the run goes ahead ----------------------------------------------------------------


def test_a_cancel_from_the_for_is_exact() -> None:
    model = two_turns()
    stream = start(model, clock=ManualClock())
    while not stream.new_items:
        pass  # the run is ahead of the `for`, and waits for it

    for event in stream:
        if isinstance(event, RunItemStreamEvent) and event.name == "tool_output":
            stream.cancel("after_turn")

    assert stream.is_cancelled
    assert len(model.calls) == 1


@pytest.mark.parametrize(
    "get_there",
    [
        lambda stream: stream.result().final_output,
        lambda stream: "".join(stream.text()),
        lambda stream: list(stream.entries())[-1].event.output,
    ],
)
def test_who_waits_for_the_run_inside_a_for_gets_there_at_once(
    get_there: Callable[[SyncStream], Any],
) -> None:
    stream = start(clock=ManualClock())

    outputs = [get_there(stream) for event in stream if isinstance(event, RunItemStreamEvent)]

    assert outputs == [OUTPUT] * 3


def test_a_run_that_nobody_reads_does_not_wait_for_long() -> None:
    second_turn, clock = threading.Event(), ManualClock()

    def say(_: Any) -> str:
        second_turn.set()
        return OUTPUT

    model = ScriptedModel([[function_call("weather", call_id="c1")], ModelStep.respond(say)])
    stream = start(model, clock=clock)
    while not stream.new_items:
        pass  # the run is ahead, and waits for the `for` that is to come
    waited = not second_turn.is_set()
    clock.advance(PATIENCE)

    assert waited
    assert second_turn.wait(DEADLINE)
    stream.close()


# --- leaving -----------------------------------------------------------------------------------


def test_leaving_the_for_cancels_the_run_and_ends_its_thread() -> None:
    stream = silent()

    for event in stream:
        if event.type == "raw_response_event":
            break

    assert stream.is_cancelled
    assert threads() == 0


def test_raising_in_the_for_does_so_too() -> None:
    stream = silent()

    def read() -> None:
        for event in stream:
            raise LookupError(event.type)

    with pytest.raises(LookupError):
        read()
    gc.collect()  # the traceback of the error held the iterator

    assert stream.is_cancelled
    assert threads() == 0


def test_what_the_run_has_come_to_can_be_read_when_it_was_left() -> None:
    stream = start()
    for event in stream:
        if isinstance(event, RunItemStreamEvent):
            break

    entries = list(stream.entries())

    assert stream.is_cancelled
    assert entries[-1].type == "run.cancelled"
    assert item_names(stream) == ["tool_called", "tool_output"]
    with pytest.raises(RunCancelledError):
        stream.result()
    stream.close()
    assert threads() == 0


def test_a_stream_is_closed_by_its_context_and_may_be_closed_twice() -> None:
    with silent() as stream:
        pass

    stream.close()

    assert stream.is_cancelled
    assert threads() == 0


@pytest.mark.parametrize("begun", [False, True])
def test_a_stream_that_is_dropped_ends_its_run_and_its_thread(begun: bool) -> None:
    stopped = threading.Event()

    @tool
    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    stream = start(ScriptedModel([[function_call("wait", call_id="c1")]]), wait)
    entries = stream.entries()
    while begun and next(entries).type != "tool.started":
        pass
    thread = next(t for t in threading.enumerate() if t.name == "millstream run")

    del entries, stream
    gc.collect()

    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert stopped.is_set() or not begun


def test_an_iterator_that_was_never_begun_leaves_the_run_alone() -> None:
    stream = start()

    del_me = stream.entries()
    del del_me
    gc.collect()

    assert stream.result().final_output == OUTPUT


def test_closing_in_one_thread_ends_the_loop_of_another() -> None:
    stream = silent()
    came: Future[None] = Future()
    ended: Future[list[str]] = Future()

    def read() -> None:
        types = []
        for entry in stream.entries():
            types.append(entry.type)
            if entry.type == "raw_response_event" and not came.done():
                came.set_result(None)
        ended.set_result(types)

    reading = threading.Thread(target=read)
    reading.start()
    came.result(DEADLINE)
    stream.close()
    reading.join(DEADLINE)

    types = ended.result(DEADLINE)
    assert types[0] == "run.started"
    assert stream.is_cancelled


def test_a_tool_may_close_the_stream_that_it_is_part_of() -> None:
    streams: list[SyncStream] = []

    @tool
    async def stop() -> None:
        while not streams:
            await asyncio.sleep(0)
        streams[0].close()
        await asyncio.Event().wait()

    streams.append(start(ScriptedModel([[function_call("stop", call_id="c1")]]), stop))
    list(streams[0])

    assert streams[0].is_cancelled


def test_what_comes_to_a_thread_that_has_stopped_is_refused_and_does_not_wait() -> None:
    stream = start()
    thread = stream._thread
    ran = []

    async def late() -> None:
        ran.append(True)

    thread.stop()
    with pytest.raises(CancelledError):
        thread.run(late())
    stream.close()

    assert not ran


def test_what_comes_between_the_end_of_a_thread_and_of_its_loop_is_refused_as_well() -> None:
    stream = start()
    thread = stream._thread
    thread._ended = True  # as it is for a moment
    thread.stop(wait=False)

    with pytest.raises(CancelledError):
        thread.run(asyncio.Event().wait())
    stream.close()


def no_thread_is_alive() -> bool:
    for thread in threading.enumerate():
        if thread.name == "millstream run":
            thread.join(DEADLINE)
    return threads() == 0


def test_handles_of_runs_that_are_over_hold_no_threads_and_can_be_read() -> None:
    streams = [start() for _ in range(20)]

    names = [item_names(stream) for stream in streams]

    assert names == [ITEMS] * 20
    assert no_thread_is_alive()
    assert item_names(streams[0]) == ITEMS
    assert "".join(streams[0].text()) == OUTPUT
    assert streams[0].result().final_output == OUTPUT
    assert no_thread_is_alive()


def test_a_run_that_nobody_reads_ends_its_thread_too() -> None:
    clock = ManualClock()
    stream = start(clock=clock)
    thread = stream._thread._thread

    clock.advance(PATIENCE)
    thread.join(DEADLINE)

    assert not thread.is_alive()
    assert item_names(stream) == ITEMS


def test_a_thread_stays_for_a_reader_that_has_not_come_to_the_end() -> None:
    stream = start()
    entries = stream.entries()
    first = next(entries)
    stream.result()

    rest = list(entries)

    assert (first.type, rest[-1].type) == ("run.started", "run.completed")
    assert no_thread_is_alive()


def test_a_thread_that_somebody_comes_to_when_it_is_about_to_end_stays() -> None:
    stream = silent()
    thread = stream._thread
    me, late = object(), object()

    assert thread.enter(me)
    thread.call(thread._stop_if_unused)  # somebody comes between its two looks
    assert thread.enter(late)
    thread._closing = True  # as it is between them
    assert not thread.enter(object())
    thread._closing = False
    thread.leave(me)
    thread.leave(late)

    assert not stream.is_complete
    stream.close()


AT_EXIT = """
from millstream import Agent, Runner
from millstream.models.provider import OpenAIProvider
from millstream.testing.model_server import ModelServer
from millstream.testing.faults import HANG
from tests.support.frames import text_frames

server = ModelServer().__enter__()
server.send(*text_frames("It is cold."))
server.send(*text_frames("It is cold."))
server.send(*text_frames("It is cold.")[:5], HANG)
agent = Agent(name="A", model=OpenAIProvider(api_key="k", base_url=server.base_url).get_model("m"))


def start():
    return Runner.run_streamed_sync(agent, "Hi")


{use}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "use",
    [
        "print(start().result().final_output)",
        "stream = start()\nprint(''.join(stream.text()))",
        "streams = [start(), start()]\nfor s in streams: list(s)\nprint('It is cold.')",
        "start().result()\ntext = start().text()\nprint(next(text), *text, sep='')",
        "[start().result(), start().result()]\ntext = start().text()\nprint(next(text), 'is cold.')",
    ],
    ids=["a result", "a stream", "handles that are kept", "a reader at its end", "a run under way"],
)
def test_a_program_that_exits_leaves_no_connection_open(use: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", AT_EXIT.format(use=use)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert (done.returncode, done.stderr, done.stdout) == (0, "", "It is cold.\n")


INTERRUPTED = """
import os, signal, threading
from millstream import Agent, Runner
from millstream.testing import ModelStep, ScriptedModel

stream = Runner.run_streamed_sync(
    Agent(name="A", model=ScriptedModel([ModelStep("Hello there.", hang_after=5)])), "Hi"
)
thread = threading.Thread(target=lambda: ({wait}, os.kill(os.getpid(), signal.SIGINT)))
try:
    thread.start()
    {use}
except KeyboardInterrupt:
    print("interrupted", flush=True)
stream.close()
print(stream.is_cancelled, [t.name for t in threading.enumerate() if "millstream" in t.name])
"""


@pytest.mark.slow
@pytest.mark.parametrize("use", ["list(stream)", "stream.result()"])
def test_ctrl_c_reaches_who_waits(use: str) -> None:
    wait = "[None for _ in iter(lambda: stream._handle._run.position > 5, True)]"
    program = INTERRUPTED.format(use=use, wait=wait)

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert done.stderr == ""
    assert done.stdout.splitlines() == ["interrupted", "True []"]
