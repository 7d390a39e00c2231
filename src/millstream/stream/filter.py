"""A part of a log: the entries of some depths and some types. Positions keep their numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgspec

from millstream.errors import UserError
from millstream.events import EVENT_TYPES, RawResponsesStreamEvent

if TYPE_CHECKING:
    from millstream.events import Entry


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries a reader wants.

    Args:
        depth: how deep a run may be nested: 0 for the root alone; None for any depth.
        types: the types of events, and of the model's own ("response.…"); None for all.
    """

    depth: int | None = None
    types: Collection[str] | None = None

    @classmethod
    def of(cls, where: str, *, depth: Any = None, types: Any = None) -> EntryFilter:
        """The filter that a caller of `where` asks for.

        Raises:
            UserError: a depth that is none, or a type of no event, by name.
        """
        if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 0):
            raise UserError(
                f"{where}: depth={depth!r}: a number of levels: 0 for the root run alone, None for all runs."
            )
        return cls(depth, _checked_types(where, types))

    def takes(self, entry: Entry) -> bool:
        """Whether `entry` is one of those that are wanted."""
        if self.depth is not None and entry.depth > self.depth:
            return False
        return self.types is None or _is_one_of(self.types, entry)


EVERYTHING = EntryFilter()


class _Typed(msgspec.Struct):
    type: Any = None


_read_type = msgspec.json.Decoder(_Typed).decode


def _is_one_of(types: Collection[str], entry: Entry) -> bool:
    event = entry.event
    if event.type in types or not isinstance(event, RawResponsesStreamEvent):
        return event.type in types
    try:
        return _read_type(event.json).type in types
    except (msgspec.MsgspecError, TypeError):  # a model of the program's own may send what it likes
        return False


def _checked_types(where: str, types: Any) -> frozenset[str] | None:
    if types is None:
        return None
    if isinstance(types, str) or not isinstance(types, Iterable):
        raise UserError(f"{where}: types={types!r}: a list of names, as types=['tool.started'].")
    names = list(cast("Iterable[Any]", types))
    for name in names:
        if not isinstance(name, str) or not (
            name in EVENT_TYPES or name.startswith("response.") or name == "error"
        ):
            raise UserError(
                f"{where}: types has {name!r}, which is the type of no event. There are: "
                f"{', '.join(sorted(EVENT_TYPES))}; and those of the model's own events, 'response.…'."
            )
    return frozenset(names)
