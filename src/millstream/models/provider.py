"""Names become models here: OpenAI's, those of servers that speak its API, and those of your own providers."""

from __future__ import annotations

import functools
import os
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import urlsplit

from millstream.config.defaults import get_default_model
from millstream.errors import MissingKeyError, NotSupportedError, UnknownModelError, UserError
from millstream.models.litellm import LitellmProvider
from millstream.models.openai_chat import OpenAIChatCompletionsModel
from millstream.models.openai_responses import OpenAIResponsesModel
from millstream.models.promise import Model, ModelProvider
from millstream.models.transport import IDLE_TIMEOUT, new_client

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Api = Literal["chat_completions", "responses"]
PrefixMode = Literal["alias", "model_id"]
UnknownPrefixMode = Literal["error", "model_id"]

PLACEHOLDER_KEY = "not-needed"
"""What is sent as key to a server on this machine when there is none."""


class _Defaults:
    """What the `set_default_openai_*` functions have set for this process."""

    key: str | None = None
    client: AsyncOpenAI | None = None
    api: Api = "responses"


def set_default_openai_key(key: str, use_for_tracing: bool = True) -> None:
    """Use `key` where a provider is given none; it goes before `OPENAI_API_KEY`.

    Args:
        key: the key.
        use_for_tracing: accepted for compatibility; traces are not sent to OpenAI.
    """
    _Defaults.key = key


def set_default_openai_client(client: AsyncOpenAI, use_for_tracing: bool = True) -> None:
    """Use `client` where a provider is given neither a client nor a key of its own.

    Args:
        client: the client; whoever made it closes it.
        use_for_tracing: accepted for compatibility; traces are not sent to OpenAI.
    """
    _Defaults.client = client


def set_default_openai_api(api: Api) -> None:
    """Speak `api` where a provider is not told otherwise: "responses" (at first) or "chat_completions"."""
    if api not in get_args(Api):
        raise UserError(
            f"set_default_openai_api({api!r}): it is one of {', '.join(map(repr, get_args(Api)))}."
        )
    _Defaults.api = api


class OpenAIProvider(ModelProvider):
    """Models behind the OpenAI API, or behind any server that speaks it.

    Nothing is asked of the network, and no key is looked for, until a model is.

    Args:
        api_key: the key; else `set_default_openai_key`, else `OPENAI_API_KEY`. A server on
            this machine needs none.
        base_url: the server; else `OPENAI_BASE_URL`, else OpenAI.
        websocket_base_url: not supported.
        openai_client: a client of your own, with which none of the former is given. It is
            used with all its settings, and not closed.
        organization: else `OPENAI_ORG_ID`.
        project: else `OPENAI_PROJECT_ID`.
        use_responses: True for the Responses API, False for Chat Completions; else what
            `set_default_openai_api` says.
        use_responses_websocket: not supported.
        strict_feature_validation: accepted for compatibility: what a wire cannot do is always refused.
        agent_registration: not supported.
        responses_websocket_options: not supported.
        buffer_streamed_tool_calls: not supported.
        idle_timeout: see `OpenAIResponsesModel`.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        websocket_base_url: str | None = None,
        openai_client: AsyncOpenAI | None = None,
        organization: str | None = None,
        project: str | None = None,
        use_responses: bool | None = None,
        use_responses_websocket: bool | None = None,
        strict_feature_validation: bool = False,
        agent_registration: Any | None = None,
        responses_websocket_options: Any | None = None,
        buffer_streamed_tool_calls: bool = False,
        idle_timeout: float | None = IDLE_TIMEOUT,
    ) -> None:
        _refuse(
            websocket_base_url=websocket_base_url,
            use_responses_websocket=use_responses_websocket,
            agent_registration=agent_registration,
            responses_websocket_options=responses_websocket_options,
            buffer_streamed_tool_calls=buffer_streamed_tool_calls,
        )
        own = {"api_key": api_key, "base_url": base_url, "organization": organization, "project": project}
        if openai_client is not None and any(value is not None for value in own.values()):
            raise UserError(
                "OpenAIProvider takes either openai_client or " + ", ".join(own) + ": the client has its own."
            )
        self._client = openai_client
        self._key = api_key
        self._base_url = base_url
        self._organization = organization
        self._project = project
        self._use_responses = use_responses
        self._idle_timeout = idle_timeout
        self._models: dict[tuple[str, bool, bool, int], Model] = {}

    def get_model(self, model_name: str | None) -> Model:
        """The model of that name; the default one (`get_default_model()`) for None.

        Raises:
            MissingKeyError: no key was given, and the server is not on this machine.
            UnknownModelError: the name is empty.
        """
        name = get_default_model() if model_name is None else model_name
        if not name.strip():
            raise UnknownModelError("The name of the model is empty.")
        client = self._get_client()
        responses = _Defaults.api == "responses" if self._use_responses is None else self._use_responses
        key = name, model_name is not None, responses, id(client)
        model = self._models.get(key)
        if model is None:
            model = self._models[key] = self._new_model(name, client, key)
        return model

    async def aclose(self) -> None:
        """Close the connections of this provider's models that no other model uses."""
        models = list(self._models.values())
        self._models.clear()
        for model in models:
            await model.close()

    def _new_model(self, name: str, client: AsyncOpenAI, key: tuple[str, bool, bool, int]) -> Model:
        _, explicit, responses, _ = key
        if responses:
            return OpenAIResponsesModel(
                name, client, model_is_explicit=explicit, idle_timeout=self._idle_timeout
            )
        return OpenAIChatCompletionsModel(name, client, idle_timeout=self._idle_timeout)

    def _get_client(self) -> AsyncOpenAI:
        if self._client is not None:
            return self._client
        given = (self._key, self._base_url, self._organization, self._project)
        if _Defaults.client is not None and given == (None, None, None, None):
            return _Defaults.client
        key = self._key or _Defaults.key or os.environ.get("OPENAI_API_KEY")
        base_url = self._base_url or os.environ.get("OPENAI_BASE_URL") or None
        if not key:
            if not is_loopback(base_url):
                raise MissingKeyError(_NO_KEY)
            key = PLACEHOLDER_KEY
        elif not (key.isascii() and key.isprintable()):  # a header takes nothing else
            raise UserError(
                "The API key for OpenAI holds a character that no key has (an ellipsis or a line end, say): "
                "copy the whole key, and nothing else, to where it is set."
            )
        return _shared_client(
            key,
            base_url,
            self._organization or os.environ.get("OPENAI_ORG_ID"),
            self._project or os.environ.get("OPENAI_PROJECT_ID"),
        )


_NO_KEY = """\
There is no API key for OpenAI.
Do one of these:
  - set the environment variable OPENAI_API_KEY
  - call millstream.set_default_openai_key("…"), or give OpenAIProvider(api_key="…")
  - set OPENAI_BASE_URL to a server on this machine, for which no key is needed: http://localhost:11434/v1
  - use no server at all: Agent(model=millstream.testing.ScriptedModel([…]))"""


@functools.lru_cache(maxsize=32)
def _shared_client(
    api_key: str, base_url: str | None, organization: str | None, project: str | None
) -> AsyncOpenAI:
    """One client for all providers that are set alike: runs share its connections."""
    return new_client(api_key=api_key, base_url=base_url, organization=organization, project=project)


def is_loopback(base_url: str | None) -> bool:
    """Whether the server at `base_url` is on this machine."""
    host = urlsplit(base_url).hostname if base_url else None
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class MultiProviderMap:
    """Which provider serves the model names that begin with a prefix and a slash."""

    def __init__(self) -> None:
        self._mapping: dict[str, ModelProvider] = {}

    def has_prefix(self, prefix: str) -> bool:
        """Whether `prefix` is served."""
        return prefix in self._mapping

    def get_mapping(self) -> dict[str, ModelProvider]:
        """All prefixes, in a copy."""
        return dict(self._mapping)

    def set_mapping(self, mapping: dict[str, ModelProvider]) -> None:
        """Replace all prefixes."""
        self._mapping = dict(mapping)

    def get_provider(self, prefix: str) -> ModelProvider | None:
        """Who serves `prefix`."""
        return self._mapping.get(prefix)

    def add_provider(self, prefix: str, provider: ModelProvider) -> None:
        """Let `provider` serve `prefix`."""
        self._mapping[prefix] = provider

    def remove_provider(self, prefix: str) -> None:
        """Serve `prefix` no longer."""
        del self._mapping[prefix]


class MultiProvider(ModelProvider):
    """Finds the provider by the part of a model's name before its first slash.

    A name without a slash, or with `openai/` before it, is OpenAI's; one with `litellm/` is
    LiteLLM's, for which the extra `litellm` has to be installed.

    Args:
        provider_map: more prefixes; one of them may replace `openai` or `litellm`.
        openai_api_key: this and the like are for the `OpenAIProvider`.
        openai_base_url: see there.
        openai_client: see there.
        openai_organization: see there.
        openai_project: see there.
        openai_use_responses: see there.
        openai_use_responses_websocket: not supported.
        openai_strict_feature_validation: see there.
        openai_websocket_base_url: not supported.
        openai_prefix_mode: "alias" takes `openai/` off the name, "model_id" leaves it on.
        unknown_prefix_mode: "error" refuses a prefix that nobody serves; "model_id" takes it for
            part of the name, as servers have them that offer the models of many.
        openai_agent_registration: not supported.
        openai_responses_websocket_options: not supported.
        openai_buffer_streamed_tool_calls: not supported.
        idle_timeout: see `OpenAIResponsesModel`.
    """

    def __init__(
        self,
        *,
        provider_map: MultiProviderMap | None = None,
        openai_api_key: str | None = None,
        openai_base_url: str | None = None,
        openai_client: AsyncOpenAI | None = None,
        openai_organization: str | None = None,
        openai_project: str | None = None,
        openai_use_responses: bool | None = None,
        openai_use_responses_websocket: bool | None = None,
        openai_strict_feature_validation: bool = False,
        openai_websocket_base_url: str | None = None,
        openai_prefix_mode: PrefixMode = "alias",
        unknown_prefix_mode: UnknownPrefixMode = "error",
        openai_agent_registration: Any | None = None,
        openai_responses_websocket_options: Any | None = None,
        openai_buffer_streamed_tool_calls: bool = False,
        idle_timeout: float | None = IDLE_TIMEOUT,
    ) -> None:
        _one_of("openai_prefix_mode", openai_prefix_mode, get_args(PrefixMode))
        _one_of("unknown_prefix_mode", unknown_prefix_mode, get_args(UnknownPrefixMode))
        self.provider_map = provider_map
        self.openai_provider = OpenAIProvider(
            api_key=openai_api_key,
            base_url=openai_base_url,
            websocket_base_url=openai_websocket_base_url,
            openai_client=openai_client,
            organization=openai_organization,
            project=openai_project,
            use_responses=openai_use_responses,
            use_responses_websocket=openai_use_responses_websocket,
            strict_feature_validation=openai_strict_feature_validation,
            agent_registration=openai_agent_registration,
            responses_websocket_options=openai_responses_websocket_options,
            buffer_streamed_tool_calls=openai_buffer_streamed_tool_calls,
            idle_timeout=idle_timeout,
        )
        self._prefix_mode = openai_prefix_mode
        self._unknown_prefix_mode = unknown_prefix_mode

    def get_model(self, model_name: str | None) -> Model:
        """The model of that name; the default one for None.

        Raises:
            UnknownModelError: nobody serves its prefix.
            MissingKeyError: it is OpenAI's, and there is no key.
            MissingExtraError: it is LiteLLM's, and the extra is not installed.
        """
        prefix, slash, rest = (model_name or "").partition("/")
        if not slash:
            return self.openai_provider.get_model(model_name)
        provider = self.provider_map.get_provider(prefix) if self.provider_map else None
        if provider is not None:
            return provider.get_model(rest or None)
        if prefix == "openai":
            return self.openai_provider.get_model(rest if self._prefix_mode == "alias" else model_name)
        if prefix == "litellm":
            return LitellmProvider().get_model(rest or None)
        if self._unknown_prefix_mode == "model_id":
            return self.openai_provider.get_model(model_name)
        raise UnknownModelError(self._unknown(model_name or "", prefix))

    async def aclose(self) -> None:
        """Close what the providers' models hold."""
        others = self.provider_map.get_mapping().values() if self.provider_map else ()
        for provider in (self.openai_provider, *others):
            await provider.aclose()

    def _unknown(self, model_name: str, prefix: str) -> str:
        known = sorted({"litellm", "openai", *(self.provider_map.get_mapping() if self.provider_map else ())})
        hint = f"If the server itself calls the model {model_name!r}, write 'openai/{model_name}'."
        if prefix == "any-llm":
            hint = "Models by way of any-llm are not part of this version; those by way of LiteLLM are: 'litellm/…'."
        return f"No provider serves {prefix + '/'!r} of the model {model_name!r}; served: {', '.join(known)}. {hint}"


def _refuse(**arguments: Any) -> None:
    for name, value in arguments.items():
        if value:
            raise NotSupportedError(f"{name} is not part of this version: leave it out.")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{name}={value!r}: it is one of {', '.join(map(repr, allowed))}.")
