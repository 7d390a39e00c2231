"""The scripts that the server runs: each does one thing to a run as a whole, or does nothing.

All may be sent again when an answer was lost: what a script has done, it knows again.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, eq=False)
class Script:
    """One of the files in `lua/`, behind what all begin with."""

    name: str
    flags: str = ""
    """`no-writes`: a replica may run it. `allow-oom`: it may run where the server's memory is full."""

    @functools.cached_property
    def text(self) -> bytes:
        """What the server is given."""
        lua = files("millstream.log.redis") / "lua"
        parts = [f"#!lua flags={self.flags}\n".encode()]
        parts += [(lua / f"{name}.lua").read_bytes() for name in ("common", self.name)]
        return b"".join(parts)

    @functools.cached_property
    def digest(self) -> str:
        """What the server knows it by."""
        return hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


APPEND = Script("append")
READ = Script("read", "no-writes")
TRIM = Script("trim", "allow-oom")
CREATE = Script("create")
RECORD = Script("record", "no-writes")
RUNS = Script("runs", "no-writes")
CONVERSATIONS = Script("conversations", "no-writes")
ITEMS = Script("items", "no-writes")
ADD_ITEMS = Script("add_items")
FORGET = Script("forget", "allow-oom")
DELETE = Script("delete", "allow-oom")
SWEEP = Script("sweep", "allow-oom")
CLAIM = Script("claim")
RENEW = Script("renew", "allow-oom")
LET_GO = Script("let_go", "allow-oom")
ORPHANS = Script("orphans", "no-writes")
TELL = Script("tell")
MAIL = Script("mail", "no-writes")

SCRIPTS = (
    APPEND, READ, TRIM, CREATE, RECORD, RUNS, DELETE, SWEEP, CONVERSATIONS, ITEMS, ADD_ITEMS, FORGET,
    CLAIM, RENEW, LET_GO, ORPHANS, TELL, MAIL,
)  # fmt: skip
"""All of them: a connection loads them when it is made."""
