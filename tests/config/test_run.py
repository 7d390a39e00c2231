"""Run configuration, also as a dict."""

import sys
import types
from typing import Any

import pytest

from millstream import Agent, MemoryLog, Runner
from millstream.clock import SYSTEM_CLOCK, SystemClock
from millstream.config import ModelSettings, RunConfig, ToolExecutionConfig
from millstream.context import RunContextWrapper
from millstream.errors import UserError
from millstream.testing import ScriptedModel


def test_what_holds_where_nothing_is_said() -> None:
    config = RunConfig.of(None)

    assert (config.ahead, config.when_unread, config.log, config.clock) == (
        "turn",
        "continue",
        None,
        SYSTEM_CLOCK,
    )
    assert (config.tool_not_found_behavior, config.tool_name_collision_policy) == ("raise_error", "error")


def test_a_configuration_is_taken_as_it_is_and_a_dict_made_one() -> None:
    config = RunConfig(ahead="free")

    assert RunConfig.of(config) is config
    assert RunConfig.of({"ahead": "free"}) == config


def test_nested_settings_may_be_dicts_too() -> None:
    config = RunConfig.of(
        {"model_settings": {"top_p": 1}, "tool_execution": {"max_function_tool_concurrency": 2}}
    )

    assert config.model_settings == ModelSettings(top_p=1)
    assert config.tool_execution == ToolExecutionConfig(max_function_tool_concurrency=2)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"max_turn": 3, "modle": "x"}, "run_config: RunConfig has no 'max_turn'"),
        ({"modle": "x"}, r"has no 'modle'\. Did you mean 'model'\?"),
        ({"zzz": 1}, r"has no 'zzz'\. It has: model, model_provider"),
        ({"model_settings": {"tempratur": 1}}, r"RunConfig\.model_settings: .*Did you mean 'temperature'\?"),
        ({"tool_execution": {"concurrency": 1}}, r"RunConfig\.tool_execution: .*has no 'concurrency'"),
        ("fast", "run_config takes a RunConfig or a dict, not str"),
        ({"ahead": "far"}, "ahead is 'turn', 'free' or a number of bytes, not 'far'"),
        ({"ahead": 0}, "ahead"),
        ({"ahead": True}, "ahead"),
        ({"when_unread": "stop"}, "when_unread is one of 'continue', 'cancel', not 'stop'"),
        ({"clock": 5}, r"RunConfig\.clock is a Clock, not int, which has no time\(\)"),
        ({"clock": None}, r"RunConfig\.clock is a Clock, not NoneType"),
        (
            {"clock": SystemClock},
            r"RunConfig\.clock is a Clock, not a class: make one, SystemClock\(\.\.\.\)",
        ),
        ({"clock": types.SimpleNamespace(time=int)}, r"RunConfig\.clock .* has no monotonic\(\)"),
        ({"log": "runs.db"}, r"'runs\.db' is not the address of a log: .* The forms are sqlite:///runs\.db"),
        ({"log": 5}, r"RunConfig\.log is an EventLog, the address of one or None, not int"),
        ({"model": 5}, r"RunConfig\.model is the name of a model, a Model or None, not int"),
        ({"model": ScriptedModel}, r"RunConfig\.model is .* not a class: make one"),
        ({"model_provider": "openai"}, r"RunConfig\.model_provider is a ModelProvider or None, not str"),
        (
            {"call_model_input_filter": 1},
            r"RunConfig\.call_model_input_filter is a function or None, not int",
        ),
        ({"tool_error_formatter": "x"}, r"RunConfig\.tool_error_formatter is a function or None, not str"),
        ({"handoff_input_filter": []}, r"RunConfig\.handoff_input_filter is a function or None, not list"),
        ({"tool_not_found_behavior": "x"}, "tool_not_found_behavior is one of"),
        ({"tool_name_collision_policy": "x"}, "tool_name_collision_policy is one of"),
        ({"reasoning_item_id_policy": "drop"}, "reasoning_item_id_policy is one of"),
    ],
)
def test_a_mistake_is_named_with_what_to_change(value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RunConfig.of(value)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_lets_at_least_one_tool_run(limit: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ToolExecutionConfig(max_function_tool_concurrency=limit)


@pytest.mark.parametrize("ahead", ["turn", "free", 1, 65536])
def test_how_far_ahead_a_run_may_get(ahead: Any) -> None:
    assert RunConfig(ahead=ahead).ahead == ahead


def test_the_default_provider_is_made_once_and_only_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    provider: Any = types.ModuleType("millstream.models.provider")
    provider.MultiProvider = object
    monkeypatch.setitem(sys.modules, "millstream.models.provider", provider)
    config = RunConfig()

    assert config.model_provider is None
    assert config.get_model_provider() is config.get_model_provider()


def test_a_provider_that_is_given_is_the_one() -> None:
    given: Any = types.SimpleNamespace(get_model=str)

    assert RunConfig(model_provider=given).get_model_provider() is given


@pytest.mark.may_block  # openai is imported with the first usage
async def test_a_formatter_may_be_async_and_may_decline() -> None:
    async def shout(args: Any) -> str:
        return args.default_message.upper()

    async def told(config: RunConfig) -> str:
        return await config.format_tool_error(
            kind="tool_not_found",
            tool_name="t",
            call_id="c",
            default_message="no such tool",
            run_context=RunContextWrapper(None),
        )

    assert await told(RunConfig()) == "no such tool"
    assert await told(RunConfig(tool_error_formatter=shout)) == "NO SUCH TOOL"
    assert await told(RunConfig(tool_error_formatter=lambda args: None)) == "no such tool"


async def test_a_log_may_be_named_by_its_address_and_is_one_store_for_all_runs() -> None:
    config = RunConfig(log="memory:")
    agent = Agent(name="A", model=ScriptedModel(["One.", "Two."]))

    first = await Runner.run(agent, "x", run_config=config)
    second = await Runner.run(agent, "x", run_config={"log": "memory:"})

    log = config.get_log()
    assert isinstance(log, MemoryLog)
    assert log is RunConfig(log="memory:").get_log()
    assert {first.run_id, second.run_id} <= {record.run_id for record in await log.runs()}
    assert RunConfig().get_log() is None
