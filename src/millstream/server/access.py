"""Who may use a server, and as whom.

An access hook is asked about every request and every WebSocket before anything else is done. It
names the caller, or says no. What a caller starts is his; of another's runs he hears nothing, not even that
they exist.

`LOCAL` is for one's own machine: the peer must be on it, and the `Host` header must name it, as a web
page of somebody else's may lead a browser here by a name of its own (DNS rebinding). `OPEN` is for a server
behind something that has let through only who may pass.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from millstream.errors import UserError

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

Access: TypeAlias = "Callable[[HTTPConnection], Awaitable[str | None]]"
"""Names the caller of a request; None for one who may not use the server. Two callers share nothing."""

_NO_HOST = re.compile(r"[^\w.:\[\]-]")
"""What is in no host and port: `x@localhost` is not for localhost."""

_ORIGIN = re.compile(r"https?://([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")

EVERYBODY = ""
"""The caller of a server that does not tell callers apart."""


async def LOCAL(connection: HTTPConnection) -> str | None:  # a constant to whoever passes it
    """Let everybody in who is on this machine, as one caller."""
    client = connection.client
    is_here = client is not None and is_loopback(client.host)
    return EVERYBODY if is_here and is_loopback(host_of(connection)) else None


async def OPEN(connection: HTTPConnection) -> str | None:  # as LOCAL
    """Let everybody in, as one caller."""
    return EVERYBODY


def host_of(connection: HTTPConnection) -> str:
    """The host that a request is for, as it says, without its port; "" where that cannot be read, or is said twice."""
    hosts: list[str] = connection.headers.getlist("host")
    if len(hosts) != 1 or _NO_HOST.search(hosts[0]):
        return ""
    return _host(f"//{hosts[0]}")


def checked_origins(origins: Iterable[str]) -> frozenset[str]:
    """The origins of pages that may use a server besides its own.

    Raises:
        UserError: one of them is none.
    """
    if isinstance(origins, str):
        raise UserError(f"create_app(origins={origins!r}): a list of origins, as in [{origins!r}].")
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise UserError(
                f"create_app(origins=...): {origin!r} is no origin. One is scheme, host and port of a page, with nothing "
                'behind: "https://app.example", "http://localhost:5173".'
            )
    return frozenset(origin.lower() for origin in origins)


def origin_may(connection: HTTPConnection, origins: Collection[str]) -> bool:
    """Whether the page that made a request, where one did, comes from the server that it is for, or from one of `origins`."""
    origin: Any = connection.headers.get("origin")
    if origin is None:
        return True  # no browser, or none that was led here by another page
    if origin.lower() in origins:
        return True
    where = origin.partition("://")[2].lower()  # "" of "null", which is no origin of anybody
    return bool(where) and where == connection.headers.get("host", "").lower()


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine to itself."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
