"""`millstream approve` and `reject`: decisions over a paused run, from another process."""

from pathlib import Path

import pytest

from tests.cli.program import Done, millstream
from tests.cli.stores import agent_of, begin, go_on, json_lines, run, run_id_in, sqlite_store

pytestmark = pytest.mark.slow


def test_the_only_call_that_waits_needs_no_name(store: str, apps: Path) -> None:
    run_id = run(store, "janitor.py:one", cwd=apps)

    listed = millstream("approve", run_id, "--list", "--store", store)
    done = millstream("approve", run_id, "--store", store)
    again = millstream("approve", run_id, "--store", store)

    assert (listed.code, listed.out) == (0, '  1  call_a  waits     Janitor: delete(path="a.txt")\n')
    assert (done.code, done.out) == (0, '  1  call_a  approved  Janitor: delete(path="a.txt")\n')
    assert done.err == (
        "millstream: nothing else waits: the run goes on when a program with its agents takes it up.\n"
    )
    assert (again.code, again.out, again.err) == (0, done.out, done.err)


def test_a_run_that_nobody_is_asked_about_says_how_to_decide_later(apps: Path) -> None:
    store = sqlite_store(apps)

    paused = millstream("run", "janitor.py:one", "Go.", "--store", store, cwd=apps)

    run_id = run_id_in(paused.err)
    assert paused.code == 1
    assert paused.errors[-1] == (
        f"millstream: it is kept, and can be decided over: millstream approve {run_id} --store {store}"
    )
    assert millstream("approve", run_id, "--store", store).code == 0


def test_of_several_calls_one_is_named_by_its_id_or_its_number(apps: Path) -> None:
    store = sqlite_store(apps)
    run_id = run(store, "janitor.py:two", cwd=apps)

    def decide(verb: str, *arguments: str) -> Done:
        return millstream(verb, run_id, *arguments, "--store", store)

    nobody = decide("approve")
    assert nobody.code == 2
    assert [line.split()[1:3] for line in nobody.out.splitlines()] == [
        ["call_a", "waits"],
        ["call_b", "waits"],
    ]
    assert nobody.errors[0] == "millstream: error: 2 calls wait."
    assert nobody.errors[1] == f"millstream: hint: name one: millstream approve {run_id} CALL"

    other = decide("approve", "call_z")
    assert other.code == 1
    assert other.errors[0] == "millstream: error: no call 'call_z' waits in this run."

    first = decide("approve", "2", "--arguments", '{"path": "c.txt"}')
    assert first.code == 0
    assert first.err == f"millstream: 1 more waits: millstream approve {run_id} --list\n"

    last = decide("reject", "--message", "Keep it.")
    assert last.out.split()[1:3] == ["call_a", "rejected"]
    assert [each["decision"] for each in json_lines(decide("reject", "--list", "--json"))] == [
        "rejected",
        "approved",
    ]
    assert decide("reject").errors[0] == "millstream: error: all of them were decided over already."


def test_of_two_calls_that_are_the_same_each_is_decided_over(apps: Path) -> None:
    store = sqlite_store(apps)
    run_id = run(store, "janitor.py:twins", cwd=apps)

    both = millstream("approve", run_id, "call_a", "--store", store)
    second = millstream("reject", run_id, "2", "--store", store)
    listed = millstream("approve", run_id, "--list", "--json", "--store", store)

    assert both.code == 2
    assert both.errors[0] == "millstream: error: 2 calls have the id 'call_a'."
    assert second.code == 0
    assert [each["decision"] for each in json_lines(listed)] == [None, "rejected"]


def test_a_call_that_comes_again_waits_again(store: str, apps: Path) -> None:
    agent = agent_of("janitor.py:again", apps)
    run_id = begin(store, agent)

    first = millstream("approve", run_id, "--store", store)
    go_on(store, run_id, agent)
    listed = millstream("approve", run_id, "--list", "--json", "--store", store)
    second = millstream("reject", run_id, "--store", store)
    go_on(store, run_id, agent)

    assert (first.code, second.code) == (0, 0)
    assert [each["decision"] for each in json_lines(listed)] == [None]
    log = millstream("tail", run_id, "--store", store)
    assert log.code == 0
    assert "✓ delete" in log.out
    assert "Tool execution was not approved." in log.out


def test_a_second_decision_that_differs_is_refused(store: str, apps: Path) -> None:
    run_id = run(store, "janitor.py:one", cwd=apps)
    assert millstream("reject", run_id, "--store", store).code == 0

    done = millstream("approve", run_id, "--store", store)

    assert (done.code, done.out) == (1, "")
    assert done.errors == [
        "millstream: error: Somebody decided over the call 'call_a' of delete before, in another way than now: a call is "
        "decided over once, and the first decision counts. It was rejected.",
    ]


def test_a_run_that_does_not_wait_is_told_so(apps: Path) -> None:
    store = sqlite_store(apps)
    run_id = run(store, "shop.py", cwd=apps)

    done = millstream("approve", run_id, "--store", store)

    assert (done.code, done.out) == (1, "")
    assert done.err == f"millstream: error: {run_id} does not wait for approval: it is completed.\n"


@pytest.mark.parametrize("given", ["[1]", "path", '{"path":'])
def test_edited_arguments_are_a_json_object(given: str) -> None:
    done = millstream("approve", "run_1", "--arguments", given, "--store", "memory:")

    assert done.code == 2
    assert done.errors[0].endswith(f"{given!r} is not a JSON object")
