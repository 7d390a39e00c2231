"""What was seen of a server, and what that means: no server, no time."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from millstream.about import __version__
from millstream.client import doctor_findings as judging
from millstream.client.doctor_findings import Answer, Arrival, Finding, Frame, NoAnswer, Plan, Probed, Target

HERE = Target("http://127.0.0.1:7420", is_encrypted=False, is_loopback=True, has_token=False)
AWAY = Target("http://10.0.0.7:7420", is_encrypted=False, is_loopback=False, has_token=True)
SAFE = Target("https://agents.example", is_encrypted=True, is_loopback=False, has_token=True)

STREAM = {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}
ASKED = 1_000_000.0
"""When each probe here was asked for."""


def told(status: int = 200, code: str = "", headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    """An answer of a Millstream server."""
    body: dict[str, Any] = {"error": {"code": code, "message": "?"}} if code else fields
    headers = {"content-type": "application/json", "server": "uvicorn"} | (headers or {})
    return Answer(status, headers, json.dumps(body).encode())


def page(status: int, **headers: str) -> Answer:
    """An answer of something else."""
    return Answer(status, {"content-type": "text/html", "server": "nginx"} | headers, b"<html>No.</html>")


def probed(
    *at: float, beats: int = 2, last: bool = True, sent: Sequence[float] = (), **options: Any
) -> Probed:
    """A probe whose frames came at these seconds, and were sent at these: by default, every 0.2 s."""
    sent = sent or [0.2 * number for number in range(len(at))]
    frames = [
        Frame(
            number=number + 1,
            ms=round(sent[number] * 1000),
            time=options.get("time", ASKED) + sent[number],
            heartbeat=options.get("heartbeat", 15.0),
            heartbeats=2,
            is_last=last and number == len(at) - 1,
            last_event_id=options.get("heard", "7"),
        )
        for number in range(len(at))
    ]
    arrivals = [Arrival(when, (frame,)) for when, frame in zip(at, frames, strict=True)]
    arrivals += [Arrival(at[-1] if at else 1.0, (), 1)] * beats
    known = {
        "answer": Answer(200, STREAM),
        "asked": ASKED,
        "sent_id": "7",
        "at": (at[-1] if at else 1.0) + 0.01,
    }
    known |= {name: value for name, value in options.items() if name in Probed.__slots__}
    return Probed(plan=Plan(), arrivals=arrivals, **known)


WELL = (0.01, 0.21, 0.41, 0.61, 0.81)


def test_a_probe_that_is_well_gives_findings_that_are() -> None:
    found = judging.stream_findings(probed(*WELL))

    assert [each.check for each in found] == ["buffering", "heartbeat", "connection", "resume", "clock"]
    assert {each.level for each in found} == {"ok"}
    assert not any(each.remedy for each in found)


@pytest.mark.parametrize(
    ("finding", "level", "said"),
    [
        # the address
        (judging.unreachable(NoAnswer("name")), "problem", "leads nowhere"),
        (judging.unreachable(NoAnswer("refused")), "problem", "Nothing takes a connection"),
        (judging.unreachable(NoAnswer("certificate", "expired")), "problem", "not trusted: expired."),
        (judging.unreachable(NoAnswer("timeout")), "problem", "No answer came in time."),
        (judging.unreachable(NoAnswer("broken", "RemoteProtocolError")), "problem", "broke before"),
        (judging.unanswered("store", "GET /ready", NoAnswer("timeout")), "problem", "GET /ready: no answer came"),
        (judging.redirected(page(301, location="https://x/")), "problem", "leads to https://x/"),
        (judging.redirected(page(302)), "problem", "leads to nowhere"),
        # the server
        (judging.identity(told(name="millstream", version=__version__)), "ok", f"Millstream {__version__}"),
        (judging.identity(told(name="millstream", version="99.0")), "problem", f"This client is {__version__}"),
        (judging.identity(told(name="other")), "problem", "no Millstream server: 200, application/json"),
        (judging.identity(page(502)), "problem", "502, text/html, from nginx"),
        (judging.identity(Answer(200)), "problem", "200, nothing"),
        (judging.identity(Answer(200, {}, b"[]")), "problem", "no Millstream"),
        # who one is
        (judging.admission(told(runs=[]), HERE), "ok", "without a token"),
        (judging.admission(told(runs=[]), AWAY), "ok", "with its token"),
        (judging.admission(told(401, "unauthorized"), HERE), "problem", "Pass --token TOKEN"),
        (judging.admission(told(401, "unauthorized"), SAFE), "problem", "Is the token right"),
        (judging.admission(told(401, "unauthorized"), SAFE), "problem", "access=LOCAL"),
        (judging.admission(page(401), SAFE), "problem", "Something before the server refuses"),
        (judging.admission(told(503, "log_unavailable"), HERE), "problem", "503 (log_unavailable)"),
        (judging.encryption(AWAY), "warning", "The token and all that runs say"),
        # methods
        (judging.post(told(422, "bad_request")), "ok", "gets through"),
        (judging.post(told(400, "bad_json")), "problem", "does not arrive: 400 (bad_json)"),
        (judging.post(page(307, location="https://x/runs")), "problem", "redirected, to https://x/runs"),
        (judging.post(page(403)), "problem", "POST does not get through"),
        (judging.delete(told(404, "unknown_run")), "ok", "gets through"),
        (judging.delete(page(405)), "problem", "DELETE does not get through"),
        # the WebSocket
        (judging.upgrade("/ws", Answer(101, {"sec-websocket-accept": "k"}), "k"), "ok", "opens at /ws"),
        (judging.upgrade("/ws", Answer(101, {"sec-websocket-accept": "?"}), "k"), "warning", "none opens: 101"),
        (judging.upgrade("/ws", page(426), "k"), "warning", "none opens: 426"),
        (judging.upgrade("/ws", NoAnswer("broken", "reset"), "k"), "warning", "none opens: the connection broke"),
        # no stream
        (judging.no_probe(NoAnswer("timeout"), Plan()), "problem", "Nothing came of a stream that lasts 2.1 s"),
        (judging.no_probe(NoAnswer("broken", "reset"), Plan()), "problem", "the connection broke: reset"),
    ],
)  # fmt: skip
def test_what_was_seen_means(finding: Finding | None, level: str, said: str) -> None:
    assert finding is not None
    assert finding.level == level
    assert said in f"{finding.seen} {finding.remedy}"
    assert (finding.level == "ok") == (finding.remedy == "")


def test_what_is_no_trouble_is_no_finding() -> None:
    assert judging.redirected(page(200)) is None
    assert judging.encryption(HERE) is None
    assert judging.encryption(SAFE) is None


@pytest.mark.parametrize(
    ("answer", "level", "said"),
    [
        (Answer(200, {}, b'{"status":"ready"}'), "ok", "runs can be begun"),
        (Answer(503, {}, b'{"status":"no store"}'), "problem", "does not reach its store"),
        (Answer(503, {}, b'{"status":"stopping"}'), "warning", "is being stopped"),
        (page(404), "problem", "404, text/html"),
    ],
)
def test_whether_runs_can_be_begun(answer: Answer, level: str, said: str) -> None:
    finding = judging.readiness(answer)

    assert finding.level == level
    assert said in finding.seen


@pytest.mark.parametrize(
    ("answer", "level", "said"),
    [
        (told(404, "unknown_path"), "warning", "This server has no /probe"),
        (told(429, "too_many_streams"), "warning", "as many streams as it may"),
        (page(200), "problem", "In place of a stream came 200, text/html, from nginx."),
        (page(504), "problem", "In place of a stream came 504"),
    ],
)
def test_what_is_no_stream_is_told_alone(answer: Answer, level: str, said: str) -> None:
    seen = probed(answer=answer)

    for found in (judging.stream_findings(seen), judging.staying(seen)):
        assert [each.level for each in found] == [level]
        assert said in found[0].seen


@pytest.mark.parametrize(
    ("at", "gathered"),
    [
        (WELL, False),
        ((0.01, 0.5, 0.51, 0.61, 0.81), False),  # one came late
        ((0.3, 0.5, 0.7, 0.9, 1.1), False),  # all came late: a slow line
        ((0.81, 0.81, 0.81, 0.81, 0.81), True),
        ((0.41, 0.41, 0.41, 0.81, 0.81), True),  # two bunches
        ((2.1, 2.1, 2.1, 2.1, 2.11), True),
        ((0.5,), False),
        ((), False),
    ],
)
def test_frames_that_come_together_were_held_back(at: tuple[float, ...], gathered: bool) -> None:
    assert judging.is_gathered(probed(*at)) == gathered


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "X-Accel-Buffering: no arrives here, and is not heeded"),
        ({"content-length": "500"}, "can tell its length"),
        ({"content-encoding": "br", "content-length": "500"}, "Here: Content-Encoding: br"),
        ({"via": "1.1 varnish", "server": "nginx"}, "On the way: Server: nginx, Via: 1.1 varnish."),
        ({"server": "uvicorn"}, "proxy_buffering off)."),
    ],
)
def test_who_holds_frames_back_is_told_by_the_headers(headers: dict[str, str], said: str) -> None:
    finding = judging.buffering(probed(*[0.81] * 5, answer=Answer(200, STREAM | headers)))

    assert finding is not None
    assert finding.level == "problem"
    assert said in finding.remedy
    assert finding.seen == "Frames that were sent over 800 ms arrive together: one was held for 800 ms."


def test_a_header_that_is_missing_is_named() -> None:
    bare = {"content-type": "text/event-stream"}
    finding = judging.buffering(probed(*[0.81] * 5, answer=Answer(200, bare)))

    assert finding is not None
    assert "X-Accel-Buffering: no is missing" in finding.remedy


@pytest.mark.parametrize(
    ("seen", "level", "said"),
    [
        (probed(*WELL), "ok", "Heartbeats come through; the server sends one every 15.0 s."),
        (probed(*WELL, beats=0), "problem", "Of 2 heartbeats that were sent, none came."),
        (probed(*WELL, beats=1), "problem", "Of 2 heartbeats that were sent, 1 came."),
        (probed(*WELL, heartbeat=120.0), "warning", "only every 120 s"),
    ],
)
def test_heartbeats(seen: Probed, level: str, said: str) -> None:
    finding = judging.heartbeat(seen)

    assert finding is not None
    assert finding.level == level
    assert said in finding.seen


@pytest.mark.parametrize(
    ("seen", "level", "said"),
    [
        (probed(*WELL), "ok", "A stream of 820 ms stays open to its end. A longer one was not tried"),
        (probed(*WELL, last=False, end="broke", at=9.81), "problem", "cut after 9.8 s, 9.0 s after"),
        (probed(*WELL, last=False, at=9.81), "problem", "cut after 9.8 s"),
        (probed(beats=0, at=0.5), "problem", "cut after 500 ms"),
        (probed(*WELL, last=False, comes_back=True), "warning", "The server was stopped"),
        (probed(*WELL, last=False, end="silent", at=30.0), "problem", "Nothing more came of a stream within 30.0 s"),
    ],
)  # fmt: skip
def test_whether_a_connection_stays(seen: Probed, level: str, said: str) -> None:
    finding = judging.connection(seen)

    assert finding is not None
    assert finding.level == level
    assert said in finding.seen


def test_a_stream_that_broke_off_tells_only_what_it_can() -> None:
    at_once = judging.stream_findings(probed(beats=0, at=0.5))
    later = judging.stream_findings(probed(*WELL, last=False, end="broke", at=1.0))
    nothing = judging.stream_findings(probed(beats=0, end="silent", at=30.0))

    assert [each.check for each in at_once] == ["connection"]
    assert [each.check for each in later] == ["buffering", "connection", "resume", "clock"]
    assert [(each.check, each.seen) for each in nothing] == [
        ("buffering", "Nothing of the stream came within 30.0 s.")
    ]


@pytest.mark.parametrize(
    ("heard", "level", "said"),
    [
        ("7", "ok", "Last-Event-ID reaches the server"),
        (None, "problem", "does not reach the server"),
        ("8", "problem", "a cache answers"),
    ],
)
def test_whether_the_server_hears_where_a_reader_stood(heard: str | None, level: str, said: str) -> None:
    finding = judging.resumption(probed(*WELL, heard=heard))

    assert finding is not None
    assert finding.level == level
    assert said in finding.seen


@pytest.mark.parametrize(
    ("seen", "level", "said"),
    [
        (probed(*WELL, time=ASKED + 4.9), "ok", "agree"),
        (probed(*WELL, time=ASKED + 6.0), "warning", "6.0 s ahead of"),
        (probed(*WELL, time=ASKED - 6.0), "warning", "6.0 s behind"),
        (probed(*WELL, time=ASKED + 3600), "problem", "3600 s ahead of"),
        (probed(*WELL, time=ASKED - 3600), "problem", "3600 s behind"),
        # A line that takes 20 s leaves as much in doubt, and no more.
        (probed(*[20 + at for at in WELL], time=ASKED + 19), "ok", "agree"),
        (probed(*[20 + at for at in WELL], time=ASKED - 6), "warning", "6.0 s behind"),
        (probed(*[20 + at for at in WELL], time=ASKED + 30), "warning", "10.0 s ahead of"),
    ],
)
def test_whether_clocks_agree(seen: Probed, level: str, said: str) -> None:
    finding = judging.clock(seen)

    assert finding is not None
    assert finding.level == level
    assert said in finding.seen


def test_what_is_old_tells_no_time() -> None:
    assert judging.clock(probed(*WELL, heard="another's")) is None
    assert judging.clock(probed()) is None


@pytest.mark.hostile
def test_what_a_server_says_commands_no_terminal() -> None:
    evil = "\x1b[2J\x07\u202e\r\n" + "x" * 5000
    headers = {"content-type": f"{evil}/html", "server": evil, "location": evil, "via": evil}
    answers = [
        Answer(200, headers, json.dumps({"name": "millstream", "version": evil}).encode()),
        Answer(302, headers),
        told(404, evil, headers),
        Answer(200, STREAM | headers | {"content-type": "text/event-stream", "content-encoding": evil}),
    ]

    found = [judging.identity(answers[0]), judging.redirected(answers[1]), judging.readiness(answers[2])]
    found += [judging.buffering(probed(*[0.8] * 5, answer=answers[3])), judging.upgrade(evil, answers[2], "")]
    found += [judging.unreachable(NoAnswer("broken", evil))]

    for each in found:
        assert each is not None
        assert f"{each.seen}{each.remedy}".isprintable()
        assert len(each.seen + each.remedy) < 1500
