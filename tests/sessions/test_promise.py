"""What sessions share: settings, limits, and what makes an object one."""

from typing import Any

import pytest

from millstream import Session, SessionABC, SessionSettings, SQLiteSession, UserError
from millstream.sessions.promise import SessionInputCallback


def test_what_has_the_methods_is_a_session() -> None:
    class Mine:
        session_id = "mine"
        session_settings = None

        async def get_items(self, limit: int | None = None) -> list[Any]:
            return []

        async def add_items(self, items: list[Any]) -> None: ...

        async def pop_item(self) -> Any: ...

        async def clear_session(self) -> None: ...

    assert isinstance(Mine(), Session)
    assert isinstance(SQLiteSession("one"), Session)
    assert isinstance(SQLiteSession("one"), SessionABC)
    assert not isinstance("one", Session)
    assert SessionInputCallback is not None


def test_settings_that_are_set_go_over_others() -> None:
    settings = SessionSettings(limit=5)

    assert settings.resolve(None) is settings
    assert settings.resolve(SessionSettings()) == SessionSettings(limit=5)
    assert settings.resolve(SessionSettings(limit=2)) == SessionSettings(limit=2)
    assert settings.resolve({"limit": 3}) == SessionSettings(limit=3)
    assert settings.to_dict() == {"limit": 5}


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: SessionSettings(limit="3"), "SessionSettings.limit is a number of items"),  # type: ignore[arg-type]
        (lambda: SessionSettings(limit=True), "limit"),
        (lambda: SessionSettings().resolve(5), "not int"),  # type: ignore[arg-type]
        (lambda: SessionSettings().resolve({"limits": 3}), "has no 'limits'. It has: limit"),
        (lambda: SQLiteSession("one", session_settings={"limits": 3}), "session_settings: .* 'limits'"),
        (lambda: SQLiteSession("one", session_settings=5), "session_settings takes"),  # type: ignore[arg-type]
        (lambda: SQLiteSession(""), "named by a text"),
        (lambda: SQLiteSession(5), "named by a text"),  # type: ignore[arg-type]
    ],
)
def test_settings_and_ids_that_are_none_are_refused_where_they_are_given(made: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        made()


async def test_a_session_is_read_as_its_settings_say_unless_a_call_does() -> None:
    session = SQLiteSession("one", session_settings={"limit": 2})
    items: list[Any] = [{"role": "user", "content": str(n)} for n in range(4)]
    await session.add_items(items)

    assert await session.get_items() == items[-2:]
    assert await session.get_items(limit=3) == items[-3:]
    assert await session.get_items(-1) == []
    with pytest.raises(UserError, match=r"get_items\(limit"):
        await session.get_items(limit="2")  # type: ignore[arg-type]
