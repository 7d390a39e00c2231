"""`millstream run`, as the program that people and scripts start."""

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from millstream import Entry
from millstream.testing.faults import HANG
from millstream.testing.model_server import ModelServer
from tests.cli.program import PROGRAM, at_terminal, environment, millstream
from tests.support.frames import (
    CHAT_DONE,
    CHAT_USAGE,
    call,
    chat_frames,
    chunk,
    message,
    responses_frames,
    text_frames,
)

pytestmark = pytest.mark.slow

SHOP = """
from millstream import Agent, function_tool
from millstream.testing import ScriptedModel, function_call

@function_tool
def price(item: str) -> dict[str, int]:
    "What an item costs."
    return {item: 12}

agent = Agent(name="Clerk", tools=[price], model=ScriptedModel([
    ["Let me look.", function_call("price", {"item": "lamp"}, call_id="call_1")],
    "A lamp is 12.",
]))
"""

ENDLESS = """
from millstream import Agent
from millstream.testing import ScriptedModel

agent = Agent(name="Talker", model=ScriptedModel(["word " * 100_000], tokens_per_second=50))
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


# --- what is shown --------------------------------------------------------------------------


def test_a_run_shows_agent_text_tool_result_and_usage(shop: Path) -> None:
    done = millstream("run", "shop.py", "What is a lamp?", cwd=shop)

    lines = done.out.splitlines()
    assert done.code == 0
    assert lines[:3] == ["● Clerk", "Let me look.", '  → price(item="lamp")']
    assert lines[3].startswith("  ✓ price  ")
    assert lines[3].endswith(' ms  {"lamp":12}')
    assert lines[4:7] == ["", "A lamp is 12.", ""]
    assert lines[7].startswith("  2 turns · ")
    assert done.err == "millstream: model: ScriptedModel (the agent Clerk names it)\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--offline", "shop.py", "--quiet", "What is a lamp?"],
        ["shop.py:agent", "--max-turns", "2", "What", "-q", "is a lamp?"],
        ["shop.py", "What is a lamp?", "--quiet"],
        ["-q", "shop.py", "--", "--quiet"],
    ],
)
def test_options_stand_before_between_and_after_the_words(arguments: list[str], shop: Path) -> None:
    done = millstream("run", *arguments, cwd=shop)

    assert (done.code, done.out) == (0, "Let me look.\nA lamp is 12.\n"), done.err


def test_an_unknown_option_is_named_wherever_it_stands(shop: Path) -> None:
    done = millstream("run", "shop.py", "--loud", "What is a lamp?", cwd=shop)

    assert done.code == 2
    assert done.errors == [
        "millstream: error: unrecognized arguments: --loud",
        "millstream: hint: `millstream run --help` tells what it takes.",
    ]


def test_quiet_shows_only_the_text(shop: Path) -> None:
    done = millstream("run", "-q", "shop.py:agent", "What is a lamp?", cwd=shop)

    assert (done.code, done.out) == (0, "Let me look.\nA lamp is 12.\n")


def test_json_is_the_log_one_entry_a_line_without_holes(shop: Path) -> None:
    done = millstream("run", "--json", "shop.py", "What is a lamp?", cwd=shop)

    entries = [Entry.from_json(line) for line in done.out.splitlines()]
    assert done.code == 0
    assert [entry.position for entry in entries] == list(range(1, len(entries) + 1))
    assert (entries[0].type, entries[-1].type) == ("run.started", "run.completed")
    assert "tool.finished" in {entry.type for entry in entries}


def test_without_colour_where_nobody_looks_and_with_it_at_a_terminal(shop: Path) -> None:
    piped = millstream("run", "shop.py", "x", cwd=shop)
    with at_terminal("run", "shop.py", "x", cwd=shop) as coloured:
        assert coloured.end() == 0
    with at_terminal("run", "--no-color", "shop.py", "x", cwd=shop) as plain:
        assert plain.end() == 0
    with at_terminal("run", "shop.py", "x", cwd=shop, env={"NO_COLOR": "1"}) as asked:
        assert asked.end() == 0

    assert "\x1b" not in piped.out + plain.screen + asked.screen
    assert "\x1b[1;36m● Clerk\x1b[0m" in coloured.screen


def test_a_terminal_without_unicode_gets_what_it_can_show(shop: Path) -> None:
    done = millstream("run", "shop.py", "x", cwd=shop, env={"PYTHONIOENCODING": "ascii"})

    assert done.code == 0
    assert '* Clerk\nLet me look.\n  -> price(item="lamp")\n  + price  ' in done.out


# --- the prompt -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "piped", "prompt"),
    [
        (["Why", "is", "it?"], None, "Why is it?"),
        ([], "From a pipe.\n", "From a pipe."),
        (["-"], "From a pipe.\n", "From a pipe."),
        (["Shorten:"], "A long text.\n", "Shorten:\n\nA long text."),
        (["Shorten:", "-"], "A long text.\n", "Shorten:\n\nA long text."),
    ],
)
def test_the_prompt_comes_from_words_from_a_pipe_or_both(
    words: list[str], piped: str | None, prompt: str
) -> None:
    done = millstream("run", "--json", "--offline", *words, input=piped)

    assert json.loads(done.out.splitlines()[0])["event"]["input"] == prompt


def test_no_prompt_is_a_mistake_with_a_hint() -> None:
    done = millstream("run")

    assert done.code == 2
    assert done.err.startswith("millstream: error: there is no prompt.\nmillstream: hint: give one: ")


def test_a_prompt_can_be_typed_at_a_terminal() -> None:
    with at_terminal("run", "-q", "--offline", "-") as terminal:
        terminal.wait_for("reading the prompt; end it with Ctrl-D")

        terminal.type("Typed by hand.\n\x04")

        assert terminal.end() == 0
    assert "You asked: “Typed by hand.”" in terminal.screen


def test_waiting_for_a_pipe_that_nobody_closes_says_so_and_can_be_left() -> None:
    reader, writer = os.pipe()
    with at_terminal("run", "--offline", "x", stdin=reader) as terminal:
        terminal.wait_for("waiting for the rest of the prompt from standard input")

        terminal.press_ctrl_c()

        assert terminal.end() == 130
    os.close(writer)


# --- models ---------------------------------------------------------------------------------


def test_without_a_model_the_scripted_one_says_what_it_is_and_how_to_get_another() -> None:
    done = millstream("run", "Why is the sky blue?")

    assert done.code == 0
    assert "I am the scripted model" in done.out
    assert "export OPENAI_API_KEY" in done.out
    assert done.err == "millstream: model: the scripted model (no key is set and no local server answers)\n"


TOOL_APP = """
from millstream import Agent, function_tool

@function_tool
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b

calculator = Agent(name="Calculator", tools=[add])
"""


def test_a_server_on_this_machine_streams_over_chat_completions_tools_included(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(TOOL_APP)
    function = {"name": "add", "arguments": '{"a": 1, "b": 2}'}
    with ModelServer() as server:
        server.send(
            chunk({"role": "assistant", "tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": function}]}),
            chunk({}, finish="tool_calls"),
            chunk(usage=CHAT_USAGE),
            CHAT_DONE,
        )  # fmt: skip
        server.send(*chat_frames("It is three."))
        env = {"OPENAI_BASE_URL": server.base_url, "MILLSTREAM_MODEL": "local"}
        done = millstream("run", "app.py", "1 + 2?", env=env, cwd=tmp_path)

        paths = [request.path for request in server.requests]
        answer = server.last.json["messages"][-1]

    assert done.code == 0, done.err
    assert "  → add(a=1, b=2)\n  ✓ add  " in done.out
    assert "\nIt is three.\n" in done.out
    assert "  2 turns · 6 tokens in (2 cached), 10 out (4 reasoning) · " in done.out
    assert paths == ["/v1/chat/completions"] * 2
    assert (answer["role"], answer["content"]) == ("tool", "3")
    assert (
        f"local at 127.0.0.1:{server.port}, Chat Completions API (MILLSTREAM_MODEL; OPENAI_BASE_URL"
        in done.err
    )


def test_and_over_the_responses_api_tools_included(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(TOOL_APP)
    with ModelServer() as server:
        server.send(*responses_frames(call("add", '{"a": 1, "b": 2}')))
        server.send(*text_frames("It is three."))
        arguments = ["run", "--api", "responses", "--model", "local", "app.py:calculator", "1 + 2?"]
        done = millstream(*arguments, env={"OPENAI_BASE_URL": server.base_url}, cwd=tmp_path)

        paths = [request.path for request in server.requests]
        answer = server.last.json["input"][-1]

    assert done.code == 0, done.err
    assert "  → add(a=1, b=2)\n  ✓ add  " in done.out
    assert "\nIt is three.\n" in done.out
    assert paths == ["/v1/responses"] * 2
    assert (answer["type"], answer["output"]) == ("function_call_output", "3")


def test_a_local_server_that_is_found_is_asked_for_the_first_model_it_lists() -> None:
    with ModelServer() as server:
        server.send_json({"data": [{"id": "nomic-embed"}, {"id": "qwen3"}]})
        server.send(*chat_frames("Hello."))
        env = {"MILLSTREAM_LOCAL_PORTS": f"ollama=1,llamacpp=1,vllm={server.port},lmstudio=1"}
        done = millstream("run", "-q", "Hi", env=env)

        asked = server.last.json

    assert (done.code, done.out) == (0, "Hello.\n")
    assert (asked["model"], asked["messages"][-1]["content"]) == ("qwen3", "Hi")
    assert done.err == (
        f"millstream: model: qwen3 at 127.0.0.1:{server.port}, Chat Completions API "
        "(vLLM answers on this machine)\n"
    )


OFFICE = """
from dataclasses import dataclass
from millstream import Agent, handoff
from millstream.testing import ScriptedModel, function_call

@dataclass
class Form:
    name: str

back = Agent(name="Back office")
front = Agent(name="Front office", handoffs=[back], model=ScriptedModel([
    [function_call("transfer_to_back_office", call_id="c")]
]))
hidden = front.clone(handoffs=[handoff(back)])
formal = Agent(name="Formal", output_type=Form)
named = Agent(name="Named", model="somebody", handoffs=[back])
"""


@pytest.fixture
def office(tmp_path: Path) -> Path:
    (tmp_path / "office.py").write_text(OFFICE)
    return tmp_path


@pytest.mark.parametrize("name", ["front", "hidden"])
def test_agents_that_name_no_model_get_the_chosen_one_and_the_others_keep_theirs(
    name: str, office: Path
) -> None:
    done = millstream("run", f"office.py:{name}", "x", cwd=office)

    assert done.code == 0, done.err
    assert "  ⇒ hands over to Back office\n\n● Back office\nI am the scripted model" in done.out
    assert done.err == (
        "millstream: model: ScriptedModel (the agent Front office names it)\n"
        "millstream: model for the agents that name none: "
        "the scripted model (no key is set and no local server answers)\n"
    )


def test_offline_replaces_a_model_that_would_be_asked_over_the_network(office: Path) -> None:
    done = millstream("run", "--offline", "office.py:named", "x", cwd=office)

    assert done.code == 0, done.err
    assert "hand over to nobody; a real model could use Back office." in " ".join(done.out.split())
    assert done.err == "millstream: model: the scripted model (--offline)\n"


def test_the_api_that_is_asked_for_holds_for_models_that_agents_name(office: Path) -> None:
    with ModelServer() as server:
        server.send(*chat_frames("Hello."))
        env = {"OPENAI_BASE_URL": server.base_url, "MILLSTREAM_MODEL": "other"}
        done = millstream("run", "-q", "--api", "chat", "office.py:named", "x", env=env, cwd=office)

        asked = server.last

    assert (done.code, done.out) == (0, "Hello.\n"), done.err
    assert (asked.path, asked.json["model"]) == ("/v1/chat/completions", "somebody")


def test_the_scripted_model_makes_up_no_objects(office: Path) -> None:
    done = millstream("run", "office.py:formal", "x", cwd=office)

    assert done.code == 2
    assert done.errors[0] == (
        "millstream: error: UserError: The agent's output is a Form, which the scripted model "
        "cannot make up: it needs a real model."
    )


def test_instructions_reach_the_model() -> None:
    with ModelServer() as server:
        server.send(*chat_frames("Arr."))
        env = {"OPENAI_BASE_URL": server.base_url}
        millstream("run", "-m", "m", "-i", "You are a pirate.", "Hi", env=env)

        assert server.last.json["messages"][0]["content"] == "You are a pirate."


# --- what goes wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "source", "said"),
    [
        (["gone.py", "x"], "", "error: there is no file gone.py."),
        (["no.such:agent", "x"], "", "error: there is no module no.such."),
        (["app.sub:agent", "x"], "1 / 0", "error: app.sub cannot be imported: ZeroDivisionError"),
        (["app.py", "x"], "n = 1", "error: app.py has no agent."),
        (["app.py:other", "x"], SHOP, "error: app.py has no other."),
        (["app.py:price", "x"], SHOP, "error: price in app.py is not an Agent but FunctionTool."),
        (["app.py", "x"], SHOP.replace("agent =", "a = b ="), None),
        (["app.py", "x"], "import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'"),
        (["app.py", "x"], "def broken(:", "SyntaxError: "),
        (["app.py", "x"], "raise SystemExit(5)", "error: app.py cannot be imported: SystemExit: 5"),
        (["--instructions", "i", "app.py", "x"], SHOP, "error: --instructions is for a run without an app."),
        (["--max-turns", "0", "x"], "", "error: argument --max-turns: '0' is not a number of turns"),
        (["--api", "soap", "x"], "", "error: argument --api: invalid choice: 'soap'"),
        (["--model", "gpt-9", "x"], "", "error: MissingKeyError: --model is 'gpt-9'"),
        (
            ["app.py", "x"],
            "from millstream import Agent\na = Agent(name='A', model='gpt-9')",
            "MissingKeyError",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else None,
)
def test_a_mistake_is_one_line_and_a_hint(
    arguments: list[str], source: str, said: str | None, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(source)

    done = millstream("run", *arguments, cwd=tmp_path)

    if said is None:  # two names for one agent are no mistake
        assert done.code == 0, done.err
        return
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
    assert "\nmillstream: hint: " in done.err


MOVE = (
    "write `import millstream.compat; millstream.compat.install()` before the first import of agents, "
    "or import from millstream: see docs/coming-from-openai-agents.md."
)

TWINS = """
from millstream import Agent, function_tool

@function_tool
def look() -> str: return ""

agent = Agent(name="Twins", tools=[look, look])
"""


@pytest.mark.parametrize(
    ("source", "error", "hint"),
    [
        (
            "def agent(): return 1",
            "agent in app.py is a function, not an Agent.",
            "call it at the top level, such as: assistant = agent(…), and run app.py:assistant.",
        ),
        (
            "async def agent(): return 1",
            "agent in app.py is a function, not an Agent.",
            "make the agent at the top level, outside of any function.",
        ),
        ("agent = 5", "agent in app.py is not an Agent but int.", "app.py has no agents at its top level."),
        (
            TWINS,
            "DuplicateToolError: Agent 'Twins': two tools are called 'look'. Give one of them another name "
            "(name_override= or tool_name_override=), or see to it that only one is enabled at a time (is_enabled=).",
            "name_override= renames a tool, and tool_name_override= a handoff.",
        ),
        (
            "class Agent: pass\nAgent.__module__ = 'agents.agent'\ndesk = Agent()",
            "app.py has an Agent of the OpenAI Agents SDK, not of Millstream.",
            MOVE,
        ),
        (
            "class Agent: pass\nAgent.__module__ = 'agents.agent'\nagent = Agent()\nagents = [agent]",
            "app.py has an Agent of the OpenAI Agents SDK, not of Millstream.",
            MOVE,
        ),
        (
            "from millstream import Agent\nagent = Agent(name='A', model='gpt-9')",
            "MissingKeyError: There is no API key for OpenAI.",
            "set OPENAI_API_KEY, start a local server, or choose with --model. "
            "`millstream models` shows what would be used, and why.",
        ),
    ],
    ids=[
        "function",
        "coroutine function",
        "number",
        "twins",
        "agent of the SDK",
        "the SDK's `agent`",
        "no key",
    ],
)
def test_what_is_wrong_with_an_app_is_one_clear_line_and_what_to_change(
    source: str, error: str, hint: str, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(source)

    done = millstream("run", "app.py", "x", cwd=tmp_path)

    assert done.code == 2
    assert done.errors == [f"millstream: error: {error}", f"millstream: hint: {hint}"]


@pytest.mark.skipif(find_spec("agents") is not None, reason="the SDK is installed")
def test_an_app_for_the_sdk_is_told_how_to_move(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("from agents import Agent\n")

    done = millstream("run", "app.py", "x", cwd=tmp_path)

    assert done.code == 2
    assert "app.py cannot be imported: ModuleNotFoundError: No module named 'agents'" in done.err
    assert done.errors[-1] == f"millstream: hint: {MOVE}"


def test_several_agents_without_a_default_are_listed(tmp_path: Path) -> None:
    two = "from millstream import Agent\none = Agent(name='1')\ntwo = Agent(name='2')"
    (tmp_path / "app.py").write_text(two)

    done = millstream("run", "app.py", "x", cwd=tmp_path)

    assert done.code == 2
    assert done.err == (
        "millstream: error: app.py has several agents, and none is called agent.\n"
        "millstream: hint: name one of them: app.py:one, app.py:two.\n"
    )


def test_an_app_that_cannot_be_imported_shows_its_own_line_and_with_debug_the_traceback(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text("import beside\n")
    (tmp_path / "beside.py").write_text("x = 1\ny = x / 0\n")

    plain = millstream("run", "app.py", "x", cwd=tmp_path)
    debug = millstream("run", "--debug", "app.py", "x", cwd=tmp_path)

    assert plain.code == debug.code == 2
    assert "app.py cannot be imported: ZeroDivisionError: division by zero" in plain.err
    assert f"{tmp_path / 'beside.py'}, line 2: y = x / 0" in plain.err
    assert "Traceback" not in plain.err
    assert "Traceback (most recent call last):" in debug.err


def test_a_server_that_says_no_is_one_line_with_its_words_and_exit_code_1() -> None:
    with ModelServer() as server:
        error = {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}
        server.send_json(error, status=401)
        env = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "sk-wrong"}
        done = millstream("run", "--model", "m", "Hi", env=env)

    assert done.code == 1
    assert done.errors[0].startswith("millstream: error: AuthenticationError: ")
    assert "Incorrect API key provided" in done.errors[0]
    assert done.errors[1] == (
        "millstream: hint: is the key right for this server? It is OPENAI_API_KEY, unless the model has its own."
    )
    assert "sk-wrong" not in done.err


def test_a_run_that_takes_too_many_turns_ends_with_3(shop: Path) -> None:
    done = millstream("run", "--max-turns", "1", "shop.py", "x", cwd=shop)

    assert done.code == 3
    assert done.errors == [
        "millstream: error: MaxTurnsExceeded: Max turns (1) exceeded",
        "millstream: hint: --max-turns N allows more.",
    ]


def test_a_tool_that_ends_the_run_is_a_failed_run_and_debug_shows_where(tmp_path: Path) -> None:
    strict = SHOP.replace("@function_tool", "@function_tool(failure_error_function=None)")
    (tmp_path / "app.py").write_text(strict.replace("return {item: 12}", "raise ValueError('sold out')"))

    plain = millstream("run", "app.py", "x", cwd=tmp_path)
    debug = millstream("run", "--debug", "app.py", "x", cwd=tmp_path)

    assert plain.code == debug.code == 1
    assert plain.errors[0] == "millstream: error: ToolFailedError: Error running tool price: sold out"
    assert "Traceback" not in plain.err
    assert "raise ValueError('sold out')" in debug.err


# --- stopping -------------------------------------------------------------------------------


def test_ctrl_c_stops_the_run_keeps_what_was_said_and_ends_with_130(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(ENDLESS)
    with at_terminal("run", "app.py", "x", cwd=tmp_path) as terminal:
        terminal.wait_for("word word word")

        terminal.press_ctrl_c()

        assert terminal.end() == 130
    assert "■ stopped; the text so far is kept" in terminal.screen
    assert "1 turn · " in terminal.screen
    assert "Traceback" not in terminal.screen


def test_ctrl_c_closes_the_connection_to_the_model() -> None:
    with ModelServer() as server:
        server.send(chunk({"role": "assistant", "content": "Well, "}), HANG)
        with at_terminal("run", "-m", "m", "x", env={"OPENAI_BASE_URL": server.base_url}) as terminal:
            terminal.wait_for("Well,")

            terminal.press_ctrl_c()

            assert terminal.end() == 130
        server.last.gone.result(10)


@pytest.mark.parametrize("module", ["millstream.cli.program", "millstream.models.choice"])
def test_an_interrupt_in_the_middle_of_an_import_is_quiet(module: str) -> None:
    program = f"""
import os, signal, sys
class Interrupt:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from millstream_cli import main
sys.exit(main(["models"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, check=False, timeout=40
    )

    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


STUBBORN = """
import asyncio
from millstream import Agent, function_tool
from millstream.testing import ScriptedModel, function_call

@function_tool
async def dig() -> str:
    while True:
        try:
            print("digging", flush=True)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

agent = Agent(name="Mole", tools=[dig], model=ScriptedModel([[function_call("dig", call_id="c")]]))
"""


def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(STUBBORN)
    with at_terminal("run", "app.py", "x", cwd=tmp_path) as terminal:
        terminal.wait_for("digging")
        terminal.press_ctrl_c()
        terminal.wait_for("digging", after="^C")

        terminal.press_ctrl_c()

        assert terminal.end() == 130
    assert "stopped" not in terminal.screen


def test_a_polite_kill_stops_the_run_and_ends_with_143(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(ENDLESS)
    with at_terminal("run", "app.py", "x", cwd=tmp_path) as terminal:
        terminal.wait_for("word word word")

        terminal.process.send_signal(signal.SIGTERM)

        assert terminal.end() == 143
    assert "■ stopped; the text so far is kept" in terminal.screen


# --- where the output goes ------------------------------------------------------------------


@pytest.mark.parametrize("style", [[], ["--json"], ["--quiet"]], ids=["view", "json", "quiet"])
def test_a_reader_that_goes_away_ends_the_program_quietly(tmp_path: Path, style: list[str]) -> None:
    (tmp_path / "app.py").write_text(ENDLESS)
    with subprocess.Popen(
        [*PROGRAM, "run", *style, "app.py", "x"],
        cwd=tmp_path, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1)

        process.stdout.close()

        said = process.stderr.read().decode()
        assert process.wait(40) == 141
    assert said == "millstream: model: ScriptedModel (the agent Talker names it)\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_output_that_cannot_be_written_is_one_line(shop: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = millstream("run", "shop.py", "x", cwd=shop, stdout=full)

    assert done.code == 1
    assert done.errors == ["millstream: error: the output could not be written: No space left on device"]


@pytest.mark.skipif(sys.platform == "win32", reason="closes a descriptor as a Unix shell does")
def test_a_closed_standard_output_is_one_line() -> None:
    command = [sys.executable, "-m", "millstream", "run", "--offline", "x"]
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command],
        env=environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, text=True, timeout=40,
    )  # fmt: skip

    assert closed.returncode == 1
    assert closed.stderr == "millstream: error: standard output is closed, so there is nowhere to write to.\n"


def test_a_message_of_the_responses_wire_is_shown_once() -> None:
    with ModelServer() as server:
        server.send(*responses_frames(message("Once only.")))
        env = {"OPENAI_BASE_URL": server.base_url, "MILLSTREAM_API": "responses"}
        done = millstream("run", "-q", "-m", "m", "x", env=env)

    assert done.out == "Once only.\n"
