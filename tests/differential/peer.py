"""The SDK's side: a process of the interpreter that has it, asked one line of JSON at a time.

`Peer` is the side that asks. `python -m tests.differential.peer` is the side that answers: it
keeps stdout for its answers, so what a scenario prints goes to stderr.
"""

import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-peer" / ("Scripts" if os.name == "nt" else "bin") / "python"


class PeerMissingError(Exception):
    """There is no environment that has the SDK."""


class PeerFailedError(Exception):
    """The SDK's side broke, which is not the same as a run that failed."""


class Peer:
    """A process that runs scenarios with the SDK. Close it when done.

    Raises:
        PeerMissingError: its environment is not there.
    """

    def __init__(self, python: Path = PYTHON) -> None:
        if not python.exists():
            raise PeerMissingError(
                "These tests hold millstream against openai-agents, which has an environment of its own. "
                "`make .venv-peer/.peer` makes it, once; `make test` does so by itself."
            )
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            [python, "-m", "tests.differential.peer"], cwd=ROOT, env=_environment(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr,
        )  # fmt: skip

    def ask(self, **request: Any) -> Any:
        """The answer to `request`: one of those that `_answer` below knows.

        Raises:
            PeerFailedError: it could not be answered.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._stderr.seek(0)
            raise PeerFailedError(self._stderr.read().decode(errors="replace"))
        answer = json.loads(line)
        if "broken" in answer:
            raise PeerFailedError(answer["broken"])
        return answer["answer"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()  # it has nothing to lose
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._stderr.close()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI", "COV"))}
    return kept | {"OPENAI_AGENTS_DISABLE_TRACING": "1", "PYTHONIOENCODING": "utf-8"}


# --- the side that answers ------------------------------------------------------------------


def _answer(request: dict[str, Any]) -> Any:
    from tests.differential import fuzz, surface
    from tests.differential.kit import SCENARIOS, SDK
    from tests.differential.record import record
    from tests.differential.scenarios import load

    match request:
        case {"scenario": name, "mode": mode}:
            load()
            return record(SDK, SCENARIOS[name], mode)
        case {"fuzz": spec, "mode": mode}:
            return record(SDK, fuzz.scenario_of(spec), mode)
        case {"surface": names}:
            return surface.describe(SDK, names)
    raise ValueError(f"no such request: {request}")


def _serve() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        try:
            answer = {"answer": _answer(json.loads(line))}
        except Exception:
            answer = {"broken": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
