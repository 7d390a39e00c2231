"""Runs what a page shows: a scenario in one folder, block after block.

- ```` ```python ```` is a script with a namespace of its own; `await` works at its top level.
  With `title="app.py"` it is also left in the folder under that name, for later blocks.
- ```` ```console ````: each line `$ millstream …` is run (other commands are not); the lines
  below it, if any, are what it prints, where `...` stands for anything (as in doctest).
- `<!-- skip: reason -->` on the line before a block leaves it out.
"""

import ast
import asyncio
import doctest
import inspect
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

FENCE = re.compile(
    r"^(?P<indent>[ ]*)```(?P<language>python|console)\b(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
SKIP = re.compile(r"<!-- skip: [^\n]+ -->\s*\Z")
PROMPT = re.compile(r"^\$ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page, and the line its body begins on."""

    language: str
    title: str | None
    body: str
    line: int


def blocks(page: str) -> list[Block]:
    """The blocks of `page` that are to be run."""
    found: list[Block] = []
    for match in FENCE.finditer(page):
        if SKIP.search(page[: match.start()]):
            continue
        title = re.search(r'title="([^"]+)"', match["info"])
        indent = len(match["indent"])
        body = "".join(line[indent:] or "\n" for line in match["body"].splitlines(keepends=True))
        line = page.count("\n", 0, match.start("body")) + 1
        found.append(Block(match["language"], title[1] if title else None, body, line))
    return found


def run_python(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script as `python FILE` would, in this process, which has no keys and no network."""
    file = folder / (block.title or f"line_{block.line}.py")
    file.write_text(block.body)
    # Type hints and dataclasses look their module up by name.
    module = ModuleType("__main__")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "__main__", module)
    code = compile(block.body, str(file), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, vars(module)))
    else:
        exec(code, vars(module))


def run_console(block: Block, folder: Path) -> None:
    """Run the `millstream` commands of a block and compare what they print with what is shown."""
    _, *pieces = PROMPT.split(block.body)
    for command, shown in zip(pieces[::2], pieces[1::2], strict=True):
        words = shlex.split(command, comments=True)
        if words[0] != "millstream":
            continue
        program = Path(sys.executable).with_name("millstream")
        done = subprocess.run(
            [program, *words[1:]],
            cwd=folder, env=os.environ | {"COLUMNS": "100"}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=50,
        )  # fmt: skip
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        same = doctest.OutputChecker().check_output(shown.strip(), done.stdout.strip(), flags)
        if shown.strip() and not same:
            pytest.fail(f"$ {command}\nprints\n{done.stdout}\nbut the page shows\n{shown}", pytrace=False)
