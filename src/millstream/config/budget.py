"""Budgets: how much a run may use, in tokens, or in money by prices of the program's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from millstream.config.coerce import from_dict
from millstream.errors import UserError

_PER = 1_000_000


@dataclass(frozen=True)
class Price:
    """What the tokens of a model cost, for a million of them, in a currency of your own."""

    input: float
    output: float
    cached_input: float | None = None
    """Of input that the model's server had kept; None for the price of all input."""

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached_input"):
            value: Any = getattr(self, name)
            if not (name == "cached_input" and value is None) and not _is_amount(value):
                raise UserError(f"Price.{name} is what a million tokens cost, 0 or more, not {value!r}.")

    def of(self, *, input: int, cached: int, output: int) -> float:
        """What so many tokens cost, `cached` of the input being cached."""
        cached_price = self.input if self.cached_input is None else self.cached_input
        return ((input - cached) * self.input + cached * cached_price + output * self.output) / _PER


@dataclass(frozen=True)
class Budget:
    """How much a run may use, and the runs nested in it with it. Reaching either of the two ends the run."""

    tokens: int | None = None
    """So many tokens, of input and output together."""
    money: float | None = None
    """So much, in the currency of `prices`."""
    prices: Mapping[str, Price] = field(default_factory=dict[str, Price])
    """What each model costs, by its name, as `model.started` tells it; a price may be a dict. Needed with `money`."""

    def __post_init__(self) -> None:
        tokens: Any = self.tokens
        if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1):
            raise UserError(f"Budget.tokens is a whole number of tokens, 1 or more, or None, not {tokens!r}.")
        if self.money is not None and not (_is_amount(self.money) and self.money > 0):
            raise UserError(f"Budget.money is an amount of more than 0, or None, not {self.money!r}.")
        if self.tokens is None and self.money is None:
            raise UserError("A Budget has tokens=, money= or both: this one has neither.")
        if self.money is not None and not self.prices:
            raise UserError(
                "Budget.money needs prices, by the name of each model: prices={'gpt-5': Price(input=1.25, output=10)}."
            )
        prices: Any = self.prices
        if not isinstance(prices, Mapping):
            raise UserError(f"Budget.prices is a dict of prices by model, not {type(prices).__name__}.")
        made = {
            name: from_dict(Price, price, f"Budget.prices[{name!r}]") for name, price in self.prices.items()
        }
        object.__setattr__(self, "prices", made)


def _is_amount(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0
