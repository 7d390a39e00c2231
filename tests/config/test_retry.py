"""Settings of retries, and the policies that may be put together."""

from typing import Any

import pytest

from millstream import (
    ModelRetryAdvice,
    ModelRetryBackoffSettings,
    ModelRetryNormalizedError,
    ModelRetrySettings,
    ModelSettings,
    RetryDecision,
    RetryPolicyContext,
    retry_policies,
)
from millstream.context import settle
from millstream.errors import UserError


def context(**given: Any) -> RetryPolicyContext:
    facts = ModelRetryNormalizedError(**given.pop("facts", {}))
    return RetryPolicyContext(ValueError("x"), 1, 3, False, facts, **given)


async def says(policy: Any, **given: Any) -> RetryDecision:
    return RetryDecision.of(await settle(policy(context(**given))))


def yes(_: object) -> bool:
    return True


def no(_: object) -> bool:
    return False


async def wait_2_s(_: object) -> RetryDecision:
    return RetryDecision(True, delay=2, approve_unsafe_replay=True)


def wait_1_s(_: object) -> RetryDecision:
    return RetryDecision(True, delay=1, reason="busy")


# --- settings ---------------------------------------------------------------------------------


def test_settings_may_be_given_as_dicts() -> None:
    settings = ModelSettings(retry={"max_retries": 3, "backoff": {"initial_delay": 1}})  # type: ignore[arg-type]

    assert settings.retry == ModelRetrySettings(3, ModelRetryBackoffSettings(initial_delay=1))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"max_retries": -1}, r"max_retries is a whole number of at least 0, not -1"),
        ({"max_retries": True}, r"max_retries is a whole number"),
        ({"max_retries": "2"}, r"max_retries is a whole number .*'2'"),
        ({"policy": 3}, r"policy is a function or one of retry_policies, not int"),
        ({"backoff": 3}, r"ModelRetrySettings\.backoff takes a ModelRetryBackoffSettings or a dict, not int"),
        ({"backoff": {"initial": 1}}, r"has no 'initial'\. Did you mean 'initial_delay'\?"),
        ({"backoff": {"initial_delay": -1}}, r"initial_delay is a number of at least 0, not -1"),
        ({"backoff": {"max_delay": float("nan")}}, r"max_delay is a number"),
        ({"backoff": {"jitter": 0.5}}, r"jitter is True, False or a function, not 0\.5"),
        ({"retries": 3}, r"ModelSettings\.retry: ModelRetrySettings has no 'retries'"),
        (5, r"ModelSettings\.retry takes a ModelRetrySettings or a dict, not int"),
    ],
)
def test_a_mistake_in_the_settings_is_told_when_they_are_made(given: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        ModelSettings(retry=given)


def test_what_a_run_sets_is_put_over_what_its_agents_set_one_by_one() -> None:
    agents = ModelSettings(
        retry=ModelRetrySettings(2, ModelRetryBackoffSettings(initial_delay=1, jitter=False), yes)
    )
    runs = ModelSettings(retry=ModelRetrySettings(5, ModelRetryBackoffSettings(max_delay=9)))

    merged = agents.resolve(runs).retry

    assert merged == ModelRetrySettings(
        5, ModelRetryBackoffSettings(initial_delay=1, max_delay=9, jitter=False), yes
    )
    assert agents.resolve(ModelSettings()).retry is agents.retry
    assert ModelSettings().resolve(runs).retry is runs.retry


def test_a_policy_has_no_json_and_is_left_out_of_it() -> None:
    settings = ModelSettings(retry=ModelRetrySettings(2, policy=yes))

    assert settings.to_json_dict()["retry"] == {"max_retries": 2, "backoff": None}
    assert ModelSettings().to_json_dict()["retry"] is None
    assert "policy" not in repr(settings.retry)


def test_a_function_in_place_of_chance_has_no_json_either() -> None:
    backoff = ModelRetryBackoffSettings(initial_delay=1, jitter=lambda: 0.5)

    assert ModelRetrySettings(backoff=backoff).to_json_dict()["backoff"] == {
        "initial_delay": 1, "max_delay": None, "multiplier": None, "jitter": True,
    }  # fmt: skip


# --- decisions --------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "retry"), [(True, True), (False, False), (None, False)])
def test_a_decision_may_be_short(said: Any, retry: bool) -> None:
    assert RetryDecision.of(said) == RetryDecision(retry)


@pytest.mark.parametrize("said", ["yes", 1, object()])
def test_what_is_no_decision_is_an_error(said: Any) -> None:
    with pytest.raises(UserError, match="True, False or a RetryDecision"):
        RetryDecision.of(said)


def test_facts_that_were_given_are_put_over_others_also_where_they_are_none() -> None:
    known = ModelRetryNormalizedError(status_code=500, message="m", is_network_error=True)

    better = ModelRetryNormalizedError(status_code=None, error_code="c").over(known)

    assert better == ModelRetryNormalizedError(None, "c", "m", is_network_error=True)


# --- policies ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "given", "retry"),
    [
        (retry_policies.never(), {}, False),
        (retry_policies.network_error(), {"facts": {"is_network_error": True}}, True),
        (retry_policies.network_error(), {"facts": {"is_timeout": True}}, True),
        (retry_policies.network_error(), {"facts": {"status_code": 500}}, False),
        (retry_policies.http_status([429, 503]), {"facts": {"status_code": 503}}, True),
        (retry_policies.http_status([429, 503]), {"facts": {"status_code": 500}}, False),
        (retry_policies.http_status({429}), {}, False),
        (retry_policies.retry_after(), {"facts": {"retry_after": 0.0}}, True),
        (retry_policies.retry_after(), {"provider_advice": ModelRetryAdvice(retry_after=2)}, True),
        (retry_policies.retry_after(), {}, False),
        (retry_policies.provider_suggested(), {"provider_advice": ModelRetryAdvice(suggested=True)}, True),
        (retry_policies.provider_suggested(), {"provider_advice": ModelRetryAdvice(suggested=False)}, False),
        (retry_policies.provider_suggested(), {"provider_advice": ModelRetryAdvice()}, False),
        (retry_policies.provider_suggested(), {}, False),
        (retry_policies.any(), {}, False),
        (retry_policies.all(), {}, False),
        (retry_policies.any(no, yes), {}, True),
        (retry_policies.all(yes, no), {}, False),
        (retry_policies.all(yes, retry_policies.any(no, wait_2_s)), {}, True),
    ],
)
async def test_each_policy_says_yes_to_what_its_name_says(policy: Any, given: Any, retry: bool) -> None:
    assert (await says(policy, **given)).retry is retry


@pytest.mark.parametrize("together", [retry_policies.any, retry_policies.all])
async def test_of_two_that_say_yes_the_later_word_counts_and_none_is_lost(together: Any) -> None:
    assert await says(together(wait_1_s, wait_2_s, yes)) == RetryDecision(True, 2, "busy", True)
    assert (await says(together(wait_2_s, wait_1_s))).delay == 1


async def test_all_asks_nobody_after_the_first_no() -> None:
    asked: list[str] = []

    def ask(name: str, said: bool) -> Any:
        return lambda _: asked.append(name) or said

    await says(retry_policies.all(ask("a", True), ask("b", False), ask("c", True)))
    assert asked == ["a", "b"]
    asked.clear()
    await says(retry_policies.any(ask("a", True), ask("b", False)))
    assert asked == ["a", "b"]


async def test_a_provider_that_advises_against_has_the_last_word_in_any() -> None:
    against = {"provider_advice": ModelRetryAdvice(suggested=False)}

    assert not (await says(retry_policies.any(yes, retry_policies.provider_suggested()), **against)).retry
    assert (await says(retry_policies.any(yes), **against)).retry


async def test_a_policy_can_be_made_to_hold_after_output_too() -> None:
    assert (await says(retry_policies.even_after_output(wait_1_s))) == RetryDecision(
        True, 1, "busy", even_after_output=True
    )
    assert await says(retry_policies.even_after_output(no)) == RetryDecision(False)
    both = retry_policies.any(yes, retry_policies.even_after_output(yes))
    assert (await says(both)).even_after_output


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: retry_policies.http_status(429), r"statuses such as \[429, 503\], not 429"),  # type: ignore[arg-type]
        (lambda: retry_policies.http_status("429"), r"statuses such as"),  # type: ignore[arg-type]
        (lambda: retry_policies.any(3), r"any takes policies, not int"),  # type: ignore[arg-type]
        (lambda: retry_policies.all(yes, None), r"all takes policies, not NoneType"),  # type: ignore[arg-type]
        (lambda: retry_policies.even_after_output(True), r"even_after_output takes policies"),  # type: ignore[arg-type]
    ],
)
def test_a_policy_of_the_wrong_parts_is_an_error_when_it_is_made(make: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        make()
    assert repr(retry_policies) == "retry_policies"
