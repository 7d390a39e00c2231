"""A conversation: runs that go on from one another, whatever became of the last."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from millstream.cli.chosen import Chosen, choose_models
from millstream.config import RunConfig
from millstream.runner import Runner
from millstream.usage import Usage

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.items import TResponseInputItem
    from millstream.result import RunResultStreaming
    from millstream.run_state import RunState


class Conversation:
    """What was said so far, by whom it goes on, and with which models.

    Args:
        agent: begins it.
        max_turns: how often models may be asked for one answer; None is the usual number.
    """

    def __init__(self, agent: Agent[Any], *, max_turns: int | None = None) -> None:
        self._first = agent
        self._agent = agent
        self._history: list[TResponseInputItem] = []
        self._options: dict[str, Any] = {} if max_turns is None else {"max_turns": max_turns}
        self._chosen: Chosen | None = None
        self.answers = 0
        """How many answers were asked for, of which some may have failed."""
        self.usage = Usage()
        """What all of them took."""

    @property
    def models(self) -> Sequence[str]:
        """Which models answer, and why: lines to tell."""
        return () if self._chosen is None else self._chosen.told

    async def choose(self, *, model: str | None, api: str | None = None, offline: bool = False) -> None:
        """Go on with the models that these options of a command line choose.

        Raises:
            UserError: nothing can be chosen; everything stays as it was.
        """
        chosen = await choose_models(self._first, os.environ, model=model, api=api, offline=offline)
        await self.aclose()
        self._chosen = chosen

    def ask(self, text: str) -> RunResultStreaming:
        """Start the run that answers `text`; give it to `keep` when it is over.

        Raises:
            UserError: the run cannot be started.
        """
        question: TResponseInputItem = {"role": "user", "content": text}
        return Runner.run_streamed(
            self._agent, [*self._history, question], run_config=self._config(), **self._options
        )

    def go_on(self, state: RunState[Any, Any]) -> RunResultStreaming:
        """Go on with a run that has waited for approval, instead of giving its handle to `keep`."""
        return Runner.run_streamed(self._agent, state, run_config=self._config())

    def _config(self) -> RunConfig:
        assert self._chosen is not None, "choose() comes first"
        return RunConfig(model=self._chosen.for_all, model_provider=self._chosen.provider)

    def keep(self, handle: RunResultStreaming) -> None:
        """Go on from where a run has come to, also one that failed or was stopped.

        A question that nothing came of is dropped: it may be asked again, and some servers
        refuse two of them in a row. So is one whose answer waits for approval that nobody gave.
        """
        self.answers += 1
        self.usage.add(handle.context_wrapper.usage)
        if handle.new_items and not handle.interruptions:
            self._history = handle.to_input_list()
            self._agent = handle.last_agent

    def reset(self) -> None:
        """Forget what was said, and go back to the first agent. Models and usage stay."""
        self._history = []
        self._agent = self._first

    async def aclose(self) -> None:
        """Release what the models hold."""
        if self._chosen is not None:
            await self._chosen.provider.aclose()
