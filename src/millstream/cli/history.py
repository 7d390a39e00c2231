"""The file of what was written in chats, for arrow up. A convenience: it never fails a chat."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

KEPT = 1000
"""How many entries are kept."""

_BYTES = 4_000_000
"""A larger file is not ours, or of no use."""


class History:
    """Entries in a file that only its owner may read, each a line with a JSON text.

    Args:
        file: where; None keeps nothing.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def load(self) -> list[str]:
        """The entries, oldest first. A file that has grown too long is cut."""
        if self._file is None:
            return []
        try:
            if self._file.stat().st_size > _BYTES:
                return []
            lines = self._file.read_text("utf-8", "replace").removesuffix("\n").split("\n")
        except OSError:
            return []
        if len(lines) > 2 * KEPT:
            self._rewrite(lines[-KEPT:])
        entries = [_entry_of(line) for line in lines[-KEPT:]]
        return [entry for entry in entries if entry is not None]

    def add(self, entry: str) -> None:
        """Keep `entry`, where that is possible."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # In one write, so that chats side by side do not mix their lines.
            fd = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(fd, f"{json.dumps(entry, ensure_ascii=False)}\n".encode("utf-8", "replace"))
            finally:
                os.close(fd)

    def _rewrite(self, lines: list[str]) -> None:
        assert self._file is not None
        with contextlib.suppress(OSError):
            fd, name = tempfile.mkstemp(dir=self._file.parent, prefix="history-")  # mode 0600
            with open(fd, "w", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in lines))
            os.replace(name, self._file)


def history_file(environ: Mapping[str, str]) -> Path | None:
    """Where the history is: `MILLSTREAM_HISTORY`, or in the state folder; None where it says `none`."""
    named = environ.get("MILLSTREAM_HISTORY", "")
    if named == "none":
        return None
    if named:
        return Path(named).expanduser()
    state = environ.get("XDG_STATE_HOME", "")
    try:
        # A relative path is to be ignored, says the specification of that variable.
        folder = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    except RuntimeError:  # nobody's home
        return None
    return folder / "millstream" / "history"


def _entry_of(line: str) -> str | None:
    with contextlib.suppress(ValueError):
        entry = json.loads(line)
        return entry if isinstance(entry, str) else None
    return None
