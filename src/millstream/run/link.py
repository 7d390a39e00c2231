"""What a running tool reaches of the run that called it, by its `ToolContext`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.run.active import ActiveRun
    from millstream.run.tools import ToolCall


class CallLink:
    """Ties a `ToolContext` to its run: tools and agents are described below runs, and ask by this.

    Args:
        run: the run that made the call.
        call: the call.
    """

    def __init__(self, run: ActiveRun, call: ToolCall) -> None:
        self.run = run
        self.call = call
