"""Function tools: a Python function that a model may call."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, cast, get_args, overload

from pydantic import ValidationError
from typing_extensions import Unpack

from millstream.clock import current_clock, time_limit
from millstream.context import MaybeAwaitable, RunContextWrapper, ToolContext, settle
from millstream.errors import ModelBehaviorError, NotSupportedError, SchemaError, ToolTimeoutError, UserError
from millstream.items import ToolOrigin, ToolOriginType
from millstream.schema import DocstringStyle, FuncSchema, ensure_strict_json_schema, function_schema, problems
from millstream.tool.calling import way_of_calling

if TYPE_CHECKING:
    from mcp.types import ToolAnnotations

    from millstream.agent import AgentBase
    from millstream.guardrail import ToolInputGuardrail, ToolOutputGuardrail
    from millstream.items import RunItem

ToolErrorFunction: TypeAlias = Callable[[RunContextWrapper[Any], Exception], MaybeAwaitable[str]]
"""Makes of a tool's exception the text that the model is told."""

ToolTimeoutBehavior: TypeAlias = Literal["error_as_result", "raise_exception"]
"""What becomes of a tool that took too long: the model is told, or the run ends."""

ToolRetry: TypeAlias = Literal["safe", "never"]
"""Whether a call that began, and left no result as its process died, is begun again, or ends its run."""

ToolFunction: TypeAlias = Callable[..., Any]

IsEnabled: TypeAlias = bool | Callable[[RunContextWrapper[Any], "AgentBase[Any]"], MaybeAwaitable[bool]]
NeedsApproval: TypeAlias = bool | Callable[[RunContextWrapper[Any], dict[str, Any], str], Awaitable[bool]]

_TAKEN = re.compile(r"[a-zA-Z0-9_-]{1,64}")

logger = logging.getLogger("millstream")


@dataclass
class FunctionTool:
    """A tool that runs in this program. Usually made by `@tool`; by hand where the schema comes from elsewhere."""

    name: str
    description: str
    params_json_schema: dict[str, Any]
    on_invoke_tool: Callable[[ToolContext[Any], str], Awaitable[Any]]
    """Called with the arguments as JSON text; returns text, `ToolOutput*` objects, or anything with a `str()`."""
    strict_json_schema: bool = True
    is_enabled: IsEnabled = True
    """Whether the model is shown the tool, asked once a turn."""
    tool_input_guardrails: list[ToolInputGuardrail[Any]] | None = None
    tool_output_guardrails: list[ToolOutputGuardrail[Any]] | None = None
    needs_approval: NeedsApproval = False
    timeout_seconds: float | None = None
    timeout_behavior: ToolTimeoutBehavior = "error_as_result"
    timeout_error_function: ToolErrorFunction | None = None
    defer_loading: bool = False
    """Not supported, as the three that follow: a run refuses a tool that sets one."""
    _: KW_ONLY
    custom_data_extractor: Any = None
    allowed_callers: Any = None
    output_json_schema: dict[str, Any] | None = None
    tool_origin: ToolOrigin = field(default=ToolOrigin(ToolOriginType.FUNCTION), repr=False)
    """What its calls say of where it comes from."""
    title: str | None = field(default=None, repr=False)
    """A name for people to read. Calls of it carry it."""
    mcp_annotations: ToolAnnotations | None = field(default=None, repr=False)
    """What an MCP server says of the tool: whether it only reads, say."""
    retry: ToolRetry = "safe"
    """Whether a call that began may be begun again, where its process died before there was a result
    and another one goes on with the run. With "never" the run fails there, code `interrupted`, as
    it does for every call that needed approval."""

    def __post_init__(self) -> None:
        if not _TAKEN.fullmatch(self.name):
            # Not refused: a server other than the API may take it.
            logger.warning(
                "Tool %r: the models' APIs refuse that name. It takes 1 to 64 of the letters a-z and A-Z, "
                "digits, - and _; give it another with name_override=.",
                self.name,
            )
        if self.strict_json_schema:
            try:
                self.params_json_schema = ensure_strict_json_schema(self.params_json_schema)
            except SchemaError as error:
                raise SchemaError(
                    f"Tool {self.name!r}: {error} Or turn strict mode off: strict_json_schema=False."
                ) from None
        self.timeout_seconds = _checked_timeout(self.timeout_seconds)
        if self.timeout_behavior not in get_args(ToolTimeoutBehavior):
            choices = ", ".join(get_args(ToolTimeoutBehavior))
            raise ValueError(f"Tool {self.name}: timeout_behavior must be one of: {choices}.")
        if self.retry not in get_args(ToolRetry):
            raise ValueError(
                f"Tool {self.name}: retry={self.retry!r}: expected 'safe', where a call that left no result may be "
                "begun again after a crash, or 'never'."
            )

    @property
    def qualified_name(self) -> str:
        """The name with its namespace: the name itself, as tools have no namespaces in this version."""
        return self.name

    def to_responses_tool(self) -> dict[str, Any]:
        """The tool as the Responses API takes it."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": self.params_json_schema,
            "strict": self.strict_json_schema,
        }


@dataclass
class FunctionToolResult:
    """What came of one call of a function tool."""

    tool: FunctionTool
    output: Any
    run_item: RunItem | None
    interruptions: list[Any] = field(default_factory=list[Any])
    """Calls inside of it, where the tool is an agent, that wait for approval."""
    agent_run_result: Any = None
    """The result of the run, where the tool is an agent."""


def default_tool_error_function(ctx: RunContextWrapper[Any], error: Exception) -> str:
    """Tell the model that the tool failed.

    What was wrong with the model's own arguments is said, so that it can do better. What
    went wrong inside the tool is not: it would be in the history, for every client to see.
    """
    text = "An error occurred while running the tool. Please try again."
    return f"{text} Error: {error}" if isinstance(error, ModelBehaviorError) else text


async def invoke_function_tool(tool: FunctionTool, context: ToolContext[Any], arguments: str) -> Any:
    """Run `tool` once, within its timeout, and return its output.

    An exception that the tool's error function made text of is left in `context.failure`.
    A synchronous tool that times out or is cancelled is left running in its thread.

    Raises:
        ToolTimeoutError: it took too long, and its `timeout_behavior` is to raise.
        Exception: whatever the tool raised, if it has no `failure_error_function`.
    """
    limit = tool.timeout_seconds
    try:
        if limit is None:
            return await tool.on_invoke_tool(context, arguments)
        over = ToolTimeoutError(tool.name, limit)
        try:
            async with time_limit(current_clock(), limit, over):
                return await tool.on_invoke_tool(context, arguments)
        except ToolTimeoutError as error:
            if error is not over:  # of a tool that it called itself
                raise
        return await _timed_out(tool, context, over)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if (task is not None and task.cancelling()) or not isinstance(tool.on_invoke_tool, Invoker):
            raise
        # Nobody cancelled this call: something that the tool awaited was. That is its failure.
        return await tool.on_invoke_tool.failed(context, error)


async def _timed_out(tool: FunctionTool, context: ToolContext[Any], error: ToolTimeoutError) -> Any:
    if tool.timeout_behavior == "raise_exception":
        raise error
    context.failure = error
    if tool.timeout_error_function is not None:
        return await settle(tool.timeout_error_function(context, error))
    return str(error)


class Invoker:
    """Runs a tool, and makes text of its failure where that is wished.

    Args:
        failure_error_function: makes the text that the model is told; None lets failures end the run.
    """

    def __init__(self, failure_error_function: ToolErrorFunction | None) -> None:
        self._failure_error_function = failure_error_function

    async def __call__(self, context: ToolContext[Any], arguments: str) -> Any:
        """What comes of one call, or what the model is told of its failure."""
        try:
            return await self.invoke(context, arguments)
        except Exception as error:
            return await self.failed(context, error)

    async def invoke(self, context: ToolContext[Any], arguments: str) -> Any:
        """What comes of one call with `arguments`, as the model wrote them."""
        raise NotImplementedError

    async def failed(self, context: ToolContext[Any], error: BaseException) -> Any:
        """What the model is told of `error`; raises it where it is to end the run."""
        tell = self._failure_error_function
        if tell is None:
            raise error
        context.failure = error
        text = await settle(tell(context, cast("Exception", error)))
        config = context.run_config
        if config is None or tell is not default_tool_error_function:
            return text
        return await config.format_tool_error(
            kind="tool_exception",
            tool_name=context.tool_name,
            call_id=context.tool_call_id,
            default_message=text,
            run_context=context,
            error=cast("Exception", error),
        )


class _FunctionInvoker(Invoker):
    """Calls a Python function with the arguments that a model wrote."""

    def __init__(
        self, func: ToolFunction, schema: FuncSchema, failure_error_function: ToolErrorFunction | None
    ) -> None:
        super().__init__(failure_error_function)
        self._func = func
        self._schema = schema
        self._call = way_of_calling(func)
        # Bound here, so that a call costs one validation and nothing else.
        self._validate = schema.params_pydantic_model.__pydantic_validator__.validate_json

    async def invoke(self, context: ToolContext[Any], arguments: str) -> Any:
        """What the function returns, or yields last."""
        args, kwargs = self._schema.to_call_args(self._parse(arguments))
        if self._schema.takes_context:
            args.insert(0, context)
        # A test of a tool may call it with less than a `ToolContext`.
        link = getattr(context, "_link", None)
        return await self._call(functools.partial(self._func, *args, **kwargs), self._schema.name, link)

    def _parse(self, arguments: str) -> Any:
        try:
            return self._validate(arguments if arguments.strip() else "{}")
        except ValidationError as error:
            problem = problems(error)
        # Neither raised from the error nor while it is handled: it carries the arguments themselves.
        raise ModelBehaviorError(f"Invalid JSON input for tool {self._schema.name}: {problem}")


class ToolOptions(TypedDict, total=False):
    """The keyword arguments of `@tool`."""

    name_override: str | None
    """The tool's name, where it is not the function's."""
    description_override: str | None
    """The description, where it is not the docstring's."""
    docstring_style: DocstringStyle | None
    """google, numpy or sphinx; found out where it is not given."""
    use_docstring_info: bool
    """False leaves the docstring alone."""
    failure_error_function: ToolErrorFunction | None
    """Makes an exception the text that the model is told; None lets it end the run."""
    strict_mode: bool
    """Whether the schema keeps to what strict mode of the model's API takes."""
    is_enabled: IsEnabled
    """Whether the model is shown the tool; a callable is asked once a turn."""
    needs_approval: NeedsApproval
    """Whether a call waits for somebody's approval; a callable is asked for each call, with its arguments."""
    tool_input_guardrails: list[ToolInputGuardrail[Any]] | None
    """They judge a call before the tool begins."""
    tool_output_guardrails: list[ToolOutputGuardrail[Any]] | None
    """They judge what the tool gave."""
    timeout: float | None
    """Seconds that one call may take. A synchronous function cannot be stopped: it runs on in
    its thread, and what it returns is dropped."""
    timeout_behavior: ToolTimeoutBehavior
    """Whether the model is told of a timeout, or the run ends."""
    timeout_error_function: ToolErrorFunction | None
    """Makes the text that the model is told of a timeout."""
    retry: ToolRetry
    """"never" for a tool whose call is not to be begun a second time where a process died in the first."""
    defer_loading: bool
    """Not supported, as all that follow."""
    custom_data_extractor: Any
    allowed_callers: Any
    output_type: Any
    output_json_schema: Any


@overload
def function_tool(func: ToolFunction, /, **options: Unpack[ToolOptions]) -> FunctionTool: ...
@overload
def function_tool(
    func: None = None, /, **options: Unpack[ToolOptions]
) -> Callable[[ToolFunction], FunctionTool]: ...
def function_tool(
    func: ToolFunction | None = None,
    *,
    name_override: str | None = None,
    description_override: str | None = None,
    docstring_style: DocstringStyle | None = None,
    use_docstring_info: bool = True,
    failure_error_function: ToolErrorFunction | None = default_tool_error_function,
    strict_mode: bool = True,
    is_enabled: IsEnabled = True,
    needs_approval: NeedsApproval = False,
    tool_input_guardrails: list[ToolInputGuardrail[Any]] | None = None,
    tool_output_guardrails: list[ToolOutputGuardrail[Any]] | None = None,
    timeout: float | None = None,
    timeout_behavior: ToolTimeoutBehavior = "error_as_result",
    timeout_error_function: ToolErrorFunction | None = None,
    retry: ToolRetry = "safe",
    defer_loading: bool = False,
    custom_data_extractor: Any = None,
    allowed_callers: Any = None,
    output_type: Any = None,
    output_json_schema: Any = None,
) -> FunctionTool | Callable[[ToolFunction], FunctionTool]:
    """Make a function a tool: `@tool`, `@tool(...)` or `tool(function, ...)`.

    Name, description and parameters come from the function's name, docstring and signature.
    A first parameter annotated `RunContextWrapper` or `ToolContext` receives the context and
    is not shown to the model. An async function runs on the event loop, any other one in a
    thread of its own, with the caller's context variables.

    The function may also be a method, a `functools.partial` or a callable object. What the
    options mean is told by `ToolOptions`.

    Raises:
        SchemaError: a parameter has no (strict) JSON schema.
        NotSupportedError: an option that this version does not act on.
    """
    _refuse(
        defer_loading=defer_loading,
        custom_data_extractor=custom_data_extractor,
        allowed_callers=allowed_callers,
        output_type=output_type,
        output_json_schema=output_json_schema,
    )

    def make(func: ToolFunction) -> FunctionTool:
        _check_function(func)
        schema = function_schema(
            func,
            docstring_style=docstring_style,
            name_override=name_override,
            description_override=description_override,
            use_docstring_info=use_docstring_info,
            strict_json_schema=strict_mode,
        )
        return FunctionTool(
            name=schema.name,
            description=schema.description or "",
            params_json_schema=schema.params_json_schema,
            on_invoke_tool=_FunctionInvoker(func, schema, failure_error_function),
            strict_json_schema=strict_mode,
            is_enabled=is_enabled,
            tool_input_guardrails=tool_input_guardrails,
            tool_output_guardrails=tool_output_guardrails,
            needs_approval=needs_approval,
            timeout_seconds=timeout,
            timeout_behavior=timeout_behavior,
            timeout_error_function=timeout_error_function,
            retry=retry,
        )

    return make if func is None else make(func)


tool = function_tool
"""The short name of `function_tool`."""


def _check_function(func: Any) -> None:
    if isinstance(func, FunctionTool):
        raise UserError(f"{func.name} is a tool already: decorate it once.")
    if not callable(func):
        raise UserError(f"tool() takes a function, not {type(func).__name__}.")


def _checked_timeout(timeout: Any) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError("A tool's timeout is a positive number of seconds, or None.")
    if not (timeout > 0 and math.isfinite(timeout)):
        raise ValueError("A tool's timeout must be greater than 0, and finite.")
    return float(timeout)


def _refuse(**options: Any) -> None:
    for name, value in options.items():
        if value is not None and value is not False:
            raise NotSupportedError(f"tool({name}=...) is not supported by this version: leave it out.")
