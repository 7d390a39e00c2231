"""`millstream models`: what would be used, and why."""

import json

import pytest

from millstream.testing.model_server import ModelServer
from tests.cli.program import millstream

pytestmark = pytest.mark.slow


def test_with_nothing_at_hand_it_is_the_scripted_model_and_every_place_says_why_not() -> None:
    done = millstream("models")

    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "would use scripted\n"
        "because   no key is set and no local server answers\n"
        "\n"
        "  · OPENAI_BASE_URL  not found  not set\n"
        "  · OpenAI           not found  OPENAI_API_KEY is not set\n"
        "  ● scripted model   used       needs no key and no network\n"
    )


def test_json_says_the_same_to_programs() -> None:
    with ModelServer() as server:
        server.send_json({"models": [{"name": "llama3.2:latest"}]})
        env = {"MILLSTREAM_LOCAL_PORTS": f"ollama={server.port},llamacpp=1,vllm=1,lmstudio=1"}
        done = millstream("models", "--json", "--model", "llama3.2", env=env)

        path = server.last.path

    choice = json.loads(done.out)
    ollama = next(each for each in choice["candidates"] if each["name"] == "Ollama")
    assert path == "/api/tags"
    assert (choice["model"], choice["api"]) == ("llama3.2", "chat")
    assert choice["base_url"] == f"http://127.0.0.1:{server.port}/v1"
    assert choice["reason"] == "--model; Ollama answers on this machine"
    assert (ollama["state"], ollama["models"]) == ("used", ["llama3.2:latest"])


def test_a_key_comes_before_a_local_server_which_is_shown_all_the_same() -> None:
    with ModelServer() as server:
        server.send_json({"data": [{"id": "m"}]})
        env = {
            "OPENAI_API_KEY": "sk-secret",
            "MILLSTREAM_LOCAL_PORTS": f"ollama=1,llamacpp={server.port},vllm=1,lmstudio=1",
        }
        done = millstream("models", env=env)

    assert "at https://api.openai.com/v1, Responses API\nbecause   OPENAI_API_KEY is set\n" in done.out
    assert f"  · llama.cpp        found      127.0.0.1:{server.port}: m\n" in done.out
    assert "sk-secret" not in done.out


@pytest.mark.parametrize(
    ("url", "state", "error", "hint"),
    [
        (
            "localhost:8000",
            "'localhost:8000' is no URL",
            "UserError: OPENAI_BASE_URL is 'localhost:8000'; it has to be a URL.",
            "such as http://127.0.0.1:8000/v1.",
        ),
        (
            "http://127.0.0.1:1/v1",
            "127.0.0.1:1: no server answers there",
            "UserError: OPENAI_BASE_URL leads to 127.0.0.1:1, and no server answers there.",
            "start it, name the model with --model, or unset OPENAI_BASE_URL.",
        ),
    ],
)
def test_a_named_server_that_cannot_be_used_is_shown_before_the_error(
    url: str, state: str, error: str, hint: str
) -> None:
    done = millstream("models", env={"OPENAI_BASE_URL": url})
    told = json.loads(millstream("models", "--json", env={"OPENAI_BASE_URL": url}).out)

    assert done.code == 2
    assert f"  · OPENAI_BASE_URL  unusable   {state}\n  · OpenAI           skipped" in done.out
    assert done.err == f"millstream: error: {error}\nmillstream: hint: {hint}\n"
    assert f"UserError: {told['error']}" == error
    assert told["candidates"][0]["state"] == "unusable"


def test_a_wrong_variable_is_one_line_and_a_hint() -> None:
    done = millstream("models", env={"OPENAI_API": "soap"})

    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "millstream: error: UserError: OPENAI_API is 'soap'; it can be responses or chat.\n"
        "millstream: hint: without it, the server decides: responses for the OpenAI API, chat for all others.\n"
    )


def test_a_server_elsewhere_without_a_key_is_never_replaced_by_the_scripted_model() -> None:
    done = millstream("run", "Hi", env={"OPENAI_BASE_URL": "https://models.example/v1"})

    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "millstream: error: MissingKeyError: OPENAI_BASE_URL leads to models.example, which is not on this "
        "machine, and OPENAI_API_KEY is not set.\n"
        "millstream: hint: set OPENAI_API_KEY (to anything, if the server needs none), or unset OPENAI_BASE_URL.\n"
    )
