"""Budgets and prices, as they are given."""

import math
from typing import Any

import pytest

from millstream import Budget, Price, RunConfig, UserError

PRICES = {"m": Price(input=1, output=10)}


def test_a_price_is_of_a_million_tokens() -> None:
    price = Price(input=2, output=10, cached_input=0.5)

    assert price.of(input=1_000_000, cached=0, output=0) == 2
    assert price.of(input=1_000_000, cached=400_000, output=500_000) == pytest.approx(1.2 + 0.2 + 5)
    assert Price(input=2, output=10).of(input=1_000_000, cached=400_000, output=0) == 2


def test_a_budget_and_its_prices_may_be_dicts() -> None:
    given: Any = {"money": 0.5, "prices": {"m": {"input": 1, "output": 10}}}
    config = RunConfig(budget=given)

    assert config.budget == Budget(money=0.5, prices=PRICES)


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ({}, "has neither"),
        ({"tokens": 0}, "whole number of tokens"),
        ({"tokens": True}, "whole number of tokens"),
        ({"tokens": 1.5}, "whole number of tokens"),
        ({"money": 0, "prices": PRICES}, "more than 0"),
        ({"money": math.nan, "prices": PRICES}, "more than 0"),
        ({"money": "1", "prices": PRICES}, "more than 0"),
        ({"money": 1}, "needs prices"),
        ({"money": 1, "prices": [1]}, "dict of prices"),
        ({"money": 1, "prices": {"m": 3}}, r"Budget.prices\['m'\] takes a Price or a dict, not int"),
        ({"money": 1, "prices": {"m": {"in": 3}}}, "Price has no 'in'"),
        ({"money": 1, "prices": {"m": {"input": -1, "output": 1}}}, "Price.input"),
        (
            {"money": 1, "prices": {"m": {"input": 1, "output": 1, "cached_input": math.inf}}},
            "Price.cached_input",
        ),
        ({"token": 5}, "Did you mean 'tokens'"),
        (5, "takes a Budget or a dict, not int"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_where_it_is_given(budget: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        RunConfig(budget=budget)
