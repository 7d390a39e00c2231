"""`check_session`: a session that keeps the contract passes, and each clause finds the one that breaks it."""

import asyncio
import copy
import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from millstream.testing import check_session, sessions


class Kept:
    """A session in a list, as a stranger may write one. Its subclasses below each break one clause."""

    session_settings: Any = None

    def __init__(self, session_id: str, store: dict[str, list[Any]] | None = None) -> None:
        self.session_id = session_id
        self.store = defaultdict(list) if store is None else store

    @property
    def items(self) -> list[Any]:
        return self.store[self.session_id]

    async def get_items(self, limit: int | None = None) -> list[Any]:
        items = self.items if limit is None else self.items[len(self.items) - min(limit, len(self.items)) :]
        return copy.deepcopy(items)

    async def add_items(self, items: list[Any]) -> None:
        json.dumps(items)
        self.items.extend(copy.deepcopy(items))

    async def pop_item(self) -> Any:
        return self.items.pop() if self.items else None

    async def clear_session(self) -> None:
        self.items.clear()


class ItIsASession(Kept):
    pop_item: Any = None


class ANewSessionIsEmpty(Kept):
    async def get_items(self, limit: int | None = None) -> list[Any]:
        return [{"role": "system", "content": "Be kind."}, *await super().get_items(limit)]


class ItemsComeBackAsTheyWere(Kept):
    async def add_items(self, items: list[Any]) -> None:
        await super().add_items([item for item in items if item.get("type") != "reasoning"])


class AddingNothingChangesNothing(Kept):
    async def add_items(self, items: list[Any]) -> None:
        if not items:
            raise ValueError("no items")
        await super().add_items(items)


class ALimitGivesTheLatest(Kept):
    async def get_items(self, limit: int | None = None) -> list[Any]:
        return copy.deepcopy(self.items[:limit])


class ALimitOfNothing(Kept):
    async def get_items(self, limit: int | None = None) -> list[Any]:
        return copy.deepcopy(self.items if limit is None else self.items[-limit:])


class PoppingTakesTheLatest(Kept):
    async def pop_item(self) -> Any:
        return self.items.pop(0) if self.items else None


class ASessionThatWasClearedIsEmpty(Kept):
    async def clear_session(self) -> None:
        del self.items[1:]


class WhatItGivesAndTakesIsCopied(Kept):
    async def get_items(self, limit: int | None = None) -> list[Any]:
        return [] if limit == 0 else self.items[-(limit or 0) :]


class SessionsDoNotMix(Kept):
    @property
    def items(self) -> list[Any]:
        return self.store[self.session_id.partition("_")[2]]


class WhatIsRefusedLeavesNothingBehind(Kept):
    async def add_items(self, items: list[Any]) -> None:
        for item in items:
            await super().add_items([item])


class WhatIsAddedAtOnceStandsSideBySide(Kept):
    async def add_items(self, items: list[Any]) -> None:
        json.dumps(items)
        for item in copy.deepcopy(items):
            self.items.append(item)
            if str(item.get("content"))[1:] in ("a", "b"):
                await asyncio.sleep(0)


class NobodyPopsWhatAnotherHas(Kept):
    async def pop_item(self) -> Any:
        last = self.items[-1:]
        await asyncio.sleep(0)
        if last:
            self.items.remove(last[0]) if last[0] in self.items else None
        return last[0] if last else None


class AnAddThatIsCancelledIsWhole(Kept):
    async def add_items(self, items: list[Any]) -> None:
        json.dumps(items)
        storing = asyncio.ensure_future(self.store_later(items))
        await asyncio.shield(storing)

    async def store_later(self, items: list[Any]) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        self.items.extend(copy.deepcopy(items))


async def test_a_session_that_keeps_the_contract_passes() -> None:
    store: dict[str, list[Any]] = defaultdict(list)

    await check_session(Kept)
    await check_session(lambda session_id: Kept(session_id, store), shared=True)


BROKEN: list[tuple[type[Kept], Callable[..., Any]]] = [
    (ItIsASession, sessions.it_is_a_session),
    (ANewSessionIsEmpty, sessions.a_new_session_is_empty),
    (ItemsComeBackAsTheyWere, sessions.items_come_back_as_they_were),
    (AddingNothingChangesNothing, sessions.adding_nothing_changes_nothing),
    (ALimitGivesTheLatest, sessions.a_limit_gives_the_latest),
    (ALimitOfNothing, sessions.a_limit_gives_the_latest),
    (PoppingTakesTheLatest, sessions.popping_takes_the_latest),
    (ASessionThatWasClearedIsEmpty, sessions.a_session_that_was_cleared_is_empty),
    (WhatItGivesAndTakesIsCopied, sessions.what_it_gives_and_takes_is_copied),
    (SessionsDoNotMix, sessions.sessions_do_not_mix),
    (WhatIsRefusedLeavesNothingBehind, sessions.what_is_refused_leaves_nothing_behind),
    (WhatIsAddedAtOnceStandsSideBySide, sessions.what_is_added_at_once_stands_side_by_side),
    (NobodyPopsWhatAnotherHas, sessions.nobody_pops_what_another_has),
    (AnAddThatIsCancelledIsWhole, sessions.an_add_that_is_cancelled_is_whole),
]


@pytest.mark.parametrize(("broken", "clause"), BROKEN)
async def test_every_clause_is_broken_by_one_of_these_sessions(broken: Any, clause: Any) -> None:
    store: dict[str, list[Any]] = defaultdict(list)

    with pytest.raises(AssertionError, match=f"^{clause.__name__}: "):
        await check_session(lambda session_id: broken(session_id, store))


def test_no_clause_is_left_out() -> None:
    assert {clause for _, clause in BROKEN} == set(sessions.CLAUSES)


async def test_sessions_that_share_nothing_are_told_apart_from_those_that_do() -> None:
    with pytest.raises(AssertionError, match="two_of_one_id_are_one_conversation"):
        await check_session(Kept, shared=True)


async def test_a_session_that_never_answers_is_told_and_every_one_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "PATIENCE", 0.01)
    closed: list[str] = []

    class Hangs(Kept):
        async def get_items(self, limit: int | None = None) -> list[Any]:
            return await asyncio.get_running_loop().create_future()

        async def close(self) -> None:
            closed.append(self.session_id)

    async def make(session_id: str) -> Hangs:
        return Hangs(session_id)

    with pytest.raises(AssertionError, match=r"nothing happened for 0\.01 s"):
        await check_session(make)

    assert closed
