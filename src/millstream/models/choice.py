"""Which model a hands-on command uses where its user names none, and why.

Rules of this file:

1. Two questions, answered apart. *Where*: `OPENAI_BASE_URL`, else the OpenAI API if there is
   a key for it, else a server that answers on this machine, else the scripted model. *Which*:
   what `--model` says, else `MILLSTREAM_MODEL`, else the default of the place.
2. Every place has a `Candidate` that says what became of it: a choice can always be explained.
3. Only loopback is ever probed. A server elsewhere is used because somebody named it.
4. What is named and cannot be used is an error, never a reason to use something else. Its
   note (`add_note`) says what may help.
5. Only commands choose. The library and the server never guess a model (`millstream.models.provider`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast
from urllib.parse import urlsplit

from millstream.clock import current_clock, time_limit
from millstream.config.defaults import DEFAULT_MODEL
from millstream.errors import MissingKeyError, UnknownModelError, UserError
from millstream.models.provider import is_loopback

Wire: TypeAlias = Literal["responses", "chat"]
State: TypeAlias = Literal["used", "found", "not found", "skipped", "unusable"]

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_HOST = "api.openai.com"
SCRIPTED = "scripted"
"""The name of the model that is not one: it needs no key and no network."""

PROBE_SECONDS = 0.2
"""How long a local server has to answer; `MILLSTREAM_PROBE_SECONDS` changes it."""
_PROBE_BYTES = 1_000_000
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class LocalServer:
    """A kind of server that people run on their own machine, and where it is found."""

    name: str
    port: int
    path: str = "/v1/models"

    @property
    def url(self) -> str:
        """The base URL of its OpenAI-compatible API."""
        return f"http://{_LOOPBACK}:{self.port}/v1"


LOCAL_SERVERS = (
    LocalServer("Ollama", 11434, "/api/tags"),
    LocalServer("llama.cpp", 8080),
    LocalServer("vLLM", 8000),
    LocalServer("LM Studio", 1234),
)
"""In the order in which they are preferred."""


@dataclass(frozen=True)
class Candidate:
    """A place where a model might have come from, and what became of it."""

    name: str
    state: State
    detail: str
    models: tuple[str, ...] = ()
    """What the server lists, where it was asked."""

    def to_dict(self) -> dict[str, Any]:
        """The candidate as plain JSON values."""
        return {
            "name": self.name,
            "state": self.state,
            "detail": self.detail,
            "models": list(self.models),
        }


@dataclass(frozen=True)
class ModelChoice:
    """The model to use, and how it came to be chosen."""

    model: str
    reason: str
    base_url: str | None = None
    """None for the scripted model."""
    wire: Wire | None = None
    candidates: tuple[Candidate, ...] = ()

    @property
    def is_scripted(self) -> bool:
        """Whether no real model is used."""
        return self.base_url is None

    def to_dict(self) -> dict[str, Any]:
        """The choice as plain JSON values."""
        return {
            "model": self.model,
            "base_url": self.base_url,
            "api": self.wire,
            "reason": self.reason,
            "candidates": [candidate.to_dict() for candidate in self.candidates],
        }

    def __str__(self) -> str:
        if self.is_scripted:
            return f"the scripted model ({self.reason})"
        wire = "Responses API" if self.wire == "responses" else "Chat Completions API"
        return f"{self.model} at {_place(self.base_url or '')}, {wire} ({self.reason})"


@dataclass(frozen=True)
class _Place:
    """Where a model is asked, and what is known of it."""

    url: str
    reason: str
    models: tuple[str, ...] = ()
    problem: UserError | None = None
    """Why it cannot be used, though it is named."""


async def choose(
    environ: Mapping[str, str],
    *,
    model: str | None = None,
    wire: str | None = None,
    offline: bool = False,
    probe_all: bool = False,
    trail: list[Candidate] | None = None,
) -> ModelChoice:
    """Choose a model.

    Args:
        environ: the environment.
        model: what `--model` says.
        wire: what `--api` says.
        offline: allow nothing but the scripted model.
        probe_all: look for local servers even if they cannot be chosen any more, to tell of them.
        trail: is given the candidates too, also where nothing can be chosen.

    Raises:
        MissingKeyError: a model or a server is named, and there is no key and nobody else to ask.
        UnknownModelError: a model is named that the local servers do not list.
        UserError: a variable of the environment has a value that it cannot have.
    """
    asked, by = _asked_model(environ, model)
    forced = asked_wire(environ, wire)
    if offline or asked == SCRIPTED:
        reason = "--offline" if offline else f"{by} says so"
        return ModelChoice(SCRIPTED, reason, candidates=_skipped(environ, f"{reason}"))
    trail = [] if trail is None else trail
    place = _named_place(environ, trail)
    if place is not None and place.problem is not None and not probe_all:
        raise place.problem
    if place is None or probe_all:
        place = await _local_place(environ, trail, place, asked)
    else:
        trail.extend(Candidate(s.name, "skipped", "not looked for") for s in local_servers(environ))
    if place is None:
        if asked is not None:
            trail.append(Candidate("scripted model", "skipped", f"{by} is {asked!r}"))
            raise _nobody(asked, by, trail)
        trail.append(Candidate("scripted model", "used", "needs no key and no network"))
        return ModelChoice(SCRIPTED, "no key is set and no local server answers", candidates=tuple(trail))
    trail.append(Candidate("scripted model", "skipped", "--offline or --model scripted chooses it"))
    if place.problem is not None:
        raise place.problem
    name = asked or await _default_model(environ, place, trail)
    reason = f"{by}; {place.reason}" if asked else place.reason
    chosen: Wire = forced or ("responses" if _host(place.url) == OPENAI_HOST else "chat")
    return ModelChoice(name, reason, place.url, chosen, tuple(trail))


# --- which ----------------------------------------------------------------------------------


def _asked_model(environ: Mapping[str, str], model: str | None) -> tuple[str | None, str]:
    if model:
        return model, "--model"
    return environ.get("MILLSTREAM_MODEL") or None, "MILLSTREAM_MODEL"


def asked_wire(environ: Mapping[str, str], wire: str | None) -> Wire | None:
    """The API that `--api` or the environment asks for; None where nobody does.

    Raises:
        UserError: there is no such API.
    """
    names = {"responses": "responses", "chat": "chat", "chat_completions": "chat"}
    for source, value in (
        ("--api", wire),
        ("MILLSTREAM_API", environ.get("MILLSTREAM_API")),
        ("OPENAI_API", environ.get("OPENAI_API")),
    ):
        if value:
            if value not in names:
                raise _with_note(
                    UserError(f"{source} is {value!r}; it can be responses or chat."),
                    "without it, the server decides: responses for the OpenAI API, chat for all others.",
                )
            return cast("Wire", names[value])
    return None


async def _default_model(environ: Mapping[str, str], place: _Place, trail: list[Candidate]) -> str:
    if place.models:
        return _first_chat_model(place.models)
    if is_loopback(place.url):
        listed = await list_models(
            f"{place.url.rstrip('/')}/models",
            key=environ.get("OPENAI_API_KEY"),
            seconds=_probe_seconds(environ),
        )
        if listed:
            return _first_chat_model(listed)
        why = "no server answers there" if listed is None else "the server there lists no models"
        trail[0] = Candidate("OPENAI_BASE_URL", "unusable", f"{_place(place.url)}: {why}")
        raise _with_note(
            UserError(f"OPENAI_BASE_URL leads to {_place(place.url)}, and {why}."),
            "start it, name the model with --model, or unset OPENAI_BASE_URL.",
        )
    return environ.get("OPENAI_DEFAULT_MODEL", "").strip() or DEFAULT_MODEL


def _first_chat_model(models: tuple[str, ...]) -> str:
    # Servers list embedding models along with the others; those cannot talk.
    return next((name for name in models if "embed" not in name.lower()), models[0])


# --- where ----------------------------------------------------------------------------------


def _named_place(environ: Mapping[str, str], trail: list[Candidate]) -> _Place | None:
    """The place that the environment names, if it names one."""
    key, url = bool(environ.get("OPENAI_API_KEY")), environ.get("OPENAI_BASE_URL", "")
    if url and not _is_url(url):
        shown = url if "@" not in url else "not a URL"  # it may hold a password
        trail.append(Candidate("OPENAI_BASE_URL", "unusable", f"{shown!r} is no URL"))
        trail.append(Candidate("OpenAI", "skipped", "OPENAI_BASE_URL comes first"))
        error = UserError(f"OPENAI_BASE_URL is {shown!r}; it has to be a URL.")
        return _Place(url, "", problem=_with_note(error, "such as http://127.0.0.1:8000/v1."))
    if url and (key or is_loopback(url)):
        reason = "OPENAI_BASE_URL is set" + ("" if key else ", on this machine, where no key is needed")
        trail.append(Candidate("OPENAI_BASE_URL", "used", _place(url)))
        trail.append(Candidate("OpenAI", "skipped", "OPENAI_BASE_URL comes first"))
        return _Place(url, reason)
    if url:
        detail = f"{_place(url)} is not on this machine, and OPENAI_API_KEY is not set"
        trail.append(Candidate("OPENAI_BASE_URL", "unusable", detail))
        trail.append(Candidate("OpenAI", "not found", "OPENAI_API_KEY is not set"))
        error = MissingKeyError(
            f"OPENAI_BASE_URL leads to {_place(url)}, which is not on this machine, "
            "and OPENAI_API_KEY is not set."
        )
        note = "set OPENAI_API_KEY (to anything, if the server needs none), or unset OPENAI_BASE_URL."
        return _Place(url, "", problem=_with_note(error, note))
    trail.append(Candidate("OPENAI_BASE_URL", "not found", "not set"))
    if not key:
        trail.append(Candidate("OpenAI", "not found", "OPENAI_API_KEY is not set"))
        return None
    trail.append(Candidate("OpenAI", "used", "OPENAI_API_KEY is set"))
    return _Place(OPENAI_URL, "OPENAI_API_KEY is set")


async def _local_place(
    environ: Mapping[str, str], trail: list[Candidate], place: _Place | None, asked: str | None
) -> _Place | None:
    """`place`, or else the first local server that answers with the model asked for."""
    servers = local_servers(environ)
    seconds = _probe_seconds(environ)
    found = await asyncio.gather(
        *(list_models(f"http://{_LOOPBACK}:{s.port}{s.path}", seconds=seconds) for s in servers)
    )
    for server, models in zip(servers, found, strict=True):
        where = _place(server.url)
        if models is None:
            trail.append(Candidate(server.name, "not found", f"nothing answers at {where}"))
        elif not models:
            trail.append(Candidate(server.name, "skipped", f"{where} lists no models"))
        elif place is None and (asked is None or _lists(models, asked)):
            place = _Place(server.url, f"{server.name} answers on this machine", models)
            trail.append(Candidate(server.name, "used", where, models))
        else:
            trail.append(Candidate(server.name, "found", where, models))
    return place


def _lists(models: tuple[str, ...], asked: str) -> bool:
    return asked in models or f"{asked}:latest" in models  # as Ollama calls what has no tag


def _nobody(asked: str, by: str, trail: list[Candidate]) -> UserError:
    listed = sorted({name for candidate in trail for name in candidate.models})
    if listed:
        shown = ", ".join(listed[:8]) + (", …" if len(listed) > 8 else "")
        return UnknownModelError(
            f"{by} is {asked!r}, and the servers on this machine do not list it; they list {shown}."
        )
    return MissingKeyError(
        f"{by} is {asked!r}, and there is nobody to ask for it: OPENAI_API_KEY is not set, "
        "and no local server answers."
    )


def _skipped(environ: Mapping[str, str], reason: str) -> tuple[Candidate, ...]:
    names = ["OPENAI_BASE_URL", "OpenAI", *(server.name for server in local_servers(environ))]
    return (
        *(Candidate(name, "skipped", reason) for name in names),
        Candidate("scripted model", "used", "needs no key and no network"),
    )


def local_servers(environ: Mapping[str, str]) -> tuple[LocalServer, ...]:
    """The local servers to look for, on the ports that `MILLSTREAM_LOCAL_PORTS` may change.

    Its value is a list such as `ollama=11435,vllm=8001`; `none` looks for no server at all.

    Raises:
        UserError: it is not such a list.
    """
    value = environ.get("MILLSTREAM_LOCAL_PORTS", "").strip()
    if value == "none":
        return ()
    ports: dict[str, int] = {}
    known = {_short(server.name) for server in LOCAL_SERVERS}
    for pair in filter(None, value.split(",")):
        name, _, port = pair.partition("=")
        if _short(name) not in known or not port.strip().isdigit() or not 0 < int(port) < 65536:
            raise _with_note(
                UserError(
                    f"MILLSTREAM_LOCAL_PORTS is {value!r}; it has to be a list such as ollama=11434,vllm=8000, "
                    f"or none (names: {', '.join(sorted(known))})."
                ),
                "unset it to look on the usual ports.",
            )
        ports[_short(name)] = int(port)
    return tuple(
        LocalServer(server.name, ports.get(_short(server.name), server.port), server.path)
        for server in LOCAL_SERVERS
    )


def _probe_seconds(environ: Mapping[str, str]) -> float:
    value = environ.get("MILLSTREAM_PROBE_SECONDS", "")
    try:
        seconds = float(value) if value else PROBE_SECONDS
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 60:
        raise _with_note(
            UserError(f"MILLSTREAM_PROBE_SECONDS is {value!r}; it has to be a number up to 60."),
            f"unset it to wait for {PROBE_SECONDS} s.",
        )
    return seconds


def _short(name: str) -> str:
    return name.lower().replace(" ", "").replace(".", "")


# --- asking a server on this machine --------------------------------------------------------


async def list_models(
    url: str, *, key: str | None = None, seconds: float = PROBE_SECONDS
) -> tuple[str, ...] | None:
    """The models that the server at `url`, on loopback, lists; None where none answers in time."""
    # A socket and not an HTTP client: this runs before anything slow to import is needed, and
    # must not be sent through the proxy that the environment may name.
    unusable = (OSError, EOFError, ValueError, RecursionError, asyncio.LimitOverrunError)
    with contextlib.suppress(TimeoutError, *unusable):
        async with time_limit(current_clock(), seconds, TimeoutError()):
            return _names(json.loads(await _get(url, key)))
    return None


async def _get(url: str, key: str | None) -> bytes:
    parts = urlsplit(url)
    host, port = parts.hostname or _LOOPBACK, parts.port or 80
    if not is_loopback(url) or parts.scheme != "http":
        raise ValueError(f"{url} is not plain HTTP on this machine")
    reader, writer = await asyncio.open_connection(host, port, limit=_PROBE_BYTES)
    try:
        lines = [f"GET {parts.path} HTTP/1.1", f"Host: {host}:{port}", "Accept: application/json"]
        if key:
            lines.append(f"Authorization: Bearer {key}")
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *fields = head.split("\r\n")
        if status.split(" ")[1:2] != ["200"]:
            raise ValueError(f"the server says {status}")
        pairs = (field.partition(":") for field in fields)
        return await _body(reader, {name.lower(): value.strip() for name, _, value in pairs})
    finally:
        writer.transport.abort()


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    """What comes after the head: in chunks, of a length that was told, or to the end of the connection."""
    body = b""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        while (size := int((await reader.readline()).split(b";")[0], 16)) and len(body) < _PROBE_BYTES:
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        return body
    length = headers.get("content-length")
    if length is not None:
        return await reader.readexactly(min(int(length), _PROBE_BYTES))
    while (piece := await reader.read(65536)) and len(body) < _PROBE_BYTES:
        body += piece
    return body


def _names(answer: Any) -> tuple[str, ...]:
    """The names in the two forms of a list: OpenAI's, and Ollama's own."""
    if not isinstance(answer, dict):
        raise ValueError("not a list of models")
    fields = cast("dict[str, Any]", answer)
    entries = fields.get("data") if "data" in fields else fields.get("models")
    if not isinstance(entries, list):
        raise ValueError("not a list of models")
    dicts = [cast("dict[str, Any]", e) for e in cast("list[Any]", entries) if isinstance(e, dict)]
    names = [entry.get("id") or entry.get("name") for entry in dicts]
    return tuple(name for name in names if isinstance(name, str))


def _with_note(error: UserError, note: str) -> UserError:
    error.add_note(note)
    return error


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half a bracket
        return False


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").lower()


def _place(url: str) -> str:
    """Where a URL leads, without what might be secret in it."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else (parts.hostname or "")
    return f"{host}:{parts.port}" if parts.port else host
