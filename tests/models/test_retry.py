"""Whether a call that failed is tried again: the decisions, without a run, a server or a clock."""

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import httpx2
import openai
import pytest

from millstream import (
    ModelRetryAdvice,
    ModelRetryAdviceRequest,
    ModelRetryBackoffSettings,
    ModelRetryNormalizedError,
    ModelRetrySettings,
    RetryDecision,
    RetryPolicyContext,
    retry_policies,
)
from millstream.errors import (
    AgentsException,
    ModelBehaviorError,
    ModelProtocolError,
    ModelResponseError,
    ModelTimeoutError,
    UserError,
)
from millstream.models.retry import Retries, Retry, advice_of_client, normalized, retry_after
from millstream.models.retry import wait as wait_before_retry

NOW = 1_800_000_000.0
REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1/responses")
STEADY = ModelRetryBackoffSettings(jitter=False)


def status(code: int, body: Any = None, **headers: str) -> openai.APIStatusError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx2.Response(code, headers=named, request=REQUEST)
    return openai.APIStatusError(f"status {code}", response=response, body=body)


def yes(_: object) -> bool:
    return True


class Adviser:
    """A model that has advice."""

    def __init__(self, advice: ModelRetryAdvice | None = None) -> None:
        self.advice = advice
        self.asked: list[ModelRetryAdviceRequest] = []

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        self.asked.append(request)
        return self.advice


async def decide(
    error: Exception,
    policy: Any = yes,
    advice: ModelRetryAdvice | None = None,
    *,
    output_started: bool = False,
    **call: Any,
) -> Retry | None:
    settings = ModelRetrySettings(2, STEADY, policy)
    retries = Retries(settings, Adviser(advice), True, **call)  # type: ignore[arg-type]
    return await retries.after(error, output_started=output_started, now=NOW)


# --- how often --------------------------------------------------------------------------------


async def test_there_are_no_more_tries_than_the_settings_allow() -> None:
    retries = Retries(ModelRetrySettings(3, STEADY, yes), Adviser(), True)  # type: ignore[arg-type]

    tries = [await retries.after(OSError(), output_started=False, now=NOW) for _ in range(4)]

    assert [(t.attempt, t.delay) if t else None for t in tries] == [(1, 0.25), (2, 0.5), (3, 1.0), None]


@pytest.mark.parametrize(
    ("settings", "most"), [(None, 0), (ModelRetrySettings(0), 0), (ModelRetrySettings(), 2)]
)
async def test_without_a_number_it_is_as_many_as_the_client_makes(settings: Any, most: int) -> None:
    retries = Retries(settings, Adviser(), False)  # type: ignore[arg-type]

    count = 0
    while await retries.after(status(503), output_started=False, now=NOW):
        count += 1

    assert count == most


async def test_a_policy_is_told_what_there_is_to_know() -> None:
    seen: list[RetryPolicyContext] = []
    error, advice = status(503, retry_after="7"), ModelRetryAdvice(suggested=True, replay_safety="safe")
    model = Adviser(advice)
    settings = ModelRetrySettings(4, policy=lambda context: seen.append(context) or True)
    retries = Retries(settings, model, True, "resp_1", "conv_1")  # type: ignore[arg-type]

    await retries.after(error, output_started=True, now=NOW)

    (told,) = seen
    assert (told.error, told.attempt, told.max_retries, told.stream) == (error, 1, 4, True)
    assert (told.previous_response_id, told.conversation_id) == ("resp_1", "conv_1")
    assert (told.provider_advice, told.output_started, told.asked_to_wait) == (advice, True, 7.0)
    assert (told.stateful_request, told.replay_safety, told.response_started) == (True, "safe", False)
    assert model.asked == [ModelRetryAdviceRequest(error, 1, True, "resp_1", "conv_1")]


@pytest.mark.parametrize(
    ("advice", "safety", "started"),
    [
        (None, "unknown", False),
        (ModelRetryAdvice(), "unknown", False),
        (ModelRetryAdvice(replay_safety="perhaps"), "unknown", False),
        (ModelRetryAdvice(replay_safety="unsafe", response_started=True), "unsafe", True),
    ],
)
@pytest.mark.parametrize(
    ("ids", "stateful"), [(("", None), False), ((None, "conv_1"), True), (("resp_1",), True)]
)
def test_a_policy_is_told_in_short_what_the_advice_and_the_ids_mean(
    advice: Any, safety: str, started: bool, ids: tuple[Any, ...], stateful: bool
) -> None:
    context = RetryPolicyContext(status(503), 1, 2, True, ModelRetryNormalizedError(), advice, *ids)

    assert (context.replay_safety, context.response_started, context.stateful_request) == (
        safety,
        started,
        stateful,
    )


async def test_a_model_that_knows_nothing_of_advice_is_not_asked() -> None:
    retries = Retries(ModelRetrySettings(1, STEADY), object(), False)  # type: ignore[arg-type]

    assert await retries.after(status(500), output_started=False, now=NOW) == Retry(
        1, 0.25, "model_unavailable (500)"
    )


# --- whether ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (openai.APIConnectionError(request=REQUEST), True),
        (openai.APITimeoutError(REQUEST), True),
        (ModelTimeoutError(5), True),
        (ModelProtocolError("cut", cut_off=True), True),
        (ConnectionResetError(), True),
        (status(408), True),
        (status(409), True),
        (status(429), True),
        (status(500), True),
        (status(599), True),
        (status(400), False),
        (status(401), False),
        (status(404), False),
        (ModelProtocolError("damaged"), False),
        (ModelBehaviorError("nonsense"), False),
        (ValueError("a bug"), False),
        (FileNotFoundError("a file"), False),
    ],
    ids=repr,
)
async def test_without_a_policy_it_is_what_the_client_tries_again(error: Exception, again: bool) -> None:
    assert (await decide(error, None) is not None) is again


async def test_without_a_policy_advice_goes_before_the_kind_of_the_failure() -> None:
    assert await decide(ValueError(), None, ModelRetryAdvice(suggested=True))
    assert not await decide(status(500), None, ModelRetryAdvice(suggested=False))


async def test_a_mistake_of_the_program_is_not_repeated_whatever_the_policy_says() -> None:
    assert await decide(UserError("no")) is None
    assert await decide(ValueError("some bug of the model's"), yes) is not None


async def test_a_call_that_was_given_up_on_purpose_is_not_tried_again() -> None:
    given_up = ModelRetryAdvice(normalized=ModelRetryNormalizedError(is_abort=True))

    assert await decide(status(500), yes, given_up) is None


async def test_facts_of_the_model_are_put_over_what_the_error_tells() -> None:
    says_503 = ModelRetryAdvice(normalized=ModelRetryNormalizedError(status_code=503))

    assert await decide(ValueError(), retry_policies.http_status([503]), says_503)


async def test_after_output_only_a_policy_that_says_so_is_followed() -> None:
    assert await decide(OSError(), yes, output_started=True) is None
    assert await decide(OSError(), retry_policies.even_after_output(yes), output_started=True)


@pytest.mark.parametrize("call", [{"previous_response_id": "r"}, {"conversation_id": "c"}])
@pytest.mark.parametrize(
    ("safety", "approved", "again"),
    [
        (None, False, False),
        (None, True, False),
        ("safe", False, True),
        ("unsafe", False, False),
        ("unsafe", True, True),
    ],
)
async def test_where_a_server_keeps_the_history_only_what_is_safe_is_sent_again(
    call: Any, safety: str | None, approved: bool, again: bool
) -> None:
    def policy(_: object) -> RetryDecision:
        return RetryDecision(True, approve_unsafe_replay=approved)

    advice = ModelRetryAdvice(suggested=True, replay_safety=safety)

    assert (await decide(status(500), policy, advice, **call) is not None) is again


async def test_what_a_model_calls_unsafe_needs_approval_also_without_history() -> None:
    unsafe = ModelRetryAdvice(replay_safety="unsafe")

    assert await decide(OSError(), yes, unsafe) is None
    assert await decide(OSError(), lambda _: RetryDecision(True, approve_unsafe_replay=True), unsafe)


@pytest.mark.parametrize("said", ["yes", 1])
async def test_a_policy_that_decides_nothing_is_an_error(said: Any) -> None:
    with pytest.raises(UserError, match="RetryDecision is due"):
        await decide(OSError(), lambda _: said)


# --- when -------------------------------------------------------------------------------------


def waits(decision: RetryDecision, attempt: int = 1, backoff: Any = STEADY, **facts: Any) -> float:
    advice = facts.pop("advice", None)
    context = RetryPolicyContext(
        OSError(), attempt, 9, False, ModelRetryNormalizedError(**facts), provider_advice=advice
    )
    return wait_before_retry(decision, context, backoff, lambda: 1.0)


def test_the_policys_word_goes_before_the_servers_and_that_before_the_back_off() -> None:
    advice = ModelRetryAdvice(retry_after=4)

    assert waits(RetryDecision(True, delay=9), retry_after=3, advice=advice) == 9
    assert waits(RetryDecision(True, delay=-1), retry_after=3) == 0
    assert waits(RetryDecision(True), retry_after=3, advice=advice) == 4
    assert waits(RetryDecision(True), retry_after=3) == 3
    assert waits(RetryDecision(True, delay=float("nan"))) == 0.25


def test_the_back_off_grows_to_its_end() -> None:
    backoff = ModelRetryBackoffSettings(1, 5, 3, jitter=False)

    assert [waits(RetryDecision(True), n) for n in (1, 2, 3, 4, 5, 5000)] == [0.25, 0.5, 1, 2, 2, 2]
    assert [waits(RetryDecision(True), n, backoff) for n in (1, 2, 3)] == [1, 3, 5]


def test_chance_makes_a_wait_an_eighth_longer_or_shorter_and_may_be_replaced() -> None:
    draws = iter([0.0, 0.5, 1.0])
    drawn = ModelRetryBackoffSettings(initial_delay=8, max_delay=8, jitter=lambda: next(draws))

    assert [waits(RetryDecision(True), 1, drawn) for _ in range(3)] == [7, 8, 9]
    assert waits(RetryDecision(True), 1, ModelRetryBackoffSettings(8, 8)) == 9
    assert waits(RetryDecision(True), 1, ModelRetryBackoffSettings(8, 8, jitter=True)) == 9


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "2", "retry-after-ms": "700"}, 0.7),
        ({"retry-after": "2", "retry-after-ms": "soon"}, 2),
        ({"retry-after": format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True)}, 90),
        ({"retry-after": format_datetime(datetime.fromtimestamp(NOW - 90, UTC), usegmt=True)}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
    ],
)
def test_what_a_server_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=NOW) == seconds


# --- what is known of a failure ---------------------------------------------------------------


def test_a_status_tells_its_code_its_request_and_how_long_to_wait() -> None:
    error = status(429, {"code": "rate_limit"}, retry_after="3", x_request_id="req_1")

    assert normalized(error, now=NOW) == ModelRetryNormalizedError(
        status_code=429, error_code="rate_limit", message="status 429", request_id="req_1", retry_after=3
    )


@pytest.mark.parametrize(
    ("error", "network", "timeout"),
    [
        (openai.APIConnectionError(request=REQUEST), True, False),
        (openai.APITimeoutError(REQUEST), True, True),
        (TimeoutError(), True, True),
        (ModelTimeoutError(3), True, True),
        (ConnectionResetError(), True, False),
        (httpx2.ConnectError("x"), True, False),
        (httpx2.ReadTimeout("x"), True, True),
        (httpx2.RemoteProtocolError("x"), True, False),
        (ModelProtocolError("x", cut_off=True), True, False),
        (ModelProtocolError("x"), False, False),
        (ValueError("x"), False, False),
    ],
    ids=repr,
)
def test_a_failure_of_the_line_is_known_whoever_tells_it(error: Any, network: bool, timeout: bool) -> None:
    facts = normalized(error, now=NOW)

    assert (facts.is_network_error, facts.is_timeout) == (network, timeout)


def test_the_code_of_a_failure_is_the_servers_not_the_one_for_clients() -> None:
    assert (
        normalized(ModelResponseError("m", error_code="server_error"), now=NOW).error_code == "server_error"
    )
    assert normalized(AgentsException("m"), now=NOW).error_code is None


def test_an_error_that_cannot_be_told_has_no_message() -> None:
    class Dumb(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert normalized(Dumb(), now=NOW).message is None


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (status(500), ModelRetryAdvice(suggested=True, replay_safety="safe")),
        (status(429, retry_after="2"), ModelRetryAdvice(True, 2.0, "safe")),
        (status(400), ModelRetryAdvice()),
        (status(400, retry_after="2"), ModelRetryAdvice(retry_after=2.0)),
        (status(400, x_should_retry="true"), ModelRetryAdvice(suggested=True, replay_safety="safe")),
        (status(500, x_should_retry="false"), ModelRetryAdvice(suggested=False)),
        (openai.APIConnectionError(request=REQUEST), ModelRetryAdvice(suggested=True)),
        (ModelResponseError("m", error_code="server_error"), ModelRetryAdvice(suggested=True)),
        (ModelResponseError("m", error_code="invalid_prompt"), None),
        (ValueError("x"), None),
    ],
    ids=repr,
)
def test_the_advice_of_models_behind_a_client(error: Exception, advice: ModelRetryAdvice | None) -> None:
    assert advice_of_client(ModelRetryAdviceRequest(error, 1, False), now=NOW) == advice


async def test_why_it_is_tried_again_has_nothing_of_the_errors_own_text() -> None:
    secret = ValueError("password: hunter2")

    told = [
        await decide(secret),
        await decide(status(429)),
        await decide(OSError("/home/me"), lambda _: RetryDecision(True, reason="the line is bad today")),
    ]

    assert [retry.reason if retry else None for retry in told] == [
        "internal",
        "model_unavailable (429)",
        "the line is bad today",
    ]
