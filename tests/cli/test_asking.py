"""A run that waits for approval, at the command line: somebody is asked, or told that nobody was."""

from pathlib import Path

import pytest

from tests.cli.program import at_terminal, millstream

pytestmark = pytest.mark.slow

SHOP = """
from millstream import Agent, function_tool
from millstream.testing import ScriptedModel, function_call

@function_tool(needs_approval=True)
def sell(item: str) -> str:
    "Sells an item."
    return f"sold the {item}"

def sells(item, call_id):
    return [function_call("sell", {"item": item}, call_id=call_id)]

agent = Agent(name="Clerk", tools=[sell], model=ScriptedModel([
    sells("lamp", "call_1"), "First answer.", sells("chair", "call_2"), "Second answer.",
]))
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


def test_a_run_asks_and_goes_on_with_what_was_answered(shop: Path) -> None:
    with at_terminal("run", "shop.py", "Sell it", cwd=shop) as terminal:
        terminal.wait_for('May Clerk call sell(item="lamp")? [y/N]')
        terminal.type("y\n")
        assert terminal.end() == 0

    assert "sold the lamp" in terminal.screen
    assert "First answer." in terminal.screen


def test_what_is_no_yes_is_a_no_and_the_model_is_told_of_it(shop: Path) -> None:
    with at_terminal("run", "--json", "shop.py", "Sell it", cwd=shop) as terminal:
        terminal.wait_for("[y/N]")
        terminal.type("only for cash\n")
        assert terminal.end() == 0

    assert "sold the lamp" not in terminal.screen
    assert "and said: only for cash" in terminal.screen.replace("\n", "")


def test_where_nobody_can_be_asked_it_says_what_waits(shop: Path) -> None:
    done = millstream("run", "shop.py", "Sell it", cwd=shop)

    assert done.code == 1
    assert done.errors == [
        "millstream: error: the run waits for approval of sell, and nobody answers.",
        "millstream: hint: ask at a terminal, or decide in a program: docs/approvals.md says how.",
    ]


def test_a_question_that_is_ended_or_interrupted_ends_the_run(shop: Path) -> None:
    codes = []
    for key in ("\x04", "\x03"):
        with at_terminal("run", "shop.py", "Sell it", cwd=shop) as terminal:
            terminal.wait_for("[y/N]")
            terminal.wait_until_it_reads()
            terminal.type(key)
            codes.append(terminal.end())

    assert codes == [1, 130]


def test_a_chat_asks_and_goes_on_from_the_answer(shop: Path) -> None:
    with at_terminal("chat", "--no-history", "shop.py", cwd=shop) as terminal:
        terminal.wait_for("> ")
        terminal.type("Sell the lamp\n")
        terminal.wait_for("[y/N]")
        terminal.type("y\n")
        terminal.wait_for("First answer.")
        terminal.wait_for("> ", after="First answer.")
        terminal.type("Sell the chair\n")
        terminal.wait_for("chair", after="First answer.")
        terminal.wait_for("[y/N]", after="chair")
        terminal.type("n\n")
        terminal.wait_for("Second answer.")
        terminal.wait_for("> ", after="Second answer.")
        terminal.type("\x04")
        assert terminal.end() == 0

    assert "sold the lamp" in terminal.screen
    assert "sold the chair" not in terminal.screen


def test_a_chat_by_a_pipe_says_what_waits_and_goes_on_without_it(shop: Path) -> None:
    done = millstream("chat", "shop.py", cwd=shop, input="Sell the lamp\nAnd now?\n")

    assert done.code == 1
    assert done.out == "First answer.\n"
    assert [line for line in done.errors if "error" in line] == [
        "millstream: error: the run waits for approval of sell, and nobody answers."
    ]
