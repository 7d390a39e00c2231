"""Run configuration: what holds for one run, whichever agents act in it."""

from __future__ import annotations

import importlib
import inspect
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, cast, get_args

from millstream.clock import Clock, current_clock
from millstream.config.budget import Budget
from millstream.config.coerce import from_dict, one_of
from millstream.config.settings import ModelSettings
from millstream.context import MaybeAwaitable, RunContextWrapper, TContext, settle
from millstream.errors import UserError
from millstream.guardrail import InputGuardrail, OutputGuardrail, check_guardrails
from millstream.sessions import SessionSettings

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.handoff import HandoffInputFilter
    from millstream.handoff_history import HandoffHistoryMapper
    from millstream.items import TResponseInputItem
    from millstream.log.promise import EventLog
    from millstream.models.promise import Model, ModelProvider
    from millstream.sessions import SessionInputCallback
    from millstream.tracing import TracingConfig

DEFAULT_MAX_TURNS = 10
"""How often a run asks models where nobody says otherwise."""

ToolNotFoundBehavior: TypeAlias = Literal["raise_error", "return_error_to_model"]
ToolNameCollisionPolicy: TypeAlias = Literal["warn", "error"]
ReasoningItemIdPolicy: TypeAlias = Literal["preserve", "omit"]
WhenUnread: TypeAlias = Literal["continue", "cancel"]
ToolErrorKind: TypeAlias = Literal["approval_rejected", "tool_not_found", "tool_exception"]


@dataclass
class ModelInputData:
    """What a model is about to be given."""

    input: list[TResponseInputItem]
    instructions: str | None


@dataclass
class CallModelData(Generic[TContext]):
    """What a `call_model_input_filter` is called with."""

    model_data: ModelInputData
    agent: Agent[TContext]
    context: TContext | None


CallModelInputFilter: TypeAlias = Callable[[CallModelData[Any]], MaybeAwaitable[ModelInputData]]
"""Changes what a model is given, for this one call."""


@dataclass
class ToolErrorFormatterArgs(Generic[TContext]):
    """What a `tool_error_formatter` is called with."""

    kind: ToolErrorKind
    tool_type: str
    tool_name: str
    call_id: str
    default_message: str
    run_context: RunContextWrapper[TContext]
    error: Exception | None = None


ToolErrorFormatter: TypeAlias = Callable[[ToolErrorFormatterArgs[Any]], MaybeAwaitable[str | None]]
"""Makes the text that a model is told of a tool error; None keeps the default."""


@dataclass
class OutputGuardrailBlockedMessageArgs(Generic[TContext]):
    """What an `output_guardrail_blocked_message` is called with: nothing of what was blocked."""

    default_message: str
    guardrail_name: str
    agent: Agent[Any]
    run_context: RunContextWrapper[TContext]


OutputGuardrailBlockedMessageFormatter: TypeAlias = Callable[
    [OutputGuardrailBlockedMessageArgs[Any]], str | None
]
"""Makes the text that stands for a tool's output that was blocked; None keeps the default. Not async."""


@dataclass
class ToolExecutionConfig:
    """How the tools of one turn run."""

    max_function_tool_concurrency: int | None = None
    """How many run at once; None for all of them."""
    pre_approval_tool_input_guardrails: bool = False
    """Whether a tool's input guardrails judge a call before somebody is asked to approve it, too."""
    wait_for_input_guardrails: bool = False
    """Whether no tool runs before every input guardrail of the run has given its verdict."""

    def __post_init__(self) -> None:
        limit = self.max_function_tool_concurrency
        if limit is not None and limit < 1:
            raise ValueError("ToolExecutionConfig.max_function_tool_concurrency must be at least 1, or None.")


def _records_data() -> bool:
    said = os.environ.get("OPENAI_AGENTS_TRACE_INCLUDE_SENSITIVE_DATA", "true")
    return said.strip().lower() in ("1", "true", "yes", "on")


@dataclass
class RunConfig:
    """What holds for one run. `run_config=` also takes a dict of these fields."""

    model: str | Model | None = None
    """The model of every agent, whatever they say themselves."""
    model_provider: ModelProvider | None = None
    """Finds models by name; None for a `MultiProvider()`, made when it is needed."""
    model_settings: ModelSettings | None = None
    """Put over the settings of every agent."""
    handoff_input_filter: HandoffInputFilter | None = None
    """For handoffs that have no filter of their own."""
    nest_handoff_history: bool = False
    """For handoffs that do not say: whether the next agent is told the conversation as text."""
    handoff_history_mapper: HandoffHistoryMapper | None = None
    """Makes of the conversation what is told, where it is nested; None for one message of numbered lines."""
    input_guardrails: list[InputGuardrail[Any]] | None = None
    """Behind those of the run's first agent."""
    output_guardrails: list[OutputGuardrail[Any]] | None = None
    """Behind those of the agent that answers."""
    tracing_disabled: bool = False
    """Record nothing of this run, also where its caller has a trace open."""
    tracing: TracingConfig | None = None
    """Settings of its trace."""
    trace_include_sensitive_data: bool = field(default_factory=_records_data)
    """Whether spans tell what models and tools were given and gave, and the texts of errors.

    Where it is not said, the environment does: `OPENAI_AGENTS_TRACE_INCLUDE_SENSITIVE_DATA`; else they do.
    """
    workflow_name: str = "Agent workflow"
    """What its trace is called, and the span of the run."""
    trace_id: str | None = None
    """The id of its trace; None for a new one. A run that joins the trace of its caller has that one's."""
    group_id: str | None = None
    """Ties traces together: those of one conversation, say."""
    trace_metadata: dict[str, Any] | None = None
    """Goes with its trace, to exporters."""
    session_input_callback: SessionInputCallback | None = None
    """Makes of the session's history and the new input what the model is given; None for one behind the other."""
    call_model_input_filter: CallModelInputFilter | None = None
    tool_error_formatter: ToolErrorFormatter | None = None
    session_settings: SessionSettings | None = None
    """How the session is read, where these are set; else as the session's own settings say."""
    reasoning_item_id_policy: ReasoningItemIdPolicy | None = None
    """Whether the run's own reasoning keeps its ids where it becomes input again; None keeps them."""
    sandbox: Any | None = None
    tool_execution: ToolExecutionConfig | None = None
    tool_not_found_behavior: ToolNotFoundBehavior = "raise_error"
    """What becomes of a call of a tool that the agent does not have."""
    tool_name_collision_policy: ToolNameCollisionPolicy = "error"
    """What becomes of a run in which two tools answer to one name. (The SDK only warns.)"""
    output_guardrail_blocked_message: str | OutputGuardrailBlockedMessageFormatter | None = None
    """Stands in the history for a tool's output that was to be the run's, and that an output guardrail blocked."""
    budget: Budget | None = None
    """How much the run may use, in tokens or in money; reaching that ends it with `BudgetExceeded`."""
    ahead: Literal["turn", "free"] | int = "turn"
    """How far the run may get ahead of its readers in this process.

    `"turn"`: the next turn starts when they have taken this one. `"free"`: as far as it can.
    A number: by so many bytes; beyond it, the model's socket is no longer read.
    """
    when_unread: WhenUnread = "continue"
    """What becomes of the run when nobody holds its handle or reads it any more."""
    log: EventLog | str | None = None
    """Where the run is written down; None for memory, for as long as the handle lives.

    Or its address, as `open_log` takes it: all runs of this process share one store there.

    In a `RunStore` (`SQLiteLog`, `RedisLog`) the run survives its process: see `Runner.attach` and
    `Runner.recover`.
    """
    caller: str = ""
    """Who asks for the run: kept in its record, where its log keeps one."""
    idempotency_key: str | None = None
    """Of runs of one caller with the same key and the same request only the first begins, where the log keeps records."""
    lease: float = 10.0
    """Seconds after which another process may take over a run of a `RunStore` whose process is not heard of."""
    clock: Clock = field(default_factory=current_clock, repr=False)
    """Tells the run the time, and when its timeouts and back-offs are over: its models' and tools' too.

    By default the machine's; in a tool, that of the run that called it.
    """

    def __post_init__(self) -> None:
        if self.model_settings is not None:
            self.model_settings = ModelSettings.of(self.model_settings, "RunConfig.model_settings")
        if self.tool_execution is not None:
            self.tool_execution = from_dict(
                ToolExecutionConfig, self.tool_execution, "RunConfig.tool_execution"
            )
        if self.budget is not None:
            self.budget = from_dict(Budget, self.budget, "RunConfig.budget")
        if self.session_settings is not None:
            self.session_settings = SessionSettings.of(self.session_settings, "RunConfig.session_settings")
        _check_objects(self)
        self.get_log()  # an address that is none is told of now
        _check_ownership(self)
        _check_blocked_message(self.output_guardrail_blocked_message)
        check_guardrails("RunConfig.input_guardrails", self.input_guardrails, InputGuardrail)
        check_guardrails("RunConfig.output_guardrails", self.output_guardrails, OutputGuardrail)
        one_of(
            "RunConfig.tool_not_found_behavior",
            self.tool_not_found_behavior,
            get_args(ToolNotFoundBehavior),
        )
        one_of(
            "RunConfig.tool_name_collision_policy",
            self.tool_name_collision_policy,
            get_args(ToolNameCollisionPolicy),
        )
        if self.reasoning_item_id_policy is not None:
            one_of(
                "RunConfig.reasoning_item_id_policy",
                self.reasoning_item_id_policy,
                get_args(ReasoningItemIdPolicy),
            )
        one_of("RunConfig.when_unread", self.when_unread, get_args(WhenUnread))
        ahead: Any = self.ahead
        if ahead not in ("turn", "free") and (
            isinstance(ahead, bool) or not isinstance(ahead, int) or ahead < 1
        ):
            raise UserError(f"RunConfig.ahead is 'turn', 'free' or a number of bytes, not {ahead!r}.")

    @classmethod
    def of(cls, value: RunConfig | dict[str, Any] | None) -> RunConfig:
        """The configuration that was given as `run_config=`: an object, a dict, or nothing.

        Raises:
            UserError: a key of the dict is no field, or a value cannot be one.
        """
        return cls() if value is None else from_dict(cls, value, "run_config")

    def get_model_provider(self) -> ModelProvider:
        """Who finds models by name: `model_provider`, which is a `MultiProvider()` unless one was given."""
        if self.model_provider is None:
            # By its name, when it is needed: models stand above configuration, and cost much to import.
            provider = importlib.import_module("millstream.models.provider")
            self.model_provider = cast("ModelProvider", provider.MultiProvider())
        return self.model_provider

    def get_log(self) -> EventLog | None:
        """Where the run is written down: `log`, or the store at that address."""
        if not isinstance(self.log, str):
            return self.log
        # By its name: logs stand above configuration. Each time, as this may be another process by now.
        address = importlib.import_module("millstream.log.address")
        return cast("EventLog", address.shared_log(self.log))

    async def format_tool_error(
        self,
        *,
        kind: ToolErrorKind,
        tool_name: str,
        call_id: str,
        default_message: str,
        run_context: RunContextWrapper[Any],
        error: Exception | None = None,
        tool_type: str = "function",
    ) -> str:
        """The text that a model is told of a tool error: `tool_error_formatter`'s, else the default."""
        if self.tool_error_formatter is None:
            return default_message
        args = ToolErrorFormatterArgs(
            kind, tool_type, tool_name, call_id, default_message, run_context, error
        )
        text = await settle(self.tool_error_formatter(args))
        return default_message if text is None else text


_METHODS: dict[str, tuple[str, tuple[str, ...]]] = {
    "model": ("the name of a model, a Model or None", ("get_response",)),
    "model_provider": ("a ModelProvider or None", ("get_model",)),
    "log": ("an EventLog, the address of one or None", ("append", "cursor")),
    "clock": ("a Clock", ("time", "monotonic", "sleep", "call_later")),
}
"""By field: what it takes, and the methods by which one is known: users write these classes themselves."""

_FUNCTIONS = (
    "call_model_input_filter",
    "tool_error_formatter",
    "handoff_input_filter",
    "handoff_history_mapper",
    "session_input_callback",
)


def _check_objects(config: RunConfig) -> None:
    for name, (takes, methods) in _METHODS.items():
        value: Any = getattr(config, name)
        if (value is None and name != "clock") or (isinstance(value, str) and name in ("model", "log")):
            continue
        if isinstance(value, type):
            raise UserError(f"RunConfig.{name} is {takes}, not a class: make one, {value.__name__}(...).")
        lacking = [method for method in methods if not callable(getattr(value, method, None))]
        if lacking:
            raise UserError(
                f"RunConfig.{name} is {takes}, not {type(value).__name__}, which has no {lacking[0]}()."
            )
    for name in _FUNCTIONS:
        function: Any = getattr(config, name)
        if function is not None and not callable(function):
            raise UserError(f"RunConfig.{name} is a function or None, not {type(function).__name__}.")
    for name in ("tracing", "trace_metadata"):
        given: Any = getattr(config, name)
        if given is not None and not isinstance(given, dict):
            raise UserError(f"RunConfig.{name} is a dict or None, not {type(given).__name__}.")


def _check_ownership(config: RunConfig) -> None:
    caller, key, lease = cast("tuple[Any, Any, Any]", (config.caller, config.idempotency_key, config.lease))
    if not isinstance(caller, str):
        raise UserError(f"RunConfig.caller is text, not {type(caller).__name__}.")
    if key is not None and not (isinstance(key, str) and key):
        raise UserError(f"RunConfig.idempotency_key is a text that is not empty, or None, not {key!r}.")
    if isinstance(lease, bool) or not isinstance(lease, int | float) or not 0 < lease < math.inf:
        raise UserError(f"RunConfig.lease is a number of seconds above 0, not {lease!r}.")


def _check_blocked_message(given: Any) -> None:
    if given is None or (isinstance(given, str) and given):
        return
    if not callable(given) or inspect.iscoroutinefunction(given):
        raise UserError(
            "RunConfig.output_guardrail_blocked_message is a text that is not empty, a function that is not "
            f"async, or None, not {given!r}."
        )
