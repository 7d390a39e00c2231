"""`millstream models`: what would be used, and why."""

import json

import pytest

from tests.cli.program import millstream
from tests.support.model_server import ModelServer

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
        server.answer_json({"models": [{"name": "llama3.2:latest"}]})
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
        server.answer_json({"data": [{"id": "m"}]})
        env = {
            "OPENAI_API_KEY": "sk-secret",
            "MILLSTREAM_LOCAL_PORTS": f"ollama=1,llamacpp={server.port},vllm=1,lmstudio=1",
        }
        done = millstream("models", env=env)

    assert "at https://api.openai.com/v1, Responses API\nbecause   OPENAI_API_KEY is set\n" in done.out
    assert f"  · llama.cpp        found      127.0.0.1:{server.port}: m\n" in done.out
    assert "sk-secret" not in done.out


def test_a_wrong_variable_is_one_line_and_exit_code_2() -> None:
    done = millstream("models", env={"OPENAI_BASE_URL": "localhost:8000"})

    assert done.code == 2
    assert done.err.startswith("millstream: error: UserError: OPENAI_BASE_URL is 'localhost:8000'; ")
