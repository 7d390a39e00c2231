"""A model whose answer is told by what it is given, so that a run that begins again says the same."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from millstream import Model
from millstream.items import ModelResponse, raw_field
from millstream.testing import ScriptedModel


class ByHistory(Model):
    """Answers by the ids of the calls that have an output in its input, in any order.

    Args:
        steps: what a `ScriptedModel` says, by those ids.
    """

    def __init__(self, steps: Mapping[tuple[str, ...], Any]) -> None:
        self._steps = {frozenset(ids): step for ids, step in steps.items()}
        self.asked: list[frozenset[str]] = []

    def _model(self, input: Any) -> ScriptedModel:
        items = [] if isinstance(input, str) else input
        ids = frozenset(
            raw_field(item, "call_id") for item in items if raw_field(item, "type") == "function_call_output"
        )
        self.asked.append(ids)
        return ScriptedModel([self._steps[ids]])

    async def get_response(
        self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any
    ) -> ModelResponse:
        return await self._model(input).get_response(system_instructions, input, *args, **kwargs)

    async def stream_response(
        self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any
    ) -> AsyncIterator[Any]:
        async for event in self._model(input).stream_response(system_instructions, input, *args, **kwargs):
            yield event
