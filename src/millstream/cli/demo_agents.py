"""The agents of the demo: real ones, with real tools, on a model that reads its lines."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millstream.agent import Agent
from millstream.clock import current_clock
from millstream.models.script import ModelStep, function_call
from millstream.models.scripted import ScriptedModel
from millstream.tool import FunctionTool, function_tool
from millstream.usage import Usage

if TYPE_CHECKING:
    from millstream.context import RunContextWrapper, ToolContext

PROMPT = "I have a free Saturday in Lyon and 100 euros. What should I do?"

WORDS_PER_SECOND = 15.0


@dataclass
class DayPlan:
    """What the run comes to: an object, not text."""

    city: str
    morning: str
    afternoon: str
    evening: str
    cost_in_euros: int


_PLAN = DayPlan(
    city="Lyon",
    morning="the food market on the Croix-Rousse, while it is sunny",
    afternoon="the silk museum: free, and dry when the rain comes",
    evening="19:30 at the Café du Soleil, then jazz at the Hot Club",
    cost_in_euros=78,
)


def front_desk(speed: float = 1.0) -> Agent[Any]:
    """The agent that the demo starts with; `speed` divides every waiting time."""
    local = Agent[Any](
        name="Local",
        instructions="You live in Lyon. Answer in a sentence or two.",
        model=_model(_LOCAL, speed),
    )
    planner = Agent[Any](
        name="Planner",
        handoff_description="Plans a day in a city.",
        instructions="Look things up, then plan the day.",
        tools=[*_tools(speed), local.as_tool("ask_a_local", "Ask somebody who lives there.")],
        output_type=DayPlan,
        model=_model(_PLANNER, speed),
    )
    return Agent[Any](
        name="Front desk",
        instructions="Find out what is wanted and hand over.",
        handoffs=[planner],
        model=_model(_FRONT_DESK, speed),
    )


def _model(steps: list[ModelStep], speed: float) -> ScriptedModel:
    return ScriptedModel(steps, tokens_per_second=WORDS_PER_SECOND * speed)


def _tools(speed: float) -> list[Any]:
    def told(_: RunContextWrapper[Any], error: Exception) -> str:
        return f"{type(error).__name__}: {error}"

    @function_tool
    async def weather(city: str, day: str) -> str:
        """The forecast for a city."""
        await current_clock().sleep(0.6 / speed)
        return "sunny until 16:00, then rain; 24 °C"

    @function_tool
    async def events(ctx: ToolContext[Any], city: str, day: str) -> list[str]:
        """What is on in a city."""
        for calendar in range(1, 4):
            await current_clock().sleep(0.5 / speed)
            ctx.progress(f"{calendar} of 3 calendars")
        return ["food market, Croix-Rousse", "silk museum, free entry", "jazz at the Hot Club"]

    @function_tool(failure_error_function=told)
    async def tables(city: str, people: int, under_euros: int) -> list[str]:
        """Restaurants that have a table."""
        await current_clock().sleep(1.0 / speed)
        if under_euros < 25:
            raise ConnectionError("the booking service did not answer")
        return ["Café du Soleil, 19:30", "Le Garet, 20:00"]

    tools: list[FunctionTool] = [weather, events, tables]
    return tools


def _step(*output: Any, tokens: tuple[int, int]) -> ModelStep:
    into, out = tokens
    return ModelStep(
        list(output), Usage(requests=1, input_tokens=into, output_tokens=out, total_tokens=into + out)
    )


_FRONT_DESK = [
    _step(
        "A free Saturday in Lyon: lucky you. Our planner knows the city, so over to it.",
        function_call("transfer_to_planner", {}, call_id="call_1"),
        tokens=(96, 34),
    )
]

_LOCAL = [
    _step(
        "The market, before the crowd comes at ten.\nThe museum will keep until the rain.",
        tokens=(58, 21),
    )
]

_PLANNER = [
    _step(
        "Happy to. I'll look at the weather, at what is on, and for a table, all at once.",
        function_call("weather", {"city": "Lyon", "day": "Saturday"}, call_id="call_2"),
        function_call("events", {"city": "Lyon", "day": "Saturday"}, call_id="call_3"),
        function_call("tables", {"city": "Lyon", "people": 1, "under_euros": 20}, call_id="call_4"),
        tokens=(231, 88),
    ),
    _step(
        "The booking service failed me. I'll try once more, and ask somebody who knows.",
        function_call("tables", {"city": "Lyon", "people": 1, "under_euros": 40}, call_id="call_5"),
        function_call("ask_a_local", {"input": "Market or museum first?"}, call_id="call_6"),
        tokens=(398, 68),
    ),
    _step(
        # A type that is not a JSON object by itself is asked of models as the field `response`.
        json.dumps({"response": dataclasses.asdict(_PLAN)}, indent=2, ensure_ascii=False),
        tokens=(467, 92),
    ),
]
