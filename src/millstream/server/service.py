"""What the routes of one server share: its store, its runs, who may use it, and its limits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from millstream.agent import Agent
from millstream.context import settle
from millstream.errors import UnknownAgentError, UserError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from millstream.clock import Clock
    from millstream.delivery.feed import Messages
    from millstream.log.store import RunRecord, RunStore
    from millstream.metrics import Transport
    from millstream.recovery import AgentOf
    from millstream.server.access import Access
    from millstream.server.places import Places
    from millstream.server.supervisor import Supervisor

Agents: TypeAlias = "Agent[Any] | Sequence[Agent[Any]] | Mapping[str, Agent[Any]] | Callable[[RunRecord], Agent[Any] | Awaitable[Agent[Any] | None] | None]"
"""The agents of a server: one, several, several under names of their own, or what makes one of a run's record."""


MAX_STREAMS = 2000
"""Streams that one caller may follow at a time, unless the program says otherwise."""
MAX_BODY = 1024 * 1024
"""Bytes that the body of a request may have, unless the program says otherwise."""


class Stream(Protocol):
    """What is sent to one client as long as it likes: it ends where the server stops."""

    async def aclose(self) -> None:
        """Come to the end. Safe to call twice."""
        ...


class AgentBook:
    """The agents that a server has, by name.

    Args:
        agents: as they were given.

    Raises:
        UserError: they are none, or two have one name.
    """

    def __init__(self, agents: Agents) -> None:
        self._make: Any = None
        self.by_name: dict[str, Agent[Any]] = {}
        if isinstance(agents, Agent):
            self.by_name = {agents.name: agents}
        elif isinstance(agents, Mapping):
            self.by_name = dict(cast("Mapping[str, Agent[Any]]", agents))
        elif callable(agents):
            self._make = agents
        else:
            for agent in agents:
                if self.by_name.setdefault(getattr(agent, "name", ""), agent) is not agent:
                    raise UserError(
                        f"Two agents of the server are called {agent.name!r}: pass a dict, by other names."
                    )
        for name, agent in self.by_name.items():
            if not isinstance(agent, Agent):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise UserError(
                    f"The agent {name!r} of the server is a {type(agent).__name__}, not an Agent."
                )
        if not self.by_name and self._make is None:
            raise UserError("A server needs an agent: create_app(agent, ...), or a list or dict of agents.")

    @property
    def only(self) -> str | None:
        """The name of the only agent, where there is one only."""
        return next(iter(self.by_name)) if len(self.by_name) == 1 else None

    def knows(self, name: str) -> bool:
        """Whether runs of that agent can be begun."""
        return self._make is not None or name in self.by_name

    @property
    def agent_of(self) -> AgentOf:
        """What makes the agent of a run's record."""
        return self._of

    async def _of(self, record: RunRecord) -> Agent[Any]:
        if self._make is not None:
            return await settle(self._make(record))
        try:
            return self.by_name[record.agent]
        except KeyError:
            raise UnknownAgentError(f"The server has no agent {record.agent!r}: was it renamed?") from None


@dataclass
class Service:
    """One server."""

    supervisor: Supervisor
    agents: AgentBook
    access: Access
    origins: frozenset[str]
    """Origins of pages that may change something here, besides the server's own."""
    clock: Clock
    heartbeat: float
    """Seconds of silence after which a stream says that it is alive."""
    send_timeout: float
    """Seconds that a client may take nothing of what it is sent."""
    drain: float
    """Seconds that runs have to end when the server stops."""
    max_body: int
    """Bytes that the body of a request may have."""
    places: Places
    """For the streams of each caller."""
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _has_started: bool = False
    _streams: set[Stream] = field(default_factory=set["Stream"])

    @property
    def store(self) -> RunStore:
        """Where the runs are."""
        return self.supervisor.store

    @property
    def only_agent(self) -> str | None:
        """The name of the only agent, where there is one only."""
        return self.agents.only

    def knows(self, agent: str) -> bool:
        """Whether runs of that agent can be begun."""
        return self.agents.knows(agent)

    async def start(self) -> None:
        """Start, if it has not. A server that is mounted into another hears of no start, and starts with its first request."""
        if self._has_started:
            return
        async with self._starting:
            if not self._has_started:  # by whoever was first
                await self.supervisor.start()
                self._has_started = True

    @property
    def is_stopping(self) -> bool:
        """Whether it begins nothing more, and ends its streams."""
        return self.supervisor.is_stopping

    @contextlib.contextmanager
    def streaming(self, feed: Messages, caller: str) -> Generator[None]:
        """A stretch in which `feed` is sent to `caller`, on a connection of its own.

        Raises:
            ProblemError: he has as many as he may.
        """
        with self.connected(feed, caller), self.reading(feed, "sse"):
            yield

    @contextlib.contextmanager
    def connected(self, stream: Stream, caller: str) -> Generator[None]:
        """A stretch in which a connection for streams is `caller`'s; `stream` is closed where the server stops.

        Raises:
            ProblemError: he has as many as he may.
        """
        with self.places.place(caller):
            self._streams.add(stream)
            try:
                yield
            finally:
                self._streams.discard(stream)

    @contextlib.contextmanager
    def reading(self, feed: Messages, transport: Transport) -> Generator[None]:
        """A stretch in which `feed` is sent."""
        with self.supervisor.observed.stream(feed, transport):
            yield

    async def leave_streams(self) -> None:
        """Begin nothing more, and end all streams: their clients are told to come back. The runs go on."""
        self.supervisor.refuse()
        for stream in self._streams.copy():
            await stream.aclose()

    async def stop(self) -> None:
        """Begin nothing more, end all streams, and end or hand back what runs."""
        await self.leave_streams()
        await self.supervisor.stop(self.drain)
