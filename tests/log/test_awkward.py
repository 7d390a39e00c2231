"""Values of strangers in every keeper: what a run writes is read back the same, by another log on the same engine."""

import json
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from openai.types.responses import ResponseFunctionToolCall

from millstream import Agent, codec
from millstream.clock import SYSTEM_CLOCK
from millstream.context import RunContextWrapper
from millstream.events import Event, RunCompleted, RunItemStreamEvent, ToolProgress, UserEvent
from millstream.log import Batch
from millstream.run.state import RunProgress
from millstream.run.tools import output_item
from millstream.run.writer import Trunk, Writer
from millstream.testing import CANARY, awkward_values
from tests.support.keepers import Engine

AGENT = Agent("A")


def tool_output(value: Any) -> Event:
    call = ResponseFunctionToolCall(call_id="c", name="f", arguments="{}", type="function_call")
    return RunItemStreamEvent(item=output_item(AGENT, call, value))


WAYS: dict[str, Callable[[Any], Event]] = {
    "tool output": tool_output,
    "user event": lambda value: UserEvent(name="u", data=value),
    "progress": lambda value: ToolProgress(call_id="c", name="f", data=value),
}


class Taken(Trunk):
    """Remembers what it gave places to, and what it looked like then."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lines: list[bytes] = []

    def take(self, *args: Any, **options: Any) -> Batch:
        batch = super().take(*args, **options)
        self.lines += [entry.to_json() for entry in batch.entries()]
        return batch


def strictly(line: bytes) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is no JSON")

    text = line.decode()  # strict UTF-8
    assert len(text.splitlines()) == 1
    decoded = json.loads(text, parse_constant=refuse)
    text.encode()
    return decoded


@pytest.mark.hostile
@pytest.mark.parametrize("way", WAYS)
async def test_an_awkward_value_is_read_back_as_it_was_written_by_another_log(
    engine: Engine, way: str
) -> None:
    place = engine.new_place()
    writes, reads = engine.open(place), engine.open(place)
    progress = RunProgress("run_1", "Hi", AGENT, RunContextWrapper(None), max_turns=None)
    trunk = Taken(writes, "run_1")
    writer = Writer(trunk, progress, SYSTEM_CLOCK)

    names = [name for name, _ in awkward_values()]
    for _, value in awkward_values():
        await writer.write([WAYS[way](value)])
    await writer.write([RunCompleted(output=awkward_values()[0].value)])
    entries = [entry async for entry in reads.follow("run_1")]
    await writes.aclose()
    await reads.aclose()

    differ = [
        name
        for name, entry, line in zip([*names, "the end"], entries, trunk.lines, strict=True)
        if entry.to_json() != line
    ]
    assert differ == []


@pytest.mark.hostile
async def test_a_value_comes_back_or_a_mark_stands_in_its_place(engine: Engine) -> None:
    place = engine.new_place()
    writes, reads = engine.open(place), engine.open(place)
    progress = RunProgress("run_1", "Hi", AGENT, RunContextWrapper(None), max_turns=None)
    writer = Writer(Trunk(writes, "run_1"), progress, SYSTEM_CLOCK)

    for name, value in awkward_values():
        await writer.write([UserEvent(name=name, data=value)])
    await writer.write([RunCompleted(output=None)])
    entries = [entry async for entry in reads.follow("run_1")]
    await writes.aclose()
    await reads.aclose()

    for (name, value), entry in zip(awkward_values(), entries, strict=False):
        said = UserEvent(name=name, data=value)
        bad = said.seal()
        line = entry.to_json()
        event = strictly(line)["event"]
        assert event == strictly(said.to_json()), name
        if bad:
            text = json.dumps(event["data"], ensure_ascii=False)
            assert any(mark in text for mark in MARKS), name
        assert CANARY.encode() not in line, name


MARKS = ("$unserializable", codec.CUT_MARK[:6], "\ufffd", "'")
"""By which what has no JSON is known: a placeholder, a cut, half a character, two keys that fall together."""
