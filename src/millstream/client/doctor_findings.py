"""What was seen of a server, and what that means: findings, each with its remedy. No I/O, no clock.

Rules of this file:

1. Nothing that came from a server is shown as it came: it is cut, and holds nothing that a terminal obeys.
2. A finding says what was seen before it says what that means. What cannot be known is not said.
3. Times are compared only with tolerance for machines and networks that stand still for a moment.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

import msgspec

from millstream import codec
from millstream.about import __version__
from millstream.client.answers import error_in
from millstream.errors import DecodeError

Level: TypeAlias = Literal["ok", "warning", "problem"]
Trouble: TypeAlias = Literal["name", "refused", "certificate", "tls", "timeout", "broken"]
End: TypeAlias = Literal["ended", "broke", "silent"]
"""How a stream ended: by itself, by a connection that broke, or not within the time that was given."""

CLOCK_SECONDS = (5.0, 60.0)
"""How far two clocks may be apart before that is told, and before it is a problem."""
LONG_HEARTBEAT = 30.0
"""Seconds of silence at which the first proxies cut a connection."""
GATHERED = 0.25
"""The part of the time between two frames, as sent, within which they have to arrive to count as held back."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """What: one word."""
    level: Level
    seen: str
    """What was seen, as a sentence."""
    remedy: str = ""
    """What to do about it; empty where all is well."""


# --- what was seen --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """The server that is asked, and how."""

    url: str
    is_encrypted: bool
    is_loopback: bool
    has_token: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back to a request."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """By their names in lower case."""
    body: bytes = b""

    @property
    def code(self) -> str:
        """The code of the error, where a Millstream server tells one."""
        return str(error_in(self.body).get("code", ""))

    @property
    def plain(self) -> dict[str, Any]:
        """The JSON object in the body; an empty one where there is none."""
        try:
            plain = codec.decode(self.body)
        except (DecodeError, RecursionError):
            return {}
        return cast("dict[str, Any]", plain) if isinstance(plain, dict) else {}


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """What came in place of one."""

    trouble: Trouble
    why: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the server is asked to send, in seconds: frames, then silence with heartbeats, then one last frame."""

    frames: int = 5
    every: float = 0.2
    silence: float = 1.3
    heartbeat: float | None = 0.5
    """None for the server's own."""

    @property
    def seconds(self) -> float:
        """How long that takes."""
        return (self.frames - 1) * self.every + self.silence


class Frame(msgspec.Struct, kw_only=True, frozen=True):
    """A frame of a probe, as the server tells it."""

    number: int
    ms: int
    time: float
    heartbeat: float
    heartbeats: int
    is_last: bool
    last_event_id: str | None = None
    websocket: str | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """What one read brought."""

    at: float
    """Seconds since the probe was asked for."""
    frames: tuple[Frame, ...] = ()
    heartbeats: int = 0


@dataclass(frozen=True, slots=True)
class Probed:
    """A probe, as it arrived."""

    plan: Plan
    answer: Answer
    asked: float
    """When it was asked for, by the wall clock here."""
    sent_id: str = ""
    """The `Last-Event-ID` that it was asked with."""
    arrivals: Sequence[Arrival] = ()
    end: End = "ended"
    at: float = 0.0
    """When it ended, in seconds since it was asked for."""
    comes_back: bool = False
    """Whether the server said, at its end, when to come back: it is being stopped."""

    @property
    def frames(self) -> list[tuple[float, Frame]]:
        """Each frame, and when it came."""
        return [(arrival.at, frame) for arrival in self.arrivals for frame in arrival.frames]

    @property
    def last(self) -> Frame | None:
        """The last frame, where it came."""
        frames = self.frames
        return frames[-1][1] if frames and frames[-1][1].is_last else None

    @property
    def heartbeats(self) -> int:
        """How many heartbeats came."""
        return sum(arrival.heartbeats for arrival in self.arrivals)


# --- the server -----------------------------------------------------------------------------


def unreachable(seen: NoAnswer) -> Finding:
    """Why the server could not be asked at all."""
    what, remedy = _TROUBLES[seen.trouble]
    why = f": {clean(seen.why)}" if seen.why else ""
    return Finding("address", "problem", f"{what}{why}.", remedy)


_TROUBLES: dict[Trouble, tuple[str, str]] = {
    "name": (
        "The name of the host leads nowhere",
        "Is it spelled right? A name of a private network is known only there.",
    ),
    "refused": (
        "Nothing takes a connection there",
        "Is the server running, and on this port? `millstream serve` listens on 127.0.0.1:7420, which other machines do not reach.",
    ),
    "certificate": (
        "The certificate of the host is not trusted",
        "Is it for this name, and still valid? One of your own authority is trusted by SSL_CERT_FILE.",
    ),
    "tls": (
        "What answers there does not speak TLS",
        "Is it http:// at this port? `millstream serve` itself speaks no TLS: a proxy before it does.",
    ),
    "timeout": (
        "No answer came in time",
        "A firewall that drops packets looks like this, and so does a server that hangs: can it be reached from its own machine?",
    ),
    "broken": (
        "The connection broke before an answer came",
        "Is it https:// at this port? If the server stands behind a proxy: does that reach it?",
    ),
}


def unanswered(check: str, what: str, seen: NoAnswer) -> Finding:
    """A request of a server that answered others."""
    why = f": {clean(seen.why)}" if seen.why else ""
    return Finding(check, "problem", f"{what}: {_TROUBLES[seen.trouble][0].lower()}{why}.", _BETWEEN)


def redirected(answer: Answer) -> Finding | None:
    """Whether the server is somewhere else. A redirect is not followed."""
    if not 300 <= answer.status < 400:
        return None
    location = clean(answer.headers.get("location", "")) or "nowhere"
    return Finding(
        "address",
        "problem",
        f"It answers {answer.status} and leads to {location}.",
        "Use the address that it leads to: a POST that is redirected loses its body, so clients follow none.",
    )


def identity(answer: Answer) -> Finding:
    """Whether it is a Millstream server, and which."""
    told = answer.plain
    if answer.status != 200 or told.get("name") != "millstream":
        return Finding("server", "problem", f"What answers is no Millstream server: {shown(answer)}.", _ELSE)
    version = clean(str(told.get("version", "")))
    seen = f"Millstream {version} answers."
    if version.partition(".")[0] != __version__.partition(".")[0]:
        return Finding(
            "server", "problem", f"{seen} This client is {__version__}.", "Install the same major version on both sides."
        )  # fmt: skip
    return Finding("server", "ok", seen)


_ELSE = (
    "Are the port and the path right? A server that is mounted at a path needs it in the URL. "
    "A proxy that answers 502 to 504 does not reach the server."
)


def readiness(answer: Answer) -> Finding:
    """Whether runs can be begun there: the answer to `GET /ready`."""
    status = answer.plain.get("status")
    if answer.status == 200 and status == "ready":
        return Finding("store", "ok", "The store is there: runs can be begun.")
    if status == "no store":
        return Finding(
            "store", "problem", "The server does not reach its store: no run can be begun.",
            "Is the Redis server running, or the disk full? The log of the server says more.",
        )  # fmt: skip
    if status == "stopping":
        return Finding(
            "store", "warning", "The server is being stopped: it begins nothing more.", "Ask again in a moment."
        )  # fmt: skip
    return Finding("store", "problem", f"GET /ready is answered by {shown(answer)}.", _BETWEEN)


def admission(answer: Answer, target: Target) -> Finding:
    """Whether this client is let in: the answer to `GET /runs`."""
    if answer.status == 200:
        how = "with its token" if target.has_token else "without a token"
        return Finding("access", "ok", f"The server lets this client in, {how}.")
    if answer.status not in (401, 403):
        return Finding("access", "problem", f"GET /runs is answered by {shown(answer)}.", _LOG_SAYS_MORE)
    if not answer.code:
        return Finding(
            "access", "problem", f"Something before the server refuses: {shown(answer)}.",
            "It wants a login of its own: let requests with an Authorization header pass.",
        )  # fmt: skip
    remedy = (
        "Is the token right, and does every proxy pass the Authorization header on?"
        if target.has_token
        else "Pass --token TOKEN, or set MILLSTREAM_TOKEN."
    )
    if not target.is_loopback:
        remedy += (
            " A server with access=LOCAL, as `millstream serve` has, lets in only who is on its own machine"
            " and calls it localhost: for others, pass create_app(access=...) a hook."
        )
    return Finding("access", "problem", f"The server does not let this client in ({answer.status}).", remedy)


def encryption(target: Target) -> Finding | None:
    """Whether others may read along."""
    if target.is_encrypted or target.is_loopback:
        return None
    what = "The token and all that runs say" if target.has_token else "All that runs say"
    return Finding(
        "encryption", "warning", f"{what} cross the network as plain text.", "Put a proxy that speaks TLS before the server."
    )  # fmt: skip


def post(answer: Answer) -> Finding:
    """Whether a POST with JSON gets through: the answer to one that the server has to refuse."""
    if 300 <= answer.status < 400:
        return Finding(
            "post", "problem", f"A POST is redirected, to {clean(answer.headers.get('location', '')) or 'nowhere'}, and loses its body.",
            "Use the address that it leads to.",
        )  # fmt: skip
    if answer.code in ("bad_json", "not_json", "left"):
        return Finding(
            "post", "problem", f"The JSON of a POST does not arrive: {shown(answer)}.",
            "Let proxies pass on the body and the Content-Type of a POST.",
        )  # fmt: skip
    return Finding("post", "ok", "POST with JSON gets through.") if answer.code else _refused("POST", answer)


def delete(answer: Answer) -> Finding:
    """Whether a DELETE gets through: the answer to one of a run that there is not."""
    return Finding("delete", "ok", "DELETE gets through.") if answer.code else _refused("DELETE", answer)


def _refused(method: str, answer: Answer) -> Finding:
    return Finding(
        method.lower(), "problem", f"{method} does not get through to the server: {shown(answer)}.",
        f"Let proxies and firewalls pass {method}.",
    )  # fmt: skip


def upgrade(path: str, seen: Answer | NoAnswer, accepted: str) -> Finding:
    """Whether a WebSocket can be opened: what came of a handshake, and what has to be in its answer."""
    if isinstance(seen, NoAnswer):
        what = _TROUBLES[seen.trouble][0].lower()
    elif seen.status == 101 and seen.headers.get("sec-websocket-accept") == accepted:
        return Finding("websocket", "ok", f"A WebSocket opens at {clean(path)}.")
    else:
        what = shown(seen)
    return Finding(
        "websocket", "warning", f"The server has a WebSocket at {clean(path)}, and none opens: {what}.",
        "Let proxies speak HTTP/1.1 to the server and pass on Upgrade and Connection "
        "(nginx: proxy_set_header Upgrade $http_upgrade); "
        "the server itself needs the package websockets. Streams of server-sent events do without.",
    )  # fmt: skip


# --- the stream -----------------------------------------------------------------------------


def stream_findings(probed: Probed) -> list[Finding]:
    """What a probe tells of streams. Where none came, that alone."""
    refused = _no_stream(probed)
    if refused is not None:
        return [refused]
    found = [buffering(probed), heartbeat(probed), connection(probed), resumption(probed), clock(probed)]
    return [each for each in found if each is not None]


def staying(probed: Probed) -> list[Finding]:
    """What a long probe tells, with the server's own heartbeats, besides what a short one has told."""
    refused = _no_stream(probed)
    if refused is not None:
        return [refused]
    beats = heartbeat(probed) if probed.last is not None and probed.last.heartbeats else None
    return [each for each in (beats, connection(probed) or buffering(probed)) if each is not None]


def no_probe(seen: NoAnswer, plan: Plan) -> Finding:
    """A probe of which not even the head came."""
    if seen.trouble != "timeout":
        why = f": {clean(seen.why)}" if seen.why else ""
        return Finding("stream", "problem", f"No stream came: the connection broke{why}.", _BETWEEN)
    return Finding(
        "buffering", "problem",
        f"Nothing came of a stream that lasts {_seconds(plan.seconds)}: something keeps it back.", _BUFFERS,
    )  # fmt: skip


def _no_stream(probed: Probed) -> Finding | None:
    answer = probed.answer
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if answer.status == 200 and kind == "text/event-stream":
        return None
    if answer.code == "unknown_path":
        return Finding(
            "stream", "warning", "This server has no /probe, so nothing is known of its streams.",
            "It is of an earlier version: update it.",
        )  # fmt: skip
    if answer.status == 429:
        return Finding(
            "stream", "warning", "This caller follows as many streams as it may: nothing was tried.",
            "Close some, or give create_app a larger max_streams.",
        )  # fmt: skip
    return Finding("stream", "problem", f"In place of a stream came {shown(answer)}.", _BETWEEN)


def is_gathered(probed: Probed) -> bool:
    """Whether frames arrived together that were sent apart. A machine that stood still for a moment looks the same."""
    frames = probed.frames
    pairs = list(itertools.pairwise(frames))
    together = sum(
        after[0] - before[0] < GATHERED * (after[1].ms - before[1].ms) / 1000 for before, after in pairs
    )
    return together * 2 >= len(pairs) > 0


def held(probed: Probed) -> float:
    """For how many seconds the frame that was held back longest was, beside the one that was least."""
    late = [at - frame.ms / 1000 for at, frame in probed.frames]
    return max(late) - min(late) if late else 0.0


def buffering(probed: Probed) -> Finding | None:
    """Whether frames arrive as they are sent. None where that is not known, as the stream broke off at once."""
    headers, frames = probed.answer.headers, probed.frames
    if not frames and probed.end != "silent":
        return None
    packed = headers.get("content-encoding", "identity").strip().lower() not in ("", "identity")
    if frames and not is_gathered(probed):
        if packed:
            return Finding(
                "buffering", "warning", f"Frames arrive one by one, but something packs them ({_encoding(headers)}).", _PACKS
            )  # fmt: skip
        return Finding("buffering", "ok", f"Frames arrive one by one, within {_seconds(held(probed))}.")
    if frames:
        span = (frames[-1][1].ms - frames[0][1].ms) / 1000
        seen = f"Frames that were sent over {_seconds(span)} arrive together: one was held for {_seconds(held(probed))}."
    else:
        seen = f"Nothing of the stream came within {_seconds(probed.at)}."
    return Finding("buffering", "problem", seen, _why_buffered(headers, packed=packed))


def _why_buffered(headers: Mapping[str, str], *, packed: bool) -> str:
    if packed:
        return f"{_PACKS} Here: {_encoding(headers)}.{_who(headers)}"
    if "content-length" in headers:
        return f"Something collects the whole answer, as it can tell its length. {_BUFFERS}{_who(headers)}"
    if "x-accel-buffering" not in headers:
        return (
            "X-Accel-Buffering: no is missing here. An nginx keeps it to itself when it heeds it: then another proxy "
            f"buffers, or this one is told to ignore it. {_BUFFERS}{_who(headers)}"
        )
    return f"X-Accel-Buffering: no arrives here, and is not heeded. {_BUFFERS}{_who(headers)}"


_BUFFERS = "Turn off the buffering of answers in every proxy on the way (nginx: proxy_buffering off)."
_PACKS = "Turn off compression of text/event-stream in every proxy on the way (nginx: gzip off); no-transform was not heeded."
_BETWEEN = "Something between this client and the server answers in its place: let it pass all paths of the server on."
_LOG_SAYS_MORE = "The log of the server says more."


def _encoding(headers: Mapping[str, str]) -> str:
    return f"Content-Encoding: {clean(headers.get('content-encoding', ''))}"


def _who(headers: Mapping[str, str]) -> str:
    """What on the way names itself."""
    named = [f"{name.title()}: {clean(headers[name])}" for name in ("server", "via") if headers.get(name)]
    named = [each for each in named if each != "Server: uvicorn"]
    return f" On the way: {', '.join(named)}." if named else ""


def heartbeat(probed: Probed) -> Finding | None:
    """Whether heartbeats come through, and often enough. None where that is not known, as the stream broke off."""
    last = probed.last
    if last is None:
        return None
    came, sent = probed.heartbeats, last.heartbeats
    if came < sent:
        return Finding(
            "heartbeat", "problem", f"Of {sent} heartbeats that were sent, {came or 'none'} came.",
            "Something takes comments out of the stream: a silent run looks dead, and its connection is cut. "
            "Let proxies pass the body on as it is.",
        )  # fmt: skip
    own = _seconds(last.heartbeat)
    if last.heartbeat > LONG_HEARTBEAT:
        return Finding(
            "heartbeat", "warning", f"A silent stream of this server says only every {own} that it is there.",
            f"Many proxies cut what is silent for 30 to 60 s, and clients give up after 45 s: create_app(heartbeat={LONG_HEARTBEAT / 2:g}).",
        )  # fmt: skip
    if not sent:
        return Finding("heartbeat", "ok", f"The server sends one every {own}; none was due so far.")
    return Finding("heartbeat", "ok", f"Heartbeats come through; the server sends one every {own}.")


def connection(probed: Probed) -> Finding | None:
    """Whether the connection stays until the server ends the stream. None where nothing of it came in time."""
    if probed.end == "silent" and not probed.frames:
        return None
    lasted, frames = _seconds(probed.at), probed.frames
    if probed.last is not None:
        more = "" if probed.plan.heartbeat is None else " A longer one was not tried: --wait 60 does."
        return Finding("connection", "ok", f"A stream of {lasted} stays open to its end.{more}")
    if probed.comes_back:
        return Finding(
            "connection", "warning", "The server was stopped on the way.", "Ask again when it is back."
        )
    quiet = probed.at - max((arrival.at for arrival in probed.arrivals), default=0.0)
    if probed.end == "silent":
        return Finding(
            "connection", "problem", f"Nothing more came of a stream within {lasted}, and it did not end.", _BUFFERS
        )  # fmt: skip
    own = f" ({_seconds(frames[0][1].heartbeat)})" if frames else ""
    return Finding(
        "connection", "problem", f"The stream was cut after {lasted}, {_seconds(quiet)} after something had come.",
        f"Let proxies keep a silent connection for longer than the server's heartbeat{own}, and any connection for as long as "
        "runs take (nginx: proxy_read_timeout); or give create_app a shorter heartbeat.",
    )  # fmt: skip


def resumption(probed: Probed) -> Finding | None:
    """Whether the server hears where a reader stood."""
    if not probed.frames:
        return None
    heard = probed.frames[0][1].last_event_id
    if heard == probed.sent_id:
        return Finding("resume", "ok", "Last-Event-ID reaches the server: readers go on where they were.")
    if heard is None:
        return Finding(
            "resume", "problem", "Last-Event-ID does not reach the server: who comes back gets all from the beginning.",
            "Let proxies pass that header on, and allow it where they have a list.",
        )  # fmt: skip
    return Finding(
        "resume", "problem", "The stream was asked for by somebody else: a cache answers in the server's place.",
        "Let nothing on the way store text/event-stream.",
    )  # fmt: skip


def clock(probed: Probed) -> Finding | None:
    """Whether the clocks of the server and of this machine agree, as far as frames on their way can tell.

    A frame was sent after it was asked for and before it came: its time, seen from here, is in between.
    """
    frames = probed.frames
    if not frames or frames[0][1].last_event_id not in (None, probed.sent_id):  # what a cache kept is old
        return None
    least = max(frame.time - (probed.asked + at) for at, frame in frames)
    most = min(frame.time - (probed.asked + frame.ms / 1000) for _, frame in frames)
    apart = least if least > 0 else -most if most < 0 else 0.0
    told, wrong = CLOCK_SECONDS
    if apart <= told:
        return Finding("clock", "ok", "The clocks of the server and of this machine agree.")
    order = "ahead of" if least > 0 else "behind"
    return Finding(
        "clock", "problem" if apart > wrong else "warning",
        f"The clock of the server is {_seconds(apart)} {order} that of this machine.",
        "One of the two is wrong: does a time service (NTP) run on both? Tokens that expire, and times in logs, go by it.",
    )  # fmt: skip


# --- words ----------------------------------------------------------------------------------


def shown(answer: Answer) -> str:
    """An answer, in a few words."""
    kind = clean(answer.headers.get("content-type", "").partition(";")[0]) or "nothing"
    code = f" ({clean(answer.code)})" if answer.code else ""
    by = clean(answer.headers.get("server", ""))
    return f"{answer.status}{code}, {kind}" + (f", from {by}" if by and by != "uvicorn" else "")


def clean(text: str) -> str:
    """What came from elsewhere, cut, on one line, with nothing that a terminal would obey."""
    flat = " ".join(text[:1000].split())
    kept = "".join(each if each.isprintable() else "?" for each in flat)
    return kept if len(kept) <= 120 else f"{kept[:120]}…"


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s"
