"""Runs a case and writes down, as plain JSON, all that a program could have seen of it."""

import asyncio
import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from tests.differential.kit import Case, Kit, Scenario

MODES = ("run", "run_streamed")
DEADLINE = 30.0
"""Seconds that one run may take before it counts as hanging."""


def record(package: str, scenario: Scenario, mode: str) -> Any:
    """What a program sees of `scenario` when it is run by `package` in `mode`."""
    kit = Kit(package)
    seen: dict[str, Any] = {}
    try:
        case = scenario(kit)  # as programs do it: before the event loop runs
    except Exception as error:
        seen["set_up"] = exception(error)
    else:
        run = _run if mode == "run" else _run_streamed
        asyncio.run(asyncio.wait_for(run(kit, case, seen), DEADLINE))
    seen["calls"] = [model_call(call) for model in kit.models for call in model.calls]
    seen["notes"] = plain(kit.notes)
    return seen


async def _run(kit: Kit, case: Case, seen: dict[str, Any]) -> None:
    try:
        done = await kit.Runner.run(case.agent, case.input, **case.options)
    except Exception as error:
        seen["error"] = exception(error)
    else:
        seen["result"] = result(done)
        await _after(case, done, seen)


async def _run_streamed(kit: Kit, case: Case, seen: dict[str, Any]) -> None:
    events: list[Any] = []
    seen["events"] = events
    try:
        handle = kit.Runner.run_streamed(case.agent, case.input, **case.options)
    except Exception as error:
        seen["error"] = exception(error)
        return
    try:
        async for each in handle.stream_events():
            events.append(event(each))
            if case.on_event is not None:
                case.on_event(handle, each)
    except Exception as error:
        seen["error"] = exception(error)
    seen["result"] = result(handle)
    seen["handle"] = {
        "current_turn": handle.current_turn,
        "is_complete": handle.is_complete,
        "current_agent": handle.current_agent.name,
    }
    await _after(case, handle, seen)


async def _after(case: Case, done: Any, seen: dict[str, Any]) -> None:
    if case.after is not None:
        answer = case.after(done)
        seen["after"] = plain(await answer if inspect.isawaitable(answer) else answer)


# --- what is written down -------------------------------------------------------------------


def event(each: Any) -> Any:
    """An event: its kind, and what it says."""
    if each.type == "raw_response_event":
        return [each.type, plain(each.data)]
    if each.type == "run_item_stream_event":
        return [each.type, each.name, item(each.item)]
    return [each.type, each.new_agent.name]


_ITEM_FIELDS = ("output", "description", "title", "custom_data", "call_id", "tool_name")


def item(each: Any) -> Any:
    """An item: its type, its payload, and its own fields."""
    data = {"type": each.type, "agent": each.agent.name, "raw_item": plain(each.raw_item)}
    data |= {name: plain(getattr(each, name)) for name in _ITEM_FIELDS if hasattr(each, name)}
    for name in ("source_agent", "target_agent"):
        if hasattr(each, name):
            data[name] = getattr(each, name).name
    return data


def result(done: Any) -> Any:
    """What both kinds of result tell."""
    return {
        "input": plain(done.input),
        "new_items": [item(each) for each in done.new_items],
        "raw_responses": plain(done.raw_responses),
        "final_output": plain(done.final_output),
        "last_agent": done.last_agent.name,
        "last_response_id": done.last_response_id,
        "max_turns": done.max_turns,
        "usage": plain(done.context_wrapper.usage),
        "interruptions": plain(done.interruptions),
        **verdicts(done),
        "to_input_list": plain(done.to_input_list()),
        "to_input_list_normalized": plain(done.to_input_list(mode="normalized")),
    }


def exception(error: BaseException) -> Any:
    """An exception: the names it can be caught by, its text, and how far the run had come."""
    classes = [
        each.__name__
        for each in type(error).__mro__
        if issubclass(each, Exception) and not each.__name__.startswith("_")
    ]
    data: dict[str, Any] = {"classes": classes, "text": str(error)}
    run_data = getattr(error, "run_data", None)
    if run_data is not None:
        data["run_data"] = {
            "input": plain(run_data.input),
            "new_items": [item(each) for each in run_data.new_items],
            "raw_responses": plain(run_data.raw_responses),
            "last_agent": getattr(run_data.last_agent, "name", None),
            "usage": plain(run_data.context_wrapper.usage),
            **verdicts(run_data),
        }
    result = getattr(error, "guardrail_result", None)
    if result is not None:
        data["guardrail_result"] = verdict(result)
    elif hasattr(error, "guardrail"):
        data["guardrail_result"] = verdict(error)
    return data


def verdicts(run: Any) -> Any:
    """What the guardrails of a run found."""
    kinds = ("input", "output", "tool_input", "tool_output")
    return {
        f"{kind}_guardrails": [verdict(each) for each in getattr(run, f"{kind}_guardrail_results")]
        for kind in kinds
    }


def verdict(each: Any) -> Any:
    """What one guardrail found."""
    data = {"guardrail": each.guardrail.get_name(), "output": plain(each.output)}
    if hasattr(each, "agent_output"):
        data |= {"agent": each.agent.name, "agent_output": plain(each.agent_output)}
    return data


def model_call(call: Any) -> Any:
    """What a model was asked."""
    schema = call.output_schema
    return {
        "system_instructions": call.system_instructions,
        "input": plain(call.input),
        "model_settings": plain(call.model_settings.to_json_dict()),
        "tools": [tool(each) for each in call.tools],
        "output_schema": None if schema is None else output_schema(schema),
        "handoffs": [handoff(each) for each in call.handoffs],
        "previous_response_id": call.previous_response_id,
        "conversation_id": call.conversation_id,
        "prompt": plain(call.prompt),
        "streamed": call.streamed,
    }


def tool(each: Any) -> Any:
    """A tool as a model is told of it."""
    if not hasattr(each, "params_json_schema"):
        return plain(each)
    return {
        "name": each.name,
        "description": each.description,
        "params_json_schema": each.params_json_schema,
        "strict_json_schema": each.strict_json_schema,
    }


def handoff(each: Any) -> Any:
    """A handoff as a model is told of it."""
    names = ("tool_name", "tool_description", "input_json_schema", "strict_json_schema", "agent_name")
    return {name: getattr(each, name) for name in names}


def output_schema(schema: Any) -> Any:
    """An output type as a model is told of it."""
    plain_text = schema.is_plain_text()
    return {
        "name": schema.name(),
        "is_plain_text": plain_text,
        "json_schema": None if plain_text else schema.json_schema(),
        "strict": schema.is_strict_json_schema(),
    }


ADDED = frozenset({"estimated"})
"""Fields that we have beyond the SDK's, with defaults: they are nobody's surprise."""


def plain(value: Any) -> Any:
    """Any value as JSON that tells of it what a program could tell, and no more."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if isinstance(value, BaseException):
        return exception(value)
    if hasattr(value, "model_dump"):
        return {"class": type(value).__name__, **value.model_dump(mode="json", exclude_none=True)}
    if hasattr(value, "handoff_description"):
        return {"agent": value.name}
    if hasattr(value, "raw_item"):
        return item(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [each.name for each in dataclasses.fields(value) if each.name not in ADDED]
        return {"class": type(value).__name__, **{name: plain(getattr(value, name)) for name in names}}
    return {"object": type(value).__name__}
