import asyncio
import json
import logging
from typing import Any, cast

import pytest

from millstream import LogBrokenError, LogGapError, MemoryLog, RawResponsesStreamEvent, UserEvent
from millstream.clock import SYSTEM_CLOCK
from millstream.delivery.feed import AT_ONCE, Feed
from millstream.delivery.frame import Message
from millstream.events import Entry, Event, RunCompleted, RunPaused, RunResumed, Stamp
from millstream.stream.filter import EntryFilter
from millstream.testing import CANARY, ManualClock
from tests.delivery.serving import Held, greeting


class Entries:
    """Entries by a script: a list of them is at hand together, an error is raised."""

    def __init__(self, *script: Any) -> None:
        self._script = list(script)
        self._ready: list[Entry] = []
        self.is_closed = False

    @property
    def has_more(self) -> bool:
        return bool(self._ready)

    async def __anext__(self) -> Entry:
        if not self._ready:
            if not self._script:
                raise StopAsyncIteration
            await asyncio.sleep(0)
            step = self._script.pop(0)
            if isinstance(step, Exception):
                raise step
            self._ready = [step] if isinstance(step, Entry) else step
        return self._ready.pop(0)

    async def aclose(self) -> None:
        self.is_closed = True


def entry(position: int, event: Event | None = None, run_id: str = "r") -> Entry:
    return Entry(position, Stamp(run_id, "A"), event or UserEvent(name=str(position)))


def end(position: int, run_id: str = "r") -> Entry:
    return entry(position, RunCompleted(), run_id)


def feed(*script: Any, after: int = 0, **options: Any) -> Feed:
    return Feed(Entries(*script), "r", **{"clock": SYSTEM_CLOCK, "after": after} | options)


async def all_of(feed: Feed) -> list[list[Message]]:
    """What is given together, as long as something comes."""
    given = []
    while (messages := await feed.next()) is not None:
        given.append(messages)
    return given


def told(given: list[list[Message]]) -> list[list[Any]]:
    return [[m.position if m.position is not None else m.type for m in messages] for messages in given]


class UnframeableEvent(UserEvent):
    def to_json(self) -> bytes:
        raise ValueError(CANARY)


async def test_what_is_at_hand_is_given_together() -> None:
    assert told(await all_of(feed([entry(1), entry(2)], entry(3), [entry(4), end(5)]))) == [
        [1, 2],
        [3],
        [4, 5],
    ]


async def test_no_more_is_given_together_than_a_write_should_hold() -> None:
    large = [entry(n, UserEvent(name="x", data="x" * (AT_ONCE // 2))) for n in range(1, 6)]

    assert told(await all_of(feed([*large, end(6)]))) == [[1, 2], [3, 4], [5, 6]]


async def test_nothing_comes_after_the_end_of_the_run_but_after_that_of_a_nested_one() -> None:
    given = told(await all_of(feed([entry(1), end(2, run_id="nested"), end(3), entry(4)], entry(5))))

    assert given == [[1, 2, 3]]


async def test_a_run_that_pauses_ends_the_feed_with_that_whatever_is_filtered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    paused = entry(2, RunPaused())

    for wanted in (EntryFilter(), EntryFilter(types={"run.started"})):
        given = told(await all_of(feed([entry(1), paused], wanted=wanted)))

        assert [each for messages in given for each in messages][-1] == 2
    assert not caplog.records


async def test_a_pause_that_is_over_ends_nothing() -> None:
    assert told(await all_of(feed([entry(1, RunPaused()), entry(2, RunResumed())], end(3)))) == [[1, 2], [3]]


async def test_the_run_is_left_at_the_end() -> None:
    entries = Entries(end(1))

    await all_of(Feed(entries, "r", clock=SYSTEM_CLOCK))

    assert entries.is_closed


async def test_a_filter_of_the_models_events_leaves_out_those_that_have_no_type() -> None:
    delta = RawResponsesStreamEvent.from_wire(b'{"type":"response.output_text.delta","delta":"x"}')
    odd = [RawResponsesStreamEvent.from_wire(json) for json in (b"null", b"{}", b'{"type":[1]}')]

    given = await all_of(
        feed(
            [*[entry(n, raw) for n, raw in enumerate([*odd, delta], 1)], end(5)],
            wanted=EntryFilter(types={"response.output_text.delta"}),
        )
    )

    assert told(given) == [[4, 5]]


async def test_a_client_that_has_the_end_already_is_given_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await all_of(feed(after=3)) == []
    assert caplog.records == []


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ([entry(1), LogGapError("r", 2, 9)], [[1], ["stream.gap"]]),
        ([[entry(1), entry(2, UnframeableEvent(name="x"))], end(3)], [[1, "stream.error"]]),
        ([entry(1), LogBrokenError("r")], [[1], ["stream.error"]]),
        ([entry(1), TimeoutError(CANARY)], [[1], ["stream.error"]]),
        ([entry(1), OSError(CANARY)], [[1], ["stream.error"]]),
        ([entry(1)], [[1], ["stream.error"]]),
    ],
    ids=["gap", "no frame", "broken log", "timeout of the log", "line to the log", "no end"],
)
async def test_trouble_is_told_once_without_a_position_and_is_the_last(
    script: list[Any], expected: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    given = await all_of(feed(*script, heartbeat=15))

    last = given[-1][-1]
    assert told(given) == expected
    assert json.loads(last.json)["after"] == 1
    assert CANARY.encode() not in last.json
    if last.type == "stream.error":
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert "run r: " in record.getMessage()
        assert json.loads(last.json)["error_id"] in record.getMessage()


async def test_a_reader_that_its_owner_closes_just_ends(caplog: pytest.LogCaptureFixture) -> None:
    held = Held()
    log = held.handle.entries()
    a_feed = Feed(log, held.handle.run_id, clock=SYSTEM_CLOCK)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await held.reached.wait()
    await a_feed.next()

    waiting = asyncio.create_task(a_feed.next())
    await asyncio.sleep(0)
    await a_feed.aclose()

    assert await waiting is None
    assert caplog.records == []
    held.go_on.set()
    await held.handle


async def test_a_heartbeat_is_due_when_nothing_was_given_for_so_long_whatever_was_left_out() -> None:
    clock = ManualClock()
    held = Held(clock=clock)
    a_feed = Feed(
        cast("Any", held.handle.entries()),
        held.handle.run_id,
        clock=clock,
        wanted=EntryFilter(types={"user.event"}),
        heartbeat=15,
    )  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    waiting = asyncio.create_task(a_feed.next())
    await clock.waiting()
    clock.advance(10)
    await held.reached.wait()  # entries came meanwhile, none of which is given
    await clock.waiting()
    assert clock.due[0] <= 15
    clock.advance(15)
    moved = await waiting

    assert [message.type for message in moved or []] == ["stream.position"]
    await a_feed.aclose()
    held.go_on.set()
    await held.handle


async def test_a_feed_may_be_cancelled_while_it_waits_and_asked_again() -> None:
    held = Held()
    a_feed = Feed(held.handle.entries(), held.handle.run_id, clock=SYSTEM_CLOCK, heartbeat=15)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await held.reached.wait()
    before = await a_feed.next()
    assert before

    waiting = asyncio.create_task(a_feed.next())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    held.go_on.set()
    given = [before, *await all_of(a_feed)]

    positions = [message.position for messages in given for message in messages]
    assert positions == list(range(1, len(positions) + 1))


async def test_a_feed_of_a_trimmed_run_says_where_to_read_on() -> None:
    log = MemoryLog()
    run = greeting(log=log)
    await run
    await log.trim(run.run_id, 6)

    ((gap,),) = await all_of(Feed(run.entries(2), run.run_id, clock=SYSTEM_CLOCK, after=2))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    assert json.loads(gap.json) | {"message": ""} == {
        "type": "stream.gap", "requested": 3, "first": 6, "after": 2, "message": "",
    }  # fmt: skip
    ((first, *_),) = await all_of(Feed(run.entries(5), run.run_id, clock=SYSTEM_CLOCK, after=5))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert first.position == 6
