"""A Redis that is away, held still, or back without its data; and lines that break before the answer."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

from millstream.errors import (
    LogBrokenError,
    LogError,
    LogTruncatedError,
    LogUnavailableError,
    StaleOwnerError,
    UnknownRunError,
)
from millstream.log import Command, NewRun
from millstream.log.redis import RedisLog, following
from millstream.testing.logs.clause import RUN, batch, positions_and_names
from tests.support.redis_server import RedisServer, own_server, redis_server

pytestmark = [pytest.mark.requires_program("redis-server"), pytest.mark.hostile]

AOF = ("--appendonly", "yes")
ALWAYS = (*AOF, "--appendfsync", "always")
"""Otherwise a server that is killed while its disk is slow may lose what it has answered."""


@asynccontextmanager
async def opened(*urls: str, **options: Any) -> AsyncIterator[list[RedisLog]]:
    """One log for each URL, all with one prefix: as so many processes have."""
    logs = [RedisLog(url, **options) for url in urls]
    try:
        yield logs
    finally:
        for log in logs:
            await log.aclose()


async def write(log: RedisLog, positions: range) -> None:
    for position in positions:
        await log.append(RUN, batch(position, str(position)))


async def read_on(log: RedisLog, seen: list[int]) -> None:
    async for entry in log.follow(RUN):
        seen.append(entry.position)  # noqa: PERF401  # what was seen before an error counts


async def until(done: Callable[[], object]) -> None:
    while not done():
        await asyncio.sleep(0.01)


# --- away ---------------------------------------------------------------------------------------


async def test_row_19_a_server_that_is_not_there_is_told_after_the_patience_and_then_at_once() -> None:
    with own_server(on_port=True) as server:
        server.kill()
        async with opened(server.url, patience=0.5) as [log]:
            begun = time.monotonic()
            with pytest.raises(LogUnavailableError, match="cannot be reached") as caught:
                await log.check()
            assert caught.value.retryable
            assert time.monotonic() - begun >= 0.5

            with pytest.raises(LogUnavailableError):
                await asyncio.wait_for(log.append(RUN, batch(1, "a")), 30)
            asked: list[Coroutine[Any, Any, Any]] = [positions_and_names(log) for _ in range(3)]
            asked += [log.record(RUN), log.mail(RUN)]
            results = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(each) for each in results] == [LogUnavailableError] * 5

            server.start()
            await log.append(RUN, batch(1, "a", ends=True))
            assert (await log.info(RUN)).sealed


async def test_row_17_a_server_that_is_killed_in_mid_run_loses_nothing_and_doubles_nothing() -> None:
    with own_server(*ALWAYS) as server:
        async with opened(server.url, server.url) as [writer, reader]:
            seen: list[int] = []
            elsewhere: list[int] = []
            reading = [
                asyncio.create_task(read_on(writer, seen)),
                asyncio.create_task(read_on(reader, elsewhere)),
            ]
            writing = asyncio.create_task(write(writer, range(1, 401)))
            for reached in (50, 150, 250):
                await until(lambda reached=reached: len(elsewhere) >= reached)
                server.kill()
                server.start()
            await writing
            await writer.append(RUN, batch(401, ends=True))
            await asyncio.gather(*reading)

            assert seen == elsewhere == list(range(1, 402))


async def test_row_19_a_server_that_is_held_still_is_told_after_the_patience_and_used_again() -> None:
    with own_server(*AOF) as server:
        async with opened(server.url, server.url, patience=1.0) as [writer, reader]:
            await write(writer, range(1, 4))
            cursor = reader.cursor(RUN, 3)
            waiting = asyncio.create_task(cursor.next())
            await asyncio.sleep(0)
            server.hold_still()
            with pytest.raises(LogUnavailableError):
                await writer.append(RUN, batch(4, "4"))

            server.go_on()
            await writer.append(RUN, batch(4, "4"))
            await writer.append(RUN, batch(5, ends=True))
            with contextlib.suppress(LogUnavailableError):  # who waited may have been told, or not
                await waiting
            assert [position for position, _ in await positions_and_names(reader)] == [1, 2, 3, 4, 5]


async def test_row_19_who_waits_is_told_too_when_the_server_is_gone_for_good() -> None:
    with own_server(*AOF) as server:
        async with opened(server.url, patience=0.3) as [log]:
            await write(log, range(1, 3))
        async with opened(server.url, patience=0.3) as [log]:
            seen: list[int] = []
            reading = asyncio.create_task(read_on(log, seen))
            await log.create(NewRun(run_id="run_2", agent="A", request=b""))
            mail = asyncio.create_task(log.wait_for_mail("run_2"))
            await until(lambda: seen == [1, 2])
            with redis.Redis.from_url(server.url) as client:
                await until(lambda: len(client.pubsub_channels()) == 3)
            server.kill()

            for waiting in (reading, mail):
                with pytest.raises(LogUnavailableError):
                    await waiting


async def test_row_22_a_server_that_loads_its_data_is_waited_for() -> None:
    slow = ("--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024")
    with own_server(*ALWAYS, "--aof-use-rdb-preamble", "no") as server:
        async with opened(server.url) as [log]:
            await write(log, range(1, 50))
            server.kill()
            writing = asyncio.create_task(log.append(RUN, batch(50, ends=True)))
            server.start(*slow, wait_for=b"Server initialized")
            await writing

            assert len(await positions_and_names(log)) == 50


async def test_a_lost_subscription_loses_no_event(redis_url: str) -> None:
    async with opened(redis_url, redis_url, prefix="subscription") as [writer, reader]:
        seen: list[int] = []
        reading = asyncio.create_task(read_on(reader, seen))
        with redis.Redis.from_url(redis_url) as client:
            for first in range(1, 60, 20):
                await write(writer, range(first, first + 20))
                await until(lambda first=first: len(seen) >= first + 10)
                client.client_kill_filter(_type="pubsub")
        await writer.append(RUN, batch(61, ends=True))
        await reading

        assert seen == list(range(1, 62))


async def test_a_server_that_says_nothing_is_asked_whether_it_is_there(
    monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    monkeypatch.setattr(following, "SILENCE", 0.05)
    async with opened(redis_url, redis_url, prefix="silence") as [writer, reader]:
        reading = asyncio.create_task(positions_and_names(reader))
        with redis.Redis.from_url(redis_url) as client:
            await until(lambda: client.info("commandstats").get("cmdstat_ping", {}).get("calls", 0) > 2)
        await writer.append(RUN, batch(1, ends=True))

        assert await reading == [(1, "run.completed")]


async def test_row_19_a_half_open_line_to_what_is_followed_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "SILENCE", 0.05)
    monkeypatch.setattr(following, "TIMEOUT", 0.05)
    with own_server(*ALWAYS) as server:
        async with opened(server.url, server.url) as [writer, reader]:
            await write(writer, range(1, 3))
            seen: list[int] = []
            reading = asyncio.create_task(read_on(reader, seen))
            with redis.Redis.from_url(server.url) as client:
                await until(lambda: len(client.pubsub_channels()) == 2)
            for first in (3, 6):
                server.hold_still()
                await asyncio.sleep(0.3)  # longer than the server may say nothing
                server.go_on()
                await write(writer, range(first, first + 3))
            await writer.append(RUN, batch(9, ends=True))
            await reading

            assert seen == list(range(1, 10))


# --- back without its data ----------------------------------------------------------------------


async def test_row_18_a_server_that_comes_back_empty_is_told_to_writers_and_readers() -> None:
    with own_server() as server:
        async with opened(server.url, server.url) as [writer, reader]:
            await writer.create(NewRun(run_id=RUN, agent="A", request=b""))
            epoch = await writer.claim(RUN, owner="me", lease=60)
            await writer.append(RUN, batch(1, "a", "b"), epoch=epoch)
            seen: list[int] = []
            reading = asyncio.create_task(read_on(reader, seen))
            mail = asyncio.create_task(writer.wait_for_mail(RUN))
            await until(lambda: seen == [1, 2])
            server.kill()
            server.start()

            with pytest.raises(LogTruncatedError, match="lost events") as caught:
                await writer.append(RUN, batch(3, "c"), epoch=epoch)
            assert caught.value.code == "log_truncated"
            with pytest.raises((LogTruncatedError, LogBrokenError)):
                await reading
            assert await mail == []
            with pytest.raises(UnknownRunError):
                await writer.record(RUN)
            await writer.append("run_2", batch(1, run_id="run_2", ends=True))
            assert [entry.position async for entry in reader.follow("run_2")] == [1]


async def with_older_data(server: RedisServer, writer: RedisLog, kept: int, last: int) -> None:
    """Write up to `last`, and let the server come back with what stood there at position `kept`."""
    await write(writer, range(1, kept + 1))
    with redis.Redis.from_url(server.url) as client:
        client.save()
    await write(writer, range(kept + 1, last + 1))
    server.kill()
    server.start()


async def test_row_18_what_a_server_has_lost_is_written_again_where_the_writer_still_has_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with own_server() as server:
        async with opened(server.url, server.url) as [writer, reader]:
            await with_older_data(server, writer, kept=3, last=10)
            await asyncio.gather(
                writer.append(RUN, batch(11, "11")), writer.append(RUN, batch(12, ends=True))
            )

            names = [name for _, name in await positions_and_names(reader)]
            assert names == [*map(str, range(1, 12)), "run.completed"]
            assert "lost positions 4 to 10, which were written again" in caplog.text


async def test_row_18_a_server_that_comes_back_with_older_data_is_told_by_position() -> None:
    with own_server() as server:
        async with opened(server.url, server.url) as [writer, reader]:
            seen: list[int] = []
            reading = asyncio.create_task(read_on(reader, seen))
            await with_older_data(server, writer, kept=3, last=400)

            with pytest.raises(LogTruncatedError, match="had position 400, and has 3 now"):
                await writer.append(RUN, batch(401, "401"))
            with pytest.raises((LogTruncatedError, LogBrokenError)):
                await reading


async def test_row_18_an_owner_whose_claim_was_lost_writes_nothing() -> None:
    with own_server() as server:
        async with opened(server.url) as [log]:
            await log.create(NewRun(run_id=RUN, agent="A", request=b""))
            with redis.Redis.from_url(server.url) as client:
                client.save()
            epoch = await log.claim(RUN, owner="me", lease=60)
            server.kill()
            server.start()

            with pytest.raises(StaleOwnerError, match="lost that claim"):
                await log.renew(RUN, epoch=epoch, lease=60)
            with pytest.raises(StaleOwnerError, match="lost that claim"):
                await log.append(RUN, batch(1, "a"), epoch=epoch)


async def test_mail_that_was_lost_is_waited_for_again() -> None:
    with own_server() as server:
        async with opened(server.url) as [log]:
            await log.create(NewRun(run_id=RUN, agent="A", request=b""))
            cursor = log.cursor(RUN)
            with redis.Redis.from_url(server.url) as client:
                client.save()
            assert await log.tell(RUN, Command("send", b"lost")) == 1
            server.kill()
            server.start()

            waiting = asyncio.create_task(log.wait_for_mail(RUN))
            await log.record(RUN)
            assert not waiting.done()
            await log.tell(RUN, Command("send", b"kept"))
            assert [command.body for command in await waiting] == [b"kept"]
            del cursor


# --- lines that break ---------------------------------------------------------------------------


class Line:
    """A way to the server which breaks on demand: when a command has been done, and before its answer."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self.cuts = 0
        """How many answers are still to be cut off."""
        self.word = b""
        """What the commands have in them whose answers are cut off."""
        self.carrying: set[asyncio.Task[None]] = set()

    def accept(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self.carrying.add(asyncio.create_task(self._carry(near, back)))

    async def _carry(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, forth = await asyncio.open_unix_connection(self._socket)
        asked = bytearray()

        async def ask() -> None:
            while data := await near.read(65536):
                asked.extend(data)
                forth.write(data)
                await forth.drain()

        async def answer() -> None:
            while data := await far.read(65536):
                if self.cuts and self.word in asked:
                    self.cuts -= 1
                    return
                asked.clear()
                back.write(data)
                await back.drain()

        ways = [asyncio.create_task(ask()), asyncio.create_task(answer())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for writer in (forth, back):
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()


@asynccontextmanager
async def breaking_line(server: RedisServer) -> AsyncIterator[tuple[str, Line]]:
    line = Line(server.socket)
    async with await asyncio.start_server(line.accept, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        yield f"redis://127.0.0.1:{port}/0", line
        await asyncio.gather(*line.carrying)


async def test_row_20_what_was_done_before_its_answer_was_lost_is_done_once() -> None:
    with own_server() as server:
        async with breaking_line(server) as (url, line), opened(url, retention=None) as [log]:
            await log.check()
            line.word = RUN.encode()

            async def losing_answers(asked: Any) -> Any:
                line.cuts = 2
                result = await asked
                assert line.cuts == 0, "nothing was cut off"
                return result

            run = NewRun(run_id=RUN, agent="A", request=b"{}", conversation="chat")
            made = await losing_answers(log._worker.ask(_create(run)))
            epoch = await losing_answers(log.claim(RUN, owner="me", lease=60))
            told = await losing_answers(log.tell(RUN, Command("send", b"hi")))
            await losing_answers(log.append(RUN, batch(1, "a", "b"), epoch=epoch))
            await losing_answers(log.add_items(RUN, [b"1", b"2"], epoch=epoch))
            await losing_answers(log.append(RUN, batch(3, ends=True), epoch=epoch))

            assert (made, epoch, told) == (RUN, 1, 1)
            assert [position for position, _ in await positions_and_names(log)] == [1, 2, 3]
            assert [command.body for command in await log.mail(RUN)] == [b"hi"]
            assert len(await log.runs()) == 1
            assert await log.items("", "chat") == [b"1", b"2"]


def _create(run: NewRun) -> Any:
    from millstream.log.redis import requests

    return requests.create(run)


async def test_row_20_answers_that_are_lost_all_the_time_slow_a_run_down_and_no_more() -> None:
    with own_server() as server:
        async with breaking_line(server) as (url, line), opened(url, server.url) as [writer, reader]:
            line.word = RUN.encode()
            seen: list[int] = []
            reading = asyncio.create_task(read_on(reader, seen))
            appends: list[Any] = []
            for position in range(1, 31):
                line.cuts = position % 2
                appends.append(asyncio.create_task(writer.append(RUN, batch(position, str(position)))))
                if position % 3 == 0:
                    await asyncio.gather(*appends)
            await asyncio.gather(*appends)
            await writer.append(RUN, batch(31, ends=True))
            await reading

            assert seen == list(range(1, 32))


async def test_a_log_is_closed_while_its_server_is_away() -> None:
    with own_server() as server:
        log = RedisLog(server.url, patience=1.0)
        await log.append(RUN, batch(1, "a"))
        server.kill()
        writing = asyncio.create_task(log.append(RUN, batch(2, "b")))
        await asyncio.sleep(0)
        await log.aclose()

        with pytest.raises(LogError):
            await writing
        with pytest.raises(LogError, match="closed"):
            await log.append(RUN, batch(2, "b"))


async def test_row_21_other_runs_go_on_where_one_is_refused(redis_url: str) -> None:
    with redis_server() as url, redis.Redis.from_url(url) as client:
        client.set(f"millstream:run:{RUN}", "mine")
        async with opened(url) as [log]:
            results = await asyncio.gather(
                log.append("run_1", batch(1, run_id="run_1", ends=True)),
                log.append(RUN, batch(1, ends=True)),
                log.append("run_2", batch(1, run_id="run_2", ends=True)),
                return_exceptions=True,
            )

            assert [type(each).__name__ for each in results] == ["NoneType", "LogDamagedError", "NoneType"]
