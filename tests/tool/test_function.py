"""Function tools: made by a decorator, called by a model."""

import asyncio
import contextvars
import functools
import inspect
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import openai.types.responses  # noqa: F401  # as in a run: imported before the loop starts
import pytest
from pydantic import BaseModel

from millstream import decorators
from millstream.config import RunConfig, ToolErrorFormatterArgs
from millstream.context import RunContextWrapper, ToolContext
from millstream.errors import (
    ModelBehaviorError,
    NotSupportedError,
    SchemaError,
    ToolTimeoutError,
    UserError,
)
from millstream.testing import ManualClock
from millstream.tool import (
    FunctionTool,
    default_tool_error_function,
    function_tool,
    invoke_function_tool,
    tool,
)


def context(arguments: str = "{}", *, config: RunConfig | None = None, value: Any = None) -> ToolContext[Any]:
    return ToolContext(value, tool_name="t", tool_call_id="c", tool_arguments=arguments, run_config=config)


async def run(made: FunctionTool, arguments: str = "{}", **options: Any) -> Any:
    return await invoke_function_tool(made, context(arguments, **options), arguments)


class Never:
    """Something to wait for that does not come; tells when the waiting was cancelled."""

    def __init__(self) -> None:
        self.cancelled = False

    async def wait(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


# --- making one --------------------------------------------------------------------------------


def test_one_decorator_has_three_names_and_two_forms() -> None:
    assert tool is function_tool
    assert decorators.tool is tool

    @tool
    def bare(a: int) -> int:
        """Bare."""
        return a

    @tool(name_override="named", description_override="Named.")
    def called(a: int) -> int:
        return a

    assert (bare.name, bare.description) == ("bare", "Bare.")
    assert (called.name, called.description) == ("named", "Named.")
    assert tool(lambda: 1, name_override="one").name == "one"


def test_a_tool_without_docstring_has_an_empty_description() -> None:
    assert tool(json.dumps.__call__, name_override="x", strict_mode=False).description is not None
    assert tool(lambda: 1, name_override="one").description == ""


def test_a_tool_on_the_wire() -> None:
    @tool
    def add(a: int) -> int:
        """Add."""
        return a

    assert add.to_responses_tool() == {
        "type": "function",
        "name": "add",
        "description": "Add.",
        "parameters": {
            "title": "add_args",
            "type": "object",
            "properties": {"a": {"title": "A", "type": "integer"}},
            "required": ["a"],
            "additionalProperties": False,
        },
        "strict": True,
    }


async def test_a_tool_made_by_hand_has_its_schema_made_strict() -> None:
    async def invoke(ctx: ToolContext[Any], arguments: str) -> str:
        return f"{ctx.tool_name}: {arguments}"

    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    by_hand = FunctionTool("t", "", schema, invoke)

    assert by_hand.params_json_schema == schema | {"required": ["a"], "additionalProperties": False}
    assert FunctionTool("t", "", schema, invoke, strict_json_schema=False).params_json_schema is schema
    assert await run(by_hand, '{"a": 1}') == 't: {"a": 1}'


def test_a_tool_made_by_hand_whose_schema_cannot_be_strict_says_what_to_change() -> None:
    async def invoke(ctx: ToolContext[Any], arguments: str) -> str:
        return ""

    with pytest.raises(SchemaError, match=r"Tool 't'.*strict_json_schema=False"):
        FunctionTool("t", "", {"type": "object", "additionalProperties": True}, invoke)


@pytest.mark.parametrize("thing", [3, "name", object()])
def test_only_functions_become_tools(thing: Any) -> None:
    with pytest.raises(UserError, match=r"tool\(\) takes a function"):
        tool(thing)


def test_a_tool_is_not_decorated_twice() -> None:
    decorate: Any = tool(name_override="one")

    with pytest.raises(UserError, match="one is a tool already"):
        decorate(decorate(lambda: 1))


@pytest.mark.parametrize(
    "option",
    [
        {"defer_loading": True},
        {"custom_data_extractor": print},
        {"allowed_callers": ["x"]},
        {"output_type": int},
        {"output_json_schema": {}},
    ],
)
def test_options_that_have_no_effect_here_are_refused_by_name(option: dict[str, Any]) -> None:
    with pytest.raises(NotSupportedError, match=rf"tool\({next(iter(option))}="):
        tool(**option)


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"timeout": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": float("inf")}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"timeout": True}, TypeError),
        ({"timeout": 1, "timeout_behavior": "ignore"}, ValueError),
    ],
)
def test_a_timeout_that_is_none_is_refused(option: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="timeout"):
        tool(lambda: 1, name_override="one", **option)


@pytest.mark.parametrize("retry", ["always", "", True, None, ["never"]])
def test_whether_a_call_may_be_begun_again_is_one_of_two_words(retry: Any) -> None:
    with pytest.raises(ValueError, match=r"Tool one: retry=.*: expected 'safe', .* or 'never'"):
        tool(lambda: 1, name_override="one", retry=retry)


def test_a_tool_may_be_begun_again_unless_it_says_otherwise() -> None:
    assert tool(lambda: 1, name_override="one").retry == "safe"
    assert tool(lambda: 1, name_override="one", retry="never").retry == "never"


# --- calling one -------------------------------------------------------------------------------


class Point(BaseModel):
    x: int


async def test_an_async_tool_runs_on_the_loop_and_a_sync_one_off_it() -> None:
    @tool
    async def on_loop() -> bool:
        return threading.current_thread() is threading.main_thread()

    @tool
    def off_loop() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert (await run(on_loop), await run(off_loop)) == (True, False)


async def test_arguments_are_validated_and_defaults_filled_in() -> None:
    @tool
    def add(p: Point, n: int = 2) -> int:
        return p.x + n

    assert await run(add, '{"p": {"x": 1}}') == 3
    assert await run(add, '{"p": {"x": "1"}, "n": 3, "more": 1}') == 4


@pytest.mark.parametrize("arguments", ["", "  ", "{}"])
async def test_no_arguments_may_be_written_as_nothing(arguments: str) -> None:
    assert await run(tool(lambda: "ok", name_override="t"), arguments) == "ok"


async def test_the_context_comes_first_and_context_variables_come_along() -> None:
    user = contextvars.ContextVar("user", default="nobody")

    @tool
    def who(ctx: RunContextWrapper[str], greeting: str) -> str:
        return f"{greeting}, {ctx.context} and {user.get()}"

    user.set("ben")

    assert await run(who, '{"greeting": "hello"}', value="ann") == "hello, ann and ben"


async def test_methods_partials_and_async_callable_objects_are_called() -> None:
    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        async def price(self, item: str) -> str:
            return f"{item} at {self.name}"

        async def __call__(self, q: str) -> str:
            return f"{q}? {self.name}"

    async def send(key: str, to: str) -> str:
        return f"{key} {to}"

    assert await run(tool(Shop("x").price), '{"item": "tea"}') == "tea at x"
    assert await run(tool(Shop("x")), '{"q": "who"}') == "who? x"
    assert await run(tool(functools.partial(send, "k")), '{"to": "me"}') == "k me"


async def test_a_plain_function_that_gives_a_coroutine_has_it_awaited() -> None:
    async def inner() -> str:
        return "inner"

    assert await run(tool(lambda: inner(), name_override="t")) == "inner"


async def test_a_call_inspects_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    @tool
    async def add(a: int, b: int = 2) -> int:
        return a + b

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("inspected during a call")

    monkeypatch.setattr(inspect, "signature", fail)

    assert await run(add, '{"a": 1}') == 3


# --- tools that fail ---------------------------------------------------------------------------


def failing(**options: Any) -> FunctionTool:
    @tool(**options)
    async def fail() -> None:
        raise ValueError("a secret of the server")

    return fail


async def test_a_tool_that_raises_is_told_to_the_model_without_its_secrets() -> None:
    ctx = context()

    output = await invoke_function_tool(failing(), ctx, "{}")

    assert output == "An error occurred while running the tool. Please try again."
    assert isinstance(ctx.failure, ValueError)


async def test_a_sync_tool_that_raises_is_told_alike() -> None:
    @tool
    def fail() -> None:
        raise ValueError

    assert "An error occurred" in await run(fail)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_an_error_function_of_the_users_own_makes_the_text(kind: str) -> None:
    def tell(ctx: RunContextWrapper[Any], error: Exception) -> str:
        return f"{type(error).__name__} for {ctx.context}"

    async def tell_async(ctx: RunContextWrapper[Any], error: Exception) -> str:
        return tell(ctx, error)

    made = failing(failure_error_function=tell if kind == "sync" else tell_async)

    assert await run(made, value="ann") == "ValueError for ann"


async def test_without_an_error_function_the_error_ends_the_run() -> None:
    with pytest.raises(ValueError, match="a secret of the server"):
        await run(failing(failure_error_function=None))


MALFORMED = ['{"a": ', "[1]", "null", "3", '{"a": "x"}', "{}", '{"a": 1.5}', "\ud800", '{"a": "\ud800"}']


@pytest.mark.parametrize("arguments", MALFORMED)
async def test_arguments_that_are_malformed_are_told_to_the_model_so_that_it_can_do_better(
    arguments: str,
) -> None:
    @tool
    async def add(a: int) -> int:
        raise AssertionError("not to be called")

    ctx = context()
    output = await invoke_function_tool(add, ctx, arguments)

    assert "Invalid JSON input for tool add: " in output
    assert isinstance(ctx.failure, ModelBehaviorError)


@pytest.mark.parametrize("arguments", MALFORMED)
async def test_malformed_arguments_end_the_run_where_errors_do(arguments: str) -> None:
    @tool(failure_error_function=None)
    async def add(a: int) -> int:
        raise AssertionError("not to be called")

    with pytest.raises(ModelBehaviorError, match="Invalid JSON input for tool add"):
        await run(add, arguments)


async def test_the_error_names_the_field_and_never_the_value() -> None:
    @tool(failure_error_function=None)
    async def pay(amount: int, card: Point) -> None: ...

    with pytest.raises(ModelBehaviorError) as caught:
        await run(pay, '{"amount": "4111-1111", "card": {"x": "secret"}}')

    assert "amount: " in str(caught.value)
    assert "card.x: " in str(caught.value)
    assert "4111" not in str(caught.value) + repr(caught.value.__context__)
    assert "secret" not in str(caught.value) + repr(caught.value.__context__)


async def test_the_runs_formatter_has_the_last_word_over_the_default_text_only() -> None:
    seen: list[ToolErrorFormatterArgs[Any]] = []

    def formatted(args: ToolErrorFormatterArgs[Any]) -> str | None:
        seen.append(args)
        return "formatted"

    config = RunConfig(tool_error_formatter=formatted)

    assert await run(failing(), config=config) == "formatted"
    assert await run(failing(failure_error_function=lambda c, e: "own"), config=config) == "own"
    assert [(a.kind, a.tool_type, a.tool_name, a.call_id, type(a.error)) for a in seen] == [
        ("tool_exception", "function", "t", "c", ValueError)
    ]


async def test_a_formatter_that_gives_nothing_keeps_the_default_text() -> None:
    config = RunConfig(tool_error_formatter=lambda args: None)

    assert await run(failing(), config=config) == default_tool_error_function(context(), ValueError())


# --- tools that are cancelled, or take too long ------------------------------------------------


async def test_cancelling_a_tool_cancels_what_it_waits_for() -> None:
    never, started = Never(), asyncio.Event()

    @tool
    async def wait() -> None:
        started.set()
        await never.wait()

    task = asyncio.create_task(run(wait))
    await started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert never.cancelled


def cancelling_itself(**options: Any) -> FunctionTool:
    @tool(**options)
    async def fail() -> None:
        raise asyncio.CancelledError

    return fail


async def test_a_tool_that_cancels_itself_has_failed_and_the_run_goes_on() -> None:
    assert "An error occurred" in await run(cancelling_itself())
    assert "An error occurred" in await run(cancelling_itself(timeout=60))


async def test_a_tool_that_cancels_itself_and_has_no_error_function_raises_what_it_raised() -> None:
    with pytest.raises(asyncio.CancelledError):
        await run(cancelling_itself(failure_error_function=None))


async def test_a_tool_made_by_hand_that_cancels_itself_raises_what_it_raised() -> None:
    async def invoke(ctx: ToolContext[Any], arguments: str) -> str:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await run(FunctionTool("t", "", {}, invoke))


TOO_LATE = 5.0


async def overdue(work: Awaitable[Any]) -> Any:
    """What comes of `work` when it has taken too long."""
    with ManualClock() as clock:
        task = asyncio.ensure_future(work)
        assert await clock.tick() == TOO_LATE
        return await task


def slow(never: Never, **options: Any) -> FunctionTool:
    @tool(timeout=TOO_LATE, **options)
    async def wait() -> None:
        await never.wait()

    return wait


async def test_a_tool_that_takes_too_long_is_stopped_and_the_model_told() -> None:
    never, ctx = Never(), context()

    output = await overdue(invoke_function_tool(slow(never), ctx, "{}"))

    assert output == "Tool 'wait' timed out after 5 seconds."
    assert never.cancelled
    assert isinstance(ctx.failure, ToolTimeoutError)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_timeout_function_makes_the_text(kind: str) -> None:
    def tell(ctx: RunContextWrapper[Any], error: Exception) -> str:
        return f"late: {type(error).__name__}"

    async def tell_async(ctx: RunContextWrapper[Any], error: Exception) -> str:
        return tell(ctx, error)

    made = slow(Never(), timeout_error_function=tell if kind == "sync" else tell_async)

    assert await overdue(run(made)) == "late: ToolTimeoutError"


async def test_a_timeout_may_end_the_run() -> None:
    with pytest.raises(ToolTimeoutError) as caught:
        await overdue(run(slow(Never(), timeout_behavior="raise_exception")))

    assert (caught.value.tool_name, caught.value.timeout_seconds) == ("wait", TOO_LATE)


async def test_a_sync_tool_that_takes_too_long_is_left_behind_in_its_thread() -> None:
    release, ended = threading.Event(), threading.Event()

    @tool(timeout=TOO_LATE)
    def wait() -> None:
        release.wait()
        ended.set()

    assert "timed out" in await overdue(run(wait))
    assert not ended.is_set()
    release.set()
    await asyncio.to_thread(ended.wait)


async def test_a_timeout_error_of_the_tools_own_is_its_failure_like_any_other() -> None:
    @tool(timeout=60, failure_error_function=None)
    async def fail() -> None:
        raise TimeoutError("the service's")

    with pytest.raises(TimeoutError, match="the service's"):
        await run(fail)


async def test_a_tool_that_is_quick_enough_is_not_disturbed_by_its_timeout() -> None:
    @tool(timeout=60)
    async def quick() -> str:
        return "done"

    assert await run(quick) == "done"


async def test_exceptions_that_are_no_errors_pass_through_a_thread() -> None:
    class Leave(BaseException):
        pass

    def leave() -> None:
        raise Leave

    with pytest.raises(Leave):
        await run(tool(leave))


def test_every_option_of_the_decorator_is_declared_for_type_checkers() -> None:
    from millstream.tool.function import ToolOptions

    signature: Callable[..., Any] = function_tool
    options = [name for name in inspect.signature(signature).parameters if name != "func"]

    assert list(ToolOptions.__annotations__) == options


@pytest.mark.parametrize("name", ["has space!", "", "a" * 65, "a.b", "t\n"])
def test_a_name_that_the_apis_refuse_is_warned_of(name: str, caplog: pytest.LogCaptureFixture) -> None:
    made = FunctionTool(name, "", {}, lambda context, arguments: asyncio.sleep(0))

    assert made.qualified_name == name
    assert "name_override=" in caplog.text


def test_the_decorators_are_those_of_the_door() -> None:
    import millstream

    assert {name: getattr(decorators, name) for name in decorators.__all__} == {
        name: getattr(millstream, name) for name in decorators.__all__
    }
