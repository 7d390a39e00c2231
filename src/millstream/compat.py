"""The module paths of the OpenAI Agents SDK, so that a program moves over by one line or two.

To keep `from agents import ...` as it is, put this before the first of them:

    import millstream.compat

    millstream.compat.install()

Or write `millstream.compat` where the program says `agents`: `from millstream.compat import
Agent`, `from millstream.compat.items import ItemHelpers`. Both give the very classes that `millstream` has, so ways can be mixed. A
name that is not there raises `ImportError` where it is imported, `AttributeError` where it is
looked up, which says whether it is planned, and what to do.

Type checkers read files, and see none here: what is to be checked says `millstream`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from millstream.errors import UserError

PATHS: dict[str, tuple[str, ...]] = {
    "": ("millstream",),
    "agent": ("millstream.agent",),
    "agent_output": ("millstream.agent",),
    "agent_tool_input": ("millstream.agent",),
    "decorators": ("millstream.decorators",),
    "exceptions": ("millstream.errors",),
    "extensions": ("millstream.extensions",),
    "extensions.handoff_filters": ("millstream.extensions.handoff_filters",),
    "extensions.handoff_prompt": ("millstream.extensions.handoff_prompt",),
    "extensions.memory": ("millstream.sessions",),
    "extensions.memory.redis_session": ("millstream.sessions",),
    "extensions.models": ("millstream.extensions.models",),
    "extensions.models.litellm_model": ("millstream.extensions.models.litellm_model",),
    "extensions.models.litellm_provider": ("millstream.extensions.models.litellm_provider",),
    "function_schema": ("millstream.schema",),
    "guardrail": ("millstream.guardrail",),
    "handoffs": ("millstream.handoff", "millstream.handoff_history"),
    "handoffs.history": ("millstream.handoff_history",),
    "items": ("millstream.items",),
    "lifecycle": ("millstream.hooks",),
    "logger": ("millstream.about",),
    "memory": ("millstream.sessions",),
    "memory.session": ("millstream.sessions",),
    "memory.session_settings": ("millstream.sessions",),
    "memory.sqlite_session": ("millstream.sessions",),
    "memory.util": ("millstream.sessions",),
    "mcp": ("millstream.mcp",),
    "mcp.manager": ("millstream.mcp",),
    "mcp.server": ("millstream.mcp",),
    "mcp.util": ("millstream.mcp",),
    "model_settings": ("millstream.config", "openai.types.shared.reasoning"),
    "models": ("millstream.models", "millstream.config.defaults"),
    "models.default_models": ("millstream.config.defaults",),
    "models.interface": ("millstream.models.promise",),
    "models.multi_provider": ("millstream.models.provider",),
    "models.openai_chatcompletions": ("millstream.models.openai_chat",),
    "models.openai_provider": ("millstream.models.provider",),
    "models.openai_responses": ("millstream.models.openai_responses",),
    "models.reasoning_content_replay": ("millstream.models.chat_messages",),
    "repl": ("millstream.repl",),
    "result": ("millstream.result",),
    "retry": ("millstream.config",),
    "run": ("millstream.runner", "millstream.config", "millstream.context"),
    "run_config": ("millstream.config",),
    "run_context": ("millstream.context",),
    "run_error_handlers": ("millstream.config",),
    "run_state": ("millstream.run_state", "millstream.context"),
    "stream_events": ("millstream.events",),
    "strict_schema": ("millstream.schema",),
    "testing": ("millstream.testing",),
    "testing.model": ("millstream.testing",),
    "tool": ("millstream.tool",),
    "tool_context": ("millstream.context",),
    "tool_guardrails": ("millstream.guardrail",),
    "tracing": ("millstream.tracing",),
    "tracing.config": ("millstream.tracing.traces",),
    "tracing.create": ("millstream.tracing.create",),
    "tracing.processor_interface": ("millstream.tracing.processors",),
    "tracing.processors": ("millstream.tracing.batch", "millstream.tracing.exporters"),
    "tracing.provider": ("millstream.tracing.provider",),
    "tracing.setup": ("millstream.tracing.provider",),
    "tracing.span_data": ("millstream.tracing.data",),
    "tracing.spans": ("millstream.tracing.spans",),
    "tracing.traces": ("millstream.tracing.traces",),
    "tracing.util": ("millstream.tracing.ids",),
    "usage": ("millstream.usage",),
    "version": ("millstream.about",),
}
"""The SDK's modules by their path below `agents`, and where here their names are."""


@dataclass(frozen=True)
class Absent:
    """Something of the SDK that is not here. `docs/coming-from-openai-agents.md` says the same of it."""

    what: str
    names: str
    """What comes with it: names, and modules by their path with all that is below; `*` for anything."""
    instead: str
    planned: bool = True


ABSENT = [
    Absent(
        "voice, realtime and sandboxes",
        "voice realtime sandbox testing.sandbox extensions.sandbox Speech* speech_* Transcription* transcription_*",
        "the SDK, in a process of its own",
        planned=False,
    ),
    Absent(
        "WebSocket sessions to the Responses API",
        "responses_websocket_session ResponsesWebSocket* OpenAIResponsesW* set_default_openai_responses_transport",
        "leave it out, and HTTP is used",
        planned=False,
    ),
    Absent(
        "tool search, compaction, custom tools, and tools for computers, shells and patches",
        "ToolSearch* *Compaction* is_openai_responses_compaction_aware_session "
        "memory.openai_responses_compaction_session CustomTool* ProgrammaticToolCallingTool *Computer* computer "
        "*_computer *_computers Button Environment *Shell* ApplyPatch* apply_diff editor",
        "a function tool of your own",
        planned=False,
    ),
    Absent(
        "exporting traces to OpenAI, and registering agents there",
        "set_tracing_export_api_key BackendSpanExporter default_exporter default_processor *AgentRegistration* *_agent_registration "
        "models.openai_agent_registration set_default_openai_harness",
        "leave it out",
        planned=False,
    ),
    Absent(
        "other stores of conversations",
        "*Session memory.openai_conversations_session extensions.memory.*",
        "SQLiteSession, RedisSession, or a class of your own with the methods of Session",
        planned=False,
    ),
    Absent(
        "other adapters of models",
        "extensions.models.any_llm_* AnyLLM*",
        "LitellmModel, or a model of your own",
        planned=False,
    ),
    Absent(
        "drawings of agents",
        "extensions.visualization draw_graph",
        "a drawing of your own, from the handoffs and tools of each agent",
        planned=False,
    ),
    Absent(
        "trimmers of tool outputs",
        "extensions.tool_output_trimmer ToolOutputTrimmer",
        "RunConfig.call_model_input_filter, with a function of your own",
        planned=False,
    ),
    Absent(
        "approvals of hosted MCP tools",
        "MCPToolApproval*",
        "a server of your own among mcp_servers, with require_approval",
    ),
    Absent(
        "stored prompts", "prompts Prompt DynamicPromptFunction GenerateDynamicPromptData", "instructions"
    ),
    Absent(
        "further settings of tools",
        "*CustomData* tool_namespace ToolCaller ImageGenerationToolConfig WebSearchToolImageSettings",
        "leave it out; where it is the type of a dict, the dict",
    ),
]
"""What is told of a name that is not here, by the first that it comes with."""

__path__: list[str] = []  # makes this a package, whose modules the finder below gives


def install() -> None:
    """Let `import agents` and everything below it mean this library, in the whole process.

    Call it before the first import of `agents`. An installed SDK is not touched; it is just not
    what `agents` means in this process.

    Raises:
        UserError: something else was imported as `agents` already.
    """
    imported = sys.modules.get("agents")
    if imported is not None and not isinstance(imported, _Alias):
        raise UserError(
            f"agents is imported already, from {getattr(imported, '__file__', None) or 'elsewhere'}: call "
            "millstream.compat.install() before the first import of agents."
        )
    _FINDER.roots.add("agents")


class _Alias(ModuleType):
    """A module of the SDK: has the names of ours that stand behind it."""

    def __init__(self, name: str, place: str) -> None:
        super().__init__(name, f"The names of `agents{place and '.'}{place}` that Millstream has.")
        self._place = place

    def __getattr__(self, name: str) -> Any:
        # First, as in the SDK: `agents.tool` is a module there, and a decorator in `millstream`.
        if _below(self._place, name) in PATHS:
            return importlib.import_module(f"{self.__name__}.{name}")
        if not name.startswith("_") or name == "__version__":
            for source in PATHS[self._place]:
                found = getattr(importlib.import_module(source), name, None)
                if found is not None and not isinstance(found, ModuleType):
                    return found
        raise AttributeError(_lacking(f"{self.__name__}.{name}"), name=name, obj=self)

    def __dir__(self) -> list[str]:
        names = {name for source in PATHS[self._place] for name in vars(importlib.import_module(source))}
        return sorted(name for name in names if not name.startswith("_") and hasattr(self, name))


class _Finder(MetaPathFinder, Loader):
    """Gives the modules of `PATHS` below each of its roots."""

    def __init__(self) -> None:
        self.roots = {__name__}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        place = self.place(fullname)
        if place is None:
            return None
        if place not in PATHS:
            # `from agents.items import Nothing` asks here last, since every module is a package;
            # what is raised now is what the program sees.
            raise ImportError(_lacking(fullname), name=fullname)
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Alias(spec.name, self.place(spec.name) or "")

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__all__"] = dir(module)  # for `from agents import *`

    def place(self, fullname: str) -> str | None:
        """The path of a module below its root; None where that is no root of ours."""
        for root in self.roots:
            if fullname == root:
                return ""
            if fullname.startswith(f"{root}."):
                return fullname.removeprefix(f"{root}.")
        return None


def _below(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _lacking(fullname: str) -> str:
    """What to say of a name or a module that is not here: whether it will be, and what to do."""
    place = _FINDER.place(fullname) or ""
    parts = place.split(".")
    known_as = [".".join(parts[:length]) for length in range(1, len(parts) + 1)] + parts[-1:]
    for absent in ABSENT:
        if any(fnmatchcase(name, pattern) for pattern in absent.names.split() for name in known_as):
            when = "not in this version" if absent.planned else "not planned"
            return (
                f"Millstream has no {fullname}: it belongs to {absent.what}, which are {when}. "
                f"Instead: {absent.instead}."
            )
    module = fullname.rpartition(".")[0]
    return f"Millstream has no {fullname}, and none is planned. Is it spelt right? dir({module}) tells what there is."


_FINDER = _Finder()
sys.meta_path.insert(0, _FINDER)
_TOP = _Alias(__name__, "")


def __getattr__(name: str) -> Any:
    """The names of `agents` itself, which this module stands for."""
    return dir(_TOP) if name == "__all__" else getattr(_TOP, name)
