"""What a running tool reaches of the run that called it, by its `ToolContext`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream.events import ToolPartial, ToolProgress
from millstream.run.talk import Said, Talk

if TYPE_CHECKING:
    from millstream.run.active import ActiveRun
    from millstream.run.state import RunProgress
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
        self.agent_run_result: Any = None
        """The result of the run, where the tool is an agent that has run."""
        self.paused: RunProgress | None = None
        """Where that run stands, if it waits for a decision: the call has no output yet."""
        self._talk = Talk(run)

    def take_paused(self) -> RunProgress | None:
        """Where the run stands that was paused inside of this call and goes on with it, where there is one."""
        paused = self.run.progress.nested.pop(self.call.place, None)
        return None if paused is None else paused.copy()

    @property
    def is_open(self) -> bool:
        """Whether the tool runs: what it does before or after that is not done for its call."""
        return self._talk.is_open

    def begin(self) -> None:
        """The tool begins to run."""
        self._talk.begin()

    def progress(self, data: Any) -> Said:
        """Tell how far the tool is. See `ToolContext.progress`."""
        return self._talk.say(
            ToolProgress(call_id=self.call.raw.call_id, name=self.call.tool.name, data=data)
        )

    def partial(self, data: Any) -> Said:
        """Tell a piece of the tool's result, as `progress` does."""
        return self._talk.say(ToolPartial(call_id=self.call.raw.call_id, name=self.call.tool.name, data=data))

    async def end(self) -> None:
        """The tool has ended: returns when everything that it said is written."""
        await self._talk.end()
