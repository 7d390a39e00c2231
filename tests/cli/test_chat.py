"""`millstream chat`, as people at a terminal and scripts use it."""

import contextlib
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from millstream import Entry
from millstream.testing.faults import HANG
from millstream.testing.model_server import ModelServer
from tests.cli.program import PROGRAM, Terminal, at_terminal, environment, millstream
from tests.cli.test_run import ENDLESS, SHOP, STUBBORN
from tests.support.frames import chat_frames, chunk

pytestmark = pytest.mark.slow

# Says back what it was told: all of it, so that a test sees the history.
ECHO = """
from millstream import Agent
from millstream.testing import ModelStep, ScriptedModel

def text(item):
    content = item["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)

def echo(call):
    model.enqueue(ModelStep.respond(echo))
    said = [text(item) for item in call.input]
    return "heard: " + " / ".join(line.replace("\\n", "+") for line in said[-5:]) + "."

model = ScriptedModel([ModelStep.respond(echo)])
agent = Agent(name="Parrot", model=model)
"""

# The first answer goes on until it is stopped, the others say back what was told.
TALKER = (
    ECHO.replace("said[-5:]", "[s[:9] for s in said]").replace(
        "ScriptedModel([", "ScriptedModel(['word ' * 100_000, "
    )
    + "model.tokens_per_second = 50\n"
)

OFFICE = """
from millstream import Agent
from millstream.testing import ScriptedModel, function_call

back = Agent(name="Back", model=ScriptedModel(["Back here.", "Still back."]))
agent = Agent(name="Front", handoffs=[back], model=ScriptedModel([
    [function_call("transfer_to_back", call_id="c")], "Front again.",
]))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "echo.py").write_text(ECHO)
    (tmp_path / "talker.py").write_text(TALKER)
    (tmp_path / "office.py").write_text(OFFICE)
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "mole.py").write_text(STUBBORN)
    (tmp_path / "endless.py").write_text(ENDLESS)
    return tmp_path


@contextlib.contextmanager
def chat(place: Path, *arguments: str, env: dict[str, str] | None = None) -> Iterator[Terminal]:
    """A chat at a terminal that is as it was when the chat is over, however it ended."""
    state = {"XDG_STATE_HOME": str(place / "state"), "NO_COLOR": "1", **(env or {})}
    with at_terminal("chat", *arguments, cwd=place, env=state) as terminal:
        before = terminal.modes
        prompted(terminal)
        yield terminal
        if terminal.process.poll() is None:
            terminal.type("\x04")
        terminal.end()
        assert terminal.modes == before
        assert "Traceback" not in terminal.screen


def prompted(terminal: Terminal) -> None:
    """Wait for the prompt; what has been shown before it is forgotten."""
    terminal.wait_for("\x1b[?2004h> ")
    terminal.wait_until_it_reads()
    terminal.forget()


def say(terminal: Terminal, text: str, *, shows: str) -> None:
    terminal.type(f"{text}\r")
    terminal.wait_for(shows)
    prompted(terminal)


# --- a conversation -------------------------------------------------------------------------


def test_a_chat_remembers_what_was_said(place: Path) -> None:
    with chat(place, "echo.py") as terminal:
        say(terminal, "one", shows="● Parrot\nheard: one.")
        say(terminal, "two", shows="heard: one / heard: one. / two.")


def test_without_a_key_the_scripted_model_answers_and_says_why(place: Path) -> None:
    with at_terminal("chat", cwd=place, env={"XDG_STATE_HOME": str(place)}) as terminal:
        terminal.wait_for("model: the scripted model (no key is set and no local server answers)")
        prompted(terminal)
        say(terminal, "hello there", shows="You asked: “hello there”.")
        terminal.type("/exit\r")

        assert terminal.end() == 0


def test_an_answer_shows_tools_and_usage_as_run_does(place: Path) -> None:
    with chat(place, "shop.py") as terminal:
        terminal.type("What is a lamp?\r")
        terminal.wait_for("  ✓ price  ")
        terminal.wait_for("A lamp is 12.\n\n  2 turns · ")


def test_the_agent_that_was_handed_to_goes_on_until_a_reset(place: Path) -> None:
    with chat(place, "office.py") as terminal:
        say(terminal, "one", shows="⇒ hands over to Back\n\n● Back\nBack here.")
        say(terminal, "two", shows="● Back\nStill back.")
        say(terminal, "/reset", shows="the conversation begins anew.")
        say(terminal, "three", shows="● Front\nFront again.")


def test_a_turn_that_fails_is_told_and_the_chat_goes_on_without_the_question(place: Path) -> None:
    with ModelServer() as server:
        server.send(*chat_frames("Hello."))
        server.send_json({"error": {"message": "no such thing"}}, status=400)
        server.send(*chat_frames("Bye."))
        with chat(place, "-m", "m", env={"OPENAI_BASE_URL": server.base_url}) as terminal:
            say(terminal, "one", shows="Hello.")
            say(terminal, "two", shows="millstream: error: BadRequestError: ")
            say(terminal, "three", shows="Bye.")

        asked = [message["content"] for message in server.last.json["messages"][1:]]

    assert asked == ["one", "Hello.", "three"]


def test_answers_may_go_to_a_file_while_somebody_types(place: Path) -> None:
    to_file = ["sh", "-c", 'exec "$@" > answers.txt', "sh", *PROGRAM]
    env = {"XDG_STATE_HOME": str(place / "state")}
    with at_terminal("chat", "echo.py", "--quiet", cwd=place, env=env, program=to_file) as terminal:
        terminal.wait_for("\n> ")
        terminal.type("one\n")
        terminal.wait_for("\n> ", after="one\n")
        terminal.type("/exit\n")

        assert terminal.end() == 0
    assert (place / "answers.txt").read_text() == "heard: one.\n"
    assert "heard" not in terminal.screen


def test_an_app_that_is_asked_for_json_at_a_terminal_gives_its_log(place: Path) -> None:
    with chat(place, "echo.py", "--json") as terminal:
        say(terminal, "one", shows='"type":"run.completed"')


# --- stopping -------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["\x1b", "\x03", "\x03\x03\x03", "\x1b\x1b\x03"])
def test_a_key_stops_the_answer_keeps_its_text_and_asks_again(key: str, place: Path) -> None:
    with chat(place, "talker.py") as terminal:
        terminal.type("one\r")
        terminal.wait_for("word word word")

        terminal.type(key)

        terminal.wait_for("■ stopped; the text so far is kept")
        prompted(terminal)
        say(terminal, "two", shows="heard: one / word word / two.")


def test_arrows_stop_nothing(place: Path) -> None:
    with chat(place, "talker.py") as terminal:
        terminal.type("one\r")
        terminal.wait_for("word word word")

        terminal.type("\x1b[A\x1bOB\x1b[1;5C")
        terminal.forget()
        terminal.wait_for("word " * 20)
        terminal.type("\x1b")

        terminal.wait_for("■ stopped")


def test_esc_closes_the_connection_to_the_model(place: Path) -> None:
    with ModelServer() as server:
        server.send(chunk({"role": "assistant", "content": "Well, "}), HANG)
        with chat(place, "-m", "m", env={"OPENAI_BASE_URL": server.base_url}) as terminal:
            terminal.type("one\r")
            terminal.wait_for("Well,")

            terminal.type("\x1b")

            server.last.gone.result(30)
            terminal.wait_for("■ stopped; the text so far is kept")


def test_a_run_that_does_not_stop_can_be_left(place: Path) -> None:
    with chat(place, "mole.py") as terminal:
        terminal.type("one\r")
        terminal.wait_for("digging")
        terminal.type("\x1b")
        terminal.wait_for("stopping; Ctrl-C again leaves at once.")

        terminal.press_ctrl_c()

        assert terminal.end() == 130


def test_a_polite_kill_ends_the_chat_in_the_middle_of_an_answer_with_143(place: Path) -> None:
    with chat(place, "talker.py") as terminal:
        terminal.type("one\r")
        terminal.wait_for("word word word")

        terminal.process.send_signal(signal.SIGTERM)

        assert terminal.end() == 143
    assert "■ stopped; the text so far is kept" in terminal.screen


def test_a_polite_kill_ends_the_chat_at_the_prompt_with_143(place: Path) -> None:
    with chat(place, "echo.py") as terminal:
        terminal.process.send_signal(signal.SIGTERM)

        assert terminal.end() == 143


def test_an_app_that_breaks_the_program_leaves_the_terminal_as_it_was(place: Path) -> None:
    (place / "rude.py").write_text(ECHO + "import sys\nagent.instructions = lambda *_: sys.stdout.close()\n")
    with chat(place, "rude.py") as terminal:
        terminal.type("one\r")

        assert terminal.end() == 1


SUSPEND = """
"$@"
echo "code $?"
stty -a | tr ' ' '\\n' | grep -x -e icanon -e echo -e -icanon -e -echo
fg > /dev/null
"""


@pytest.mark.requires_program("bash", "--version")
@pytest.mark.parametrize("answering", [True, False], ids=["answering", "at the prompt"])
def test_ctrl_z_gives_the_shell_its_terminal_and_fg_gives_it_back(answering: bool, place: Path) -> None:
    shell = ["bash", "-mc", SUSPEND, "bash", *PROGRAM]
    env = {"XDG_STATE_HOME": str(place), "NO_COLOR": "1"}
    with at_terminal("chat", "talker.py", cwd=place, env=env, program=shell) as terminal:
        prompted(terminal)
        if answering:
            terminal.type("one\r")
            terminal.wait_for("word word word")

        terminal.type("\x1a")

        terminal.wait_for("\nicanon\necho\n", after=f"code {128 + signal.SIGTSTP}")
        terminal.forget()
        if answering:
            terminal.wait_for("word word word")
            terminal.type("\x1b")
            terminal.wait_for("■ stopped")
            prompted(terminal)
        terminal.type("/exit\r")
        assert terminal.end() == 0


# --- the line -------------------------------------------------------------------------------


def test_ctrl_c_clears_the_line_and_ends_the_chat_where_it_is_empty(place: Path) -> None:
    with chat(place, "echo.py") as terminal:
        terminal.type("never sent")
        terminal.wait_for("never sent")
        terminal.wait_until_it_reads()
        terminal.press_ctrl_c()
        prompted(terminal)
        terminal.type("nor this\\\r")
        terminal.wait_for("\n\x1b[?2004l\r\x1b[?2004h. ")
        terminal.wait_until_it_reads()
        terminal.press_ctrl_c()
        prompted(terminal)

        terminal.press_ctrl_c()

        assert terminal.end() == 130


@pytest.mark.parametrize("stops", [True, False], ids=["stopped", "by itself"])
def test_ctrl_c_that_comes_too_late_for_the_answer_does_not_end_the_chat(stops: bool, place: Path) -> None:
    with chat(place, "talker.py" if stops else "echo.py") as terminal:
        terminal.type("one\r")
        terminal.wait_for("word word word" if stops else "heard: one.")
        if stops:
            terminal.press_ctrl_c()
        prompted(terminal)

        terminal.press_ctrl_c()

        terminal.wait_for("Ctrl-C again, or Ctrl-D, ends the chat.")
        prompted(terminal)
        terminal.press_ctrl_c()
        assert terminal.end() == 130


def test_ctrl_d_ends_the_chat(place: Path) -> None:
    with chat(place, "echo.py") as terminal:
        terminal.type("\x04")

        assert terminal.end() == 0


def test_several_lines_make_one_message(place: Path) -> None:
    with chat(place, "echo.py") as terminal:
        terminal.type("one\\\r")
        terminal.wait_for(". ")
        say(terminal, "two", shows="heard: one+two.")
        say(terminal, '"""\ra\rb"""', shows="/ a+b.")
        say(terminal, "\x1b[200~paste\rof\rlines\x1b[201~", shows="/ paste+of+lines.")


def test_wide_characters_are_edited_as_one(place: Path) -> None:
    with chat(place, "echo.py") as terminal:
        say(terminal, "你好é\x7f\x7f吗", shows="heard: 你吗.")


def test_what_is_typed_while_an_answer_streams_is_the_next_line(place: Path) -> None:
    with chat(place, "talker.py") as terminal:
        terminal.type("one\r")
        terminal.wait_for("word word word")

        terminal.type("tw\x7fwo\r\x1b[200~a\rb\x1b[201~\rbegun")
        terminal.forget()
        terminal.wait_for("word " * 20)
        terminal.type("\x1b")

        terminal.wait_for("> two\n")
        terminal.wait_for("heard: one / word word / two.", after="> two\n")
        terminal.wait_for("> a\nb\n")
        terminal.wait_for(" / a+b.")
        terminal.wait_for("> begun")
        terminal.forget()
        say(terminal, "!", shows=" / begun!.")


def test_a_terminal_that_becomes_narrow_gets_shorter_lines(place: Path) -> None:
    long = SHOP.replace('{"item": "lamp"}', 'message, call_id="a"').replace('call_id="call_1"', "")
    (place / "long.py").write_text(
        long.replace("\nagent =", '\nmessage = {"item": "lamp " * 10}\nagent =').replace(", ),", "),")
    )
    with chat(place, "long.py") as terminal:
        terminal.resize(44)
        terminal.type("What is a lamp?\r")
        terminal.wait_for("turns · ")

        (call,) = [line for line in terminal.screen.splitlines() if line.startswith("  → ")]
        assert len(call) <= 44
        assert call.endswith("…)")


def test_what_was_written_is_recalled_in_this_chat_and_in_the_next(place: Path) -> None:
    with chat(place, "echo.py") as terminal:
        say(terminal, "one", shows="heard: one.")
        say(terminal, '"""a\rb"""', shows=" / a+b.")
        say(terminal, "\x1b[A!", shows=" / a+b!.")
    with chat(place, "echo.py") as terminal:
        say(terminal, "\x1b[A\x1b[A\x1b[A", shows="heard: one.")

    history = place / "state" / "millstream" / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("arguments", "env"),
    [(["--no-history"], {}), ([], {"MILLSTREAM_HISTORY": "none"})],
    ids=["option", "env"],
)
def test_a_history_that_nobody_wants_is_not_written(
    arguments: list[str], env: dict[str, str], place: Path
) -> None:
    with chat(place, "echo.py", *arguments, env=env) as terminal:
        say(terminal, "one", shows="heard: one.")

    assert not (place / "state").exists()


def test_a_history_that_cannot_be_written_fails_nothing(place: Path) -> None:
    (place / "state").write_text("a file, not a folder")
    with chat(place, "echo.py") as terminal:
        say(terminal, "one", shows="heard: one.")
        say(terminal, "two", shows="/ two.")


# --- commands -------------------------------------------------------------------------------


def test_commands_are_answered_and_not_sent(place: Path) -> None:
    with chat(place, "echo.py") as terminal:
        say(terminal, "/help", shows="/model [NAME]")
        say(terminal, "/modle", shows="there is no command /modle.\nmillstream: hint: did you mean /model? ")
        say(terminal, "//modle", shows="heard: /modle.")
        say(terminal, "/usage", shows="millstream: usage: 1 answer")
        say(terminal, "/model", shows="model: ScriptedModel (the agent Parrot names it)")
        say(terminal, "/reset", shows="the conversation begins anew.")
        say(terminal, "two", shows="heard: two.")


def test_the_model_can_be_changed_in_the_middle_and_one_that_is_not_there_changes_nothing(
    place: Path,
) -> None:
    with ModelServer() as server:
        server.send(*chat_frames("Hello."))
        server.send(*chat_frames("Still me."))
        env = {"OPENAI_BASE_URL": server.base_url}
        with chat(place, "--offline", env=env) as terminal:
            say(terminal, "one", shows="You asked: “one”.")
            say(terminal, "/model m2", shows="model: m2 at 127.0.0.1:")
            say(terminal, "two", shows="Hello.")
            asked = server.last.json
            say(terminal, "/model scripted", shows="model: the scripted model (--model says so)")
            say(terminal, "three", shows="You asked: “three”.")

    assert asked["model"] == "m2"
    assert [m["role"] for m in asked["messages"]] == ["system", "user", "assistant", "user"]
    with chat(place, "echo.py") as terminal:
        say(terminal, "/model gpt-9", shows="error: MissingKeyError: ")
        say(terminal, "one", shows="heard: one.")


# --- piped ----------------------------------------------------------------------------------


def test_each_line_of_a_pipe_is_a_message_and_only_answers_come_out(place: Path) -> None:
    done = millstream("chat", "echo.py", cwd=place, input="one\n\ntwo\\\nlines\n/reset\n//three")

    assert (done.code, done.errors) == (0, ["millstream: the conversation begins anew."])
    assert done.out == "heard: one.\nheard: one / heard: one. / two+lines.\nheard: /three.\n"


def test_a_message_that_the_end_of_a_pipe_cuts_is_sent_as_it_is(place: Path) -> None:
    done = millstream("chat", "echo.py", cwd=place, input='"""\none\ntwo')

    assert (done.code, done.out) == (0, "heard: one+two.\n")


def test_piped_json_is_the_logs_of_the_runs_one_after_another(place: Path) -> None:
    done = millstream("chat", "--json", "echo.py", cwd=place, input="one\ntwo\n")

    entries = [Entry.from_json(line) for line in done.out.splitlines()]
    runs = list(dict.fromkeys(entry.run_id for entry in entries))
    assert done.code == 0
    assert len(runs) == 2
    for run_id in runs:
        own = [entry for entry in entries if entry.run_id == run_id]
        assert [entry.position for entry in own] == list(range(1, len(own) + 1))
        assert (own[0].type, own[-1].type) == ("run.started", "run.completed")


@pytest.mark.parametrize("input", ["", "\n \n"])
def test_a_pipe_that_says_nothing_is_done(input: str, place: Path) -> None:
    done = millstream("chat", "echo.py", cwd=place, input=input)

    assert (done.code, done.out, done.errors) == (0, "", [])


def test_the_first_failure_of_a_pipe_is_its_exit_code_and_the_rest_is_answered(place: Path) -> None:
    done = millstream("chat", "--max-turns", "1", "shop.py", cwd=place, input="one\ntwo\n/nothing\n")

    assert done.code == 3
    assert done.out == "Let me look.\nA lamp is 12.\n"
    assert done.errors[0] == "millstream: error: MaxTurnsExceeded: Max turns (1) exceeded"
    assert "there is no command /nothing." in done.errors[2]


def test_an_interrupt_ends_a_piped_chat_with_130(place: Path) -> None:
    reader, writer = os.pipe()
    with (
        os.fdopen(writer, "w") as pipe,
        at_terminal("chat", "endless.py", cwd=place, stdin=reader) as terminal,
    ):
        pipe.write("one\ntwo\n")
        pipe.flush()
        terminal.wait_for("word word word")

        terminal.press_ctrl_c()

        assert terminal.end() == 130
    assert terminal.screen.count("model:") == 1


def test_a_reader_of_the_answers_that_goes_away_ends_the_chat_quietly(place: Path) -> None:
    with subprocess.Popen(
        [*PROGRAM, "chat", "endless.py"], cwd=place, env=environment(), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.read(1)

        process.stdout.close()

        assert process.wait(40) == 141
        assert process.stderr.read() == b"millstream: model: ScriptedModel (the agent Talker names it)\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hello"], "error: 'hello' names no app."),
        (["gone.py"], "error: there is no file gone.py."),
        (["--instructions", "i", "echo.py"], "error: --instructions is for a run without an app."),
        (["--model", "gpt-9"], "error: MissingKeyError: --model is 'gpt-9'"),
    ],
)
def test_a_mistake_is_one_line_and_a_hint(arguments: list[str], said: str, place: Path) -> None:
    done = millstream("chat", *arguments, cwd=place, input="one\n")

    assert done.code == 2
    assert said in done.err
    assert "\nmillstream: hint: " in done.err
