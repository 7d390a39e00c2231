"""What a log costs: appends, delivery, room, and the runs that are written to it. See README.md."""

import argparse
import asyncio
import json
import logging
import os
import platform
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import logs_measures as measures
import logs_runs as runs
from logs_stores import DELTA, NAMES, REDIS, Store, stores, why_no_redis

PARTS = ("room", "delivery", "appends", "runs", "turns")
"""What can be measured, in this order."""

Found = dict[str, Any]
"""What was measured, by part."""


class Progress:
    """Says on stderr what is being measured."""

    def __init__(self) -> None:
        self._width = 0

    def __call__(self, what: str) -> None:
        print(f"\r{what:{self._width}}", end="", file=sys.stderr, flush=True)
        self._width = len(what)

    def end(self) -> None:
        self(" " * self._width)
        print("\r", end="", file=sys.stderr, flush=True)


async def measure(found: Sequence[Store], arguments: argparse.Namespace, say: Progress) -> Found:
    """All that was asked for, one after the other: they would slow each other down."""
    results: Found = {}
    parts, rounds = arguments.part or PARTS, arguments.rounds
    for part in PARTS:
        if part not in parts:
            continue
        if part == "room":
            results[part] = await _each(found, part, say, measures.room)
        elif part == "appends":
            results[part] = await _each(
                found, part, say, lambda store: measures.rates(store, arguments.seconds, rounds)
            )
        elif part == "delivery":
            results[part] = await _delivery(found, round(arguments.delivery * measures.RATE), say)
        elif part == "runs":
            say("runs: a streamed answer")
            results[part] = await runs.per_delta(found, rounds)
        else:
            say("turns: runs with tools")
            results[part] = await runs.by_turns(found, rounds)
    say.end()
    return results


async def _each(found: Iterable[Store], part: str, say: Progress, of: Callable[[Store], Any]) -> Found:
    results: Found = {}
    for store in found:
        say(f"{part}: {store.name}")
        results[store.name] = await of(store)
    return results


async def _delivery(found: Iterable[Store], count: int, say: Progress) -> Found:
    say("delivery: a pipe")
    results: Found = {"a pipe": {"there": await measures.delivered_by_pipe(count)}}
    for store in found:
        say(f"delivery: {store.name}")
        results[store.name] = {"here": await measures.delivered_here(store, count)}
        if store.others_read_it():
            results[store.name]["there"] = await measures.delivered_there(store, count)
    return results


# --- what is printed ---------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """What was measured on, and with."""
    told = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "load": " ".join(f"{each:.1f}" for each in os.getloadavg()),
        "millstream": metadata.version("millstream"),
        "sqlite": sqlite3.sqlite_version,
    }
    if why_no_redis() is None:
        said = subprocess.run(
            ["redis-server", "--version"], capture_output=True, text=True, check=True
        ).stdout
        told["redis-server"] = said.partition("v=")[2].partition(" ")[0]
        told["redis"] = metadata.version("redis")
        told["hiredis"] = metadata.version("hiredis")
    return told


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown has them, so that a page may have it as it is."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    lines = [
        "| " + " | ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def appends_table(found: Found) -> str:
    def cell(rate: measures.Rate) -> str:
        return f"{rate.ours:,.0f}" + (f" ({rate.ours / rate.floor:.2f})" if rate.floor else "")

    return table(
        ["events in a second (x floor)", *measures.SHAPES],
        [[name, *(cell(rates[shape]) for shape in measures.SHAPES)] for name, rates in found.items()],
    )


def delivery_table(found: Found) -> str:
    def cell(delay: measures.Delay | None) -> str:
        return "" if delay is None else f"{delay.p50:.2f} / {delay.p99:.2f} / {delay.max:.1f}"

    return table(
        ["ms from append to reader: p50 / p99 / max", "same process", "another process"],
        [[name, cell(each.get("here")), cell(each.get("there"))] for name, each in found.items()],
    )


def room_table(found: Found) -> str:
    rows = [
        [f"{name}, {place}", *(f"{each[shape][place]:.0f}" for shape in each)]
        for name, each in found.items()
        for place in next(iter(each.values()))
    ]
    return table([f"bytes of an event of {len(DELTA)} bytes", "written alone", "16 together"], rows)


def runs_table(found: Found) -> str:
    def cell(costs: dict[str, float], name: str) -> str:
        return f"{costs[name]:.1f} ({costs[name] / costs['none']:.1f} x)"

    first = next(iter(found.values()))
    return table(
        ["CPU us per delta (x none)", *(f"{together} in a read" for together in found)],
        [[name, *(cell(costs, name) for costs in found.values())] for name in first],
    )


def turns_table(found: Sequence[runs.Turns]) -> str:
    names = list(found[0].cpu_ms)
    rows = [
        [
            str(each.turns), str(each.checkpoints), f"{each.checkpoint_bytes / 1024:,.0f}", f"{each.last_bytes / 1024:.1f}",
            *(f"{each.cpu_ms[name] / each.turns:.2f}" for name in names),
        ]
        for each in found
    ]  # fmt: skip
    return table(["CPU ms a turn, of turns", "checkpoints", "KiB in all", "KiB of the last", *names], rows)


TABLES: dict[str, Callable[[Any], str]] = {
    "room": room_table,
    "appends": appends_table,
    "delivery": delivery_table,
    "runs": runs_table,
    "turns": turns_table,
}


def main() -> None:
    arguments = _arguments()
    logging.getLogger("millstream").setLevel(logging.ERROR)  # what its settings may lose is no news here
    names = arguments.store or list(NAMES)
    reason = why_no_redis()
    if reason is not None and not REDIS.keys().isdisjoint(names):
        print(f"Redis is left out: {reason}.", file=sys.stderr)
        names = [name for name in names if name not in REDIS]
    told = machine()
    with stores(names, arguments.folder) as found:
        results = asyncio.run(measure(found, arguments, Progress()))
    if arguments.json:
        print(json.dumps({"machine": told, **results}, indent=2, default=asdict))
        return
    print(", ".join(f"{name} {version}" for name, version in told.items()))
    for part, result in results.items():
        print(f"\n{TABLES[part](result)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="measure this alone (may be given again)"
    )
    parser.add_argument("--store", action="append", choices=NAMES, help="measure this one alone (may be given again)")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=0.1, help="of each measurement of appends (default: %(default)s)")  # fmt: skip
    parser.add_argument("--delivery", type=float, default=2, metavar="SECONDS", help="of each measurement of delivery (default: %(default)s)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is told (default: %(default)s)")  # fmt: skip
    parser.add_argument("--folder", type=Path, help="where the files are: on the disk that is to be measured")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
