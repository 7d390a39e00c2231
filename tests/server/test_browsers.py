"""A real browser follows runs as the pages of the documentation show it."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tests.cli.test_serve import APP
from tests.docs.snippets import blocks
from tests.server.broken_line import broken_line
from tests.server.kit import serving
from tests.server.shown import shown

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.requires_program("chromium")]

SERVED = """
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route

from millstream.server import LOCAL, create_app

app = create_app(agent, access=LOCAL, log="sqlite:///runs.db")


async def page(request):
    return HTMLResponse(Path("page.html").read_text())


async def saw(request):
    Path("saw.json").write_bytes(await request.body())
    return PlainTextResponse("That is what it saw.")


app.router.routes += [Route("/page", page), Route("/saw", saw, methods=["POST"])]
"""

# As shown; beside it one that never closes by itself, and is told by a 204 that nothing is left.
PAGE = """
<!doctype html><meta charset="utf-8"><title>A run</title>
<script>%s</script>
<script>
const shown = [], patient = { positions: [], opened: 0 };

async function report() {
  await fetch("/saw", { method: "POST", body: JSON.stringify({ shown, patient }) });
  location = "%s";
}

start("Hi").then((runId) => {
  follow(runId, (event) => shown.push(event.type));
  const source = new EventSource(`/runs/${runId}/events`);
  source.onopen = () => patient.opened += 1;
  source.onmessage = (message) => patient.positions.push(Number(message.lastEventId));
  source.onerror = () => { if (source.readyState === EventSource.CLOSED) report(); };
});
</script>
"""

SECOND_PAGE = """
<!doctype html><meta charset="utf-8"><title>A run of a framework's own</title>
<output id="output"></output>
<script type="module">
const { run_id: runId } = await (await fetch("/runs?prompt=Hi", { method: "POST" })).json();
%s
source.addEventListener("message", async () => {
  if (source.readyState === EventSource.CLOSED)
    await fetch("/saw", { method: "POST", body: JSON.stringify(output.textContent) });
});
</script>
"""

FLAGS = [
    "--headless=new",
    "--no-sandbox",  # which root may not use
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--disable-component-update",
    "--disable-background-networking",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


@pytest.fixture
def framework_app(root: Path) -> Any:
    """The application that `docs/serving.md` shows."""
    (app,) = (each for each in blocks((root / "docs/serving.md").read_text()) if each.title == "app.py")
    module = ModuleType("shown")
    exec(app.body, vars(module))
    return vars(module)["app"]


async def test_a_browser_follows_runs_as_the_pages_show_through_a_cut_and_another_server(
    tmp_path: Path, framework_app: Any
) -> None:
    (tmp_path / "app.py").write_text(APP + SERVED)
    told = asyncio.get_running_loop().create_future()

    async with (
        with_a_page(framework_app, shown("serving.md", "javascript"), told) as second,
        broken_line(tmp_path, "app.py:app") as line,
    ):
        (tmp_path / "page.html").write_text(PAGE % (shown("server.md", "javascript"), second))
        line.cut_behind(b"id: 4\n", b"id: 7\n")  # amid frames: ids have come, their data has not
        async with browsing(f"{line.url}/page", tmp_path / "profile"):
            await line.until(b'"type":"tool.started"', times=2)
            await line.stop()
            (tmp_path / "go").touch()
            await line.start()
            await line.until(b"That is what it saw.")
            output = await told
    saw = json.loads((tmp_path / "saw.json").read_text())

    positions = saw["patient"]["positions"]
    assert positions == list(range(1, len(positions) + 1))
    assert len(saw["shown"]) == len(positions)
    assert saw["shown"].count("run.attempt") == 1
    assert saw["shown"][-1] == "run.completed"
    # Two streams: begun, one cut each, sent away, to the end; one is then told that nothing is left.
    assert line.statuses == [200] * 6 + [204]
    assert output == "Streams run to the sea."


@contextlib.asynccontextmanager
async def with_a_page(app: Any, script: str, told: "asyncio.Future[str]") -> AsyncIterator[str]:
    """An application with a page that is the browser's side of it; the page's address."""

    async def page(request: Request) -> Response:
        return HTMLResponse(SECOND_PAGE % script)

    async def saw(request: Request) -> Response:
        told.set_result(json.loads(await request.body()))
        return Response()

    app.router.routes += [Route("/page", page), Route("/saw", saw, methods=["POST"])]
    async with serving(app) as client:
        yield f"{client.base_url}/page"


@contextlib.asynccontextmanager
async def browsing(url: str, profile: Path) -> AsyncIterator[None]:
    """A browser at `url`."""
    browser = await asyncio.create_subprocess_exec(
        "chromium", *FLAGS, f"--user-data-dir={profile}", url,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True, env=os.environ | {"HOME": str(profile)},
    )  # fmt: skip
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(browser.pid, signal.SIGKILL)  # itself, and those that it started
        await browser.wait()
