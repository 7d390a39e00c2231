"""Sessions in Redis: the keys, a client that asks again, event loops, and trouble with the server."""

import asyncio
import importlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import redis
from redis.asyncio import Redis

from millstream import MissingExtraError, SessionClosedError, SessionError, UserError
from millstream.sessions import RedisSession
from tests.differential.peer import PYTHON as PEER
from tests.support.redis_server import redis_server

pytestmark = [
    pytest.mark.requires_program("redis-server"),
    pytest.mark.may_block,  # redis-py looks up its version on the disk, where the client is not ours
]


def say(*texts: str) -> list[Any]:
    return [{"role": "user", "content": text} for text in texts]


async def test_the_keys_are_those_of_the_sdk_and_die_together(redis_url: str) -> None:
    async with Redis.from_url(redis_url, decode_responses=True) as client:
        session = RedisSession("keys", redis_client=client, key_prefix="mine", ttl=1000)
        await session.add_items(say("a", "caf\xe9"))

        about, items = "mine:keys", "mine:keys:messages"
        assert set(await client.hgetall(about)) == {"session_id", "created_at", "updated_at"}
        assert [json.loads(row) for row in await client.lrange(items, 0, -1)] == say("a", "caf\xe9")
        assert 990 < await client.ttl(about) <= 1000
        assert 990 < await client.ttl(items) <= 1000
        await session.clear_session()
        assert await client.exists(about, items) == 0
        assert all([0 < await client.ttl(key) <= 600 for key in await client.keys("mine:*")])


SDK = """
import asyncio, json, sys
from agents.extensions.memory.redis_session import RedisSession

async def main(url, *added):
    session = RedisSession.from_url("shared", url=url)
    print(json.dumps(await session.get_items()))
    await session.add_items([json.loads(item) for item in added])
    await session.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
def test_what_the_sdk_has_stored_is_read_and_written_and_read_there_again(
    redis_url: str, tmp_path: Path, leave_out: Callable[[str], NoReturn]
) -> None:
    if not PEER.exists():
        leave_out("needs openai-agents in its environment: `make .venv-peer/.peer`")
    (tmp_path / "redis").symlink_to(Path(redis.__file__).parent)  # which that environment lacks

    def sdk(*added: Any) -> Any:
        done = subprocess.run(
            [PEER, "-c", SDK, redis_url, *map(json.dumps, added)],
            env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    async def ours(*added: Any) -> Any:
        session = RedisSession.from_url("shared", url=redis_url)
        await session.add_items(list(added))
        got = await session.get_items()
        await session.close()
        return got

    assert sdk(*say("theirs \u2028")) == []
    assert asyncio.run(ours(*say("ours"))) == say("theirs \u2028", "ours")
    assert sdk() == say("theirs \u2028", "ours")


class AsksAgain:
    """A client that hears no answer to its first try of a script, and asks again, as clients do by themselves."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def eval(self, *arguments: Any) -> Any:
        await self._client.eval(*arguments)
        return await self._client.eval(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


async def test_a_client_that_asks_again_adds_and_pops_once(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        session = RedisSession("again", redis_client=AsksAgain(client))  # type: ignore[arg-type]

        await session.add_items(say("a", "b"))
        await session.add_items(say("a", "b"))

        assert await session.get_items() == say("a", "b", "a", "b")
        assert await session.pop_item() == say("b")[0]
        assert await session.get_items() == say("a", "b", "a")


async def test_rows_that_are_no_items_are_left_out_and_logged(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Redis.from_url(redis_url) as client:
        session = RedisSession("rows", redis_client=client)
        await session.add_items(say("a", "b"))
        await client.rpush("agents:session:rows:messages", "{secret", "3", b"\xff")

        with caplog.at_level(logging.WARNING, "millstream"):
            assert await session.get_items() == say("a", "b")
            assert await session.get_items(1) == say("b")
            assert await session.get_items(2) == say("a", "b")
            assert await session.pop_item() == say("b")[0]

        assert "session 'rows': 3 item(s) in Redis" in caplog.text
        assert "secret" not in caplog.text
        assert await client.llen("agents:session:rows:messages") == 1


def test_one_session_is_used_in_several_event_loops_at_once_and_one_after_the_other(redis_url: str) -> None:
    session = RedisSession.from_url("loops", url=redis_url)

    async def use(name: str) -> None:
        await session.add_items(say(name))
        client = session._owned.pop(asyncio.get_running_loop())  # type: ignore[union-attr]
        await client.aclose()

    threads = [threading.Thread(target=asyncio.run, args=(use(name),)) for name in "abc"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    async def read() -> list[Any]:
        got = await session.get_items()
        await session.close()
        return got

    assert sorted(item["content"] for item in asyncio.run(read())) == ["a", "b", "c"]


async def test_a_server_that_is_gone_is_told_and_nothing_is_half_there() -> None:
    with redis_server() as url:
        session = RedisSession.from_url("gone", url=url, redis_kwargs={"retry": None})
        await session.add_items(say("a"))
        assert await session.ping()

    for call in (
        session.get_items(),
        session.add_items(say("b")),
        session.pop_item(),
        session.clear_session(),
    ):
        with pytest.raises(SessionError, match="'gone' in Redis: ") as caught:
            await call
        assert caught.value.session_id == "gone"
    assert not await session.ping()
    await session.close()


async def test_a_key_that_is_something_else_is_told_and_left_alone(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        await client.set("agents:session:taken:messages", "a letter")
        session = RedisSession("taken", redis_client=client)

        with pytest.raises(SessionError, match="WRONGTYPE"):
            await session.add_items(say("a"))

        assert await client.get("agents:session:taken:messages") == b"a letter"


async def test_a_closed_session_says_so_and_leaves_a_client_of_the_callers_open(redis_url: str) -> None:
    mine = RedisSession.from_url("closed", url=redis_url)
    await mine.add_items(say("a"))
    await mine.close()
    await mine.close()
    with pytest.raises(SessionClosedError, match="make another RedisSession"):
        await mine.get_items()
    with pytest.raises(SessionClosedError):
        await mine.ping()

    async with Redis.from_url(redis_url) as client:
        theirs = RedisSession("closed", redis_client=client)
        await theirs.close()
        assert await theirs.get_items() == say("a")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RedisSession("one", redis_client="redis://localhost"), r"not a builtins\.str; .*from_url"),  # type: ignore[arg-type]
        (lambda: RedisSession("one", redis_client=redis.Redis()), r"not a redis\.client\.Redis"),  # type: ignore[arg-type]
        (
            lambda: RedisSession.from_url("one", url="http://me:secret@localhost"),
            r"url=\.\.\.\): Redis URL must",
        ),
        (lambda: RedisSession.from_url("one", url="redis://localhost", ttl=0), "ttl=0: a whole number"),
        (lambda: RedisSession.from_url("one", url="redis://localhost", ttl=True), "ttl=True"),
        (lambda: RedisSession.from_url("", url="redis://localhost"), "named by a text"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_given(make: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make()


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    monkeypatch.delitem(sys.modules, "millstream.sessions.redis")

    with pytest.raises(MissingExtraError, match=r'pip install "millstream\[redis\]"'):
        importlib.import_module("millstream.sessions").RedisSession  # noqa: B018
