"""Runs in Redis: what the server keeps and forgets, what it is found to be set up for, and what it refuses."""

import asyncio
import importlib
import itertools
import logging
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
from redis.asyncio import Redis

from millstream import Agent, RunConfig, Runner
from millstream.errors import (
    LogDamagedError,
    LogGapError,
    LogTruncatedError,
    LogUnavailableError,
    MissingExtraError,
    RunExistsError,
    StaleOwnerError,
    UnknownRunError,
    UserError,
)
from millstream.events import RunStarted, Stamp
from millstream.log import Batch, Command, NewRun
from millstream.log.redis import RedisLog, checks
from millstream.testing import ScriptedModel
from millstream.testing.logs.clause import RUN, batch, positions_and_names
from tests.support.redis_server import own_server, redis_server

pytestmark = pytest.mark.requires_program("redis-server")


@pytest.fixture
def server(redis_url: str) -> Iterator[Any]:
    """The client of somebody else. Its methods have types for answers of two kinds of clients."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@asynccontextmanager
async def opened(url: Any, prefix: str, **options: Any) -> AsyncIterator[RedisLog]:
    log = RedisLog(url, prefix=prefix, **options)
    try:
        yield log
    finally:
        await log.aclose()


def new_run(run_id: str = RUN, **others: Any) -> NewRun:
    return NewRun(run_id=run_id, agent="A", request=b"{}", **others)


async def is_known(log: RedisLog) -> bool:
    try:
        return bool(await log.record(RUN))
    except UnknownRunError:
        return False


async def positions(log: RedisLog, after: int, into: list[int]) -> None:
    async for entry in log.follow(RUN, after):
        into.append(entry.position)  # noqa: PERF401  # what was read before an error counts


# --- what is kept -----------------------------------------------------------------------------


async def test_all_keys_begin_with_the_prefix_and_go_with_their_runs(redis_url: str, server: Any) -> None:
    async with opened(redis_url, "keys", retention=None) as log:
        await log.create(new_run(caller="ann", idempotency_key="once", conversation="chat"))
        epoch = await log.claim(RUN, owner="me", lease=60)
        await log.append(RUN, batch(1, "a"), epoch=epoch)
        await log.add_items(RUN, [b"1"], epoch=epoch)
        await log.tell(RUN, Command("send", b"hi", key="k"))
        await log.append(RUN, batch(2, ends=True), epoch=epoch)

        before = set(server.keys("keys*"))
        await log.delete(RUN)
        left = {key for key in server.keys("keys*") if b"conversation" not in key}
        await log.forget("ann", "chat")

        assert {b"keys:run:" + RUN.encode() + b":log", b"keys:ended"} < before
        assert {b"keys:conversation:items:3:ann:chat", b"keys:conversations:ann"} < before
        assert left == {b"keys:store", b"keys:number"}
        assert set(server.keys("keys*")) == {b"keys:store", b"keys:number"}


async def test_logs_of_two_prefixes_or_databases_do_not_mix(redis_url: str) -> None:
    async with (
        opened(redis_url, "one") as one,
        opened(redis_url, "two") as two,
        opened(f"{redis_url}?db=3", "one") as three,
    ):
        waiting = [asyncio.create_task(positions_and_names(log)) for log in (two, three)]
        await one.append(RUN, batch(1, "one", ends=True))
        await two.append(RUN, batch(1, "two", ends=True))
        await three.append(RUN, batch(1, "three", ends=True))

        assert [(await each)[0] for each in waiting] == [(1, "two"), (1, "three")]
        assert len(await one.runs()) == 1


async def test_a_log_may_be_used_from_several_event_loops(redis_url: str) -> None:
    async with opened(redis_url, "loops") as log:
        reading = asyncio.create_task(positions_and_names(log))
        elsewhere = threading.Thread(target=lambda: asyncio.run(log.append(RUN, batch(1, "a", ends=True))))
        elsewhere.start()

        assert await reading == [(1, "a"), (2, "run.completed")]
        await asyncio.to_thread(elsewhere.join)


async def test_a_run_is_forgotten_by_the_server_after_its_time(redis_url: str, server: Any) -> None:
    async with opened(redis_url, "dies", retention=0.2) as log:
        await log.create(new_run(caller="ann", idempotency_key="once", conversation="chat"))
        await log.add_items(RUN, [b"1"])
        await log.append(RUN, batch(1, ends=True))
        while await is_known(log):
            await asyncio.sleep(0.05)

        with pytest.raises(UnknownRunError):
            await log.info(RUN)
        assert not [
            key for key in server.keys("dies*") if server.type(key) != b"zset" and RUN.encode() in key
        ]
        assert await log.runs() == []
        assert (await log.conversation("ann", "chat")).run is None
        assert await log.items("ann", "chat") == [b"1"]
        again = new_run("run_2", caller="ann", idempotency_key="once", conversation="chat")
        assert (await log.create(again)).run_id == "run_2"
        await log.append("run_2", batch(1, run_id="run_2", ends=True))
        for index in ("ended", "runs", "caller:ann", "conversation:runs:3:ann:chat"):
            assert server.zcard(f"dies:{index}") == 1, index


async def test_what_waits_is_written_in_order_in_one_go(redis_url: str) -> None:
    async with opened(redis_url, "order") as log:
        appends = [log.append(RUN, batch(position, str(position))) for position in range(1, 300)]
        await asyncio.gather(*appends, log.append(RUN, batch(300, ends=True)))

        assert [position for position, _ in await positions_and_names(log)] == list(range(1, 301))


async def test_what_overlaps_is_written_behind_what_is_there(redis_url: str) -> None:
    async with opened(redis_url, "overlap") as log:
        await asyncio.gather(
            log.append(RUN, batch(1, "a", "b")),
            log.append(RUN, batch(2, "b", "c")),
            log.append(RUN, batch(4, "d")),
            log.append(RUN, batch(3, "c", "d", ends=True)),
        )

        names = [name for _, name in await positions_and_names(log)]
        assert names == ["a", "b", "c", "d", "run.completed"]


async def test_a_log_that_nobody_holds_ends_its_threads(redis_url: str) -> None:
    log = RedisLog(redis_url, prefix="left")
    waiting = asyncio.create_task(log.cursor(RUN).next())
    async with asyncio.timeout(30):
        while not any(thread.name == "millstream redis follow" for thread in threading.enumerate()):
            await asyncio.sleep(0.01)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("millstream redis")]

    waiting.cancel()
    await asyncio.wait([waiting])
    del log, waiting

    for thread in threads:
        await asyncio.to_thread(thread.join, 30)
        assert not thread.is_alive()


async def test_what_was_asked_for_is_written_though_nobody_holds_the_log(redis_url: str) -> None:
    log = RedisLog(redis_url, prefix="dropped")
    writing = asyncio.ensure_future(log.append(RUN, batch(1, "a", ends=True)))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.wait([writing])
    del log, writing

    async with opened(redis_url, "dropped") as other:
        assert await positions_and_names(other) == [(1, "a"), (2, "run.completed")]


# --- what a server is set up for ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "durability", "said"),
    [
        ((), "memory", ["keeps nothing on its disk"]),
        (("--save", "60 1"), "memory", ["snapshots only"]),
        (("--appendonly", "yes"), "process", ["the last second or two"]),
        (("--appendonly", "yes", "--appendfsync", "no"), "process", ["half minute"]),
        (("--appendonly", "yes", "--appendfsync", "always"), "power", []),
        (
            (
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--maxmemory-policy",
                "allkeys-lru",
                "--maxmemory",
                "50mb",
            ),
            "power",
            ["throw away any part of any run when its memory is full (maxmemory-policy allkeys-lru)"],
        ),
    ],
)
async def test_row_21_what_may_be_lost_is_said_once(
    options: tuple[str, ...], durability: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with redis_server(*options) as url:
        async with opened(url, "check") as log:
            warnings = await log.check()
            again = await log.check()

            assert log.durability == durability
            assert len(warnings) == len(said)
            assert all(part in sentence for part, sentence in zip(said, warnings, strict=True))
            assert again == warnings
            assert [
                record.message for record in caplog.records if record.levelno == logging.WARNING
            ] == warnings


async def test_row_21_a_run_has_said_what_may_be_lost_before_it_begins(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with redis_server() as url:
        async with opened(url, "first") as log:
            for _ in range(2):
                agent = Agent(name="A", model=ScriptedModel(["Hi."]))
                await Runner.run(agent, "Hello", run_config=RunConfig(log=log))

    [warning] = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert "keeps nothing on its disk" in warning


async def test_a_user_who_may_not_ask_what_a_server_keeps_is_told_that_it_is_not_known() -> None:
    with redis_server("--appendonly", "yes") as url, redis.Redis.from_url(url) as client:
        client.execute_command("ACL", "SETUSER", "plain", "on", ">secret", "~*", "&*", "+@all", "-@dangerous")
        async with opened(url.replace("unix://", "unix://plain:secret@"), "acl") as log:
            [warning] = await log.check()
            await log.append(RUN, batch(1, ends=True))

            assert "may not ask the server" in warning
            assert log.durability == "memory"


INFO = {
    "redis_version": "7.2.4",
    "cluster_enabled": "0",
    "role": "master",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
}
REFUSED = LogUnavailableError("CONFIG is not allowed here")


@pytest.mark.parametrize(
    ("told", "durability", "said"),
    [
        ({}, "process", "the last second or two"),
        ({"aof_enabled": "0"}, "memory", "does not tell whether it writes snapshots"),
        ({"aof_last_write_status": "err"}, "memory", "cannot write to its append-only file"),
        ({"connected_slaves": "2"}, "process", "has replicas"),
        ({"maxmemory_policy": "volatile-ttl"}, "process", "once it is given a maxmemory"),
    ],
)
def test_what_a_server_tells_of_itself_is_told_on(told: dict[str, str], durability: str, said: str) -> None:
    info = "\r\n".join(f"{name}:{value}" for name, value in {**INFO, **told}.items())

    found = checks.found([f"# Server\r\n{info}".encode(), *[REFUSED] * len(checks.SETTINGS)])

    assert found.durability == durability
    assert any(said in sentence for sentence in found.warnings)


@pytest.mark.parametrize("told", [{"redis_version": "6.2.14"}, {"cluster_enabled": "1"}, {"role": "slave"}])
def test_a_server_that_cannot_be_used_is_refused(told: dict[str, str]) -> None:
    info = "\r\n".join(f"{name}:{value}" for name, value in {**INFO, **told}.items())

    with pytest.raises(LogUnavailableError):
        checks.found([info.encode(), *[REFUSED] * len(checks.SETTINGS)])


async def test_a_server_that_shows_no_settings_is_judged_by_what_it_tells() -> None:
    with redis_server("--appendonly", "yes", "--rename-command", "CONFIG", "") as url:
        async with opened(url, "provider") as log:
            [warning] = await log.check()
            assert "the last second or two" in warning
            assert log.durability == "process"


async def test_row_22_a_read_only_replica_is_told_and_can_be_read(redis_url: str) -> None:
    with own_server(on_port=True) as primary, own_server() as replica:
        async with opened(primary.url, "r") as log, opened(replica.url, "r") as copy:
            await log.append(RUN, batch(1, "a", ends=True))
            with redis.Redis.from_url(replica.url) as client:
                client.replicaof("127.0.0.1", primary.url.rpartition(":")[2].removesuffix("/0"))
                async with asyncio.timeout(30):
                    while not client.exists("r:store"):
                        await asyncio.sleep(0.05)

            assert await positions_and_names(copy) == [(1, "a"), (2, "run.completed")]
            with pytest.raises(LogUnavailableError, match="read-only replica"):
                await copy.create(new_run("run_2"))
            with pytest.raises(LogUnavailableError, match="read-only replica"):
                await copy.check()


async def test_row_22_a_cluster_is_refused() -> None:
    with redis_server("--cluster-enabled", "yes") as url:
        async with opened(url, "c") as log:
            with pytest.raises(LogUnavailableError, match="cluster"):
                await log.append(RUN, batch(1, "a"))


async def test_a_wrong_password_is_told_at_once_and_not_repeated() -> None:
    with redis_server("--requirepass", "right") as url:
        for address in (url, url.replace("unix://", "unix://:wrong@")):
            async with opened(address, "p") as log:
                with pytest.raises(LogUnavailableError, match="password") as caught:
                    await log.check()
                assert "wrong" not in str(caught.value)
        async with opened(url.replace("unix://", "unix://:right@"), "p") as log:
            await log.append(RUN, batch(1, "a"))


async def test_row_21_a_server_without_memory_refuses_and_loses_nothing() -> None:
    with redis_server("--maxmemory", "2mb", "--maxmemory-policy", "noeviction") as url:
        async with opened(url, "full") as log:

            async def write_on() -> None:
                for position in itertools.count(1):
                    await log.append(RUN, batch(position, "x" * 50_000))

            with pytest.raises(LogUnavailableError, match="no memory") as caught:
                await write_on()

            assert caught.value.retryable
            last = (await log.info(RUN)).last
            with redis.Redis.from_url(url) as client:
                client.config_set("maxmemory", "100mb")
            await log.append(RUN, batch(last + 1, ends=True))
            assert len(await positions_and_names(log)) == last + 1


async def test_row_22_a_server_that_forgot_its_scripts_is_told_them_again(
    redis_url: str, server: Any
) -> None:
    async with opened(redis_url, "flush") as log:
        await log.append(RUN, batch(1, "a"))
        server.script_flush()
        await asyncio.gather(
            log.append(RUN, batch(2, "b")),
            log.append(RUN, batch(3, "c")),
            log.append(RUN, batch(4, ends=True)),
        )

        assert len(await positions_and_names(log)) == 4


# --- what others have put there -----------------------------------------------------------------


@pytest.mark.parametrize("key", ["store", f"run:{RUN}", f"run:{RUN}:log", "runs", "live"])
async def test_row_24_a_key_of_another_type_is_told_and_touched_by_nobody(
    redis_url: str, server: Any, key: str
) -> None:
    prefix = f"type-{key}"
    if key == "store":
        server.lpush(f"{prefix}:{key}", "mine")
    else:
        server.set(f"{prefix}:{key}", "mine")
    async with opened(redis_url, prefix) as log:
        with pytest.raises(LogDamagedError, match="of another type"):
            await log.append(RUN, batch(1, "a"))

        assert server.type(f"{prefix}:{key}") in (b"string", b"list")
        if key not in ("store", "runs", "live"):
            await log.append("run_other", batch(1, run_id="run_other", ends=True))
            assert (await log.info("run_other")).sealed


@pytest.mark.parametrize("damage", ["flipped", "later", "nonsense"])
async def test_row_24_a_damaged_event_is_told_and_other_runs_are_fine(
    redis_url: str, server: Any, damage: str
) -> None:
    prefix = f"damaged-{damage}"
    async with opened(redis_url, prefix) as log:
        for run_id in (RUN, "run_other"):
            await log.append(run_id, batch(1, "a", run_id=run_id))
            await log.append(run_id, batch(2, "b", run_id=run_id))
            await log.append(run_id, batch(3, ends=True, run_id=run_id))
    stream = f"{prefix}:run:{RUN}:log"
    rows = dict(server.xrange(stream))
    data = rows[b"2-0"][b"batch"]
    rows[b"2-0"][b"batch"] = {
        "flipped": data.replace(b'"b"', b'"x"'),
        "later": _checked(data[8:].replace(b'"v":1', b'"v":9')),
        "nonsense": b"\xff\x00",
    }[damage]
    server.delete(stream)
    for position, fields in rows.items():
        server.xadd(stream, fields, id=position)

    async with opened(redis_url, prefix) as log:
        read: list[int] = []
        with pytest.raises(LogDamagedError, match="position 2"):
            await positions(log, 0, read)

        assert read == [1]
        assert [entry.position async for entry in log.follow("run_other")] == [1, 2, 3]
        assert [entry.position async for entry in log.follow(RUN, 2)] == [3]


def _checked(rest: bytes) -> bytes:
    return b"%08x%b" % (zlib.crc32(rest), rest)


async def test_a_damaged_record_is_told(redis_url: str, server: Any) -> None:
    async with opened(redis_url, "record") as log:
        await log.create(new_run())
        server.hset(f"record:run:{RUN}", "status", "asleep")

        with pytest.raises(LogDamagedError, match="asleep"):
            await log.record(RUN)


async def test_events_that_were_evicted_are_missed(redis_url: str, server: Any) -> None:
    async with opened(redis_url, "evicted") as log:
        await log.append(RUN, batch(1, "a", "b"))
    server.delete(f"evicted:run:{RUN}:log")

    async with opened(redis_url, "evicted") as log:
        with pytest.raises((LogGapError, LogTruncatedError)):
            await positions_and_names(log)


async def test_a_damaged_message_is_asked_for_again(redis_url: str, server: Any) -> None:
    async with opened(redis_url, "noise") as writer, opened(redis_url, "noise") as reader:
        await writer.append(RUN, batch(1, "a"))
        reading = asyncio.create_task(positions_and_names(reader))
        channel = f"noise@0:{RUN}"
        while not server.publish(channel, b"e2 damaged"):
            await asyncio.sleep(0.01)
        await writer.append(RUN, batch(2, "b"))
        await writer.append(RUN, batch(3, ends=True))

        assert [position for position, _ in await reading] == [1, 2, 3]


async def test_mail_is_heard_of_elsewhere(redis_url: str) -> None:
    async with opened(redis_url, "mail") as owner, opened(redis_url, "mail") as other:
        await other.create(new_run())
        for number in range(5):
            waiting = asyncio.create_task(owner.wait_for_mail(RUN, number))
            await asyncio.sleep(0)
            await other.tell(RUN, Command("send", b"%d" % number))
            assert [command.number for command in await waiting] == [number + 1]


async def test_who_may_not_subscribe_reads_all_the_same_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with redis_server() as url, redis.Redis.from_url(url) as client:
        client.execute_command("ACL", "SETUSER", "mute", "on", ">secret", "~*", "+@all", "-subscribe", "&*")
        async with (
            opened(url, "acl") as writer,
            opened(url.replace("unix://", "unix://mute:secret@"), "acl") as reader,
        ):
            reading = asyncio.create_task(positions_and_names(reader))
            await writer.append(RUN, batch(1, "a"))
            while "does not tell what other processes write" not in caplog.text:
                await asyncio.sleep(0.01)
            await writer.append(RUN, batch(2, ends=True))

            assert len(await reading) == 2
            assert "secret" not in caplog.text


# --- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("http://localhost", {}),
        (None, {}),
        (Redis(), {}),
        ("redis://localhost", {"prefix": ""}),
        ("redis://localhost", {"retention": 0}),
        ("redis://localhost", {"patience": float("inf")}),
    ],
)
def test_arguments_that_can_be_none_are_refused_at_once(url: Any, options: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        RedisLog(url, **options)


async def test_a_client_gives_the_address_and_stays_the_callers(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        async with opened(client, "client") as log:
            await log.append(RUN, Batch(1, Stamp(run_id=RUN, agent="A"), [RunStarted(agent="A")]))
            assert (await log.record(RUN)).status == "running"

        assert client.ping()


async def test_names_that_are_no_text_elsewhere_come_back(redis_url: str) -> None:
    async with opened(redis_url, "names") as log:
        run_id, agent = "run \u2028\udc80", "\ud800"
        await log.create(NewRun(run_id=run_id, agent=agent, request=b"", caller="\udfff"))

        assert ((await log.record(run_id)).agent, await log.orphans()) == (agent, [run_id])
        with pytest.raises(RunExistsError):
            await log.create(NewRun(run_id=run_id, agent=agent, request=b""))
        with pytest.raises(StaleOwnerError):
            await log.append(run_id, batch(1, "a", run_id=run_id), epoch=1)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.connection", None)
    for name in [name for name in sys.modules if name.startswith("millstream.log.redis")]:
        monkeypatch.delitem(sys.modules, name)

    with pytest.raises(MissingExtraError, match=r'pip install "millstream\[redis\]"'):
        importlib.import_module("millstream.log.redis")
