"""The OpenAPI document says what is sent: every event, every item, every message of a stream, every error."""

import inspect
import json
import re
from collections.abc import Iterable
from typing import Any

import jsonschema
import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from millstream import Agent, MemoryLog, tool
from millstream.delivery.frame import error_message, gap_message, position_message
from millstream.errors import LogGapError
from millstream.events import EVENT_TYPES, Entry, Stamp
from millstream.server import OPEN, answers, create_app, schemas
from millstream.server.answers import Problem, invalid, problem_fields
from millstream.server.openapi import document
from millstream.server.table import ENDPOINTS
from millstream.testing import ScriptedModel, function_call, reasoning
from tests.server.kit import events_of, serving
from tests.test_events import EVENTS, name_of

DOCUMENT = document(ENDPOINTS)
SCHEMAS = DOCUMENT["components"]["schemas"]


def validator(name: str) -> Any:
    """What validates against a schema of the document."""
    whole = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return jsonschema.Draft202012Validator(whole)


def errors_of(name: str, data: bytes | str) -> list[str]:
    return [error.message for error in validator(name).iter_errors(json.loads(data))]


# --- events -----------------------------------------------------------------------------------


@pytest.mark.parametrize("event", EVENTS, ids=name_of)
def test_an_entry_of_every_event_is_as_the_document_says(event: Any) -> None:
    stamp = Stamp("run_1", "A", turn=1, depth=1, parent_run_id="run_0", time=1.5, path=("c",))
    entry = Entry(7, stamp, event).to_json()

    assert errors_of("Entry", entry) == []
    assert errors_of("StreamMessage", entry) == []


def test_every_type_of_event_has_a_schema_of_its_own() -> None:
    mapping = SCHEMAS["Event"]["discriminator"]["mapping"]

    assert mapping == {kind: f"#/components/schemas/{cls.__name__}" for kind, cls in EVENT_TYPES.items()}
    for kind, cls in EVENT_TYPES.items():
        assert SCHEMAS[cls.__name__]["properties"]["type"]["enum"] == [kind]
        assert SCHEMAS[cls.__name__]["description"] == inspect.getdoc(cls)


def test_an_event_that_the_document_does_not_know_is_not_valid() -> None:
    stamp = Stamp("run_1", "A")
    entry = json.loads(Entry(1, stamp, EVENTS[-1]).to_json())
    entry["event"]["type"] = "run.vanished"

    assert errors_of("StreamMessage", json.dumps(entry)) != []


@pytest.mark.parametrize("event", EVENTS, ids=name_of)
def test_an_event_without_a_field_that_it_always_has_is_not_valid(event: Any) -> None:
    plain = json.loads(event.to_json())
    required = set(SCHEMAS[EVENT_TYPES[event.type].__name__]["required"])
    assert "type" in required

    for name in required:
        left = {key: value for key, value in plain.items() if key != name}
        assert errors_of("Event", json.dumps(left)) != [], name


def test_the_schema_of_an_event_has_the_fields_that_the_event_writes() -> None:
    for event in EVENTS:
        written = json.loads(event.to_json()).keys()
        assert SCHEMAS[EVENT_TYPES[event.type].__name__]["properties"].keys() == written, event.type


def test_what_a_stream_tells_of_itself_is_as_the_document_says() -> None:
    told = [
        position_message(3),
        gap_message(LogGapError("run_1", 1, 4), 0),
        error_message("broken_off", "The stream broke off.", 3, "err_1"),
        error_message("broken_off", "The stream broke off.", 3),
    ]

    for message in told:
        assert errors_of("StreamMessage", message.json) == [], message.type
        assert message.type == json.loads(message.json)["type"]
    assert {message.type for message in told} == {
        SCHEMAS[form.__name__]["properties"]["type"]["enum"][0] for form in schemas.OF_STREAMS
    }


async def test_what_real_runs_stream_is_as_the_document_says() -> None:
    @tool
    async def look(city: str) -> dict[str, Any]:
        return {"city": city, "raw": b"\xff"}

    @tool(needs_approval=True)
    async def book(city: str) -> str:
        return f"booked {city}"

    inner = Agent(name="Inner", model=ScriptedModel([[reasoning("Well."), "Inside."]]))
    steps: list[Any] = [
        [function_call("look", {"city": "Ulm"}), function_call("ask", {"input": "x"})],
        [function_call("book", {"city": "Ulm"}, call_id="c1")],
        "Done.",
    ]
    tools: list[Any] = [look, book, inner.as_tool("ask", "Asks.")]
    agent = Agent(name="A", model=ScriptedModel(steps), tools=tools)
    async with serving(create_app(agent, access=OPEN, log=MemoryLog())) as client:
        run_id = (await client.post("/runs", json={"input": "Hi"})).json()["run_id"]
        await events_of(client, run_id, until="pause")
        decision = {"call_id": "c1", "approved": True}
        assert (await client.post(f"/runs/{run_id}/decisions", json=decision)).status_code == 202
        whole = await events_of(client, run_id)
        filtered = await events_of(client, run_id, types="run.completed", depth=0)

    assert len(whole) > 30
    assert json.loads(whole[-1].data)["event"]["type"] == "run.completed"
    for event in [*whole, *filtered]:
        assert errors_of("StreamMessage", event.data) == [], event.data


# --- answers and words ------------------------------------------------------------------------


def problems() -> Iterable[Problem]:
    return [each for each in vars(answers).values() if isinstance(each, Problem)]


def test_an_error_is_as_the_document_says() -> None:
    facts: dict[str, Any] = {"error_id": "err_1", "requested": 1, "first": 2, "run_id": "run_1"}

    for problem in [*problems(), invalid("x", "y")]:
        for told in ({}, facts):
            error = json.dumps({"error": problem_fields(problem, told)})
            assert errors_of("ErrorAnswer", error) == [], problem


def test_every_problem_of_the_server_stands_at_some_endpoint() -> None:
    told = json.dumps(DOCUMENT["paths"])
    of_no_endpoint = {"unknown_path", "wrong_method"}

    for problem in problems():
        assert (f"`{problem.code}`: " in told) != (problem.code in of_no_endpoint), problem.code


def test_everything_that_is_described_has_words() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            for parameter in operation["parameters"]:
                assert parameter["description"], (method, path, parameter["name"])
            for status, told in operation["responses"].items():
                assert told["description"], (method, path, status)
    for name, schema in SCHEMAS.items():
        assert schema.get("description"), name


def test_names_of_operations_are_used_once() -> None:
    names = [each.name for each in ENDPOINTS]

    assert len(names) == len(set(names))
    assert len({(each.method, each.path) for each in ENDPOINTS}) == len(ENDPOINTS)


def test_every_reference_leads_to_something() -> None:
    refs = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(DOCUMENT)))

    assert refs <= SCHEMAS.keys()


# --- asked for --------------------------------------------------------------------------------


async def test_the_document_says_where_its_server_is_mounted() -> None:
    app = create_app(Agent(name="A"), access=OPEN, log=MemoryLog())
    outer = Starlette(routes=[Mount("/agents", app)])
    async with serving(outer) as client:
        mounted = (await client.get("/agents/openapi.json")).json()
    async with serving(create_app(Agent(name="A"), access=OPEN, log=MemoryLog())) as client:
        alone = (await client.get("/openapi.json")).json()

    assert mounted["servers"] == [{"url": "/agents"}]
    assert alone["servers"] == [{"url": "/"}]
    assert alone == {**DOCUMENT, "servers": [{"url": "/"}]}


async def test_a_method_that_a_path_has_not_is_answered_with_those_that_it_has() -> None:
    async with serving(create_app(Agent(name="A"), access=OPEN, log=MemoryLog())) as client:
        answers = [await client.request(method, "/runs") for method in ("OPTIONS", "PUT", "TRACE")]
        of_one = await client.post("/health")

    assert {(each.status_code, each.headers["allow"]) for each in answers} == {(405, "GET, HEAD, POST")}
    assert of_one.headers["allow"] == "GET, HEAD"
