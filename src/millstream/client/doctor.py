"""Asks a server, and looks at what comes back: what it means is said by `doctor_findings`.

It begins no run, and changes nothing. Its requests are those of a client, but it reads answers as
a browser does, and judges none before it is here.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec

from millstream import codec
from millstream.client import doctor_findings as findings
from millstream.client.answers import Request
from millstream.client.doctor_findings import Answer, Arrival, Finding, Frame, NoAnswer, Plan, Probed, Target
from millstream.client.server import ANSWER_SECONDS, EVENTS, Server
from millstream.client.sse import SseParser
from millstream.client.tries import Failure
from millstream.clock import time_limit
from millstream.errors import StreamProtocolError
from millstream.models.provider import is_loopback

if TYPE_CHECKING:
    from millstream.client.doctor_findings import Trouble
    from millstream.clock import Clock

NO_RUN = f"run_{'0' * 32}"
"""The id of a run that there is not."""
PATIENCE = 15.0
"""Seconds that a stream may take longer than it lasts."""
SLOWER = 4
"""How much slower frames are sent where it is not sure whether they were held back."""
PACKED = {"accept-encoding": "gzip, deflate"}
"""What a browser says, and cannot help saying: whoever packs streams does it for this."""
_PATH = re.compile(r"(/[\w.-]{1,100}){1,10}", re.ASCII)
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""Of RFC 6455, section 1.3."""


class Doctor:
    """Looks at one server.

    Args:
        url: where it is.
        token: lets one in.
        wait: seconds for which a stream is to stay open, with the server's own heartbeats; None tries a short one.
        clock: by which it waits and measures.
        plan: what the short one is to be.
        patience: seconds that a stream may take longer than it lasts.
        progress: told what is waited for, and for about how many seconds.

    Raises:
        UserError: an argument that cannot work.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        clock: Clock,
        wait: float | None = None,
        plan: Plan | None = None,
        patience: float = PATIENCE,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self._server = Server(
            url, token=token, headers=None, http_client=None, clock=clock, tries=1, idle_timeout=ANSWER_SECONDS
        )  # fmt: skip
        self._clock = clock
        self._wait = wait
        self._plan = plan or Plan()
        self._patience = patience
        self._progress = progress or _nothing
        self.target = _target(self._server.name, has_token=token is not None)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._server.aclose()

    async def findings(self) -> AsyncGenerator[Finding]:
        """What is found, one after the other. Ends early where the rest cannot be known."""
        version = await self._ask(Request(method="GET", path="/version"))
        if isinstance(version, NoAnswer):
            yield findings.unreachable(version)
            return
        who = findings.redirected(version) or findings.identity(version)
        yield who
        if version.plain.get("name") != "millstream":
            return
        plain = findings.encryption(self.target)
        if plain is not None:
            yield plain
        yield await self._judged("store", Request(method="GET", path="/ready"), findings.readiness)
        admitted = await self._judged(
            "access",
            Request(method="GET", path="/runs", query={"limit": 1}),
            lambda answer: findings.admission(answer, self.target),
        )
        yield admitted
        if admitted.level == "problem":
            return
        yield await self._judged(
            "post", Request(method="POST", path="/runs", body={"input": None}), findings.post
        )
        yield await self._judged("delete", Request(method="DELETE", path=f"/runs/{NO_RUN}"), findings.delete)
        async for finding in self._of_streams():
            yield finding

    async def _of_streams(self) -> AsyncGenerator[Finding]:
        probed = await self._probe(self._plan)
        if isinstance(probed, Probed) and findings.is_gathered(probed):  # or this machine stood still
            probed = await self._probe(replace(self._plan, every=self._plan.every * SLOWER))
        if isinstance(probed, NoAnswer):
            yield findings.no_probe(probed, self._plan)
            return
        found = findings.stream_findings(probed)
        if self._wait is not None and probed.last is not None:
            longer = await self._longer(self._wait)
            told = {each.check for each in longer}
            found = [*(each for each in found if each.check not in told), *longer]
        for each in found:
            yield each
        path = (probed.frames[0][1].websocket if probed.frames else None) or ""
        if _PATH.fullmatch(path):
            yield await self._upgrade(path)

    async def _longer(self, seconds: float) -> list[Finding]:
        plan = Plan(frames=1, every=0, silence=seconds, heartbeat=None)
        probed = await self._probe(plan)
        if isinstance(probed, NoAnswer):
            return [findings.no_probe(probed, plan)]
        return findings.staying(probed)

    # --- asking ------------------------------------------------------------------------------

    async def _judged(self, check: str, request: Request, judge: Callable[[Answer], Finding]) -> Finding:
        answer = await self._ask(request)
        if isinstance(answer, NoAnswer):
            return findings.unanswered(check, str(request), answer)
        return judge(answer)

    async def _ask(self, request: Request, headers: Mapping[str, str] | None = None) -> Answer | NoAnswer:
        try:
            response = await self._server.send(
                request, "application/json", silence=ANSWER_SECONDS, headers=headers
            )
            if response.status_code == 101:
                await response.aclose()
                return _answer(response)
            body = await self._server.whole(response)
        except Failure as failure:
            return _no_answer(failure)
        return _answer(response, body)

    async def _upgrade(self, path: str) -> Finding:
        key = base64.b64encode(secrets.token_bytes(16))
        accepted = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
        asked = Request(method="GET", path=path)
        answer = await self._ask(
            asked,
            {
                "connection": "Upgrade",
                "upgrade": "websocket",
                "sec-websocket-version": "13",
                "sec-websocket-key": key.decode(),
            },
        )
        return findings.upgrade(path, answer, accepted)

    async def _probe(self, plan: Plan) -> Probed | NoAnswer:
        self._progress(f"listening to a stream of {plan.seconds:.0f} s …")
        query: dict[str, Any] = {
            "frames": plan.frames,
            "every": round(plan.every * 1000),
            "silence": round(plan.silence * 1000),
        }
        if plan.heartbeat is not None:
            query["heartbeat"] = round(plan.heartbeat * 1000)
        asked = Request(method="GET", path="/probe", query=query, after=1 + secrets.randbelow(10**9))
        began, wall = self._clock.monotonic(), self._clock.time()
        limit = plan.seconds + self._patience
        try:
            response = await self._server.send(asked, EVENTS, silence=limit, headers=PACKED)
        except Failure as failure:
            return _no_answer(failure)
        listening = _Listening(response, self._clock, began)
        end = await listening.to_its_end(limit)
        return Probed(
            plan=plan,
            answer=_answer(response, listening.body),
            asked=wall,
            sent_id=str(asked.after),
            arrivals=listening.arrivals,
            end=end,
            at=self._clock.monotonic() - began,
            comes_back=listening.parser.retry is not None,
        )


class _Listening:
    """The body of a probe, read as it comes."""

    def __init__(self, response: httpx2.Response, clock: Clock, began: float) -> None:
        self._response = response
        self._clock = clock
        self._began = began
        self.parser = SseParser()
        self.arrivals: list[Arrival] = []
        self.body = b""
        """The beginning of what came, for an answer that is no stream."""

    async def to_its_end(self, limit: float) -> findings.End:
        """Read it, for no longer than `limit` seconds since it was asked for; how it ended."""
        left = self._began + limit - self._clock.monotonic()
        try:
            async with time_limit(self._clock, max(left, 0.0), _TooLongError()):
                async for piece in self._response.aiter_bytes():
                    self._take(piece)
        except _TooLongError:
            return "silent"
        except (httpx2.TransportError, httpx2.DecodingError, StreamProtocolError):
            return "broke"
        finally:
            await self._response.aclose()
        return "ended"

    def _take(self, piece: bytes) -> None:
        self.body = (self.body + piece)[:10_000]
        before = self.parser.comments
        frames = tuple(frame for event in self.parser.feed(piece) if (frame := _frame(event.data)))
        arrival = Arrival(self._clock.monotonic() - self._began, frames, self.parser.comments - before)
        if arrival.frames or arrival.heartbeats:
            self.arrivals.append(arrival)


class _TooLongError(Exception):
    """The stream did not end in time."""


def _frame(data: str) -> Frame | None:
    try:
        return msgspec.convert(codec.decode(data), Frame)
    except Exception:  # of somebody else, who may send anything
        return None


def _answer(response: httpx2.Response, body: bytes = b"") -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, body)


def _no_answer(failure: Failure) -> NoAnswer:
    """Why there is no answer, by what the HTTP client raised, and by what that was made of."""
    error: BaseException | None = failure.__cause__
    if error is None:
        return NoAnswer("timeout", failure.why)
    causes = list[BaseException]()
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    for kind, trouble in _TROUBLES:
        found = next((each for each in causes if isinstance(each, kind)), None)
        if found is not None:
            return NoAnswer(trouble, _why(found))
    return NoAnswer("broken", failure.why)


_TROUBLES: tuple[tuple[type[BaseException], Trouble], ...] = (
    (socket.gaierror, "name"),
    (ssl.SSLCertVerificationError, "certificate"),
    (ConnectionRefusedError, "refused"),
    (httpx2.TimeoutException, "timeout"),
    (ssl.SSLError, "tls"),
)
"""The more telling one first."""


def _why(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return ""


def _target(url: str, *, has_token: bool) -> Target:
    return Target(url, url.startswith("https:"), is_loopback(url), has_token)


def _nothing(text: str) -> None:
    """Tell nobody."""
