"""What is wrong between a client and a server: found by asking, through proxies that do what proxies do."""

import asyncio
import logging
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from millstream import Agent, MemoryLog
from millstream.client.doctor import Doctor
from millstream.client.doctor_findings import Finding, Plan
from millstream.clock import SYSTEM_CLOCK, SystemClock
from millstream.config import RunConfig
from millstream.errors import LogUnavailableError
from millstream.server import LOCAL, create_app
from millstream.testing import ScriptedModel
from tests.client.between import between, packed, packed_at_once, until_it_is_silent, without_comments
from tests.client.test_trouble import answering, status
from tests.server.kit import serving
from tests.server.nginx import nginx

QUICK = Plan(frames=4, every=0.02, silence=0.13, heartbeat=0.05)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "uvicorn")


def app(**options: Any) -> Any:
    agent = Agent(name="A", model=ScriptedModel(["Hello."]))
    return create_app(agent, **{"access": LOCAL, "log": MemoryLog()} | options)


async def found_at(url: str, **options: Any) -> dict[str, Finding]:
    """What is found, by what was looked at."""
    doctor = Doctor(url, **{"token": None, "clock": SYSTEM_CLOCK, "plan": QUICK} | options)
    try:
        return {each.check: each async for each in doctor.findings()}
    finally:
        await doctor.aclose()


async def found_behind(application: Any = None, **proxy: Any) -> dict[str, Finding]:
    """What is found of a server behind a proxy; that passes no WebSocket on, which is a matter of its own."""
    async with (
        serving(app() if application is None else application) as direct,
        between(direct.base_url.port, **proxy) as url,
    ):
        found = await found_at(url)
    return {check: finding for check, finding in found.items() if check != "websocket"}


def wrong(found: dict[str, Finding]) -> dict[str, str]:
    """What is not well, and how bad it is."""
    return {each.check: each.level for each in found.values() if each.level != "ok"}


async def test_nothing_is_wrong_with_a_server_that_is_reached_as_it_is() -> None:
    log = MemoryLog()
    async with serving(app(log=log)) as direct:
        found = await found_at(str(direct.base_url))

    assert wrong(found) == {}
    assert list(found) == [
        *("server", "store", "access", "post", "delete"),
        *("buffering", "heartbeat", "connection", "resume", "clock", "websocket"),
    ]
    assert await log.runs() == [], "it begins no run"


async def test_nothing_is_wrong_behind_a_proxy_that_passes_on_what_it_gets() -> None:
    assert wrong(await found_behind()) == {}


# --- proxies ----------------------------------------------------------------------------------


async def test_a_proxy_that_collects_the_answer_is_found() -> None:
    found = await found_behind(collects=True)

    assert wrong(found) == {"buffering": "problem"}
    assert "arrive together" in found["buffering"].seen
    assert "can tell its length" in found["buffering"].remedy


async def test_a_proxy_that_keeps_the_header_to_itself_and_buffers_is_found() -> None:
    async def gathered(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        yield b"".join([piece async for piece in pieces])

    found = await found_behind(body=gathered, takes_out=("x-accel-buffering",))

    assert wrong(found) == {"buffering": "problem"}
    assert "X-Accel-Buffering: no is missing" in found["buffering"].remedy


async def test_a_proxy_that_packs_the_stream_is_found() -> None:
    gzip = {"content-encoding": "gzip"}

    held = await found_behind(body=packed, adds=gzip)
    passed = await found_behind(body=packed_at_once, adds=gzip)

    assert wrong(held) == {"buffering": "problem"}
    assert wrong(passed) == {"buffering": "warning"}
    assert "Content-Encoding: gzip" in held["buffering"].remedy
    assert "Content-Encoding: gzip" in passed["buffering"].seen


async def test_a_proxy_that_takes_out_comments_is_found() -> None:
    found = await found_behind(body=without_comments)

    assert wrong(found) == {"heartbeat": "problem"}
    assert found["heartbeat"].seen == "Of 2 heartbeats that were sent, none came."


async def test_a_proxy_that_cuts_what_is_silent_is_found() -> None:
    found = await found_behind(app(heartbeat=12.5), body=until_it_is_silent)

    assert wrong(found) == {"connection": "problem"}
    assert "heartbeat (12.5 s)" in found["connection"].remedy


async def test_a_connection_that_breaks_is_found() -> None:
    async def broken(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        yield await anext(pieces)
        raise OSError("the line broke")

    found = await found_behind(body=broken)

    assert wrong(found) == {"connection": "problem"}


async def test_a_stream_that_is_kept_back_for_good_is_not_waited_for_for_ever() -> None:
    async def kept(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with serving(app()) as direct, between(direct.base_url.port, body=kept) as url:
        found = await found_at(url, patience=0.1)
    async with serving(app()) as direct, between(direct.base_url.port, body=kept, collects=True) as url:
        headless = await found_at(url, patience=0.1)

    assert wrong(found) == wrong(headless) == {"buffering": "problem"}
    assert "Nothing" in found["buffering"].seen
    assert "Nothing came of a stream" in headless["buffering"].seen


async def test_a_proxy_that_passes_not_every_header_or_method_on_is_found() -> None:
    headers = await found_behind(takes_out=("last-event-id",))
    methods = await found_behind(refuses=("DELETE",))
    types = await found_behind(takes_out=("content-type",))

    assert wrong(headers) == {"resume": "problem"}
    assert wrong(methods) == {"delete": "problem"}
    assert "405, text/html" in methods["delete"].seen
    assert types["post"].level == "problem"
    assert "not_json" in types["post"].seen


async def test_a_cache_that_answers_in_the_servers_place_is_found() -> None:
    async with serving(app()) as direct:
        asked = await direct.get("/probe?frames=1", headers={"last-event-id": "7"})
        stale = Response(asked.content, 200, {"content-type": "text/event-stream"})
        async with between(direct.base_url.port, answers={"/probe": stale}) as url:
            found = await found_at(url)

    assert found["resume"].level == "problem"
    assert "a cache answers" in found["resume"].seen
    assert "clock" not in found, "what is old tells no time"


@pytest.mark.slow
@pytest.mark.requires_program("nginx")
async def test_of_two_real_proxies_the_one_that_buffers_is_found(tmp_path: Path) -> None:
    site = "server { listen LISTEN; location / { proxy_pass http://127.0.0.1:%d; %s } }"
    async with serving(app()) as direct:
        port = direct.base_url.port
        with nginx(tmp_path / "plain", site % (port, "")) as plain:
            heeds = await found_at(f"http://127.0.0.1:{plain.port}")
        with nginx(tmp_path / "deaf", site % (port, "proxy_ignore_headers X-Accel-Buffering;")) as deaf:
            found = await found_at(f"http://127.0.0.1:{deaf.port}")

    assert wrong(heeds) == {"websocket": "warning"}
    assert wrong(found) == {"buffering": "problem", "websocket": "warning"}
    assert "On the way: Server: nginx" in found["buffering"].remedy


# --- servers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("off", "level"), [(3600.0, "problem"), (-20.0, "warning")])
async def test_a_server_with_a_wrong_clock_is_found(off: float, level: str) -> None:
    class Off(SystemClock):
        def time(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
            return super().time() + off

    async with serving(app(run_config=RunConfig(clock=Off()))) as direct:
        found = await found_at(str(direct.base_url))

    assert wrong(found) == {"clock": level}
    assert ("ahead of" if off > 0 else "behind") in found["clock"].seen


async def test_a_server_that_does_not_let_one_in_is_asked_no_further() -> None:
    async def by_token(connection: Any) -> str | None:
        return "ann" if connection.headers.get("authorization") == "Bearer t0ken" else None

    async with serving(app(access=by_token)) as direct:
        url = str(direct.base_url)
        stranger = await found_at(url)
        mistaken = await found_at(url, token="other")
        known = await found_at(url, token="t0ken")

    assert wrong(stranger) == wrong(mistaken) == {"access": "problem"}
    assert "--token" in stranger["access"].remedy
    assert "Is the token right" in mistaken["access"].remedy
    assert "buffering" not in stranger
    assert wrong(known) == {}


async def test_a_server_whose_store_is_away_is_found() -> None:
    class Away(MemoryLog):
        async def check(self) -> list[str]:
            if self.is_away:
                raise LogUnavailableError("away")
            return []

        is_away = False

    log = Away()
    async with serving(app(log=log)) as direct:
        await direct.get("/ready")
        log.is_away = True
        found = await found_at(str(direct.base_url))

    assert wrong(found) == {"store": "problem"}


async def test_a_server_of_another_kind_is_told_apart() -> None:
    async def page(request: Any) -> Response:
        return Response("<html>Hello</html>", media_type="text/html")

    async with serving(Starlette(routes=[Route("/{path:path}", page)])) as direct:
        found = await found_at(str(direct.base_url))

    assert wrong(found) == {"server": "problem"} == dict.fromkeys(found, "problem")
    assert "no Millstream server: 200, text/html" in found["server"].seen


async def test_an_address_that_leads_elsewhere_is_not_followed() -> None:
    async with answering(status(308, location="https://127.0.0.1/")) as server:
        found = await found_at(server.url)

    assert wrong(found) == {"address": "problem"}
    assert "leads to https://127.0.0.1/" in found["address"].seen


async def test_streams_of_a_caller_without_a_place_are_not_judged() -> None:
    async with (
        serving(app(max_streams=1)) as direct,
        direct.stream("GET", "/probe?silence=300000") as held,
    ):
        pieces = held.aiter_raw()
        await anext(pieces)
        found = await found_at(str(direct.base_url))

    assert wrong(found) == {"stream": "warning"}


async def test_a_longer_stream_has_the_servers_own_heartbeats() -> None:
    waited = list[str]()
    async with serving(app(heartbeat=0.05)) as direct:
        found = await found_at(str(direct.base_url), wait=0.2, progress=waited.append)

    assert wrong(found) == {}
    assert "--wait" not in found["connection"].seen
    assert len(waited) >= 2


async def test_a_longer_stream_that_is_cut_is_found() -> None:
    async def cut_the_second(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        streams.append("")
        async for piece in pieces:
            yield piece
            if len(streams) > 1:
                return

    streams = list[str]()
    short = Plan(frames=1, every=0, silence=0.2, heartbeat=0.15)  # no two frames, so that it is asked once
    async with serving(app()) as direct, between(direct.base_url.port, body=cut_the_second) as url:
        found = await found_at(url, plan=short, wait=1.0)

    assert found["connection"].level == "problem"
    assert "cut after" in found["connection"].seen
    assert "heartbeat (15.0 s)" in found["connection"].remedy


# --- no server at all -------------------------------------------------------------------------


async def test_a_port_that_nobody_listens_at_is_told() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found = await found_at(f"http://127.0.0.1:{free.getsockname()[1]}")

    assert wrong(found) == {"address": "problem"}
    assert "Nothing takes a connection" in found["address"].seen


async def test_a_name_that_leads_nowhere_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    found = await found_at("http://nowhere.example")

    assert wrong(found) == {"address": "problem"}
    assert "leads nowhere" in found["address"].seen


async def test_a_port_without_tls_is_told_from_one_without_http() -> None:
    async with answering(b"", b"SSH-2.0-OpenSSH_9.6\r\n") as server:
        found = await found_at(server.url)
        other = await found_at(server.url)
    async with serving(app()) as direct:
        encrypted = await found_at(f"https://127.0.0.1:{direct.base_url.port}")

    assert "The connection broke before an answer came" in found["address"].seen
    assert "The connection broke before an answer came" in other["address"].seen
    assert "does not speak TLS" in encrypted["address"].seen


@pytest.mark.slow
@pytest.mark.requires_program("openssl")
async def test_a_certificate_that_nobody_vouches_for_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2"
    about = "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -out site.pem -keyout site.key"
    subprocess.run(f"{command} {about}".split(), cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "site.pem", tmp_path / "site.key")

    async with answering(status(404), status(404), tls=context) as server:
        unknown = await found_at(server.url.replace("http:", "https:"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "site.pem"))  # as the remedy says
        trusted = await found_at(server.url.replace("http:", "https:"))

    assert "The certificate of the host is not trusted: self" in unknown["address"].seen
    assert "SSL_CERT_FILE" in unknown["address"].remedy
    assert list(trusted) == ["server"]


# --- the WebSocket ----------------------------------------------------------------------------


async def test_a_proxy_that_passes_no_upgrade_on_is_found() -> None:
    async with serving(app()) as direct:
        found = await found_at(str(direct.base_url))
        async with between(direct.base_url.port) as url:
            behind = await found_at(url)

    assert found["websocket"].seen == "A WebSocket opens at /ws."
    assert wrong(behind) == {"websocket": "warning"}
