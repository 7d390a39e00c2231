import io
import json
import runpy
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest
from websockets.asyncio.client import connect

from tests.delivery.serving import Served, ends, keeps_the_grammar, parse, serving

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
SHOWN = {
    "agents_as_tools": "  Librarian: tool.progress {'shelf': 3, 'of': 3}\n  Librarian: run.completed",
    "cancel_on_timeout": "stopped: True, items kept: 1",
    "handoff": "[Desk]\n[Spanish]\n¡Muy bien, gracias!\n",
    "hello": "the stream never stops.",
    "mcp_server": "calendar Monday: 10:00, 15:00\nLet us meet on Monday at ten.\n",
    "structured": "Porridge: 10 minutes, oats, water, salt",
    "sync_script": "in a plain for loop.\nAnd this one came whole.\n",
    "text_stream": "> You said: hello\n> You said: bye\n> ",
    "tools": "output snow, -4 °C\noutput sun, 21 °C\nGo to Lisbon.\n",
}


async def ask_over_sse(server: Served) -> Any:
    async with httpx2.AsyncClient(base_url=server.url) as client:
        run = (await client.post("/runs", params={"prompt": "hello"})).json()["run_id"]
        whole = parse((await client.get(f"/runs/{run}")).content)
        rest = parse((await client.get(f"/runs/{run}", headers={"last-event-id": "5"})).content)
        over = await client.get(f"/runs/{run}", headers={"last-event-id": whole[-1].id})
        stopped = await client.delete(f"/runs/{run}")
        unknown = await client.get("/runs/none")
    assert (rest, over.status_code) == (whole[5:], 204)
    assert (stopped.status_code, unknown.status_code) == (200, 404)
    assert ends(whole) == ["run.completed"]
    return whole[-1].json["event"]["output"]


async def ask_in_a_format_of_its_own(server: Served) -> Any:
    async with httpx2.AsyncClient(base_url=server.url) as client:
        body = (await client.get("/stream", params={"query": "hello"})).content
    frames = parse(body, not_a_run="raw events are written in a format of the example's own")
    return "".join(f.json["delta"] for f in frames if f.json["type"] == "response.output_text.delta")


async def ask_one_agent_of_several(server: Served) -> Any:
    question = {"mode": "doc", "query": "hello", "content": "A page."}
    async with httpx2.AsyncClient(base_url=server.url) as client:
        body = (await client.post("/agent/run", json=question | {"stream": True})).content
        whole = await client.post("/agent/run", json=question)
        unknown = await client.post("/agent/run", json=question | {"mode": "none"})
    *events, done = parse(body, not_a_run="its last frame is no event")
    assert done.data == "[DONE]"
    keeps_the_grammar([event.json for event in events])
    assert whole.json() == {"code": 200, "data": "You said: hello"}
    assert (unknown.status_code, "Invalid mode." in unknown.json()["detail"]) == (500, True)
    deltas = [e.json["data"]["delta"] for e in events if "delta" in e.json.get("data", {})]
    return "".join(deltas)


async def ask_for_text_alone(server: Served) -> Any:
    async with httpx2.AsyncClient(base_url=server.url) as client:
        return (await client.get("/stream")).text


async def ask_over_a_websocket(server: Served) -> Any:
    url = server.url.replace("http", "ws")
    async with connect(f"{url}/own") as socket:
        await socket.send("hello")
        while json.loads(await socket.recv())["type"] != "end":
            pass
    async with connect(f"{url}/chat") as socket:
        await socket.send("hello")
        messages = [json.loads(message) async for message in socket]
    keeps_the_grammar(messages)
    assert socket.close_code == 1000
    return messages[-1]["event"]["output"]


SERVERS: dict[str, tuple[Callable[[Served], Awaitable[Any]], str]] = {
    "fastapi_agent_run": (ask_one_agent_of_several, "You said: hello"),
    "fastapi_executor": (ask_for_text_alone, "Hello to you."),
    "fastapi_sse": (ask_over_sse, "You said: hello"),
    "fastapi_streaming_response": (ask_in_a_format_of_its_own, "You said: hello"),
    "fastapi_websocket": (ask_over_a_websocket, "You said: hello"),
}
LINES = {"fastapi_agent_run": 90}
"""Programs that keep their authors' spelling are as long as those made them; ours have fewer than 40 lines."""


@pytest.mark.parametrize("name", SERVERS)
async def test_an_example_that_serves_answers_without_a_key(name: str) -> None:
    (example,) = [path for path in EXAMPLES if path.stem == name]
    app = runpy.run_path(str(example))["app"]

    ask, answer = SERVERS[name]
    async with serving(app) as server:
        assert await ask(server) == answer


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    "example", [path for path in EXAMPLES if path.stem not in SERVERS], ids=lambda path: path.stem
)
def test_an_example_runs_without_a_key(
    example: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\nbye\n"))

    runpy.run_path(str(example), run_name="__main__")

    assert SHOWN[example.stem] in capsys.readouterr().out


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_enough_to_copy(example: Path) -> None:
    assert len(example.read_text().splitlines()) < LINES.get(example.stem, 40)
