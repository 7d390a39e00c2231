"""Generated scenarios: a description in JSON, which both sides make the same agents of.

One scripted model answers for all agents, so that the script is the sequence of answers of the
run, whoever acts. What a description may hold is said by `tests/differential/test_fuzz.py`.
"""

# A name of a kit is a class only when it runs.
# pyright: reportInvalidTypeForm=false

import asyncio
from typing import Any

from tests.differential.kit import Case, Kit, Scenario

OUTPUT_TYPES: dict[str, Any] = {"text": None, "int": int, "list": list[int]}
OUTPUTS: dict[Any, Any] = {None: "handled", int: 7, list[int]: [7]}
"""What an error handler makes the output, by the output type of the agent."""


def scenario_of(spec: dict[str, Any]) -> Scenario:
    """The scenario that `spec` describes."""

    def scenario(kit: Kit) -> Case:
        model = kit.script(*(_step(kit, turn, step) for turn, step in enumerate(spec["script"])))
        agents = [_agent(kit, name, each, model) for name, each in zip("ABC", spec["agents"], strict=False)]
        for agent, each in zip(agents, spec["agents"], strict=True):
            agent.handoffs = [agents[index] for index in each["handoffs"] if index < len(agents)]
        options = {
            "max_turns": spec["max_turns"],
            "run_config": {"tool_not_found_behavior": spec["not_found"]},
            "error_handlers": {
                kind: lambda given: given.run_data.last_agent.name for kind in spec["handlers"]
            },
            **spec["conversation"],
        }
        return Case(agents[0], spec["input"], options)

    return scenario


def _handled(given: Any) -> Any:
    return OUTPUTS[given.run_data.last_agent.output_type]


def _agent(kit: Kit, name: str, spec: dict[str, Any], model: Any) -> Any:
    return kit.Agent(
        name=name,
        instructions=spec["instructions"],
        tools=[_tool(kit, f"tool_{n}", each) for n, each in enumerate(spec["tools"])],
        model=model,
        model_settings=kit.ModelSettings(tool_choice=spec["tool_choice"]),
        output_type=OUTPUT_TYPES[spec["output_type"]],
        tool_use_behavior=spec["behavior"],
        reset_tool_choice=spec["reset"],
    )


def _tool(kit: Kit, name: str, spec: dict[str, Any]) -> Any:
    """A tool that gives its result after so many steps of the event loop, or raises it."""

    # Which tools are done when the error of another ends the run is luck, so that one comes last.
    steps = spec["steps"] + (20 if spec["raises"] == "to the end" else 0)

    async def work(context: kit.RunContextWrapper[Any], n: int = 0) -> Any:
        kit.note(name, n, context.usage.requests)
        for _ in range(steps):
            await asyncio.sleep(0)
        if spec["raises"]:
            raise ValueError(str(spec["result"]))
        return spec["result"]

    options: dict[str, Any] = {"failure_error_function": None} if spec["raises"] == "to the end" else {}
    return kit.function_tool(work, name_override=name, is_enabled=spec["is_enabled"], **options)


def _step(kit: Kit, turn: int, step: Any) -> Any:
    if step == "raise":
        return ConnectionError("no line")
    return [_item(kit, f"{turn}_{place}", *item) for place, item in enumerate(step)]


def _item(kit: Kit, place: str, kind: str, value: Any) -> Any:
    if kind == "say":
        return kit.say(value, f"msg_{place}")
    if kind == "hand over":
        return kit.call(f"transfer_to_{value}", call_id=f"call_{place}")
    name, n = value
    return kit.call(name, {"n": n}, f"call_{place}")
