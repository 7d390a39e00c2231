"""The door to a server: start a run there, find one, list them."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from millstream.client.answers import Request
from millstream.client.run import RemoteRun, record_from
from millstream.client.server import Server
from millstream.client.tries import TRIES
from millstream.clock import current_clock
from millstream.errors import ServerError, UnknownConversationError, UserError
from millstream.log.conversation import check_conversation_id
from millstream.log.store import ConversationRecord

if TYPE_CHECKING:
    from types import TracebackType

    import httpx2

    from millstream.clock import Clock
    from millstream.items import TResponseInputItem
    from millstream.log.store import RunRecord, RunStatus

IDLE_SECONDS = 45.0
"""How long a stream may be silent. A server says every 15 seconds that it is there."""
_PAGE = 100
"""Runs that a server lists at once."""


class Client:
    """A client of a Millstream server.

    ```python
    async with Client("http://127.0.0.1:7420") as client:
        run = await client.start("Where should we go?")
        async for piece in run.text():
            print(piece, end="")
    ```

    It belongs to the event loop in which it is first used.

    Args:
        url: where the server is: `http://host:port` or `https://host`, and the path that it is mounted at.
        token: lets one in: sent as `Authorization: Bearer …`.
        headers: sent with every request.
        http_client: sends the requests, and is not closed with this one; for a proxy, certificates or
            transports of your own.
        tries: how many requests in a row may bring nothing before a `ServerUnreachableError` is raised.
        idle_timeout: seconds after which a stream that is silent counts as dead, and is opened anew:
            more than the server's heartbeat.
        clock: by which it waits.

    Raises:
        UserError: an argument that cannot work.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        http_client: httpx2.AsyncClient | None = None,
        tries: int = TRIES,
        idle_timeout: float = IDLE_SECONDS,
        clock: Clock | None = None,
    ) -> None:
        if tries < 1:
            raise UserError(f"Client(tries={tries}): a number of tries from 1.")
        if not 0 < idle_timeout < float("inf"):
            raise UserError(f"Client(idle_timeout={idle_timeout}): a number of seconds above 0.")
        self._server = Server(
            url,
            token=token,
            headers=headers,
            http_client=http_client,
            clock=clock or current_clock(),
            tries=tries,
            idle_timeout=idle_timeout,
        )

    async def start(
        self,
        input: str | list[TResponseInputItem],
        *,
        agent: str | None = None,
        context: Mapping[str, Any] | None = None,
        max_turns: int | None = 10,
        idempotency_key: str | None = None,
        conversation: str | None = None,
    ) -> RemoteRun:
        """Begin a run; its handle, when the server keeps it.

        Where an answer is lost the server is asked again, and begins one run only: each call has a key.

        Args:
            input: a message of the user, or a list of input items.
            agent: the name of the agent; may be left out where the server has only one.
            context: the run's context: JSON values.
            max_turns: how often the model may be asked; None for no limit.
            idempotency_key: names the run for the caller: another start with the same key and the
                same request gives the same run.
            conversation: the id of the conversation that it goes on with, or begins, one of the caller's.

        Raises:
            UserError: the server has no such agent, or an argument is none that it takes.
            InputItemError: it is no input that models take.
            IdempotencyError: the key was used for another request.
            ConversationBusyError: the last run of the conversation has not ended.
            ServerError: the server does not do it.
        """
        body: dict[str, Any] = {"input": input, "max_turns": max_turns}
        if agent is not None:
            body["agent"] = agent
        if context is not None:
            body["context"] = dict(context)
        if conversation is not None:
            body["conversation"] = check_conversation_id(conversation, "start(conversation=...)")
        key = secrets.token_hex(16) if idempotency_key is None else idempotency_key
        if not (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
            raise UserError("start(idempotency_key=...): a key is 1 to 255 printable ASCII characters.")
        asked = Request(method="POST", path="/runs", body=body, key=key, conversation=conversation or "")
        answer = await self._server.ask(asked)
        return self.run(record_from(answer).run_id)

    def run(self, run_id: str) -> RemoteRun:
        """The handle of a run of the server. Asks nothing: whether there is such a run shows when it is used.

        Raises:
            UserError: that is not the id of any run.
        """
        return RemoteRun(self._server, run_id)

    async def record(self, run_id: str) -> RunRecord:
        """What the server tells of a run; as `RemoteRun.record`."""
        return await self.run(run_id).record()

    async def runs(
        self,
        *,
        statuses: Collection[RunStatus] = (),
        conversation: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunRecord]:
        """The caller's runs, the newest first.

        Args:
            statuses: those with one of these statuses only; none means any.
            conversation: those of that conversation only.
            limit: how many at most.
            before: only those that are older than the run of that id.

        Raises:
            UnknownRunError: there is no run `before`.
        """
        found: list[RunRecord] = []
        while len(found) < limit:
            query: dict[str, Any] = {"limit": min(limit - len(found), _PAGE), "status": list(statuses)}
            if conversation is not None:
                query["conversation"] = conversation
            if before is not None:
                query["before"] = before
            asked = Request(method="GET", path="/runs", query=query, run_id=before or "")
            records = [record_from(each) for each in _list_in(await self._server.ask(asked), "runs")]
            found += records
            if len(records) < query["limit"]:
                break
            before = records[-1].run_id
        return found

    # --- conversations -----------------------------------------------------------------------

    async def conversations(self, *, limit: int = 100, before: str | None = None) -> list[ConversationRecord]:
        """The caller's conversations, that of the newest run first.

        Args:
            limit: how many at most.
            before: only those behind the one of that id: the last of the page before.

        Raises:
            UnknownConversationError: there is no conversation `before`.
        """
        found: list[ConversationRecord] = []
        while len(found) < limit:
            query: dict[str, Any] = {"limit": min(limit - len(found), _PAGE)}
            if before is not None:
                query["before"] = before
            asked = Request(method="GET", path="/conversations", query=query, conversation=before or "")
            page = _list_in(await self._server.ask(asked), "conversations")
            found += map(_conversation_from, page)
            if len(page) < query["limit"]:
                break
            before = found[-1].id
        return found

    async def conversation(self, conversation: str) -> ConversationRecord:
        """What the server tells of a conversation.

        Raises:
            UnknownConversationError: there is none of that id, or it is somebody else's.
        """
        return _conversation_from(await self._of(conversation, "GET", limit=0))

    async def items(self, conversation: str, *, limit: int = 100) -> list[TResponseInputItem]:
        """What was said in a conversation, and is what its next run is given, the oldest first.

        Args:
            conversation: its id.
            limit: how many at most, the latest; a server gives 1,000 at most.

        Raises:
            UnknownConversationError: there is none of that id, or it is somebody else's.
            UserError: `limit` is none that a server takes.
        """
        return _list_in(await self._of(conversation, "GET", limit=limit), "items")

    async def forget(self, conversation: str) -> None:
        """Forget a conversation, with all that was said in it and its runs. One that is not there is no error.

        Raises:
            ConversationBusyError: its last run has not ended.
        """
        with contextlib.suppress(UnknownConversationError):
            await self._of(conversation, "DELETE")

    async def _of(self, conversation: str, method: str, **query: Any) -> dict[str, Any]:
        """What the server answers about a conversation.

        Raises:
            UserError: that names none.
        """
        name = check_conversation_id(conversation, "conversation")
        path = f"/conversations/{quote(name, safe='')}"
        return await self._server.ask(Request(method=method, path=path, query=query, conversation=name))

    async def aclose(self) -> None:
        """Close the connections. Runs go on; whoever reads one by this client is told, as a UserError. Safe to call twice."""
        await self._server.aclose()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"Client({self._server.name!r})"


def _conversation_from(plain: dict[str, Any]) -> ConversationRecord:
    try:
        return ConversationRecord(
            id=plain["conversation"],
            caller="",
            created=plain["created"],
            updated=plain["updated"],
            run=None if plain["run"] is None else record_from(plain["run"]),
        )
    except (KeyError, TypeError):
        raise ServerError("The server's answer is no conversation. Is it a Millstream server?") from None


def _list_in(answer: dict[str, Any], name: str) -> list[Any]:
    """The list that an answer has under that name.

    Raises:
        ServerError: it has none.
    """
    told = answer.get(name)
    if not isinstance(told, list):
        raise ServerError(f"The server's answer is no list of {name}. Is it a Millstream server?")
    return cast("list[Any]", told)
