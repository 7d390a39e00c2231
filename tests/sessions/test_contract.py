"""Every session here keeps the contract of all sessions."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from millstream.sessions import RedisSession, SQLiteSession
from millstream.testing import check_session


async def test_a_session_in_memory_keeps_the_contract() -> None:
    await check_session(SQLiteSession)


async def test_a_session_in_a_file_keeps_the_contract(tmp_path: Path) -> None:
    await check_session(lambda session_id: SQLiteSession(session_id, tmp_path / "s.db"), shared=True)


@pytest.mark.requires_program("redis-server")
async def test_a_session_in_redis_keeps_the_contract(redis_url: str) -> None:
    await check_session(lambda session_id: RedisSession.from_url(session_id, url=redis_url), shared=True)


@pytest.mark.requires_program("redis-server")
@pytest.mark.may_block  # redis-py looks up its version on the disk; not where from_url() makes the client
@pytest.mark.parametrize("decoded", [False, True])
async def test_a_session_with_a_client_of_the_callers_keeps_the_contract(
    redis_url: str, decoded: bool
) -> None:
    async with Redis.from_url(redis_url, decode_responses=decoded) as client:
        await check_session(lambda session_id: RedisSession(session_id, redis_client=client), shared=True)
