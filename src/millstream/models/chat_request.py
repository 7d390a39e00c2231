"""A model call as a Chat Completions request, without I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from millstream.errors import NotSupportedError, UserError
from millstream.models.chat_messages import ShouldReplayReasoningContent, is_replayed, messages
from millstream.models.request import Request, build_request, plain_items

if TYPE_CHECKING:
    from millstream.agent import AgentOutputSchemaBase
    from millstream.config import MCPToolChoice, ModelSettings
    from millstream.handoff import Handoff
    from millstream.items import TResponseInputItem
    from millstream.tool import Tool


def refuse_state(previous_response_id: str | None, conversation_id: str | None, prompt: Any) -> None:
    """Refuse what asks the server to remember something.

    Raises:
        NotSupportedError: one of them is given.
    """
    for name, value in {
        "previous_response_id": previous_response_id,
        "conversation_id": conversation_id,
        "prompt": prompt,
    }.items():
        if value is not None:
            raise NotSupportedError(
                f"{name}: Chat Completions keeps nothing on the server. Use the Responses API "
                "(OpenAIResponsesModel), or a session to keep the history here."
            )


class ChatRequests:
    """What models share that are asked in the words of Chat Completions."""

    model: str
    _replays: ShouldReplayReasoningContent
    """Whether the text of a reasoning item is sent back."""

    def _server(self) -> str | None:
        """The address of the model's server, where it is known."""
        raise NotImplementedError

    def _asks_usage(self, settings: ModelSettings) -> bool:
        """Whether a stream is asked to tell its usage."""
        return settings.include_usage is not False

    def _request(
        self,
        instructions: str | None,
        input: str | list[TResponseInputItem],
        settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
        *,
        stream: bool,
    ) -> Request:
        """The request for one call; arguments as a `Model` is given them.

        Raises:
            InputItemError: an input item that this wire has no words for.
            NotSupportedError: a choice of tools that only the Responses API has.
            UserError: a tool that runs at the model's host.
        """
        replays = partial(is_replayed, self._replays, self.model, self._server())
        body = _body(self.model, instructions, input, settings, tools, output_schema, handoffs, replays)
        if stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True} if self._asks_usage(settings) else None
        return build_request("/chat/completions", body, settings)


def _body(
    model: str,
    instructions: str | None,
    input: str | list[TResponseInputItem],
    settings: ModelSettings,
    tools: list[Tool],
    output_schema: AgentOutputSchemaBase | None,
    handoffs: list[Handoff[Any, Any]],
    replays: Callable[[dict[str, Any]], bool],
) -> dict[str, Any]:
    """The body, but for what makes it a stream; what is None in it is left out."""
    definitions = [_tool(tool) for tool in tools] + [_handoff(handoff) for handoff in handoffs]
    return {
        "model": model,
        "messages": messages(instructions, plain_items(input), replays=replays, model=model),
        "tools": definitions or None,
        "tool_choice": _tool_choice(settings.tool_choice),
        "parallel_tool_calls": settings.parallel_tool_calls if definitions else None,
        "response_format": _response_format(output_schema),
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "frequency_penalty": settings.frequency_penalty,
        "presence_penalty": settings.presence_penalty,
        "max_tokens": settings.max_tokens,
        "logprobs": True if settings.top_logprobs is not None else None,
        "top_logprobs": settings.top_logprobs,
        "reasoning_effort": _reasoning_effort(settings.reasoning),
        "verbosity": settings.verbosity,
        "metadata": settings.metadata,
        "store": settings.store,
        "prompt_cache_retention": settings.prompt_cache_retention,
        "prompt_cache_options": settings.prompt_cache_options,
    }


def _tool(tool: Any) -> dict[str, Any]:
    if not hasattr(tool, "params_json_schema"):
        raise UserError(
            f"{type(tool).__name__} {getattr(tool, 'name', '')!r} runs at the model's host, which Chat Completions "
            "has no words for. Use the Responses API (OpenAIResponsesModel), or leave the tool out."
        )
    return _function(tool.name, tool.description, tool.params_json_schema, tool.strict_json_schema)


def _handoff(handoff: Any) -> dict[str, Any]:
    return _function(
        handoff.tool_name, handoff.tool_description, handoff.input_json_schema, handoff.strict_json_schema
    )


def _function(name: str, description: str | None, parameters: Any, strict: bool) -> dict[str, Any]:
    function = {"name": name, "description": description or "", "parameters": parameters, "strict": strict}
    return {"type": "function", "function": function}


def _tool_choice(choice: str | MCPToolChoice | None) -> Any:
    if choice is None or choice in ("auto", "required", "none"):
        return choice
    if isinstance(choice, str):
        return {"type": "function", "function": {"name": choice}}
    raise NotSupportedError(
        f"tool_choice names {choice.name!r} of an MCP server that the model's host talks to: only the Responses API "
        "does that (OpenAIResponsesModel)."
    )


def _response_format(output_schema: AgentOutputSchemaBase | None) -> dict[str, Any] | None:
    if output_schema is None or output_schema.is_plain_text():
        return None
    schema = {
        "name": "final_output",
        "strict": output_schema.is_strict_json_schema(),
        "schema": output_schema.json_schema(),
    }
    return {"type": "json_schema", "json_schema": schema}


def _reasoning_effort(reasoning: Any) -> str | None:
    if isinstance(reasoning, Mapping):
        return cast("Mapping[str, Any]", reasoning).get("effort")
    return getattr(reasoning, "effort", None)
