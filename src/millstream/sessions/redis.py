"""A session in Redis: for programs of several processes or machines.

The keys are those of the OpenAI Agents SDK, so that either reads what the other has written: a
hash about the conversation, and a list of its items.
"""

from __future__ import annotations

import asyncio
import secrets
import weakref
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar, cast

from millstream.errors import MissingExtraError, SessionClosedError, SessionError, UserError
from millstream.sessions import rows
from millstream.sessions.outcome import outcome
from millstream.sessions.promise import SessionABC, SessionSettings, check_session_id, limit_of, settings_of

try:
    from redis import Redis as BlockingRedis
    from redis.asyncio import Redis
    from redis.exceptions import RedisError
except ImportError:
    raise MissingExtraError("RedisSession", "redis") from None

if TYPE_CHECKING:
    from millstream.items import TResponseInputItem

T = TypeVar("T")

# A client that tells the server its name looks up its version on the disk, for each connection.
_NAMELESS = {} if find_spec("redis.driver_info") is None else {"driver_info": None}

REMEMBERED = 600
"""Seconds for which the server knows a change again."""

# A client whose line breaks before the answer asks again, by itself: what was done already is not
# done twice. What can fail for the type of a key comes before anything is added.
_ADD = """
if redis.call('EXISTS', KEYS[3]) == 1 then return end
local now = redis.call('TIME')[1]
redis.call('HSET', KEYS[1], 'session_id', ARGV[1], 'updated_at', now)
redis.call('HSETNX', KEYS[1], 'created_at', now)
for i = 4, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[i]) end
redis.call('SET', KEYS[3], '', 'EX', ARGV[3])
if ARGV[2] ~= '' then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
  redis.call('EXPIRE', KEYS[2], ARGV[2])
end
"""
_POP = """
local item = redis.call('GET', KEYS[2])
if item then return item end
item = redis.call('RPOP', KEYS[1])
if item then redis.call('SET', KEYS[2], item, 'EX', ARGV[1]) end
return item
"""
_CLEAR = "redis.call('DEL', KEYS[1], KEYS[2])"


class RedisSession(SessionABC):
    """A conversation in Redis 7 or Valkey.

    Any number of objects, processes and machines may use one at once. What is added survives
    what the server is set up to survive (`appendonly`). Needs the extra `redis`. A cluster
    cannot be used: the keys of a conversation are not in one slot there.

    Args:
        session_id: names the conversation.
        redis_client: a `redis.asyncio.Redis`; it stays the caller's to close.
        key_prefix: what its keys begin with.
        ttl: seconds after its last `add_items` when the conversation is forgotten; None for never.
        session_settings: how it is read, where a call or a run does not say; also as a dict.

    Raises:
        MissingExtraError: `redis` is not installed; where this class is imported.
        UserError: an argument can be none.

    Every method but `ping` may raise `SessionError`: the server cannot be reached or refuses.
    Whether a change whose answer was lost for good has been made, `get_items` tells. The server
    remembers changes for ten minutes under keys of their own, a popped item with its content.
    """

    def __init__(
        self,
        session_id: str,
        *,
        redis_client: Redis,
        key_prefix: str = "agents:session",
        ttl: int | None = None,
        session_settings: SessionSettings | dict[str, Any] | None = None,
    ) -> None:
        self.session_id = check_session_id(session_id)
        self.session_settings: SessionSettings | None = settings_of(session_settings)
        if isinstance(redis_client, BlockingRedis) or not callable(getattr(redis_client, "eval", None)):
            kind = type(redis_client)
            raise UserError(
                f"redis_client is a redis.asyncio.Redis, not a {kind.__module__}.{kind.__name__}; "
                "RedisSession.from_url() makes one of a URL."
            )
        if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, int) or ttl < 1):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UserError(f"ttl={ttl!r}: a whole number of seconds, at least 1; None means for ever.")
        self._ttl = ttl
        self._key = f"{key_prefix}:{session_id}"
        self._messages = f"{self._key}:messages"
        self._closed = False
        self._make: Callable[[], Redis] = lambda: redis_client
        self._owned: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Redis] | None = None

    @classmethod
    def from_url(
        cls,
        session_id: str,
        *,
        url: str,
        redis_kwargs: dict[str, Any] | None = None,
        session_settings: SessionSettings | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> RedisSession:
        """A session with connections of its own, one set for each event loop that it is used in. `close` it.

        Args:
            session_id: names the conversation.
            url: as "redis://localhost:6379/0".
            redis_kwargs: further arguments of `redis.asyncio.Redis.from_url`.
            session_settings: how it is read, where a call or a run does not say.
            **kwargs: further arguments of `RedisSession`.

        Raises:
            UserError: the URL is none.
        """
        options: dict[str, Any] = {"socket_timeout": 30.0, **_NAMELESS, **(redis_kwargs or {})}

        def make() -> Redis:
            return cast("Any", Redis).from_url(url, **options)

        try:
            first = make()
        except ValueError as error:
            raise UserError(f"RedisSession.from_url(url=...): {error}") from error  # it may have a password
        session = cls(session_id, redis_client=first, session_settings=session_settings, **kwargs)
        session._make = make
        session._owned = weakref.WeakKeyDictionary()
        return session

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items in order; with a limit the latest so many. What is no item is left out, and logged."""
        most = limit_of(limit, self.session_settings)
        if most == 0:
            return []
        window = most
        while True:
            found = await self._call(self._range(window))
            read = [rows.read(row) for row in found]
            items = [item for item in read if item is not None]
            if window is None or most is None or len(items) >= most or len(found) < window:
                break
            window *= 2  # a limit counts items, and some of these were none
        rows.log_unreadable(self.session_id, len(read) - len(items), "Redis")
        return items if most is None else items[-most:]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add `items`: all of them, or none, and side by side.

        Raises:
            InputItemError: one is no dict, or not to be written as JSON.
        """
        texts = rows.written(items)
        if not texts:
            return
        ttl = "" if self._ttl is None else str(self._ttl)
        keys = (self._key, self._messages, self._once())
        await self._change(_ADD, keys, (self.session_id, ttl, str(REMEMBERED), *texts))

    async def pop_item(self) -> TResponseInputItem | None:
        """Take the latest item out; None where there is none. No two callers get the same one."""
        unreadable = 0
        while True:
            row = await self._change(_POP, (self._messages, self._once()), (str(REMEMBERED),))
            item = None if row is None else rows.read(row)
            if row is None or item is not None:
                break
            unreadable += 1
        rows.log_unreadable(self.session_id, unreadable, "Redis")
        return item

    async def clear_session(self) -> None:
        """Forget the conversation."""
        await self._change(_CLEAR, (self._key, self._messages), ())

    async def close(self) -> None:
        """Close the connections that this session has made in this event loop. Safe to call twice.

        A session with a client of the caller's has none, and can be used on.
        """
        if self._owned is None:
            return
        self._closed = True
        client = self._owned.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    async def ping(self) -> bool:
        """Whether the server answers.

        Raises:
            SessionClosedError: the session was closed.
        """
        client: Any = self._client()
        try:
            return bool(await client.ping())
        except (RedisError, OSError):
            return False

    # --- on its way there --------------------------------------------------------------------

    def _client(self) -> Redis:
        if self._closed:
            raise SessionClosedError(
                f"The session {self.session_id!r} was closed: make another RedisSession of that id."
            )
        if self._owned is None:
            return self._make()
        # Connections belong to the event loop in which they were made.
        loop = asyncio.get_running_loop()
        client = self._owned.get(loop)
        if client is None:
            client = self._owned[loop] = self._make()
        return client

    async def _range(self, count: int | None) -> list[bytes]:
        client: Any = self._client()
        return await client.lrange(self._messages, 0 if count is None else -count, -1)

    def _once(self) -> str:
        """The key under which the server knows a change again."""
        return f"{self._key}:once:{secrets.token_hex(8)}"

    async def _change(self, script: str, keys: tuple[str, ...], arguments: tuple[str, ...]) -> Any:
        """Run `script`, which the server does as one. Who is cancelled meanwhile is so when it is done."""
        client: Any = self._client()
        call = self._call(client.eval(script, len(keys), *keys, *arguments))
        return await outcome(asyncio.ensure_future(call))

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except (RedisError, OSError) as error:
            raise SessionError(
                f"The session {self.session_id!r} in Redis: {type(error).__name__}: {error}",
                session_id=self.session_id,
            ) from error
