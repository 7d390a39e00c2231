"""What a server bears: many readers of one run, and many runs, with one client that never reads. See README.md."""

import argparse
import json
import os
import platform
import resource
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from importlib import metadata, util

import load_trial as trial
from load_server import Plan
from logs import Progress, machine, table
from logs_stores import REDIS, Store, stores, why_no_redis

PARTS = ("readers", "runs", "flood")
"""What can be measured, in this order."""
NAMES = ("memory", "SQLite normal", "Redis no persistence")
SPARE = 200
"""File descriptors that a process needs besides those of its clients."""

Found = dict[str, dict[str, trial.Figures]]
"""What was measured, by part and by subject."""


def measure(found: Iterable[Store], arguments: argparse.Namespace, say: Progress) -> Found:
    """All that was asked for, one after the other: they would slow each other down."""
    results: Found = {}
    every = list(found)
    for part in PARTS:
        if part not in (arguments.part or PARTS):
            continue
        results[part] = {}
        for name, plan, stalls in _subjects(part, every, arguments):
            say(f"{part}: {name}")
            load = trial.Load(plan, arguments.readers, stalls=stalls, at_once=arguments.at_once)
            results[part][name] = trial.run(load)
    say.end()
    return results


def _subjects(
    part: str, found: Iterable[Store], arguments: argparse.Namespace
) -> Iterator[tuple[str, Plan, bool]]:
    deltas = round(arguments.seconds * arguments.rate)
    plan = Plan("", 1 if part == "readers" else arguments.readers, deltas, 1 / arguments.rate)
    if part == "flood":
        plan = replace(plan, gap=0)
    yield "floor", plan, False
    for store in found:
        ours = replace(plan, address=store.address)
        yield store.name, ours, False
        if part != "flood":
            yield f"{store.name}, one stalled", ours, True


# --- what is printed ---------------------------------------------------------------------------


def told() -> dict[str, str]:
    """What was measured on, and with."""
    found = machine()
    for name in ("uvicorn", "starlette"):
        found[name] = metadata.version(name)
    found["http"] = "httptools" if util.find_spec("httptools") else "h11"
    found["loop"] = "uvloop" if util.find_spec("uvloop") else "asyncio"
    return found


def delivery_table(found: dict[str, trial.Figures]) -> str:
    floor = found["floor"].cpu_us
    return table(
        ["", "ms to a reader: p50 / p99 / max", "CPU us of an event (x floor)", "waits for the slowest, KiB"],
        [
            [
                name,
                f"{each.p50:.1f} / {each.p99:.1f} / {each.max:.0f}",
                f"{each.cpu_us:.0f} ({each.cpu_us / floor:.1f})",
                f"{each.waiting / 1024:.0f}",
            ]
            for name, each in found.items()
        ],
    )


def memory_table(found: dict[str, trial.Figures]) -> str:
    return table(
        ["MiB of the server", "before", "all there", "at the end", "all gone", "KiB more in a second"],
        [
            [name, *(f"{each.memory[moment]:.0f}" for moment in trial.MOMENTS), f"{each.growth:+.0f}"]
            for name, each in found.items()
        ],
    )


def starts_table(found: dict[str, trial.Figures]) -> str:
    return table(
        ["all begin at once", "ms to the first event: p50 / p99"],
        [[name, f"{each.first_p50:,.0f} / {each.first_p99:,.0f}"] for name, each in found.items()],
    )


def flood_table(found: dict[str, trial.Figures]) -> str:
    floor = found["floor"].cpu_us
    return table(
        [
            "as fast as it goes",
            "events in a second",
            "CPU us of an event (x floor)",
            "ms to a reader: p50 / p99",
        ],
        [
            [
                name,
                f"{each.rate:,.0f}",
                f"{each.cpu_us:.0f} ({each.cpu_us / floor:.1f})",
                f"{each.p50:,.0f} / {each.p99:,.0f}",
            ]
            for name, each in found.items()
        ],
    )


def print_all(results: Found, arguments: argparse.Namespace) -> None:
    readers, rate = arguments.readers, f"{arguments.rate:g} events a second, for {arguments.seconds:g} s"
    heads = {
        "readers": f"{readers} readers of one run, {rate}",
        "runs": f"{readers} runs with one reader each, each {rate}",
        "flood": f"{readers} runs with one reader each, {round(arguments.seconds * arguments.rate)} events each",
    }
    tables = {
        "readers": (delivery_table, memory_table),
        "runs": (delivery_table, memory_table, starts_table),
        "flood": (flood_table,),
    }
    print(", ".join(f"{name} {version}" for name, version in told().items()))
    for part, found in results.items():
        print(f"\n**{heads[part]}**")
        for each in tables[part]:
            print(f"\n{each(found)}")


# --- what is asked for -------------------------------------------------------------------------


def allow_files(readers: int) -> None:
    """Let this process and those that it starts have a socket for each reader.

    Raises:
        SystemExit: they may not.
    """
    needed = readers + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise SystemExit(
                f"{readers} readers need {needed} file descriptors, and a process may have {hard} here: "
                f"take fewer (--readers {max(hard - SPARE, 1)}), or allow more (ulimit -n {needed})."
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def main() -> None:
    arguments = _arguments()
    if os.name != "posix":
        raise SystemExit(f"This needs what POSIX systems have, and runs on {platform.system()}.")
    allow_files(arguments.readers)
    names = arguments.store or list(NAMES)
    reason = why_no_redis()
    if reason is not None and not REDIS.keys().isdisjoint(names):
        print(f"Redis is left out: {reason}.", file=sys.stderr)
        names = [name for name in names if name not in REDIS]
    with stores(names, arguments.folder) as found:
        results = measure(found, arguments, Progress())
    if arguments.json:
        print(json.dumps({"machine": told(), **results}, indent=2, default=asdict))
    else:
        print_all(results, arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="measure this alone (may be given again)")  # fmt: skip
    parser.add_argument("--store", action="append", choices=[*NAMES, "SQLite full", *REDIS], help="measure this one alone (may be given again)")  # fmt: skip
    parser.add_argument("--readers", type=int, default=1000, help="of one run, or runs with one each (default: %(default)s)")  # fmt: skip
    parser.add_argument("--rate", type=float, default=4, help="events that a run gives in a second (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement (default: %(default)s)")  # fmt: skip
    parser.add_argument("--at-once", type=int, default=8000, help="events that are there for the client that never reads (default: %(default)s)")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="as small as it can be, to see that it works")
    parser.add_argument("--folder", help="where the files are: on the disk that is to be measured")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.readers, arguments.rate, arguments.seconds, arguments.at_once = 20, 20, 0.5, 160
        arguments.store = arguments.store or ["memory", "SQLite normal"]
    return arguments


if __name__ == "__main__":
    main()
