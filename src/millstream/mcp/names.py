"""Names: what a model calls the tools of several MCP servers, so that each name means one tool."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

LENGTH = 64
"""As much as the models' APIs take."""

_REFUSED = re.compile(r"[^a-zA-Z0-9_-]")


def prefixed_names(
    listed: Sequence[tuple[str, Sequence[str]]], reserved: set[str] | frozenset[str] = frozenset()
) -> list[list[str]]:
    """`mcp_<server>__<tool>` for the tools of each server, given as its name and theirs.

    Characters that the models' APIs refuse become underscores. A name that is too long, reserved,
    or that of another tool too, ends in a hash of what it stands for: the same in every run, as
    long as the servers stay in their order.
    """
    plain = [
        [f"mcp_{_word(server, 'server')}__{_word(tool, 'tool')}" for tool in tools]
        for server, tools in listed
    ]
    counts = Counter(name for names in plain for name in names)
    taken = set(reserved) | {name for name, count in counts.items() if count == 1}
    result: list[list[str]] = []
    for place, ((server, tools), names) in enumerate(zip(listed, plain, strict=True)):
        result.append([])
        for tool, name in zip(tools, names, strict=True):
            if counts[name] > 1 or name in reserved or len(name) > LENGTH:
                name = _hashed(name, f"{place}\0{server}\0{tool}", taken)
                taken.add(name)
            result[-1].append(name)
    return result


def _word(name: str, otherwise: str) -> str:
    return _REFUSED.sub("_", name).strip("_") or otherwise


def _hashed(name: str, meaning: str, taken: set[str]) -> str:
    while True:
        digest = hashlib.sha256(meaning.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        hashed = f"{name[: LENGTH - 9]}_{digest}"
        if hashed not in taken:
            return hashed
        meaning += "\0"
