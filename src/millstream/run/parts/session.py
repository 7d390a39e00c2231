"""The session of a run: what it is given of the conversation, and what it leaves there.

Rules of this file:

1. What is stored can be gone on with at every moment: the input when the run begins, the items
   of a turn at its end, together, when every call in it has its answer. What ends a run in the
   middle of a turn has made that turn whole before it is stored.
2. What is stored, is so once. An append is not interrupted but waited for; where one failed or
   was cut off by others, the session is asked what of it is there before it is made again.
3. A run that pauses keeps its open turn to itself. It is stored when the run has gone on.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from millstream.context import settle
from millstream.errors import (
    AgentsException,
    InputGuardrailTripwireTriggered,
    OutputGuardrailTripwireTriggered,
    StaleOwnerError,
    UserError,
)
from millstream.items import ItemHelpers, MessageOutputItem, as_input_item
from millstream.log.conversation import ConversationSession
from millstream.run.input import check_input
from millstream.run.parts.history import whole
from millstream.run.seams import Seams

if TYPE_CHECKING:
    from millstream.config import RunConfig
    from millstream.context import RunContextWrapper
    from millstream.items import RunItem, TResponseInputItem
    from millstream.run.active import ActiveRun
    from millstream.sessions import Session, SessionInputCallback


_TRIPWIRES = (InputGuardrailTripwireTriggered, OutputGuardrailTripwireTriggered)
"""What a run fails with whose answer nobody is to see."""


def check_session(session: Any, *, server_keeps_history: bool) -> None:
    """See that a run can use `session`, where there is one.

    Args:
        session: what the caller gave.
        server_keeps_history: whether the model's server is to keep the conversation of this run.

    Raises:
        UserError: it is no session, or there would be two histories.
    """
    if session is None:
        return
    if isinstance(session, type):
        raise UserError(f"session is a Session, not a class: make one, {session.__name__}(...).")
    for name in ("get_items", "add_items"):
        if not callable(getattr(session, name, None)):
            raise UserError(
                f"session is a Session or None, not {type(session).__name__}, which has no {name}()."
            )
    if server_keeps_history:
        raise UserError(
            "A session cannot be combined with conversation_id, previous_response_id or "
            "auto_previous_response_id: the conversation would be kept twice, and given to the model twice. "
            "Leave out the session, or those."
        )


class SessionPart(Seams):
    """Reads the history of a run from a session, and stores there what is new.

    How much is stored stands in `RunProgress.stored_items`, and so in every state of the run.

    Args:
        session: where the conversation is kept.
        config: the run's.
    """

    def __init__(self, session: Session, config: RunConfig) -> None:
        self._config = config
        self._store = _Store(session)
        self._begins_with: tuple[list[TResponseInputItem], list[TResponseInputItem]] | None = None
        """The input, and it with the history before it, until that input is stored."""

    async def run_input(self, run: ActiveRun) -> None:
        """Put the history before the input, and store the input."""
        progress, combine = run.progress, self._config.session_input_callback
        self._store.serve(run)
        if progress.stored_items is not None:
            return  # of a run whose process died before its first answer: the session has the input already
        new = ItemHelpers.input_to_new_input_list(progress.input)
        limit = _limit(self._store.session, self._config)
        if run.root.attempt is None:
            history = await self._store.read(limit)
        else:
            self._store.is_unsure()
            history = await self._store.read_before(new, limit)
        if combine is None:
            items, places = [*history, *new], range(len(history), len(history) + len(new))
        else:
            items, places = await _combined(combine, history, new)
        self._begins_with = [items[place] for place in places], whole(items, keep=places)
        await self._keep(run, [])

    async def run_resumed(self, run: ActiveRun) -> None:
        """Go on storing where the run that was left has stopped."""
        progress = run.progress
        self._store.serve(run)
        if run.root.attempt is not None:
            self._store.is_unsure()
        if progress.stored_items is None and progress.current_turn == 0:
            await self.run_input(run)
        elif progress.stored_items is None:  # it had no session so far
            given = ItemHelpers.input_to_new_input_list(progress.input)
            self._begins_with = given, given
            await self._keep(run, [])

    async def turn_end(self, run: ActiveRun) -> None:
        """Store the turn."""
        await self._keep(run, run.progress.new_items)

    async def run_end(self, run: ActiveRun, error: BaseException | None) -> None:
        """Store what the last turn has left, and what could not be stored before."""
        if isinstance(error, StaleOwnerError):
            return  # whoever owns the run stores what comes of it
        progress = run.progress
        was_read = progress.stored_items is not None or self._begins_with is not None
        pauses = error is None and bool(progress.interruptions)
        if not was_read or pauses:
            return
        withheld = run.writer.holds or isinstance(error, _TRIPWIRES)
        try:
            await self._keep(run, progress.new_items, withheld=withheld)
        except Exception:
            if error is None or error is not self._store.failure:
                raise
            # The run fails with what the session has said already: this was one more try.

    async def _keep(self, run: ActiveRun, new_items: list[RunItem], *, withheld: bool = False) -> None:
        """Store the input, where it is not yet, and those of `new_items` that are not.

        Args:
            run: the run.
            new_items: its items so far.
            withheld: nobody was to see what the model has said in the last turn, and it is not
                what the next run is told: its messages are left out, and whatever else is held.
        """
        progress = run.progress
        items = new_items[progress.stored_items or 0 :]
        if withheld:
            held = set(map(id, run.writer.held_items()))
            items = [
                item for item in items if not isinstance(item, MessageOutputItem) and id(item) not in held
            ]
        given, combined = self._begins_with or ([], None)
        count = len(new_items)
        await self._store.add([*given, *whole(progress.as_input(items))])
        progress.stored_items = count
        if combined is not None:
            progress.input, self._begins_with = combined, None


class _Store:
    """A session as a run uses it: what is appended to it is there once, however often that was interrupted."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.context: RunContextWrapper[Any] | None = None
        self._takes_context = _takes_context(session)
        self._adding: tuple[asyncio.Task[None], int] | None = None
        """An append that nobody waits for any more, and of how many items."""
        self._unsure = False
        """Whether an append has failed, so that some of it may be there."""
        self.failure: BaseException | None = None
        """What the session raised first instead of taking something."""

    def serve(self, run: ActiveRun) -> None:
        """Be used by `run`, which is held by now, where others could have it."""
        self.context = run.progress.context_wrapper
        if isinstance(self.session, ConversationSession):
            self.session.epoch = run.trunk.epoch

    async def read(self, limit: int | None) -> list[TResponseInputItem]:
        """The items of the session, the latest so many.

        Raises:
            UserError: it gave something else.
        """
        limits = {} if limit is None else {"limit": limit}
        items: Any = await self._call(self.session.get_items, **limits)
        if not isinstance(items, list):
            raise UserError(
                f"{type(self.session).__name__}.get_items() gave {type(items).__name__}: it is to return a list."
            )
        try:
            return [as_input_item(item) for item in cast("list[Any]", items)]
        except AgentsException as error:
            raise UserError(
                f"{type(self.session).__name__}.get_items() gave something that is no input item: {error}"
            ) from error

    async def read_before(
        self, new: Sequence[TResponseInputItem], limit: int | None
    ) -> list[TResponseInputItem]:
        """As `read`, without what is there of `new` already: the process may have died when it had stored that."""
        items = await self.read(None if limit is None else limit + len(new))
        items = items[: len(items) - _overlap(items, new)]
        return items if limit is None else items[max(0, len(items) - limit) :]

    def is_unsure(self) -> None:
        """Look, before the next append, what of it is there: whoever has stored it may not have told so."""
        self._unsure = True

    async def add(self, items: Sequence[TResponseInputItem]) -> None:
        """Append `items`. After an append that did not end well: the same ones, and what has come since.

        To cancel this does not interrupt the append, of which the next call takes account.
        """
        if self._adding is not None:
            task, count = self._adding
            await asyncio.wait([task])
            self._adding = None
            if not task.cancelled() and _failure(task) is None:
                self._unsure = False
                items = items[count:]
        if self._unsure and items:
            items = items[await self._present(items) :]
        if items:
            self._unsure = True
            task = asyncio.create_task(self._call(self.session.add_items, copy.deepcopy(list(items))))
            task.add_done_callback(_failure)  # looked at, whoever waits for it
            self._adding = (task, len(items))
            await asyncio.wait([task])
            self._adding = None
            self.failure = self.failure or _failure(task)
            task.result()
        self._unsure = False

    async def _present(self, items: Sequence[TResponseInputItem]) -> int:
        """How many of `items` the session ends with, the first ones."""
        return _overlap(await self.read(len(items)), items)

    async def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._takes_context:
            kwargs["wrapper"] = self.context
        return await settle(method(*args, **kwargs))


def _takes_context(session: Any) -> bool:
    """Whether each method of the session takes the run's context as `wrapper`, as the SDK's may."""
    methods = [
        getattr(session, name, None) for name in ("get_items", "add_items", "pop_item", "clear_session")
    ]
    try:
        return all(
            any(
                each.name == "wrapper" and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
                for each in inspect.signature(cast("Any", method)).parameters.values()
            )
            for method in methods
        )
    except (TypeError, ValueError):  # something that is called in ways of its own
        return False


def _failure(task: asyncio.Task[Any]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


def _limit(session: Any, config: RunConfig) -> int | None:
    """How many items a run is given: as the run says, else as the session does."""
    for settings in (config.session_settings, getattr(session, "session_settings", None)):
        limit = getattr(settings, "limit", None)  # of whatever class: a session may be anybody's
        if limit is not None:
            return limit
    return None


async def _combined(
    combine: SessionInputCallback, history: list[TResponseInputItem], new: list[TResponseInputItem]
) -> tuple[list[TResponseInputItem], list[int]]:
    """What a `session_input_callback` makes of the two; and the places of what is not history.

    History is an item that it was given as that, changed or not, and one that is equal to one that
    it leaves out.

    Raises:
        UserError: it gave no list, or something in it is no input item.
    """
    given = copy.deepcopy(history)
    was = {id(item): _key(original) for item, original in zip(given, history, strict=True)}
    is_new = {id(item) for item in new}
    returned: Any = await settle(combine(list(given), list(new)))
    if not isinstance(returned, list):
        raise UserError(
            f"RunConfig.session_input_callback returned {type(returned).__name__}: it is to return a list of input items."
        )
    told = cast("list[Any]", returned)
    left = Counter(was.values())
    left.subtract(was[id(item)] for item in told if id(item) in was)
    places: list[int] = []
    items = cast("list[TResponseInputItem]", check_input(told))
    for place, (item, checked) in enumerate(zip(told, items, strict=True)):
        if id(item) in was:
            continue
        if id(item) not in is_new and left[_key(checked)] > 0:
            left[_key(checked)] -= 1
            continue
        places.append(place)
    return items, places


def _overlap(stored: Sequence[Any], new: Sequence[Any]) -> int:
    """How many of `new`, the first ones, `stored` ends with."""
    has, wanted = [_key(item) for item in stored], [_key(item) for item in new]
    counts = range(min(len(has), len(wanted)), 0, -1)
    return next((count for count in counts if has[-count:] == wanted[:count]), 0)


def _key(item: Any) -> str:
    """The same for items of the same content."""
    return json.dumps(item, sort_keys=True, default=repr)
