"""`check_session`: the contract that every session keeps, ours and a stranger's.

```python
async def test_my_session() -> None:
    await check_session(lambda session_id: MySession(session_id))
```
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeAlias, cast

from millstream.context import settle
from millstream.sessions import Session

MakeSession: TypeAlias = Callable[[str], "Session | Awaitable[Session]"]
"""Gives the session of an id."""

PATIENCE = 60.0
"""Seconds that one clause may take: no store of a test needs nearly that long."""


async def check_session(make_session: MakeSession, *, shared: bool = False) -> None:
    """Hold a session to its contract.

    Each clause makes sessions of ids that were never used, and closes them afterwards where they
    have a `close`.

    Args:
        make_session: gives the session of an id.
        shared: whether two sessions of one id, made one after the other, are one conversation.

    Raises:
        AssertionError: a clause is broken; the message names it.
    """
    for clause in (*CLAUSES, *(SHARED_CLAUSES if shared else ())):
        maker = _Maker(make_session)
        patience = asyncio.timeout(PATIENCE)
        try:
            async with patience:
                await clause(maker)
        except Exception as error:  # also what the session raises where it should not
            what = str(error) if isinstance(error, AssertionError) else repr(error)
            if patience.expired():
                what = f"(nothing happened for {PATIENCE:g} s)"
            raise AssertionError(f"{clause.__name__}: {(clause.__doc__ or '').strip()} {what}") from error
        finally:
            await maker.close()


class _Maker:
    """Makes the sessions of one clause."""

    def __init__(self, make_session: MakeSession) -> None:
        self._make = make_session
        self._made: list[Any] = []
        self._salt = secrets.token_hex(8)

    async def __call__(self, name: str = "one") -> Any:
        session = await settle(self._make(f"{name}_{self._salt}"))
        self._made.append(session)
        return session

    async def close(self) -> None:
        for session in self._made:
            close = getattr(session, "close", None)
            if callable(close):
                await settle(cast("Any", close()))


def say(*texts: str) -> list[Any]:
    """A message of the user for each text."""
    return [{"role": "user", "content": text} for text in texts]


async def a_new_session_is_empty(make: _Maker) -> None:
    """It has no items, nothing to pop, and can be cleared."""
    session = await make()
    await _holds(session, [])
    assert await session.pop_item() is None, "(pop_item)"
    await session.clear_session()


async def it_is_a_session(make: _Maker) -> None:
    """It has the methods of `Session`, and a text for its id."""
    session = await make()
    for name in ("get_items", "add_items", "pop_item", "clear_session"):
        assert callable(getattr(session, name, None)), f"(it has no {name}())"
    assert isinstance(session.session_id, str), "(session_id)"


async def items_come_back_as_they_were(make: _Maker) -> None:
    """Every item that JSON can say comes back with the same content, in the order in which it was added."""
    session = await make()
    items: list[Any] = [
        *say("", "caf\xe9 \u2028 \U0001f600", "a\r\n\x00b", "half of a pair: \ud83d", "x" * 100_000),
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a": "\\u0000"}'},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "t"}]},
        {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": None},
        {"role": "assistant", "content": [{"n": [1, 2.5, -3, True, None, {}]}]},
    ]
    await session.add_items(items[:3])
    await session.add_items(items[3:])
    await _holds(session, items)


async def adding_nothing_changes_nothing(make: _Maker) -> None:
    """`add_items([])` is no mistake."""
    session = await make()
    await session.add_items([])
    await _holds(session, [])
    await session.add_items(say("a"))
    await session.add_items([])
    await _holds(session, say("a"))


async def a_limit_gives_the_latest(make: _Maker) -> None:
    """With a limit, the last so many items come, oldest first; with 0 none; with more than there are, all."""
    session = await make()
    items = say(*"abcde")
    await session.add_items(items)
    for limit in range(1, 8):
        got = await session.get_items(limit=limit)
        assert got == items[-limit:], f"(limit={limit}: {got})"
    assert await session.get_items(limit=0) == [], "(limit=0)"


async def popping_takes_the_latest(make: _Maker) -> None:
    """`pop_item` gives the last item and takes it out, one by one, to the first."""
    session = await make()
    await session.add_items(say(*"abc"))
    assert [await session.pop_item() for _ in range(4)] == [*say(*"cba"), None]
    await session.add_items(say("d"))
    await _holds(session, say("d"))


async def a_session_that_was_cleared_is_empty(make: _Maker) -> None:
    """Nothing of it is left, and it can be used on."""
    session = await make()
    await session.add_items(say(*"abc"))
    await session.clear_session()
    await _holds(session, [])
    await session.add_items(say("d"))
    await _holds(session, say("d"))


async def what_it_gives_and_takes_is_copied(make: _Maker) -> None:
    """To change an item that was added, or that it gave, changes nothing in the session."""
    session = await make()
    given = [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]
    await session.add_items(given)
    given[0]["content"][0]["text"] = "changed"  # type: ignore[index]  # pyright: ignore[reportArgumentType]
    got = await session.get_items()
    assert got[0]["content"][0]["text"] == "a", "(what was added)"
    got[0]["content"][0]["text"] = "changed"
    got.clear()
    assert (await session.get_items())[0]["content"][0]["text"] == "a", "(what it gave)"


async def sessions_do_not_mix(make: _Maker) -> None:
    """Two ids are two conversations: also for `pop_item` and `clear_session`."""
    one, other = await make("one"), await make("other")
    await one.add_items(say("a"))
    await other.add_items(say("x", "y"))
    assert await one.pop_item() == say("a")[0]
    assert await one.pop_item() is None
    await one.clear_session()
    await _holds(other, say("x", "y"))


async def what_is_refused_leaves_nothing_behind(make: _Maker) -> None:
    """If `add_items` raises for one item, none of that call is there."""
    session = await make()
    await session.add_items(say("a"))
    try:
        await session.add_items([*say("b"), cast("Any", {"role": "user", "content": object()})])
    except Exception:
        await _holds(session, say("a"))


async def what_is_added_at_once_stands_side_by_side(make: _Maker) -> None:
    """Of calls at the same time, every item is there once, and those of one call are not torn apart."""
    session = await make()
    await _add_at_once([session] * 8)


async def nobody_pops_what_another_has(make: _Maker) -> None:
    """Of pops at the same time, each gives another item."""
    session = await make()
    await _pop_at_once([session] * 8)


async def an_add_that_is_cancelled_is_whole(make: _Maker) -> None:
    """Cancelled at any moment, a call has added all of its items or none, and when it has raised it adds no more."""
    for steps in range(12):
        session = await make(f"cancelled_{steps}")
        await session.add_items(say("before"))
        adding = asyncio.ensure_future(session.add_items(say(*"abc")))
        for _ in range(steps):
            await asyncio.sleep(0)
        adding.cancel()
        await asyncio.wait([adding])
        at_once = _texts(await session.get_items())
        await session.add_items(say("after"))
        later = _texts(await session.get_items())
        none, whole = ["before"], ["before", "a", "b", "c"]
        assert at_once in (none, whole), f"(after {steps} steps: {at_once})"
        assert later == [*at_once, "after"], f"(after {steps} steps: first {at_once}, then {later})"
        assert adding.cancelled() or at_once == whole, (
            f"(after {steps} steps: it returned, and added nothing)"
        )


async def two_of_one_id_are_one_conversation(make: _Maker) -> None:
    """What one adds the other has, and can take out."""
    one, other = await make(), await make()
    await one.add_items(say(*"ab"))
    await _holds(other, say(*"ab"))
    assert await other.pop_item() == say("b")[0]
    await _holds(one, say("a"))
    await other.clear_session()
    await _holds(one, [])


async def several_may_add_at_once(make: _Maker) -> None:
    """Also what several sessions of one id add at the same time is there once, and side by side."""
    await _add_at_once([await make() for _ in range(8)])


async def several_may_pop_at_once(make: _Maker) -> None:
    """Also what several sessions of one id pop at the same time is popped once."""
    await _pop_at_once([await make() for _ in range(8)])


Clause: TypeAlias = Callable[[_Maker], Coroutine[Any, Any, None]]

CLAUSES: tuple[Clause, ...] = (
    it_is_a_session,
    a_new_session_is_empty,
    items_come_back_as_they_were,
    adding_nothing_changes_nothing,
    a_limit_gives_the_latest,
    popping_takes_the_latest,
    a_session_that_was_cleared_is_empty,
    what_it_gives_and_takes_is_copied,
    sessions_do_not_mix,
    what_is_refused_leaves_nothing_behind,
    what_is_added_at_once_stands_side_by_side,
    nobody_pops_what_another_has,
    an_add_that_is_cancelled_is_whole,
)
"""The clauses of the contract, in the order in which they are checked."""

SHARED_CLAUSES: tuple[Clause, ...] = (
    two_of_one_id_are_one_conversation,
    several_may_add_at_once,
    several_may_pop_at_once,
)
"""Further ones, for a store that sessions share."""


async def _holds(session: Any, items: Sequence[Any]) -> None:
    got: Any = await session.get_items()
    assert isinstance(got, list), f"(it gave {type(got).__name__}, not a list)"
    got = cast("list[Any]", got)
    assert got == list(items), f"(it holds {_short(got)}, not {_short(items)})"


async def _add_at_once(sessions: Sequence[Any]) -> None:
    batches = [say(*(f"{writer}{letter}" for letter in "abc")) for writer in range(len(sessions))]
    await asyncio.gather(
        *(session.add_items(batch) for session, batch in zip(sessions, batches, strict=True))
    )
    got = await sessions[0].get_items()
    together = [got[place : place + 3] for place in range(0, len(got), 3)]
    assert sorted(map(_texts, together)) == sorted(map(_texts, batches)), f"({_texts(got)})"


async def _pop_at_once(sessions: Sequence[Any]) -> None:
    names = [str(n) for n in range(len(sessions) - 2)]
    await sessions[0].add_items(say(*names))
    popped = await asyncio.gather(*(session.pop_item() for session in sessions))
    assert sorted(_texts([item for item in popped if item is not None])) == names, f"({popped})"
    await _holds(sessions[0], [])


def _texts(items: Sequence[Any]) -> list[str]:
    return [item["content"] for item in items]


def _short(items: Sequence[Any]) -> str:
    told = json.dumps(list(items), default=repr)
    return told if len(told) <= 300 else f"{told[:300]}…"
