"""How `millstream serve` shows its log."""

import contextlib
import io
import json
import logging
from collections.abc import Iterator

from millstream.cli.log_lines import show_log

logger = logging.getLogger("millstream")


@contextlib.contextmanager
def stderr() -> Iterator[io.StringIO]:
    """Standard error of a program whose root logger shows nothing itself."""
    loggers = [logging.getLogger(), logger, logging.getLogger("uvicorn")]
    before = logger.level, [each.handlers for each in loggers]
    for each in loggers:
        each.handlers = []
    try:
        with contextlib.redirect_stderr(io.StringIO()) as written:
            yield written
    finally:
        logger.setLevel(before[0])
        for each, handlers in zip(loggers, before[1], strict=True):
            each.handlers = handlers


def test_a_line_for_people_is_one_line_whatever_is_in_it() -> None:
    with stderr() as shown:
        show_log("info", "text")
        logger.warning("%s", "a\r\n2030-01-01 ERROR forged")

    (line,) = shown.getvalue().splitlines()
    assert line.endswith(r"WARNING a\r\n2030-01-01 ERROR forged")


def test_a_line_for_people_tells_their_terminal_nothing() -> None:
    with stderr() as shown:
        show_log("info", "text")
        logger.warning("%s", "/runs/\x1b[2J\x9b2J\x07\u2028ü")

    assert shown.getvalue().endswith("WARNING /runs/\\x1b[2J\\x9b2J\\x07\\u2028ü\n")


def test_a_line_that_does_not_name_its_run_is_given_it() -> None:
    with stderr() as shown:
        show_log("info", "text")
        record = logger.makeRecord("millstream", logging.INFO, "", 0, "a session says", (), None)
        record.run_id = "run_1"
        logger.handlers[-1].handle(record)

    assert shown.getvalue().endswith("INFO a session says (run run_1)\n")


def test_json_has_what_a_collector_wants_also_of_what_is_no_text() -> None:
    with stderr() as shown:
        show_log("info", "json")
        try:
            raise ValueError("no \ud800 text\n")
        except ValueError as error:
            logger.error("run %s failed", "run_1", exc_info=error)
        logging.getLogger("uvicorn.of_its_own").error("a line\u2028of the HTTP server")

    first, second = shown.getvalue().splitlines()
    told = json.loads(first)
    assert (told["level"], told["logger"], told["run_id"]) == ("ERROR", "millstream", "run_1")
    assert told["time"].endswith("+00:00")
    assert "ValueError: no \ufffd text" in told["exception"]
    assert json.loads(second)["message"] == "a line\u2028of the HTTP server"
    assert "run_id" not in json.loads(second)


def test_who_says_it_twice_sees_each_line_once_and_the_last_word_counts() -> None:
    with stderr() as shown:
        show_log("error", "json")
        show_log("info", "text")
        logger.info("once")

    assert shown.getvalue().endswith("INFO once\n")
    assert shown.getvalue().count("once") == 1


def test_less_is_shown_of_millstream_where_that_is_wished() -> None:
    with stderr() as shown:
        show_log("warning", "text")
        logger.info("not this")
        logger.warning("this")

    assert shown.getvalue().endswith("WARNING this\n")
    assert "not this" not in shown.getvalue()


def test_a_program_that_shows_logs_itself_does_so_alone() -> None:
    with stderr() as shown:
        show_log("info", "text")
        own = io.StringIO()
        logging.getLogger().addHandler(logging.StreamHandler(own))
        logger.info("run %s: begins", "run_1")

    assert own.getvalue() == "run run_1: begins\n"
    assert shown.getvalue() == ""
