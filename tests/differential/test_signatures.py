"""Every public name of the SDK is here, and can be used as there.

What the SDK's parameter lists, fields and methods have, ours have too: same name, kind, place
and default. Ours may have more, behind it or by keyword. `names.py` lists the names, those
that come with later features, and what is unlike on purpose.
"""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import pytest

from tests.differential.kit import OURS
from tests.differential.names import NAMES, UNLIKE
from tests.differential.peer import Peer
from tests.differential.surface import REQUIRED, UNSET, describe


@pytest.fixture(scope="module")
def problems(peer: Peer) -> dict[str, str]:
    """What a program written for the SDK would trip over, by its path: `Agent.as_tool(hooks)`."""
    theirs, ours = peer.ask(surface=NAMES), describe(OURS, NAMES)
    assert None not in theirs.values()
    return {path: what for name in NAMES for path, what in _problems(name, theirs[name], ours[name])}


def test_every_name_of_the_sdk_can_be_used_as_there(problems: dict[str, str]) -> None:
    expected = {path for listed in UNLIKE for path in matching(listed, problems)}

    unexpected = [f"{path}: {what}" for path, what in problems.items() if path not in expected]

    assert not unexpected, "\n".join(unexpected)


@pytest.mark.parametrize("path", UNLIKE)
def test_what_is_unlike_on_purpose_is_unlike(path: str, problems: dict[str, str]) -> None:
    assert matching(path, problems), f"{path} is as in the SDK: take it out of UNLIKE"


def matching(pattern: str, paths: Iterable[str]) -> list[str]:
    return [path for path in paths if fnmatchcase(path, pattern)]


def _problems(path: str, theirs: Any, ours: Any) -> Iterator[tuple[str, str]]:
    if ours is None:
        yield path, "missing"
    elif theirs["kind"] != ours["kind"]:
        yield path, f"a {ours['kind']}, where the SDK has a {theirs['kind']}"
    elif theirs["kind"] == "class":
        yield from _class_problems(path, theirs, ours)
    elif theirs["kind"] == "function":
        yield from _signature_problems(path, theirs["signature"], ours["signature"])
    else:
        for part in ("keys", "means", "values"):
            for each in theirs.get(part, ()):
                if each not in ours[part]:
                    yield f"{path}={each}", "missing"


def _class_problems(path: str, theirs: Any, ours: Any) -> Iterator[tuple[str, str]]:
    for base in theirs["bases"]:
        if base not in ours["bases"]:
            yield f"{path}({base})", "is not derived from it"
    if theirs["signature"] is not None:
        yield from _signature_problems(path, theirs["signature"], ours["signature"])
    if theirs["fields"] is not None and ours["fields"] is None:
        yield f"{path}=dataclass", "is none"
    for name, signature in theirs["members"].items():
        here = ours["members"].get(name)
        if here is None:
            yield f"{path}.{name}", "missing"
        elif isinstance(signature, list) is not isinstance(here, list):
            yield f"{path}.{name}", "a method on one side, a value on the other"
        elif isinstance(signature, list):
            yield from _signature_problems(f"{path}.{name}", signature, here)


def _signature_problems(
    path: str, theirs: list[Any] | None, ours: list[Any] | None
) -> Iterator[tuple[str, str]]:
    here = {name: (place, kind, default) for place, (name, kind, default) in enumerate(ours or ())}
    for place, (name, kind, default) in enumerate(theirs or ()):
        if name not in here:
            yield f"{path}({name})", "missing"
            continue
        our_place, our_kind, our_default = here[name]
        if kind != our_kind and not (kind == "KEYWORD_ONLY" and our_kind == "POSITIONAL_OR_KEYWORD"):
            yield f"{path}({name})", f"{our_kind}, where the SDK has {kind}"
        elif kind.startswith("POSITIONAL") and place != our_place:
            yield f"{path}({name})", f"in place {our_place}, where the SDK has {place}"
        elif default != our_default and (default not in (REQUIRED, UNSET) or our_default == REQUIRED):
            yield f"{path}({name})", f"default {our_default}, where the SDK has {default}"
    known = {name for name, _, _ in theirs or ()}
    for name, kind, default in ours or ():
        if name not in known and default == REQUIRED and not kind.startswith("VAR"):
            yield f"{path}({name})", "has to be given, where the SDK does not know it"
