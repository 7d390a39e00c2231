"""Keys while an answer streams, and the modes of the terminal."""

import asyncio
import os
import pty
import termios
from collections.abc import Iterator

import pytest

from millstream.terminal.keys import PASTE_OFF, PASTE_ON, Key, KeyDecoder, Terminal, TypedAhead


def decoded(*pieces: bytes) -> list[Key]:
    decoder = KeyDecoder()
    return [key for piece in pieces for key in decoder.feed(piece)] + decoder.settle()


ESCAPE = Key("escape")


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"hi", [Key("text", "hi")]),
        (b"hi\rthere\n", [Key("text", "hi"), Key("enter"), Key("text", "there"), Key("enter")]),
        ("你é".encode(), [Key("text", "你é")]),
        (b"\x7f\x08\x15\x04", [Key("erase"), Key("erase"), Key("kill"), Key("end")]),
        (b"\x01\x02\x0c", []),
        (b"\x1b", [ESCAPE]),
        (b"\x1b\x1b", [ESCAPE]),
        (b"\x1b\x03", []),
        (b"\x1b[A\x1b[1;5C\x1bOP\x1b[15~\x1b[[A", []),
        (b"\x1b\x1b[A", []),
        (b"\x1bb", []),
        (b"a\x1b[Bb", [Key("text", "a"), Key("text", "b")]),
        (b"\x1b[", []),
        (b"\x1b[200~one\r\ntwo\rthree\x1b[201~", [Key("text", "one\ntwo\nthree")]),
        (b"\x1b[200~a\x1b[31mb\x07\tc\x1b[201~", [Key("text", "a[31mb\tc")]),
        (b"\x1b[200~\x1b[201~x", [Key("text", "x")]),
    ],
)
def test_what_a_terminal_sends_becomes_keys_however_it_is_cut(sent: bytes, keys: list[Key]) -> None:
    def joined(found: list[Key]) -> list[Key]:
        whole: list[Key] = []
        for key in found:
            if key.kind == "text" and whole and whole[-1].kind == "text":
                whole[-1] = Key("text", whole[-1].text + key.text)
            else:
                whole.append(key)
        return whole

    assert decoded(sent) == keys
    for cut in range(1, len(sent)):
        assert joined(decoded(sent[:cut], sent[cut:])) == joined(keys), cut
    assert joined(decoded(*(sent[i : i + 1] for i in range(len(sent))))) == joined(keys)


def test_a_lone_escape_is_told_from_the_beginning_of_a_sequence_by_what_follows() -> None:
    decoder = KeyDecoder()

    assert decoder.feed(b"\x1b") == []
    assert decoder.is_open
    assert decoder.feed(b"[A") == []
    assert not decoder.is_open
    assert decoder.feed(b"\x1b") + decoder.settle() == [ESCAPE]
    assert not decoder.is_open


def test_a_paste_that_has_not_ended_is_no_escape() -> None:
    decoder = KeyDecoder()

    assert decoder.feed(b"\x1b[200~one \x1b[20") == []
    assert not decoder.is_open
    assert decoder.settle() == []
    assert decoder.feed(b"1~") == [Key("text", "one ")]


def test_what_is_typed_ahead_becomes_lines_as_at_a_terminal() -> None:
    typed = TypedAhead()

    for key in decoded(b"helo\x7flo\rgone\x15kept\x1b[200~ one\ntwo\x1b[201~"):
        typed.add(key)

    assert list(typed.lines) == ["hello"]
    assert typed.take_rest() == "kept one\ntwo"
    assert typed.rest == ""


def test_ctrl_d_ends_what_is_typed_ahead_only_on_an_empty_line() -> None:
    typed = TypedAhead()

    for key in decoded(b"x\x04y\r\x04z"):
        typed.add(key)

    assert (list(typed.lines), typed.rest, typed.ended) == (["xy"], "", True)


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    """The two ends of a terminal: ours, and the keyboard's."""
    master, slave = pty.openpty()
    yield slave, master
    os.close(master)
    os.close(slave)


@pytest.mark.may_block  # reads what is there already
async def test_keys_are_given_when_they_are_pressed_and_the_terminal_is_as_before(
    ends: tuple[int, int],
) -> None:
    slave, master = ends
    before = termios.tcgetattr(slave)
    sent: list[str] = []
    keys: asyncio.Queue[Key] = asyncio.Queue()

    with Terminal(slave, sent.append) as terminal, terminal.keys(keys.put_nowait):
        lflag = termios.tcgetattr(slave)[3]
        os.write(master, b"x")
        first = await keys.get()
        os.write(master, b"\x1b")
        second = await keys.get()
    assert termios.tcgetattr(slave) == before

    assert not lflag & (termios.ICANON | termios.ECHO)
    assert lflag & termios.ISIG
    assert lflag & termios.NOFLSH
    assert (first, second) == (Key("text", "x"), ESCAPE)
    assert (sent[0], sent[-1]) == (PASTE_ON, PASTE_OFF)


async def test_what_is_pressed_before_the_next_prompt_waits_for_it(ends: tuple[int, int]) -> None:
    slave, master = ends

    with Terminal(slave) as terminal:
        with terminal.keys(lambda _: None):
            pass
        os.write(master, b"a\x04")  # a terminal that gives whole lines would take the Ctrl-D for itself
        waiting = os.read(slave, 10)
        with terminal.lines():
            lflag = termios.tcgetattr(slave)[3]

    assert waiting == b"a\x04"
    assert lflag & termios.ICANON


async def test_the_terminal_is_as_before_whatever_goes_wrong(ends: tuple[int, int]) -> None:
    slave, _ = ends
    before = termios.tcgetattr(slave)

    def fail() -> None:
        with Terminal(slave) as terminal, terminal.keys(lambda _: None):
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()

    assert termios.tcgetattr(slave) == before


@pytest.mark.may_block
async def test_a_terminal_that_is_gone_is_no_key_and_no_error() -> None:
    master, slave = pty.openpty()
    keys: list[Key] = []

    with Terminal(slave) as terminal, terminal.keys(keys.append):
        os.close(master)
        for _ in range(5):
            await asyncio.sleep(0)
    os.close(slave)

    assert keys == []
