"""What the pages promise beside running: outputs, links, and a table of contents that is whole.

A block ```` ```text title="output" ```` is what the Python block before it prints, where `...`
stands for anything.
"""

import doctest
import re
from pathlib import Path

import pytest

from tests.docs.snippets import Block, run_python

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
SHOWN = re.compile(
    r"^```python[^\n]*\n(?P<body>(?:(?!^```).*\n)*)^```\n+^```text title=\"output\"\n(?P<output>(?:(?!^```).*\n)*)^```",
    re.MULTILINE,
)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<page>[^)#:]*)(?:#(?P<heading>[^)]+))?\)")


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_block_prints_what_the_page_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

    for match in SHOWN.finditer(text):
        line = text.count("\n", 0, match.start("body")) + 1
        run_python(Block("python", None, match["body"], line), tmp_path, monkeypatch)
        printed = capsys.readouterr().out
        same = doctest.OutputChecker().check_output(match["output"].strip(), printed.strip(), flags)
        assert same, f"{page.name}, line {line} prints\n{printed}\nbut the page shows\n{match['output']}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for match in LINK.finditer(FENCED.sub("", page.read_text())):
        target = page.parent / match["page"] if match["page"] else page
        assert target.exists(), f"{page.name} links to {match['page']}"
        if match["heading"]:
            assert match["heading"] in anchors(target.read_text()), f"{page.name} links to {match[0]}"


def test_the_table_of_contents_has_every_page() -> None:
    linked = {match["page"] for match in LINK.finditer((DOCS / "index.md").read_text())}

    assert {page.name for page in PAGES} - {"index.md"} <= linked


def anchors(text: str) -> set[str]:
    """The headings of a page, as a link names them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
