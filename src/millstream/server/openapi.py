"""The OpenAPI document of a server: what its table says, and the schemas of what crosses the wire.

It is of version 3.2, the first that says what the events of a stream are: `itemSchema`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec

from millstream.about import __version__
from millstream.log.conversation import CONVERSATION_ID
from millstream.server.answers import (
    BAD_JSON,
    BAD_REQUEST,
    INTERNAL,
    LEFT,
    NO_ACCESS,
    NO_CONVERSATION,
    NO_RUN,
    NO_STORE,
    NOT_JSON,
    TOO_LARGE,
    TOO_SLOW,
    WRONG_ORIGIN,
    ErrorAnswer,
    Problem,
)
from millstream.server.endpoint import Answered, Endpoint, Stream
from millstream.server.reading import RUN_ID, reads_only
from millstream.server.schemas import Schema, ref, schemas_of

ABOUT = """Runs of agents that outlive their connections.

A caller sees his own runs and nothing of others'. Who he is, the server finds out by a hook of its own, of which
nothing stands here. Every path that is read by GET may be asked for by HEAD. A method that a path does not have is
answered 405 with `Allow`, a path that there is not 404. An `Accept` header is not looked at, but for that of a start,
which asks for a stream by it, too. Parameters that nothing is said of here are for the hook, or for nobody.

A value that has no JSON stands in an event as `{"$unserializable": …}`, whatever the field is."""

PATH_PARAMETERS: dict[str, tuple[str, str, Problem]] = {
    "run_id": ("The run.", f"^{RUN_ID}$", NO_RUN),
    "conversation": ("The conversation.", CONVERSATION_ID, NO_CONVERSATION),
}
"""What stands in paths, by name: what it is, what it looks like, and what is told where there is none."""


def document(endpoints: Sequence[Endpoint[Any, Any, Any]]) -> dict[str, Any]:
    """The OpenAPI document of `endpoints`, but for `servers`."""
    texts = {form for each in endpoints for form in (each.query, each.headers) if form is not None}
    schemas = schemas_of({*texts, *chain.from_iterable(_forms(each) for each in endpoints)})
    of_texts = {form: schemas.pop(form.__name__)["properties"] for form in texts}
    paths: dict[str, Any] = {}
    for each in endpoints:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, of_texts, endpoints)
    return {
        "openapi": "3.2.0",
        "info": {"title": "Millstream", "version": __version__, "description": ABOUT},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _forms(endpoint: Endpoint[Any, Any, Any]) -> Iterator[type[msgspec.Struct]]:
    """The structs of what an endpoint reads as JSON, and answers."""
    if endpoint.body is not None:
        yield endpoint.body
    for answered in endpoint.answers.values():
        form = answered.message if isinstance(answered, Stream) else answered
        if isinstance(form, type):
            yield form
    yield ErrorAnswer


def _operation(
    endpoint: Endpoint[Any, Any, Any],
    of_texts: dict[Any, dict[str, Schema]],
    endpoints: Sequence[Endpoint[Any, Any, Any]],
) -> dict[str, Any]:
    words = inspect.getdoc(endpoint.handler) or ""
    responses = {
        **_problems(endpoint),
        **{str(status): _answer(each, endpoints) for status, each in endpoint.answers.items()},
    }
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "tags": [endpoint.tag],
        "summary": words.partition("\n")[0].partition(". ")[0].rstrip("."),
        "description": words,
        "parameters": list(_parameters(endpoint, of_texts)),
        "responses": dict(sorted(responses.items())),
    }
    if endpoint.body is not None:
        content = {"application/json": {"schema": ref(endpoint.body.__name__)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(
    endpoint: Endpoint[Any, Any, Any], of_texts: dict[Any, dict[str, Schema]]
) -> Iterator[dict[str, Any]]:
    for name in _named_in(endpoint.path):
        words, pattern, _ = PATH_PARAMETERS[name]
        schema = {"type": "string", "pattern": pattern}
        yield {"name": name, "in": "path", "required": True, "description": words, "schema": schema}
    for place, form in (("query", endpoint.query), ("header", endpoint.headers)):
        for name, schema in of_texts.get(form, {}).items():
            parameter = _of_text(schema)
            if place == "header" and parameter["schema"].get("type") != "string":  # see `headers_of`
                parameter["schema"] = {"anyOf": [parameter["schema"], {"const": ""}]}
            yield {"name": name, "in": place, **parameter}


def _of_text(schema: Schema) -> dict[str, Any]:
    """What is said of a text that stands for a value. Where it may be None, it is not given."""
    schema = dict(schema)
    words = {"description": schema.pop("description", "")}
    if schema.get("default", "") is None:
        del schema["default"]
        (schema,) = [each for each in schema["anyOf"] if each != {"type": "null"}]
    return {**words, "schema": schema}


def _answer(answered: Answered, endpoints: Sequence[Endpoint[Any, Any, Any]]) -> dict[str, Any]:
    if answered is None:
        return {"description": "Nothing."}
    if answered == "any":
        return {"description": "A JSON object.", "content": _json({"type": "object"})}
    if isinstance(answered, Stream):
        return _stream(answered)
    told: dict[str, Any] = {
        "description": inspect.getdoc(answered),
        "content": _json(ref(answered.__name__)),
    }
    if links := dict(_links(answered, endpoints)):
        told["links"] = links
    return told


def _stream(stream: Stream) -> dict[str, Any]:
    message = stream.message if isinstance(stream.message, str) else stream.message.__name__
    event: Schema = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "pattern": "^[0-9]+$", "description": "The position."},
            "event": {"type": "string", "description": "The type, where `named` wishes it."},
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": ref(message)},
        },
        "required": ["data"],
    }
    return {
        "description": "Server-sent events, until the stream says that it is over. Comments keep it open.",
        "headers": {
            name: {"description": words, "schema": {"type": "string"}}
            for name, words in stream.headers.items()
        },
        "content": {"text/event-stream": {"itemSchema": event}},
    }


def _links(
    answered: type[msgspec.Struct], endpoints: Sequence[Endpoint[Any, Any, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What may be asked with the ids that an answer names."""
    for each in endpoints:
        for name in _named_in(each.path):
            if name in answered.__struct_fields__:
                parameters = {name: f"$response.body#/{name}"}
                yield each.name, {"operationId": each.name, "parameters": parameters}


def _problems(endpoint: Endpoint[Any, Any, Any]) -> dict[str, Any]:
    """What may be wrong, by status."""
    by_status: dict[int, list[Problem]] = {}
    for problem in chain(_usual(endpoint), endpoint.problems):
        by_status.setdefault(problem.status, []).append(problem)
    return {str(status): _refusal(each) for status, each in by_status.items()}


def _usual(endpoint: Endpoint[Any, Any, Any]) -> Iterator[Problem]:
    """What may be wrong with every request that is read like this one."""
    yield INTERNAL
    if not endpoint.is_open:
        yield from (NO_ACCESS, NO_STORE)
        if not reads_only(endpoint.method):
            yield WRONG_ORIGIN
    for name in _named_in(endpoint.path):
        yield PATH_PARAMETERS[name][2]
    if endpoint.body is not None:
        yield from (LEFT, BAD_JSON, TOO_SLOW, TOO_LARGE, NOT_JSON)
    if endpoint.body is not None or endpoint.query is not None or endpoint.headers is not None:
        yield BAD_REQUEST


def _refusal(problems: Iterable[Problem]) -> dict[str, Any]:
    """The answer to requests with one of these problems, which have one status."""
    told = list({each.code: each for each in problems}.values())
    codes = {"properties": {"code": {"enum": [each.code for each in told]}}}
    refusal: dict[str, Any] = {
        "description": "\n".join(f"- `{each.code}`: {each.message}" for each in told),
        "content": _json({"allOf": [ref("ErrorAnswer"), {"properties": {"error": codes}}]}),
    }
    if any(each.retry_after is not None for each in told):
        words = "Seconds after which it may be asked again."
        refusal["headers"] = {"Retry-After": {"description": words, "schema": {"type": "integer"}}}
    return refusal


def _named_in(path: str) -> list[str]:
    return re.findall(r"{(\w+)}", path)


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
