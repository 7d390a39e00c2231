"""The table of how a model is chosen, row by row, beside servers that are really there."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from millstream import MissingKeyError, UnknownModelError, UserError
from millstream.config.defaults import DEFAULT_MODEL
from millstream.models.choice import Candidate, choose, list_models, local_servers
from millstream.testing import ManualClock
from millstream.testing.faults import CUT
from millstream.testing.model_server import ModelServer

PATIENT = {"MILLSTREAM_PROBE_SECONDS": "20"}
NOBODY = {**PATIENT, "MILLSTREAM_LOCAL_PORTS": "none"}


@pytest.mark.parametrize(
    ("environ", "asked", "model", "place", "wire", "reason"),
    [
        ({}, {}, "scripted", None, None, "no key is set and no local server answers"),
        ({"OPENAI_API_KEY": "k"}, {"offline": True}, "scripted", None, None, "--offline"),
        ({"OPENAI_API_KEY": "k"}, {"model": "scripted"}, "scripted", None, None, "--model says so"),
        ({"MILLSTREAM_MODEL": "scripted"}, {}, "scripted", None, None, "MILLSTREAM_MODEL says so"),
        ({"OPENAI_API_KEY": "k"}, {}, DEFAULT_MODEL, "openai", "responses", "OPENAI_API_KEY is set"),
        ({"OPENAI_API_KEY": "k", "OPENAI_DEFAULT_MODEL": "d"}, {}, "d", "openai", "responses", "OPENAI_API_KEY is set"),
        (
            {"OPENAI_API_KEY": "k", "MILLSTREAM_MODEL": "m"}, {},
            "m", "openai", "responses", "MILLSTREAM_MODEL; OPENAI_API_KEY is set",
        ),
        (
            {"OPENAI_API_KEY": "k", "MILLSTREAM_MODEL": "m"}, {"model": "n"},
            "n", "openai", "responses", "--model; OPENAI_API_KEY is set",
        ),
        ({"OPENAI_API_KEY": "k"}, {"wire": "chat"}, DEFAULT_MODEL, "openai", "chat", "OPENAI_API_KEY is set"),
        (
            {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "https://models.example/v1"}, {"model": "m"},
            "m", "https://models.example/v1", "chat", "--model; OPENAI_BASE_URL is set",
        ),
        (
            {"OPENAI_BASE_URL": "http://localhost:5000/v1", "MILLSTREAM_API": "responses"}, {"model": "m"},
            "m", "http://localhost:5000/v1", "responses",
            "--model; OPENAI_BASE_URL is set, on this machine, where no key is needed",
        ),
        (
            {"OPENAI_BASE_URL": "http://[::1]:5000/v1", "OPENAI_API": "responses"}, {"model": "m", "wire": "chat"},
            "m", "http://[::1]:5000/v1", "chat",
            "--model; OPENAI_BASE_URL is set, on this machine, where no key is needed",
        ),
        ({"OPENAI_BASE_URL": "https://models.example/v1"}, {"offline": True}, "scripted", None, None, "--offline"),
    ],
)  # fmt: skip
async def test_what_is_chosen_and_why(
    environ: dict[str, str],
    asked: dict[str, object],
    model: str,
    place: str | None,
    wire: str | None,
    reason: str,
) -> None:
    choice = await choose({**NOBODY, **environ}, **asked)  # pyright: ignore[reportArgumentType]

    url = "https://api.openai.com/v1" if place == "openai" else place
    assert (choice.model, choice.base_url, choice.wire, choice.reason) == (model, url, wire, reason)
    assert choice.is_scripted == (place is None)
    assert [candidate.state for candidate in choice.candidates].count("used") == 1


@pytest.mark.parametrize(
    ("environ", "asked", "error", "said"),
    [
        ({}, {"model": "m"}, MissingKeyError, "--model is 'm', and there is nobody to ask for it"),
        ({"MILLSTREAM_MODEL": "m"}, {}, MissingKeyError, "MILLSTREAM_MODEL is 'm'"),
        ({"OPENAI_BASE_URL": "here"}, {}, UserError, "it has to be a URL"),
        ({"OPENAI_BASE_URL": "http://h:port/v1"}, {}, UserError, "it has to be a URL"),
        (
            {"OPENAI_BASE_URL": "https://models.example/v1"},
            {},
            MissingKeyError,
            "leads to models.example, which",
        ),
        (
            {"OPENAI_BASE_URL": "https://models.example"},
            {"model": "m"},
            MissingKeyError,
            "leads to models.example",
        ),
        ({"OPENAI_API": "soap"}, {}, UserError, "OPENAI_API is 'soap'"),
        ({"MILLSTREAM_LOCAL_PORTS": "olama=1"}, {}, UserError, "names: llamacpp, lmstudio, ollama, vllm"),
        ({"MILLSTREAM_PROBE_SECONDS": "long"}, {}, UserError, "MILLSTREAM_PROBE_SECONDS"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, {}, UserError, "no server answers there"),
    ],
)
async def test_what_cannot_be_chosen_says_what_to_change(
    environ: dict[str, str], asked: dict[str, str], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        await choose({**NOBODY, **environ}, **asked)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("https://models.example/v1", "models.example is not on this machine, and OPENAI_API_KEY is not set"),
        ("http://127.0.0.1:1/v1", "127.0.0.1:1: no server answers there"),
        ("https//user:secret@h", "'not a URL' is no URL"),
    ],
)
async def test_a_named_server_that_cannot_be_used_is_told_beside_the_others(url: str, detail: str) -> None:
    trail: list[Candidate] = []
    with ModelServer() as server:
        server.send_json({"data": [{"id": "m"}]})
        with pytest.raises(UserError) as raised:
            await choose({**on(server, "vllm"), "OPENAI_BASE_URL": url}, probe_all=True, trail=trail)

    states = {candidate.name: candidate.state for candidate in trail}
    assert (trail[0].state, trail[0].detail) == ("unusable", detail)
    assert (states["vLLM"], states["Ollama"], states["scripted model"]) == ("found", "not found", "skipped")
    assert raised.value.__notes__
    assert "secret" not in str(raised.value)


def on(server: ModelServer, name: str) -> dict[str, str]:
    """An environment in which `server` is where that kind of server is looked for, and no other is there."""
    ports = {"ollama": 1, "llamacpp": 1, "vllm": 1, "lmstudio": 1, name: server.port}
    return {**PATIENT, "MILLSTREAM_LOCAL_PORTS": ",".join(f"{k}={v}" for k, v in ports.items())}


@pytest.mark.parametrize(
    ("name", "path", "answer", "model"),
    [
        (
            "ollama",
            "/api/tags",
            {"models": [{"name": "llama3.2:latest"}, {"name": "other"}]},
            "llama3.2:latest",
        ),
        ("llamacpp", "/v1/models", {"data": [{"id": "a"}], "models": [{"name": "b"}]}, "a"),
        ("vllm", "/v1/models", {"data": [{"id": "text-embedding"}, {"id": "chatty"}]}, "chatty"),
        ("lmstudio", "/v1/models", {"data": [{"id": "only-embeddings"}]}, "only-embeddings"),
    ],
)
async def test_a_local_server_is_found_by_what_it_lists(
    name: str, path: str, answer: object, model: str
) -> None:
    with ModelServer() as server:
        server.send_json(answer)
        choice = await choose(on(server, name))

        asked = server.last.path

    assert asked == path
    assert (choice.model, choice.base_url, choice.wire) == (model, server.base_url, "chat")
    assert choice.reason.endswith(" answers on this machine")


async def test_the_first_in_the_list_is_preferred_where_several_answer() -> None:
    with ModelServer() as ollama, ModelServer() as studio:
        ollama.send_json({"models": [{"name": "first"}]})
        studio.send_json({"data": [{"id": "second"}]})
        environ = {**on(ollama, "ollama")}
        environ["MILLSTREAM_LOCAL_PORTS"] = f"ollama={ollama.port},llamacpp=1,vllm=1,lmstudio={studio.port}"
        choice = await choose(environ)

    assert choice.model == "first"
    assert [(c.name, c.state) for c in choice.candidates if c.models] == [
        ("Ollama", "used"),
        ("LM Studio", "found"),
    ]


async def test_a_model_that_is_asked_for_is_taken_from_the_server_that_has_it() -> None:
    with ModelServer() as server:
        server.send_json({"models": [{"name": "a:latest"}]}, status=200)
        found = await choose(on(server, "ollama"), model="a")
        server.send_json({"models": [{"name": "a:latest"}]})
        with pytest.raises(UnknownModelError, match="do not list it; they list a:latest"):
            await choose(on(server, "ollama"), model="b")

    assert (found.model, found.base_url) == ("a", server.base_url)


@pytest.mark.parametrize(
    "answer",
    [
        lambda s: s.send(b"<html>"),
        lambda s: s.send(b"[]"),
        lambda s: s.send(b'{"data": 5}'),
        lambda s: s.send(b"[" * 100_000),
        lambda s: s.send(
            b'{"data": [', CUT, headers={"transfer-encoding": "gzip", "content-length": "999999"}
        ),
        lambda s: s.send_json({"data": [{"id": "m"}]}, status=404),
        lambda s: s.send_json({"data": [{"id": 5}, 7]}),
        lambda s: s.send_json({"data": []}),
    ],
    ids=["html", "list", "number", "nested", "lying", "404", "nameless", "empty"],
)
async def test_a_server_that_lists_no_models_is_passed_over(answer: Callable[[ModelServer], None]) -> None:
    with ModelServer() as server:
        answer(server)
        choice = await choose({**on(server, "vllm"), "MILLSTREAM_PROBE_SECONDS": "2"})

    assert choice.is_scripted


async def test_a_server_that_says_nothing_costs_no_more_than_its_time() -> None:
    with ModelServer() as server:
        held = server.hold()
        with ManualClock() as clock:
            listing = asyncio.create_task(list_models(f"{server.base_url}/models", seconds=20))
            await asyncio.wrap_future(held)
            clock.advance(20)
            models = await listing

    assert models is None


async def test_a_server_that_just_hangs_up_after_its_answer_is_understood() -> None:
    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.0 200 OK\r\n\r\n{"data": [{"id": "old"}]}')
        writer.close()

    async with await asyncio.start_server(old, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        models = await list_models(f"http://127.0.0.1:{port}/v1/models", seconds=20)

    assert models == ("old",)


async def test_only_this_machine_is_ever_probed() -> None:
    probes: list[Awaitable[object]] = [
        list_models(f"http://{host}/v1/models") for host in ("192.0.2.1", "a.example")
    ]

    assert await asyncio.gather(*probes) == [None, None]


def test_ports_can_be_changed_one_by_one() -> None:
    servers = local_servers({"MILLSTREAM_LOCAL_PORTS": "LM Studio=99"})

    assert [(s.name, s.port) for s in servers] == [
        ("Ollama", 11434),
        ("llama.cpp", 8080),
        ("vLLM", 8000),
        ("LM Studio", 99),
    ]
