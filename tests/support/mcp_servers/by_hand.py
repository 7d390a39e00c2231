"""An MCP server over standard input and output, written by hand: it starts fast, and can do what no server should.

What it does is in the names of its tools. It is of the older protocol, which begins with
`initialize`. Arguments: `mute` answers nothing at all; `no-mcp` prints a greeting instead;
`quit` ends at once; `more=<name>,…` has further tools; `circle` lists them in pages that go
round, `twice` one of them twice.
"""

import json
import os
import signal
import sys
import threading
from typing import Any

EMPTY = {"type": "object", "properties": {}}
ANSWERING = {
    "echo": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    **dict.fromkeys(("pid", "listings", "waiting", "cancelled", "meta", "environment"), EMPTY),
}
MISBEHAVING = ("die", "never", "hang", "babble", "no_utf8", "wrong", "refuse", "quit_after", "grow")
tools = {**ANSWERING, **dict.fromkeys(MISBEHAVING, EMPTY)}
listings = 0
cancelled: list[Any] = []
waiting: list[Any] = []
"""The calls of `never`, which gives no answer."""


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def raw(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.flush()


def listing(cursor: str | None) -> dict[str, Any]:
    global listings
    listings += 1
    listed = [
        {"name": name, "description": f"Does {name}.", "inputSchema": schema}
        for name, schema in tools.items()
    ]
    if "twice" in sys.argv:
        listed.append(listed[0])
    return {"tools": listed} | ({"nextCursor": "again"} if "circle" in sys.argv else {})


def result_of(name: str, params: dict[str, Any]) -> Any:
    """The text that a tool gives; None where it gives no answer."""
    if name == "echo":
        return params["arguments"]["text"]
    if name in ANSWERING:
        values = {"pid": os.getpid(), "listings": listings, "cancelled": cancelled, "waiting": waiting}
        values |= {"meta": params.get("_meta"), "environment": dict(os.environ)}
        return json.dumps(values[name])
    if name == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "hang":
        threading.Event().wait()
    elif name == "babble":
        raw(b"Listening for requests ...")
        raw(b'{"jsonrpc": "2.0", "id": ')
        raw(b"[]")
        return "after all"
    elif name == "no_utf8":
        raw(b"\xff\xfe\xff")
        return "after all"
    elif name == "grow":
        tools["grown"] = EMPTY
        send({"method": "notifications/tools/list_changed"})
        return "grown"
    return None if name in MISBEHAVING else f"This is {name}."


def call(number: Any, params: dict[str, Any]) -> None:
    name = params["name"]
    if name == "never":
        waiting.append(number)
    if name == "refuse":
        send({"id": number, "error": {"code": -32000, "message": "No, and the password is hunter2."}})
    elif name == "wrong":
        send({"id": number, "result": {"content": "not a list"}})
    elif (text := result_of(name, params)) is not None:
        send({"id": number, "result": {"content": [{"type": "text", "text": text}]}})
    if name == "quit_after":
        sys.exit()


def answer(number: Any, method: str, params: dict[str, Any]) -> None:
    if method == "initialize":
        about = {"name": "by hand", "version": "1"}
        capabilities = {"tools": {"listChanged": True}}
        result = {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": about}
        send({"id": number, "result": result})
    elif method == "tools/list":
        send({"id": number, "result": listing(params.get("cursor"))})
    elif method == "tools/call":
        call(number, params)
    else:
        send({"id": number, "error": {"code": -32601, "message": "Method not found"}})


def main() -> None:
    for argument in sys.argv[1:]:
        if argument.startswith("more="):
            tools.update(dict.fromkeys(argument.removeprefix("more=").split(","), EMPTY))
    if "quit" in sys.argv:
        return
    if "no-mcp" in sys.argv:
        print("Hello! What can I do for you?", flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("method") == "notifications/cancelled":
            cancelled.append(message["params"]["requestId"])
        elif "id" in message and not {"mute", "no-mcp"} & set(sys.argv):
            answer(message["id"], message["method"], message.get("params") or {})


main()
