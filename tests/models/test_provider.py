"""Names and keys: who serves a model, and what is missing."""

import asyncio
import gc
import logging
import subprocess
import sys
import warnings
from typing import Any

import pytest
from openai import AsyncOpenAI

from millstream.config import defaults
from millstream.errors import MissingKeyError, NotSupportedError, UnknownModelError, UserError
from millstream.models import provider
from millstream.models.openai_chat import OpenAIChatCompletionsModel
from millstream.models.openai_responses import OpenAIResponsesModel
from millstream.models.promise import Model
from millstream.models.provider import MultiProvider, MultiProviderMap, OpenAIProvider
from millstream.testing.model_server import ModelServer
from tests.models.conftest import streamed
from tests.support.frames import chat_frames, text_frames


def client_of(model: Model) -> AsyncOpenAI:
    assert isinstance(model, (OpenAIResponsesModel, OpenAIChatCompletionsModel))
    return model._transport.client


# --- keys and servers -------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["sk-…", "sk-123\n", "ключ"])
def test_a_key_that_can_be_none_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(UserError, match="holds a character that no key has") as raised:
        OpenAIProvider(api_key=key).get_model("m")

    assert key not in str(raised.value)


@pytest.mark.parametrize(
    "base_url", [None, "https://example.com/v1", "http://192.168.1.5:8000/v1", "nonsense"]
)
def test_a_missing_key_is_told_with_its_remedies(base_url: str | None) -> None:
    with pytest.raises(MissingKeyError) as raised:
        OpenAIProvider(base_url=base_url).get_model("m")

    for remedy in ("OPENAI_API_KEY", "set_default_openai_key", "OPENAI_BASE_URL", "ScriptedModel"):
        assert remedy in str(raised.value)


@pytest.mark.parametrize(
    "base_url",
    ["http://localhost:11434/v1", "http://127.0.0.1:1/v1", "http://[::1]:1/v1", "http://my.localhost/v1"],
)
def test_a_server_on_this_machine_needs_no_key(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = client_of(OpenAIProvider(base_url=base_url).get_model("m"))
    monkeypatch.setenv("OPENAI_BASE_URL", base_url)
    found = client_of(OpenAIProvider().get_model("m"))

    assert given.api_key == found.api_key == "not-needed"
    assert str(found.base_url).rstrip("/") == base_url


def test_a_key_is_taken_from_the_nearest_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of the environment")
    assert client_of(OpenAIProvider().get_model("m")).api_key == "of the environment"

    provider.set_default_openai_key("of the program")
    assert client_of(OpenAIProvider().get_model("m")).api_key == "of the program"
    assert client_of(OpenAIProvider(api_key="its own").get_model("m")).api_key == "its own"


def test_a_default_client_serves_those_who_were_given_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    client = AsyncOpenAI(api_key="k")
    provider.set_default_openai_client(client)

    assert client_of(OpenAIProvider().get_model("m")) is client
    assert client_of(OpenAIProvider(base_url="http://localhost/v1").get_model("m")) is not client
    assert client_of(OpenAIProvider(openai_client=AsyncOpenAI(api_key="x")).get_model("m")) is not client


def test_providers_set_alike_share_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (client_of(OpenAIProvider(api_key="k", organization="o").get_model("m")) for _ in range(2))
    third = client_of(OpenAIProvider(api_key="k", organization="p", project="q").get_model("m"))

    assert one is other
    assert (third.organization, third.project) == ("p", "q")


def test_a_client_and_settings_for_one_exclude_each_other() -> None:
    with pytest.raises(UserError, match="either openai_client or"):
        OpenAIProvider(openai_client=AsyncOpenAI(api_key="k"), api_key="k")


# --- names ------------------------------------------------------------------------------------


def test_a_name_means_the_same_model_each_time() -> None:
    models = OpenAIProvider(api_key="k")

    assert models.get_model("m") is models.get_model("m")
    assert models.get_model("m") is not models.get_model("n")


def test_no_name_means_the_default_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = OpenAIProvider(api_key="k").get_model(None)
    assert isinstance(model, OpenAIResponsesModel)
    assert model.model == defaults.get_default_model() == defaults.DEFAULT_MODEL

    monkeypatch.setenv("OPENAI_DEFAULT_MODEL", " GPT-4.1 ")
    assert repr(MultiProvider(openai_api_key="k").get_model(None)) == "OpenAIResponsesModel('gpt-4.1')"


def test_an_empty_name_is_no_model() -> None:
    with pytest.raises(UnknownModelError, match="empty"):
        MultiProvider(openai_api_key="k").get_model(" ")


def test_the_wire_is_chosen_by_the_provider_or_for_the_process() -> None:
    assert isinstance(OpenAIProvider(api_key="k").get_model("m"), OpenAIResponsesModel)
    assert isinstance(
        OpenAIProvider(api_key="k", use_responses=False).get_model("m"), OpenAIChatCompletionsModel
    )

    provider.set_default_openai_api("chat_completions")

    assert isinstance(OpenAIProvider(api_key="k").get_model("m"), OpenAIChatCompletionsModel)
    assert isinstance(OpenAIProvider(api_key="k", use_responses=True).get_model("m"), OpenAIResponsesModel)


def test_an_unknown_wire_is_refused() -> None:
    with pytest.raises(UserError, match="one of 'chat_completions', 'responses'"):
        provider.set_default_openai_api("chat")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "modes", "served"),
    [
        ("m", {}, "m"),
        ("openai/m", {}, "m"),
        ("openai/qwen/m", {}, "qwen/m"),
        ("openai/m", {"openai_prefix_mode": "model_id"}, "openai/m"),
        ("qwen/m", {"unknown_prefix_mode": "model_id"}, "qwen/m"),
    ],
)
def test_a_prefix_names_the_provider(name: str, modes: dict[str, Any], served: str) -> None:
    model = MultiProvider(openai_api_key="k", **modes).get_model(name)

    assert repr(model) == f"OpenAIResponsesModel({served!r})"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "qwen/m",
            "served: litellm, mine, openai. If the server itself calls the model 'qwen/m', write 'openai/qwen/m'.",
        ),
        ("any-llm/gpt", "Models by way of any-llm are not part of this version; those by way of LiteLLM are"),
    ],
)
def test_an_unknown_prefix_is_told_with_those_that_are_served(name: str, said: str) -> None:
    prefixes = MultiProviderMap()
    prefixes.add_provider("mine", OpenAIProvider())

    with pytest.raises(UnknownModelError) as raised:
        MultiProvider(provider_map=prefixes).get_model(name)

    assert said in str(raised.value)


def test_prefixes_of_ones_own_go_first() -> None:
    mine = OpenAIProvider(api_key="mine")
    prefixes = MultiProviderMap()
    prefixes.set_mapping({"openai": mine, "x": mine})
    models = MultiProvider(provider_map=prefixes, openai_api_key="k")

    assert client_of(models.get_model("openai/m")).api_key == "mine"
    assert client_of(models.get_model("x/a/b")).api_key == "mine"
    assert client_of(models.get_model("m")).api_key == "k"
    assert prefixes.has_prefix("x")
    assert prefixes.get_mapping() == {"openai": mine, "x": mine}

    prefixes.remove_provider("x")
    with pytest.raises(UnknownModelError):
        models.get_model("x/m")


@pytest.mark.parametrize(
    "arguments",
    [
        {"openai_use_responses_websocket": True},
        {"openai_websocket_base_url": "ws://x"},
        {"openai_agent_registration": {"x": 1}},
        {"openai_responses_websocket_options": {"x": 1}},
        {"openai_buffer_streamed_tool_calls": True},
    ],
)
def test_what_this_version_lacks_is_refused(arguments: dict[str, Any]) -> None:
    name = next(iter(arguments)).removeprefix("openai_")

    with pytest.raises(NotSupportedError, match=name):
        MultiProvider(**arguments)


@pytest.mark.parametrize("mode", ["openai_prefix_mode", "unknown_prefix_mode"])
def test_an_unknown_mode_is_refused(mode: str) -> None:
    with pytest.raises(UserError, match=f"{mode}='x': it is one of"):
        MultiProvider(**{mode: "x"})  # type: ignore[arg-type]


# --- connections ------------------------------------------------------------------------------


async def test_closing_a_provider_closes_its_connections(server: ModelServer) -> None:
    server.send(*text_frames("x"), always=True)
    models = MultiProvider(openai_base_url=server.base_url)
    await streamed(models.get_model("m"))

    await models.aclose()
    await models.aclose()

    await server.last.client_gone()
    await streamed(models.get_model("m"))
    assert server.connections == 2


async def test_runs_without_a_provider_of_their_own_share_a_connection(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.send(*chat_frames("x"), always=True)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    provider.set_default_openai_api("chat_completions")

    for _ in range(3):
        await streamed(MultiProvider().get_model("m"))
        gc.collect()

    assert server.connections == 1
    assert server.last.headers["authorization"] == "Bearer not-needed"


def test_many_loops_one_provider_no_warning(server: ModelServer, caplog: pytest.LogCaptureFixture) -> None:
    server.send(*text_frames("x"), always=True)
    models = OpenAIProvider(base_url=server.base_url)

    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        for _ in range(3):
            asyncio.run(streamed(models.get_model("m")))
        del models
        provider._shared_client.cache_clear()
        gc.collect()

    assert [str(w.message) for w in caught] == []
    assert caplog.records == []


def test_the_models_import_neither_client_nor_http_library() -> None:
    code = "import sys, millstream.models.provider; print({'openai', 'aiohttp', 'httpx2'} & set(sys.modules))"

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "set()"
