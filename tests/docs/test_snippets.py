from pathlib import Path

import pytest

from tests.docs.snippets import blocks, run_console, run_python

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

PAGE = """
```python title="app.py"
import asyncio
answer = await asyncio.sleep(0, 42)
```
<!-- skip: needs a key -->
```python
raise SystemExit
```
- In a list:

  ```python
  from app import answer
  ```
```console
$ make demo
```
"""


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_shows_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    for block in blocks(page.read_text()):
        if block.language == "python":
            run_python(block, tmp_path, monkeypatch)
        else:
            run_console(block, tmp_path)


def test_blocks_are_found_with_title_and_line_and_a_skipped_one_is_not() -> None:
    assert [(b.language, b.title, b.line) for b in blocks(PAGE)] == [
        ("python", "app.py", 3),
        ("python", None, 13),
        ("console", None, 16),
    ]
    assert blocks(PAGE)[1].body == "from app import answer\n"


def test_a_python_block_may_await_and_is_left_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = blocks(PAGE)

    run_python(first, tmp_path, monkeypatch)

    assert (tmp_path / "app.py").read_text() == first.body


def test_a_python_block_that_fails_fails_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = blocks("```python\nif __name__ == '__main__':\n    raise KeyError('shown')\n```\n")

    with pytest.raises(KeyError, match="shown"):
        run_python(block, tmp_path, monkeypatch)


def test_a_console_block_that_shows_something_else_fails_its_page(tmp_path: Path) -> None:
    (wrong,) = blocks("```console\n$ millstream --help\nnot what it prints\n```\n")
    (right,) = blocks("```console\n$ millstream --help  # a comment\n...demo...\n$ make demo\n```\n")

    with pytest.raises(pytest.fail.Exception, match="but the page shows"):
        run_console(wrong, tmp_path)
    run_console(right, tmp_path)
