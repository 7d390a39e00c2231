"""Tries again: which failures of a model are given another try, and what is seen of it."""

from typing import Any

from tests.differential.kit import Case, Kit, scenario

BACKOFF = {"initial_delay": 0.0, "max_delay": 0.0, "jitter": False}


def retrying(kit: Kit, *steps: Any, policy: Any, retries: int = 2) -> Case:
    """A run whose model answers by `steps`, with so many more tries at each call."""
    retry = kit.ModelRetrySettings(max_retries=retries, backoff=BACKOFF, policy=policy)
    settings = kit.ModelSettings(retry=retry)
    return Case(kit.Agent(name="A", model=kit.script(*steps), model_settings=settings))


class BusyError(Exception):
    """What a model raises that is too busy."""

    status_code = 503


def noted(kit: Kit, decision: Any) -> Any:
    def policy(context: Any) -> Any:
        kit.note(type(context.error).__name__, context.attempt, context.max_retries, context.stream)
        kit.note(context.normalized.is_network_error, context.normalized.status_code)
        return decision

    return policy


@scenario
def a_try_that_helps(kit: Kit) -> Case:
    return retrying(kit, BusyError("no line"), [kit.say("Hello.")], policy=noted(kit, True))


@scenario
def tries_that_do_not_help(kit: Kit) -> Case:
    return retrying(kit, *[BusyError(f"no line {n}") for n in range(3)], policy=noted(kit, True))


@scenario
def a_policy_that_says_no(kit: Kit) -> Case:
    return retrying(kit, BusyError("no line"), [kit.say("Hello.")], policy=noted(kit, False))


@scenario
def a_policy_that_gives_a_decision(kit: Kit) -> Case:
    decision = kit.RetryDecision(retry=True, delay=0.0, reason="why not")
    return retrying(kit, BusyError("no line"), [kit.say("Hello.")], policy=noted(kit, decision))


@scenario
def a_policy_that_is_a_coroutine(kit: Kit) -> Case:
    async def policy(context: Any) -> bool:
        return context.attempt < 2

    errors = [BusyError(f"no line {n}") for n in range(2)]
    return retrying(kit, *errors, [kit.say("Hello.")], policy=policy)


@scenario
def no_tries_without_a_policy(kit: Kit) -> Case:
    return retrying(kit, BusyError("no line"), [kit.say("Hello.")], policy=None)


@scenario
def a_policy_that_never_tries(kit: Kit) -> Case:
    policy = kit.retry_policies.never()
    return retrying(kit, BusyError("no line"), [kit.say("Hello.")], policy=policy)


@scenario
def a_policy_for_other_errors(kit: Kit) -> Case:
    policy = kit.retry_policies.any(kit.retry_policies.network_error(), kit.retry_policies.http_status([503]))
    return retrying(kit, ValueError("not the line"), [kit.say("Hello.")], policy=policy)


@scenario
def a_model_that_advises_a_try(kit: Kit) -> Case:
    advice = kit.ModelRetryAdvice(suggested=True, retry_after=0.0)
    step = kit.ModelStep.raise_error(BusyError("no line"), retry_advice=advice)
    return retrying(kit, step, [kit.say("Hello.")], policy=kit.retry_policies.provider_suggested())


@scenario
def a_model_that_advises_against_a_try(kit: Kit) -> Case:
    advice = kit.ModelRetryAdvice(suggested=False)
    step = kit.ModelStep.raise_error(BusyError("no line"), retry_advice=advice)
    return retrying(kit, step, [kit.say("Hello.")], policy=noted(kit, True))


@scenario
def a_try_in_the_second_turn(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        kit.note("looked")
        return "seen"

    policy = noted(kit, True)
    case = retrying(kit, [kit.call("look")], BusyError("no line"), [kit.say("Seen.")], policy=policy)
    case.agent.tools = [look]
    return case


@scenario
def no_more_tries_than_allowed(kit: Kit) -> Case:
    return retrying(kit, BusyError("no line"), [kit.say("Hello.")], policy=noted(kit, True), retries=0)


@scenario
def a_policy_for_a_status(kit: Kit) -> Case:
    return retrying(kit, BusyError("busy"), [kit.say("Hello.")], policy=kit.retry_policies.http_status([503]))


@scenario
def a_line_that_broke(kit: Kit) -> Case:
    error = ConnectionError("no line")
    return retrying(kit, error, [kit.say("Hello.")], policy=kit.retry_policies.network_error())


@scenario
def a_users_mistake_that_is_tried_again(kit: Kit) -> Case:
    return retrying(kit, kit.UserError("not like this"), [kit.say("Hello.")], policy=noted(kit, True))
