"""Behind a real nginx: by the configuration that `docs/deployment.md` shows, and by less careful ones."""

import asyncio
import contextlib
import json
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NoReturn

import httpx2
import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest
import websockets

from millstream import Agent, tool
from millstream.client import Client, SseEvent, SseParser
from millstream.server import LOCAL, OPEN, create_app
from millstream.testing import ScriptedModel, function_call
from tests.cli.program import DEADLINE
from tests.cli.test_serve import APP
from tests.cli.test_serve import serving as serving_process
from tests.server.kit import PATIENCE, events_of, serving
from tests.server.nginx import nginx
from tests.server.shown import npm_eventsource, shown
from tests.support.ports import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.requires_program("nginx"),
    pytest.mark.requires_program("openssl"),
]

BARE = "server { listen LISTEN; location / { proxy_pass http://127.0.0.1:%d; } }"
"""What most begin with."""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """The certificate of 127.0.0.1, and its key beside it."""
    command = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2"
    about = "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -out site.pem -keyout site.key"
    subprocess.run(f"{command} {about}".split(), cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / "site.pem"


def site(port: int, certificate: Path) -> str:
    """The site that the page shows, for a server at `port`."""
    text = shown("deployment.md", "nginx")
    for theirs, ours in {
        "listen 443 ": "listen LISTEN ",
        "http://127.0.0.1:7420": f"http://127.0.0.1:{port}",
        "/etc/ssl/agents.example.com.pem": str(certificate),
        "/etc/ssl/agents.example.com.key": str(certificate.with_suffix(".key")),
    }.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    return text


def trusting(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate)
    return context


def waiting(go: asyncio.Event) -> Agent:
    """An agent whose tool waits for `go`."""

    @tool
    async def wait() -> str:
        await go.wait()
        return "waited"

    return Agent(name="A", tools=[wait], model=ScriptedModel([[function_call("wait", {})], "Done."]))


@contextlib.asynccontextmanager
async def asking(url: str, **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE, **options) as client:
        yield client


async def read(response: httpx2.Response, until: str | None = None) -> list[SseEvent]:
    """What a stream says up to an event of that type, or to its end."""
    parser, events = SseParser(), list[SseEvent]()
    async for piece in response.aiter_bytes():
        events += parser.feed(piece)
        if until is not None and any(f'"type":"{until}"' in event.data for event in events):
            break
    return events


def positions(events: list[SseEvent]) -> list[int]:
    return [int(event.id) for event in events]


# --- by the page --------------------------------------------------------------------------


@pytest.mark.requires_program("node")
@pytest.mark.requires_program("curl")
async def test_behind_the_nginx_of_the_page_streams_come_as_they_are_made_and_outlive_their_server(
    tmp_path: Path,
    certificate: Path,
    leave_out: Callable[[str], NoReturn],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "app.py").write_text(APP)
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(certificate))
    command = npm_eventsource(tmp_path, leave_out)
    port = free_port()

    with nginx(tmp_path / "nginx", site(port, certificate)) as proxy:
        url = f"https://127.0.0.1:{proxy.port}"
        async with asking(url, verify=trusting(certificate)) as client, contextlib.AsyncExitStack() as stack:
            enter = stack.enter_context
            first = await asyncio.to_thread(enter, serving_process(tmp_path, port=port))
            asked = {"input": "Hi", "stream": True}
            async with client.stream("POST", "/runs", json=asked, headers={"origin": url}) as begun:
                events = await read(begun, "tool.started")  # and the run goes on behind it
            path = f"/runs/{begun.headers['x-run-id']}/events"
            follower = await asyncio.create_subprocess_exec(
                *command, url + path, stdout=asyncio.subprocess.PIPE
            )
            stack.callback(lambda: follower.returncode is None and follower.kill())
            assert follower.stdout is not None
            lines = [await follower.stdout.readline() for _ in events]

            first.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(first.process.wait, DEADLINE) == 0
            while f"502 200 {path} {len(lines)}" not in proxy.answered:
                await asyncio.sleep(0.02)  # until the stranger was told to come back, by nginx alone
            refused = await client.get("/runs")
            sent_away = await client.get(path)
            (tmp_path / "go").touch()
            await asyncio.to_thread(enter, serving_process(tmp_path, port=port))
            rest, _ = await follower.communicate()
            other = await client.post("/runs", json=asked, headers={"origin": "https://example.com"})
            curl = await asyncio.create_subprocess_exec(
                "curl", "-sS", "--http2", "--cacert", certificate, "-w", "%{http_version}", url + path,
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            by_http2, _ = await curl.communicate()

    entries = [json.loads(line) for line in b"".join([*lines, rest]).splitlines()]
    assert [entry["position"] for entry in entries] == list(range(1, len(entries) + 1))
    assert entries[-1]["event"]["type"] == "run.completed"
    assert follower.returncode == 0
    assert positions(events) == list(range(1, len(events) + 1))
    assert by_http2.endswith(b"\n\n2")
    assert by_http2.count(b"\nid: ") + 1 == len(entries)
    assert refused.status_code == 502
    assert (sent_away.status_code, sent_away.headers["content-type"]) == (200, "text/event-stream")
    assert sent_away.content == b"retry: 1000\n\n"
    assert other.json()["error"]["code"] == "wrong_origin"


async def test_behind_the_nginx_of_the_page_a_websocket_has_the_stream_and_a_server_sees_who_asks(
    tmp_path: Path, certificate: Path
) -> None:
    seen: dict[str, Any] = {}

    async def by_address(connection: Any) -> str | None:
        seen.update(url=str(connection.url), host=connection.client.host)
        return seen["host"]

    agent = Agent(name="A", model=ScriptedModel(["Hello."]))
    app = create_app(agent, access=by_address, log="memory:")
    async with serving(app) as direct:
        with nginx(tmp_path / "nginx", site(direct.base_url.port or 0, certificate)) as proxy:
            at = f"127.0.0.1:{proxy.port}"
            tls = trusting(certificate)
            async with asking(f"https://{at}", verify=tls) as client:
                await client.get("/runs", headers={"x-forwarded-for": "203.0.113.9"})
            over_http = dict(seen)
            options: Any = {"origin": f"https://{at}", "open_timeout": PATIENCE, "ping_interval": None}
            async with websockets.connect(f"wss://{at}/ws?close=end", ssl=tls, **options) as connection:
                await connection.send(json.dumps({"type": "start", "input": "Hi"}))
                messages = [json.loads(message) async for message in connection]

    assert over_http == {"url": f"https://{at}/runs", "host": "127.0.0.1"}  # not what it says of itself
    assert messages[0]["type"] == "command.done"
    assert [each["position"] for each in messages[1:]] == list(range(1, len(messages)))
    assert messages[-1]["event"]["type"] == "run.completed"


# --- by less careful ones -----------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    ["", "gzip on; gzip_types text/event-stream; gzip_proxied any; gzip_min_length 0;"],
    ids=["nothing", "gzip"],
)
async def test_an_nginx_that_was_told_nothing_of_streams_passes_them_as_they_are_made(
    options: str, tmp_path: Path
) -> None:
    go = asyncio.Event()

    async with serving(create_app(waiting(go), access=OPEN, log="memory:")) as direct:
        with nginx(tmp_path / "nginx", options + BARE % (direct.base_url.port or 0)) as proxy:
            zipped = {"accept-encoding": "gzip"} if options else {}
            async with asking(f"http://127.0.0.1:{proxy.port}", headers=zipped) as client:
                asked = {"input": "Hi", "stream": True}
                async with client.stream("POST", "/runs", json=asked) as begun:
                    events = await read(begun, "tool.started")  # and the run goes on behind it
                go.set()
                path = f"/runs/{begun.headers['x-run-id']}/events"
                came_back = {"last-event-id": events[-1].id or ""}
                async with client.stream("GET", path, headers=came_back) as resumed:
                    events += await read(resumed)

    assert begun.headers.get("content-encoding") == ("gzip" if options else None)
    assert positions(events) == list(range(1, len(events) + 1))
    assert json.loads(events[-1].data)["event"]["type"] == "run.completed"


IMPATIENT = "proxy_read_timeout 2s; "


async def test_a_line_that_nginx_cuts_when_it_is_idle_is_kept_open_by_heartbeats(tmp_path: Path) -> None:
    go = asyncio.Event()

    async with serving(create_app(waiting(go), access=OPEN, log="memory:", heartbeat=0.2)) as direct:
        run_id = (await direct.post("/runs", json={"input": "Hi"})).json()["run_id"]
        with nginx(tmp_path / "nginx", IMPATIENT + BARE % (direct.base_url.port or 0)) as proxy:
            async with asking(f"http://127.0.0.1:{proxy.port}") as client:
                # 20 heartbeats are 4 s of silence. A machine that stands still for two of them has its
                # line cut, as it should be: then the next line has to do it.
                while await heartbeats_on_one_line(client, f"/runs/{run_id}/events", 20) < 20:
                    pass
        go.set()
        events = await events_of(direct, run_id)

    assert json.loads(events[-1].data)["event"]["type"] == "run.completed"


async def heartbeats_on_one_line(client: httpx2.AsyncClient, path: str, enough: int) -> int:
    heard, before = 0, b""
    with contextlib.suppress(httpx2.RemoteProtocolError):
        async with client.stream("GET", path) as stream:
            async for piece in stream.aiter_raw():
                heard += (before + piece).count(b"\n:\n") - before.count(b"\n:\n")
                before = (before + piece)[-3:]
                if heard >= enough:
                    break
    return heard


async def test_without_heartbeats_a_client_comes_back_as_often_as_nginx_cuts_its_line(tmp_path: Path) -> None:
    go = asyncio.Event()

    async with serving(create_app(waiting(go), access=OPEN, log="memory:", heartbeat=3600)) as direct:
        with nginx(tmp_path / "nginx", IMPATIENT + BARE % (direct.base_url.port or 0)) as proxy:
            async with Client(f"http://127.0.0.1:{proxy.port}") as client:
                run = await client.start("Hi")

                async def entries() -> list[int]:
                    return [entry.position async for entry in run.entries()]

                following = asyncio.create_task(entries())
                while sum(f"/runs/{run.run_id}/events" in line for line in proxy.answered) < 2:
                    await asyncio.sleep(0.02)
                go.set()
                seen = await following
        last = (await direct.get(f"/runs/{run.run_id}")).json()["position"]

    assert seen == list(range(1, last + 1))


# --- who is local -------------------------------------------------------------------------


async def test_behind_the_nginx_of_the_page_a_visitor_is_not_local(tmp_path: Path, certificate: Path) -> None:
    app = create_app(Agent(name="A", model=ScriptedModel([])), access=LOCAL, log="memory:")
    async with serving(app) as direct:
        port = direct.base_url.port or 0
        with nginx(tmp_path / "nginx", site(port, certificate)) as proxy:
            async with asking(f"https://127.0.0.1:{proxy.port}", verify=trusting(certificate)) as client:
                refused = await client.get("/runs", headers={"host": "agents.example.com"})
        # Nor is whoever asks for a local name, but from elsewhere: a proxy says so, as that of the page does.
        from_elsewhere = await direct.get("/runs", headers={"x-forwarded-for": "203.0.113.9"})

    assert refused.status_code == 401
    assert from_elsewhere.status_code == 401


async def test_an_nginx_that_does_not_say_who_asks_makes_everybody_local(tmp_path: Path) -> None:
    # What the page warns of. If this fails, the server has found a way to know better: say so there.
    app = create_app(Agent(name="A", model=ScriptedModel([])), access=LOCAL, log="memory:")

    async with serving(app) as direct:
        with nginx(tmp_path / "nginx", BARE % (direct.base_url.port or 0)) as proxy:
            async with asking(f"http://127.0.0.1:{proxy.port}") as client:
                let_in = await client.get("/runs", headers={"host": "agents.example.com"})

    assert let_in.status_code == 200
