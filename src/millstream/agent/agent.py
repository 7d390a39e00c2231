"""Agents: what a model is told, which tools it has, and to whom it may hand over."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, NotRequired, TypeAlias, cast, get_origin

from typing_extensions import TypedDict

from millstream.agent.as_tool import AgentTool, OnStream, OutputExtractor, agent_tool
from millstream.agent.output import AgentOutputSchemaBase, output_schema_of
from millstream.agent.tool_input import AgentToolInput, StructuredToolInputBuilder
from millstream.config import ModelSettings, RunConfig
from millstream.config.defaults import get_default_model_settings
from millstream.context import MaybeAwaitable, RunContextWrapper, TContext, settle
from millstream.errors import NotSupportedError, UserError
from millstream.handoff import Handoff, handoff
from millstream.hooks import AgentHooks
from millstream.mcp import MCPServer, MCPUtil
from millstream.tool import (
    FunctionTool,
    FunctionToolResult,
    Tool,
    ToolErrorFunction,
    default_tool_error_function,
)

if TYPE_CHECKING:
    from millstream.guardrail import InputGuardrail, OutputGuardrail
    from millstream.hooks import RunHooks
    from millstream.models.promise import Model
    from millstream.tool.function import IsEnabled, NeedsApproval

logger = logging.getLogger("millstream")


@dataclass
class ToolsToFinalOutputResult:
    """What a `tool_use_behavior` function decided."""

    is_final_output: bool
    """False: the model is asked again, with the results."""
    final_output: Any | None = None


ToolsToFinalOutputFunction: TypeAlias = Callable[
    [RunContextWrapper[TContext], list[FunctionToolResult]], MaybeAwaitable[ToolsToFinalOutputResult]
]
"""Decides, after the tools of a turn, whether the run is done."""


class StopAtTools(TypedDict):
    """Ends the run with the output of the first of these tools that was called."""

    stop_at_tool_names: list[str]


Instructions: TypeAlias = (
    str | Callable[[RunContextWrapper[TContext], "Agent[TContext]"], MaybeAwaitable[str | None]]
)

ToolUseBehavior: TypeAlias = (
    Literal["run_llm_again", "stop_on_first_tool"] | StopAtTools | ToolsToFinalOutputFunction[Any]
)


class MCPConfig(TypedDict):
    """How an agent uses the tools of its MCP servers."""

    convert_schemas_to_strict: NotRequired[bool]
    """Whether their parameters are made strict schemas, where a strict schema says the same. False, if not given."""
    failure_error_function: NotRequired[ToolErrorFunction | None]
    """Makes of a failed call the text that the model is told; None lets it end the run."""
    include_server_in_tool_names: NotRequired[bool]
    """Whether the model knows them as `mcp_<server>__<tool>`, so that servers may have tools of one name."""


@dataclass(eq=False)
class AgentBase(Generic[TContext]):
    """What agents of all kinds have: a name, and tools."""

    name: str
    handoff_description: str | None = None
    """Told to the model of an agent that may hand over to this one."""
    tools: list[Tool] = field(default_factory=list[Tool])
    mcp_servers: list[MCPServer] = field(default_factory=list["MCPServer"])
    """Servers whose tools it has too, before its own ones. They connect when they are first asked."""
    mcp_config: MCPConfig = field(default_factory=lambda: MCPConfig())

    def __millstream_json__(self) -> dict[str, Any]:
        """What stands for the agent in events: its name. Instructions and tools are nobody's business there."""
        return {"name": self.name}

    async def get_mcp_tools(self, run_context: RunContextWrapper[TContext]) -> list[Tool]:
        """The tools of the agent's MCP servers, in their order. Asked for in every turn, unless a server keeps them.

        Raises:
            MCPServerError: a server cannot be asked.
            DuplicateToolError: two servers have a tool of one name, and `mcp_config` does not tell them apart.
        """
        if not self.mcp_servers:
            return []
        config = self.mcp_config
        return await MCPUtil.get_all_function_tools(
            self.mcp_servers,
            config.get("convert_schemas_to_strict", False),
            run_context,
            self,
            config.get("failure_error_function", default_tool_error_function),
            config.get("include_server_in_tool_names", False),
            {tool.name for tool in self.tools},
        )

    async def get_all_tools(self, run_context: RunContextWrapper[TContext]) -> list[Tool]:
        """The tools that the model is shown this turn, in order: those of MCP servers, then those that are enabled.

        Raises:
            UserError: something in `tools` is not a tool.
            MCPServerError: an MCP server cannot be asked for its tools.
        """
        for index, tool in enumerate(self.tools):
            _check_tool(tool, index)
        tools = await self.get_mcp_tools(run_context) + self.tools
        functions = [tool for tool in tools if isinstance(tool, FunctionTool)]
        off = await self._disabled(functions, run_context)
        return [tool for tool in tools if id(tool) not in off] if off else list(tools)

    async def _disabled(
        self, things: Sequence[FunctionTool | Handoff[Any, Any]], run_context: RunContextWrapper[TContext]
    ) -> set[int]:
        """The ids of what is not enabled. Callables are asked side by side."""
        asked = [thing for thing in things if callable(thing.is_enabled)]
        off = {id(thing) for thing in things if not thing.is_enabled}
        if asked:
            answers = await asyncio.gather(
                *(settle(cast("Any", thing.is_enabled)(run_context, self)) for thing in asked)
            )
            off |= {id(thing) for thing, enabled in zip(asked, answers, strict=True) if not enabled}
        return off


@dataclass(eq=False, repr=False)
class Agent(AgentBase[TContext]):
    """A model with instructions, tools, and agents to hand over to.

    An agent is a description: runs do not change it, and one agent may take part in many runs
    at once. Two agents are equal only if they are the same object.

    Raises:
        TypeError: an argument is of a type that it cannot be.
        UserError: a tool is not a tool, or a handoff leads to something that is not an agent.
    """

    instructions: Instructions[TContext] | None = None
    """The system prompt, or a function (sync or async) of context and agent that gives it."""
    prompt: None = None
    handoffs: list[Agent[Any] | Handoff[TContext, Any]] = field(
        default_factory=list["Agent[Any] | Handoff[TContext, Any]"]
    )
    model: str | Model | None = None
    """A name, which the run's model provider resolves; a model; or None for the default one."""
    model_settings: ModelSettings = field(default_factory=lambda: _NOT_GIVEN)
    """How the model is asked. If none are given, those that suit it: see `get_default_model_settings`."""
    input_guardrails: list[InputGuardrail[TContext]] = field(default_factory=list["InputGuardrail[TContext]"])
    output_guardrails: list[OutputGuardrail[TContext]] = field(
        default_factory=list["OutputGuardrail[TContext]"]
    )
    output_type: type[Any] | AgentOutputSchemaBase | None = None
    """The type of the final output; None for text."""
    hooks: AgentHooks[TContext] | None = None
    tool_use_behavior: ToolUseBehavior = "run_llm_again"
    """What happens after tools ran: ask the model again, or end the run with a tool's output."""
    reset_tool_choice: bool = True
    """Whether `tool_choice` holds until the first tool call only, so that no agent calls for ever."""
    _suited: ModelSettings | None = field(default=None, init=False, repr=False)
    """The settings as they were chosen to suit the model; None where some were given."""

    def __post_init__(self) -> None:
        if self.name == "":
            logger.warning("An agent has an empty name: handoffs to it and its events cannot be told apart.")
        # Half a second, once: paid where agents are described, and not by the first run inside
        # an event loop, which all other streams of the process would feel.
        importlib.import_module("openai.types.responses")
        _check_fields(self)
        if self.model_settings is _NOT_GIVEN:
            self.model_settings, self._suited = _suiting(self.model), _suiting(self.model)
        self.model_settings = ModelSettings.of(self.model_settings, f"Agent {self.name!r}: model_settings")

    def __repr__(self) -> str:
        tools = [getattr(tool, "name", "?") for tool in self.tools]
        handoffs = [getattr(each, "agent_name", None) or getattr(each, "name", "?") for each in self.handoffs]
        return f"Agent(name={self.name!r}, model={self.model!r}, tools={tools!r}, handoffs={handoffs!r})"

    def clone(self, **kwargs: Any) -> Agent[TContext]:
        """A copy with some fields replaced. Lists are shared with the original unless they are replaced."""
        if self._settings_suit():
            kwargs = {"model_settings": _NOT_GIVEN} | kwargs
        return dataclasses.replace(self, **kwargs)

    def settings_for(self, model: str | Model | None) -> ModelSettings:
        """How `model`, which a run asks in place of the agent's own unless it is None, is asked."""
        if not self._settings_suit():
            return self.model_settings
        return _suiting(self.model if model is None else model)

    def _settings_suit(self) -> bool:
        """Whether the settings are nobody's choice, so that another model may have others."""
        return self._suited is not None and self.model_settings == self._suited

    async def get_system_prompt(self, run_context: RunContextWrapper[TContext]) -> str | None:
        """The instructions for this turn.

        Raises:
            UserError: the function that gives them gave something else than text.
        """
        instructions = self.instructions
        if instructions is None or isinstance(instructions, str):
            return instructions
        text: Any = await settle(instructions(run_context, self))
        if text is not None and not isinstance(text, str):
            raise UserError(
                f"Agent {self.name!r}: instructions returned {type(text).__name__}, not a text or None."
            )
        return text

    async def get_prompt(self, run_context: RunContextWrapper[TContext]) -> None:
        """The stored prompt: agents have none in this version."""
        return None

    async def get_handoffs(self, run_context: RunContextWrapper[TContext]) -> list[Handoff[Any, Any]]:
        """The handoffs that the model is shown this turn, in order: those that are enabled.

        Raises:
            UserError: one leads to something that is not an agent.
        """
        handoffs = self.all_handoffs()
        off = await self._disabled(handoffs, run_context)
        return [each for each in handoffs if id(each) not in off]

    def all_handoffs(self) -> list[Handoff[Any, Any]]:
        """The handoffs in order, enabled or not.

        Raises:
            UserError: one leads to something that is not an agent.
        """
        return [self._as_handoff(each, index) for index, each in enumerate(self.handoffs)]

    def output_schema(self) -> AgentOutputSchemaBase | None:
        """What the final output has to be; None for text.

        Raises:
            SchemaError: `output_type` has no strict JSON schema.
        """
        return output_schema_of(self.output_type)

    def as_tool(
        self,
        tool_name: str | None,
        tool_description: str | None,
        custom_output_extractor: OutputExtractor | None = None,
        is_enabled: IsEnabled = True,
        on_stream: OnStream | None = None,
        run_config: RunConfig | dict[str, Any] | None = None,
        max_turns: int | None = None,
        hooks: RunHooks[TContext] | None = None,
        previous_response_id: str | None = None,
        conversation_id: str | None = None,
        session: Any | None = None,
        failure_error_function: ToolErrorFunction | None = default_tool_error_function,
        needs_approval: NeedsApproval = False,
        parameters: type[Any] | None = None,
        input_builder: StructuredToolInputBuilder | None = None,
        include_input_schema: bool = False,
        on_stream_max_pending_events: int | None = 1024,
    ) -> FunctionTool:
        """The agent as a tool of another one: its run is nested in the run of who calls it, and in that run's log.

        In a handoff the other agent takes over, with the conversation. As a tool it gets what the
        caller's model writes, and its output is the output of the call.

        Args:
            tool_name: the tool's name; made of the agent's, where it is None.
            tool_description: what the caller's model is told of it.
            custom_output_extractor: makes the output of the call of the run's result. Without it
                that is the run's output or, if that is empty, what was said last in the run.
            is_enabled: whether the caller's model is shown the tool; a callable is asked once a turn.
            on_stream: called with each event of the run, one after the other; then its model is
                asked for a stream in any case. What it raises is logged, and ends nothing.
            run_config: the configuration of the run, in place of that of the run it is nested in.
            max_turns: how often its model may be asked; None for as often as by default.
            hooks: told of what happens in the run.
            previous_response_id: a response that the model's server keeps, for each run to go on from.
            conversation_id: a conversation that the model's server keeps.
            session: where the run's conversation is kept.
            failure_error_function: makes the text that the caller's model is told of a run that
                failed; None lets that failure end the caller's run.
            needs_approval: whether somebody is asked before it runs.
            parameters: a dataclass or a pydantic model that the caller's model writes; None for a text.
            input_builder: makes the agent's input of what the caller's model wrote.
            include_input_schema: whether the input tells the schema of `parameters`.
            on_stream_max_pending_events: the SDK's. Here nothing piles up: the log keeps the
                events, and the run waits between its turns until `on_stream` has taken them.

        Raises:
            UserError: an argument that cannot work.
            TypeError: `parameters` or `input_builder` is of a type that it cannot be.
        """
        pending: Any = on_stream_max_pending_events
        if pending is not None and (isinstance(pending, bool) or not isinstance(pending, int) or pending < 1):
            raise UserError(
                f"Agent {self.name!r}: as_tool(on_stream_max_pending_events={pending!r}): a number above 0, or None."
            )
        described = AgentTool(
            agent=self,
            run_config=None if run_config is None else RunConfig.of(run_config),
            max_turns=max_turns,
            hooks=hooks,
            previous_response_id=previous_response_id,
            conversation_id=conversation_id,
            session=session,
            on_stream=on_stream,
        )
        return agent_tool(
            described,
            name=tool_name,
            description=tool_description,
            input=AgentToolInput(parameters, input_builder, include_input_schema),
            extract_output=custom_output_extractor,
            failure_error_function=failure_error_function,
            is_enabled=is_enabled,
            needs_approval=needs_approval,
        )

    def _as_handoff(self, value: Any, index: int) -> Handoff[Any, Any]:
        if isinstance(value, Handoff):
            return cast("Handoff[Any, Any]", value)
        if isinstance(value, Agent):
            return handoff(cast("Agent[Any]", value))
        raise UserError(
            f"Agent {self.name!r}: handoffs[{index}] is {_described(value)}; it takes an Agent or handoff(agent)."
        )


def _check_fields(agent: Agent[Any]) -> None:
    for name, kinds, expected in _FIELD_TYPES:
        value: Any = getattr(agent, name)
        if not isinstance(value, kinds):
            raise TypeError(f"Agent {name} must be {expected}, not {type(value).__name__}")
    if agent.prompt is not None:  # pyright: ignore[reportUnnecessaryComparison]
        raise NotSupportedError(
            f"Agent {agent.name!r}: prompt is not supported by this version: use instructions."
        )
    model: Any = agent.model
    if model is not None and not isinstance(model, str) and not hasattr(model, "get_response"):
        raise TypeError(f"Agent model must be a str, a Model or None, not {type(model).__name__}")
    output_type: Any = agent.output_type
    if not (
        output_type is None
        or isinstance(output_type, type | AgentOutputSchemaBase)
        or get_origin(output_type) is not None
    ):
        raise TypeError(
            f"Agent output_type must be a type, an AgentOutputSchema or None, not {type(output_type).__name__}"
        )
    _check_instructions(agent)
    _check_tool_use(agent)
    _check_mcp(agent)
    for index, tool in enumerate(agent.tools):
        _check_tool(tool, index)
    for index, each in enumerate(agent.handoffs):
        if not isinstance(each, Agent | Handoff):  # pyright: ignore[reportUnnecessaryIsInstance]
            agent._as_handoff(each, index)  # pyright: ignore[reportPrivateUsage]


_NOT_GIVEN = ModelSettings()


def _suiting(model: Any) -> ModelSettings:
    # A model that is an object is its maker's: what it takes is not known from a name.
    return get_default_model_settings(model) if model is None or isinstance(model, str) else ModelSettings()


_FIELD_TYPES: tuple[tuple[str, Any, str], ...] = (
    ("name", str, "a str"),
    ("handoff_description", str | None, "a str or None"),
    ("tools", list, "a list"),
    ("mcp_servers", list, "a list"),
    ("mcp_config", dict, "a dict"),
    ("handoffs", list, "a list"),
    ("input_guardrails", list, "a list"),
    ("output_guardrails", list, "a list"),
    ("hooks", AgentHooks | None, "an AgentHooks or None"),
    ("reset_tool_choice", bool, "a bool"),
    ("model_settings", (ModelSettings, dict), "a ModelSettings or a dict"),
)


def _check_instructions(agent: Agent[Any]) -> None:
    instructions: Any = agent.instructions
    if instructions is None or isinstance(instructions, str):
        return
    if not callable(instructions):
        raise TypeError(
            f"Agent instructions must be a str, a function or None, not {type(instructions).__name__}"
        )
    try:
        signature = inspect.signature(instructions)
    except ValueError:
        return  # written in C: nothing can be known of it
    try:
        signature.bind("context", "agent")
    except TypeError:
        raise TypeError(
            f"Agent instructions are called with context and agent: the function takes {signature}"
        ) from None


def _check_tool_use(agent: Agent[Any]) -> None:
    behavior: Any = agent.tool_use_behavior
    if behavior in ("run_llm_again", "stop_on_first_tool") or callable(behavior):
        return
    if isinstance(behavior, dict) and "stop_at_tool_names" in behavior:
        return
    raise TypeError(
        "Agent tool_use_behavior must be 'run_llm_again', 'stop_on_first_tool', "
        f"{{'stop_at_tool_names': [...]}} or a function, not {behavior!r}"
    )


def _check_mcp(agent: Agent[Any]) -> None:
    for index, server in enumerate(agent.mcp_servers):
        if not isinstance(server, MCPServer):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UserError(
                f"Agent mcp_servers[{index}] is {_described(server)}; it takes an MCPServerStdio, an MCPServerSse, an "
                "MCPServerStreamableHttp, or an MCPServer of your own."
            )
    if unknown := set(agent.mcp_config) - set(MCPConfig.__annotations__):
        known = ", ".join(sorted(MCPConfig.__annotations__))
        raise UserError(f"Agent mcp_config has no {min(unknown)!r}. There are: {known}.")


def _check_tool(tool: Any, index: int) -> None:
    if isinstance(tool, Tool):
        return
    if isinstance(tool, AgentBase):
        hint = "an agent goes into handoffs=[...]"
    elif callable(tool):
        hint = "decorate the function with @tool"
    else:
        hint = "it takes what @tool makes"
    raise UserError(f"Agent tools[{index}] is {_described(cast('Any', tool))}, not a tool: {hint}.")


def _described(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {value!r}"
    name = getattr(value, "__name__", None)
    return (
        f"the {type(value).__name__} {name}" if isinstance(name, str) else f"of type {type(value).__name__}"
    )
