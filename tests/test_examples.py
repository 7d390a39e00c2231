import io
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
SHOWN = {
    "cancel_on_timeout": "stopped: True, items kept: 1",
    "handoff": "[Desk]\n[Spanish]\n¡Muy bien, gracias!\n",
    "hello": "the stream never stops.",
    "structured": "Porridge: 10 minutes, oats, water, salt",
    "sync_script": "in a plain for loop.\nAnd this one came whole.\n",
    "text_stream": "> You said: hello\n> You said: bye\n> ",
    "tools": "output snow, -4 °C\noutput sun, 21 °C\nGo to Lisbon.\n",
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_without_a_key(
    example: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\nbye\n"))

    runpy.run_path(str(example), run_name="__main__")

    assert SHOWN[example.stem] in capsys.readouterr().out


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_enough_to_copy(example: Path) -> None:
    assert len(example.read_text().splitlines()) < 40
