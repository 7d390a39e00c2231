"""Conversations: list them, read one, forget one. A run begins one, or goes on with it (`commands.Start`)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Self

import msgspec

from millstream.context import settle
from millstream.errors import UnknownConversationError
from millstream.log.conversation import CONVERSATION_ID, ConversationSession
from millstream.server.answers import answer
from millstream.server.routes.runs import RunShown

if TYPE_CHECKING:
    from starlette.responses import Response

    from millstream.log.store import ConversationRecord
    from millstream.server.endpoint import Asked

LISTED = 100
"""Conversations that one listing has at most."""
RUNS = 20
"""Runs that stand with a conversation. `GET /runs?conversation=` lists them all."""


class ConversationListing(msgspec.Struct):
    """Which conversations are listed."""

    limit: Annotated[int, msgspec.Meta(ge=0, le=LISTED)] = 20
    """How many at most."""
    before: str | None = None
    """Those behind this one: the last of the page before."""


class ConversationShowing(msgspec.Struct):
    """What of a conversation is shown."""

    limit: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 100
    """How many of its items at most, the latest."""


class ConversationShown(msgspec.Struct, kw_only=True):
    """A conversation, as clients see it."""

    conversation: str
    """Its id."""
    created: float
    """When its first run was created, in seconds since the epoch."""
    updated: float
    """When its last run was created."""
    run: RunShown | None
    """Its last run; none where that is no longer kept."""

    @classmethod
    def of(cls, record: ConversationRecord, **more: Any) -> Self:
        """What of `record` is shown, and `more`."""
        return cls(
            conversation=record.id,
            created=record.created,
            updated=record.updated,
            run=None if record.run is None else RunShown.of(record.run),
            **more,
        )


class ConversationStanding(ConversationShown, kw_only=True):
    """A conversation, with what was said in it."""

    items: list[dict[str, Any]]
    """What its next run is given, the oldest first: messages, calls of tools, and their outputs."""
    is_whole: bool
    """Whether these are all its items; else they are the latest."""
    runs: list[RunShown]
    """Its latest runs that are kept, the newest first."""


class Conversations(msgspec.Struct):
    """Conversations of the caller."""

    conversations: list[ConversationShown]
    """That of the newest run first."""


class Forgotten(msgspec.Struct):
    """A conversation that is forgotten, with its items and its runs."""

    forgotten: str
    """Its id."""


async def listing(asked: Asked[None, ConversationListing]) -> Response:
    """The caller's conversations, that of the newest run first."""
    query = asked.query
    found = await asked.service.store.conversations(asked.caller, limit=query.limit, before=query.before)
    return answer(Conversations([ConversationShown.of(each) for each in found]))


async def show(asked: Asked[None, ConversationShowing]) -> Response:
    """A conversation: what its next run is given, and its latest runs."""
    conversation, service = await _named(asked), asked.service
    session = await service.supervisor.session_of(conversation)
    limit = asked.query.limit
    items: list[Any] = [] if session is None else await settle(session.get_items(limit=limit + 1))
    runs = await service.store.runs(caller=asked.caller, conversation=conversation.id, limit=RUNS)
    shown = ConversationStanding.of(
        conversation,
        items=items[max(len(items) - limit, 0) :],
        is_whole=len(items) <= limit,
        runs=[RunShown.of(run) for run in runs],
    )
    return answer(shown)


async def forget(asked: Asked) -> Response:
    """Forget a conversation of which no run is going, with its items and its runs."""
    conversation, service = await _named(asked), asked.service
    session = await service.supervisor.session_of(conversation)
    await service.store.forget(conversation.caller, conversation.id)
    if session is not None and not isinstance(session, ConversationSession):  # the program's own
        await settle(session.clear_session())
    return answer(Forgotten(conversation.id))


async def _named(asked: Asked[Any, Any, Any]) -> ConversationRecord:
    """The conversation that the path names, one of the caller's."""
    named: str = asked.request.path_params["conversation"]
    if not re.fullmatch(CONVERSATION_ID, named):
        raise UnknownConversationError(named)
    return await asked.service.store.conversation(asked.caller, named)
