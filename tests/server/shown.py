"""What the pages of the documentation show besides Python, and npm's packages to run it with."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[2]


def shown(page: str, language: str, behind: str = "# ") -> str:
    """The first block of `docs/PAGE` in that language, behind a heading."""
    _, _, text = (ROOT / "docs" / page).read_text().partition(behind)
    found = re.search(rf"^```{language}\b[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/{page} shows nothing in {language}"
    return found[1]


def npm_eventsource(folder: Path, leave_out: Callable[[str], NoReturn]) -> list[str | Path]:
    """The command of a program in `folder` that follows a run as `docs/client.md` shows it for Node."""
    packages = ROOT / "tests/javascript/node_modules"
    if not (packages / ".installed").exists():
        leave_out("needs packages of npm: `make test` installs them")
    (folder / "node_modules").symlink_to(packages)
    (folder / "follow.mjs").write_text(shown("client.md", "javascript", "## Any other client"))
    return ["node", folder / "follow.mjs"]
