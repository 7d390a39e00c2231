"""`millstream check`: what it makes of files and pipes."""

import json
from pathlib import Path

import pytest

from millstream.events import Entry
from tests.cli.program import at_terminal, millstream

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run() -> str:
    """What `run --json` prints."""
    return millstream("run", "--offline", "--json", "Hello").out


def test_what_run_prints_keeps_to_the_grammar(run: str, tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    file.write_text(run)

    from_file = millstream("check", str(file))
    from_pipe = millstream("check", "--raw", "-", input=run)

    assert from_file.out == f"The stream keeps to the grammar: {len(run.splitlines())} events of 1 run.\n"
    assert (from_file.code, from_file.err) == (0, "")
    assert (from_pipe.code, from_pipe.out) == (0, from_file.out)


def test_an_event_stream_is_read_too(run: str) -> None:
    frames = [f"id: {Entry.from_json(line).position}\ndata: {line}\n\n" for line in run.splitlines()]

    done = millstream("check", "-", input=": hello\n\n" + "".join(frames))

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("The stream keeps to the grammar")


def test_a_stream_that_breaks_the_grammar_is_shown_where(run: str) -> None:
    lines = run.splitlines()
    broken = "\n".join(line for line in lines if '"model.completed"' not in line)

    told = millstream("check", "-", input=broken)
    as_json = millstream("check", "--json", "-", input=broken)

    assert (told.code, as_json.code) == (1, 1)
    assert told.err == as_json.err == ""
    assert "positions_count" in told.out
    report = json.loads(as_json.out)
    assert (report["ok"], report["pieces"]) == (False, len(lines) - 1)
    assert [problem["clause"] for problem in report["problems"]] == ["positions_count"]


def test_a_run_that_goes_on_and_one_without_some_entries_are_told_apart_from_broken_ones(run: str) -> None:
    begun = "\n".join(run.splitlines()[:5])
    some = "\n".join(line for line in run.splitlines() if "raw_response_event" not in line)

    assert millstream("check", "-", input=begun).code == 1
    assert millstream("check", "--unfinished", "-", input=begun).code == 0
    assert millstream("check", "-", input=some).code == 1
    assert millstream("check", "--filtered", "-", input=some).code == 0


def test_a_file_that_was_cut_is_told_so(run: str) -> None:
    done = millstream("check", "-", input=run[:-20])

    assert done.code == 1
    assert "everything_is_an_event\n  Not JSON: Input data was truncated." in done.out


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("missing", "missing cannot be read: No such file or directory."),
        (".", ". cannot be read: Is a directory."),
        ("empty", "empty is empty."),
        ("page", "page has no event of a run."),
        ("book", "book has no event of a run in its first 100 lines."),
    ],
)
def test_what_is_no_stream_is_told_so(file: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "page").write_text("<html>\n")
    (tmp_path / "book").write_text("It was a dark night.\n" * 1_000)

    done = millstream("check", file, cwd=tmp_path)

    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[0] == f"millstream: error: {says}"


def test_where_nothing_is_piped_in_an_example_is_shown() -> None:
    with at_terminal("check", "-") as terminal:
        assert terminal.end() == 2

        assert "nothing is piped in." in terminal.screen
        assert "| millstream check -" in terminal.screen


def test_its_help_has_examples() -> None:
    done = millstream("check", "--help")

    assert done.code == 0
    assert "millstream check run.jsonl" in done.out
