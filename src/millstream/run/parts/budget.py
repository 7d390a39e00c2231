"""Budgets: what a run and those nested in it use, counted as they go on, and the end where it is too much.

Rules of this file:

1. A model call counts when it is over, with all its tries, cancelled and failed ones too, by what its
   server told or what was estimated. Calls that are under way side by side are not cut off.
2. Nothing is begun when the budget is reached: no model is asked, and no tool runs. An output that
   is there by then is the run's.
3. A nested run counts for all that it is nested in, whatever budget it has itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from millstream.agent import reachable
from millstream.errors import BudgetExceeded, UserError
from millstream.run.model_call import model_name
from millstream.run.prepare import model_of
from millstream.run.seams import Seams

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.config import Budget
    from millstream.run.active import ActiveRun
    from millstream.run.tools import ToolCall
    from millstream.usage import Usage


class Ledger:
    """What was used of one budget.

    Args:
        budget: the budget.
        above: the ledger of the run in which the run of this one is nested.
    """

    def __init__(self, budget: Budget, above: Ledger | None = None) -> None:
        self.budget = budget
        self.tokens = 0
        self.money = 0.0
        self._above = above

    @classmethod
    def of(cls, budget: Budget | None, above: Ledger | None) -> Ledger | None:
        """The ledger of a run with that budget: that of `above`, where it has none of its own."""
        if budget is None or (above is not None and above.budget is budget):
            return above
        return cls(budget, above)

    def add(self, model: str, usage: Usage) -> None:
        """Count what `model` has used."""
        self.tokens += usage.total_tokens
        price = self.budget.prices.get(model)
        if price is not None:
            cached = getattr(usage.input_tokens_details, "cached_tokens", 0) or 0
            self.money += price.of(input=usage.input_tokens, cached=cached, output=usage.output_tokens)
        if self._above is not None:
            self._above.add(model, usage)

    def check(self) -> None:
        """See that something is left.

        Raises:
            BudgetExceeded: the budget is reached, or one above it.
        """
        budget = self.budget
        if budget.tokens is not None and self.tokens >= budget.tokens:
            what = f"{self.tokens} tokens, and may use {budget.tokens}"
            raise BudgetExceeded(f"The run has used {what}.", tokens=self.tokens, money=self.money)
        if budget.money is not None and self.money >= budget.money:
            what = f"{self.money:g}, and may cost {budget.money:g}"
            raise BudgetExceeded(f"The run has cost {what}.", tokens=self.tokens, money=self.money)
        if self._above is not None:
            self._above.check()

    def check_price(self, agent: Agent[Any], model: str) -> None:
        """See that the model of `agent` has a price, where one is needed.

        Raises:
            UserError: it has none.
        """
        if self.budget.money is not None and model not in self.budget.prices:
            known = ", ".join(map(repr, self.budget.prices))
            raise UserError(
                f"Budget.money counts by prices, and {model!r}, the model of agent {agent.name!r}, has none. "
                f"Add it to Budget.prices, which has: {known}."
            )
        if self._above is not None:
            self._above.check_price(agent, model)


class BudgetPart(Seams):
    """Lets nothing begin when the budget is reached.

    Args:
        ledger: where the run's usage is counted.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def starting(self, run: ActiveRun) -> None:
        """Every agent that is known needs a price."""
        for agent in reachable(run.progress.current_agent)[0]:
            self._check_price(run, agent)

    def turn_span(self, run: ActiveRun) -> AbstractAsyncContextManager[Any]:
        """Before the model is asked."""
        return self._turn(run)

    @asynccontextmanager
    async def _turn(self, run: ActiveRun) -> AsyncGenerator[None]:
        self._ledger.check()
        self._check_price(run, run.progress.current_agent)
        yield

    async def before_tools(self, run: ActiveRun, calls: Sequence[ToolCall]) -> None:
        """Before the tools of a turn start."""
        self._ledger.check()

    def _check_price(self, run: ActiveRun, agent: Agent[Any]) -> None:
        self._ledger.check_price(agent, model_name(model_of(agent, run.config)))
