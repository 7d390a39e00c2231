"""The file of what was written in chats."""

import stat
from pathlib import Path

import pytest

from millstream.cli.history import KEPT, History, history_file


def test_what_was_added_is_there_the_next_time_whatever_is_in_it(tmp_path: Path) -> None:
    entries = ["one", "two\nlines", 'quotes " and \\n', "你好 \u2028 é", "a\ttab"]
    for entry in entries:
        History(tmp_path / "state" / "history").add(entry)

    assert History(tmp_path / "state" / "history").load() == entries


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "state" / "history"

    History(file).add("secret")

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_history_that_has_grown_long_is_cut_and_stays_private(tmp_path: Path) -> None:
    file = tmp_path / "history"
    for number in range(2 * KEPT + 1):
        History(file).add(str(number))

    loaded = History(file).load()
    History(file).add("last")

    assert loaded == [str(number) for number in range(KEPT + 1, 2 * KEPT + 1)]
    assert file.read_text().count("\n") <= KEPT + 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["history"]
    assert History(file).load()[-2:] == [str(2 * KEPT), "last"]


def test_what_cannot_be_read_or_written_fails_nobody(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b'"good"\nnot json\n[1]\n\xff\xfe\n"too"\n')
    (tmp_path / "file").write_text("")

    History(tmp_path / "file" / "below").add("x")
    History(tmp_path).add("x")

    assert History(tmp_path / "file" / "below").load() == []
    assert History(tmp_path).load() == []
    assert History(broken).load() == ["good", "too"]


def test_no_file_keeps_nothing() -> None:
    History(None).add("x")

    assert History(None).load() == []


@pytest.mark.parametrize(
    ("environ", "file"),
    [
        ({"XDG_STATE_HOME": "/state"}, Path("/state/millstream/history")),
        ({"XDG_STATE_HOME": "relative"}, Path.home() / ".local/state/millstream/history"),
        ({}, Path.home() / ".local/state/millstream/history"),
        ({"MILLSTREAM_HISTORY": "none"}, None),
        ({"MILLSTREAM_HISTORY": "/elsewhere"}, Path("/elsewhere")),
    ],
)
def test_where_it_is(environ: dict[str, str], file: Path | None) -> None:
    assert history_file(environ) == file
