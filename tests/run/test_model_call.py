"""The model call of a turn. Its tries are in `test_retry.py`, its stops in `test_loop.py`."""

from typing import Any

import pytest
from openai.types.responses import ResponseFunctionToolCall

from millstream import Agent, MaxTurnsExceeded, Model, ModelResponse, Runner, Usage, tool


class SameAnswer(Model):
    """Gives one and the same object, as one that looks its answers up does."""

    def __init__(self) -> None:
        call = ResponseFunctionToolCall(type="function_call", call_id="c", name="look", arguments="{}")
        usage = Usage(requests=1, input_tokens=2, output_tokens=1, total_tokens=3)
        self.answer = ModelResponse(output=[call], usage=usage, response_id=None)

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        return self.answer

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@tool
def look() -> str:
    return "seen"


async def test_a_model_may_answer_two_turns_with_one_object() -> None:
    agent = Agent(name="a", model=SameAnswer(), tools=[look])

    with pytest.raises(MaxTurnsExceeded) as raised:
        await Runner.run(agent, "hi", max_turns=2)

    data = raised.value.run_data
    assert data is not None
    assert [item.type for item in data.new_items] == ["tool_call_item", "tool_call_output_item"] * 2
    assert len(data.raw_responses) == 2
    assert data.context_wrapper.usage.total_tokens == 6
