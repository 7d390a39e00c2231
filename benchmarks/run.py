"""CPU per streamed delta: floor, Millstream, openai-agents, in turn and in one run. See README.md."""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from subjects import SUBJECTS

HERE = Path(__file__).parent
GOALS = {"millstream": 30, "millstream, own transport": 8}
"""How many times cheaper than openai-agents a subject is meant to be."""


class Process:
    """A server or a subject: one line in, one line out."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE
        )

    def line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args} ended early")
        return line

    def ask(self) -> tuple[float, int]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        seconds, seen = self.line().split()
        return float(seconds), int(seen)

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def measure(payload: str, deltas: int, rounds: int) -> dict[str, float]:
    """The median CPU microseconds per delta of each subject."""
    server = Process("server.py", payload, str(deltas))
    port = server.line().strip()
    subjects = {name: Process("subjects.py", name, port) for name in SUBJECTS}
    costs: dict[str, list[float]] = {name: [] for name in subjects}
    try:
        for number in range(-2, rounds):
            for name, subject in subjects.items():
                seconds, seen = subject.ask()
                assert seen >= deltas, f"{name} saw {seen} of {deltas}"
                if number >= 0:
                    costs[name].append(seconds / deltas * 1e6)
            print(f"\r{payload}: round {max(0, number + 1)} of {rounds}", end="", file=sys.stderr, flush=True)
    finally:
        for process in (*subjects.values(), server):
            process.stop()
    print(file=sys.stderr)
    return {name: statistics.median(values) for name, values in costs.items()}


def machine() -> dict[str, str]:
    """What was measured on, and with."""
    versions = {
        name: metadata.version(name)
        for name in ("millstream", "openai-agents", "openai", "aiohttp", "httpx2")
    }
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **versions,
    }


def table(payload: str, costs: dict[str, float]) -> str:
    floor, peer = costs["floor"], costs["openai-agents"]
    lines = [
        f"Payload: {payload}",
        "",
        f"{'subject':28}{'CPU us/delta':>14}{'x floor':>10}{'openai-agents is':>20}{'goal':>8}",
    ]
    for name, cost in costs.items():
        times = f"{peer / cost:.1f} x" if name not in ("floor", "openai-agents") else ""
        goal = f"{GOALS[name]} x" if name in GOALS else ""
        lines.append(f"{name:28}{cost:14.2f}{cost / floor:10.1f}{times:>20}{goal:>8}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deltas", type=int, default=5000, help="deltas per answer (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="counted rounds (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    results = {
        payload: measure(payload, arguments.deltas, arguments.rounds) for payload in ("openai", "compatible")
    }
    if arguments.json:
        print(json.dumps({"machine": machine(), "us_per_delta": results}, indent=2))
        return
    print(", ".join(f"{name} {version}" for name, version in machine().items()), "\n")
    for payload, costs in results.items():
        print(table(payload, costs))


if __name__ == "__main__":
    main()
