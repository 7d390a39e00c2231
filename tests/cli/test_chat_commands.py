"""What a person writes in a chat, read."""

import pytest

from millstream.cli.chat_commands import COMMANDS, Command, Draft, Message, Mistake, help_text, parse


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("hello", Message("hello")),
        ("  indented", Message("  indented")),
        ("", None),
        (" \n ", None),
        ("/model", Command("model")),
        ("/model  qwen3 ", Command("model", "qwen3")),
        ("/QUIT", Command("exit")),
        ("  /clear", Command("reset")),
        ("/?", Command("help")),
        ("//etc/hosts, what is it?", Message("/etc/hosts, what is it?")),
        ("//", Message("/")),
        ("/usr/bin\nis a folder", Message("/usr/bin\nis a folder")),
        ("what is /model?", Message("what is /model?")),
    ],
)
def test_a_line_is_a_message_or_a_command(text: str, meant: object) -> None:
    assert parse(text) == meant


def test_an_unknown_command_is_a_mistake_with_the_nearest_name_and_the_way_out() -> None:
    assert parse("/modle gpt") == Mistake(
        "there is no command /modle.",
        "did you mean /model? /help lists the commands; a message that begins with a slash begins with //.",
    )


def test_a_command_that_takes_nothing_is_given_nothing() -> None:
    assert parse("/reset all") == Mistake("/reset takes nothing behind it.", "/help lists the commands.")


def test_help_tells_every_command_on_lines_that_fit() -> None:
    shown = help_text()

    assert all(f"  /{name}" in shown for name in COMMANDS)
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["one"], "one"),
        (["one\\", "two\\", "three"], "one\ntwo\nthree"),
        (["C:\\dir\\\\"], "C:\\dir\\\\"),
        (['"""', "one", "", "two", '"""'], "one\n\ntwo"),
        (['"""one', 'two"""'], "one\ntwo"),
        (['"""one"""'], "one"),
        (['""""""'], ""),
        (['"""', "a\\", '"""'], "a\\"),
        (['say """ twice'], 'say """ twice'),
        (["pasted\nlines"], "pasted\nlines"),
    ],
)
def test_lines_make_a_message(lines: list[str], message: str) -> None:
    draft = Draft()

    taken = [draft.add(line) for line in lines]

    assert taken == [None] * (len(lines) - 1) + [message]
    assert not draft.is_open


def test_a_draft_that_is_left_open_can_be_closed_as_it_is() -> None:
    draft = Draft()
    draft.add('"""')
    assert draft.is_open
    draft.add("one")

    assert draft.close() == "one"
    assert not draft.is_open
