"""Whether a model call that failed is tried again, and when. Decisions only: nothing here waits or asks a model.

Rules of this file:

1. A policy may say no to anything. It cannot have its way against these: no more than
   `max_retries`; never for a mistake of the program or a call that was given up on purpose.
2. What readers have seen of an answer is not told again, unless the policy says
   `even_after_output`.
3. A request to a server that keeps the history (`previous_response_id`, `conversation_id`) is
   sent again only where the model advises that this is safe: the server might have the items
   already. What a model calls unsafe needs `approve_unsafe_replay`, with or without history.
4. The wait is what the policy says, else what the server asks for (`Retry-After`), else the
   back-off.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast

from millstream.config.retry import (
    ModelRetryAdvice,
    ModelRetryAdviceRequest,
    ModelRetryBackoffSettings,
    ModelRetryNormalizedError,
    ModelRetrySettings,
    RetryDecision,
    RetryPolicyContext,
)
from millstream.context import settle
from millstream.errors import (
    AgentsException,
    ModelProtocolError,
    ModelResponseError,
    ModelTimeoutError,
    UserError,
    public_error,
)

if TYPE_CHECKING:
    from millstream.models.promise import Model

MAX_RETRIES = 2
"""Tries after the first, where nobody says how many: as many as the `openai` client makes."""

_PASSING_CODES = frozenset({"server_error", "rate_limit_exceeded", "overloaded", "timeout"})
"""Failures that a server reports inside an answer, and that a later request may well not meet again."""


@dataclass(frozen=True)
class Retry:
    """Another try: `delay` seconds after try number `attempt` failed for `reason`, which clients may read."""

    attempt: int
    delay: float
    reason: str


@dataclass
class Retries:
    """The tries of one model call.

    Args:
        settings: how often, when and on whose word; None for one try.
        model: the model, which may have advice.
        stream: whether it is asked for a stream.
        previous_response_id: what the call goes on from.
        conversation_id: the conversation that it is part of.
    """

    settings: ModelRetrySettings | None
    model: Model
    stream: bool
    previous_response_id: str | None = None
    conversation_id: str | None = None
    attempt: int = field(default=1, init=False)
    """Which try is under way, from 1."""

    async def after(self, error: Exception, *, output_started: bool, now: float) -> Retry | None:
        """What comes after a try that failed: another one, or None, and `error` ends the call.

        Args:
            error: what it failed with.
            output_started: whether readers have seen some of its answer.
            now: seconds since the epoch, as dates in `Retry-After` are told.

        Raises:
            UserError: the policy returned what is no decision.
            Exception: what the policy raised.
        """
        settings = self.settings
        if settings is None or isinstance(error, UserError):
            return None
        most = MAX_RETRIES if settings.max_retries is None else settings.max_retries
        if self.attempt > most:
            return None
        context = self._context(error, most, output_started, now)
        if context.normalized.is_abort:
            return None
        policy: Any = settings.policy or as_the_client_does
        decision = RetryDecision.of(await settle(policy(context)))
        if not decision.retry or not _is_allowed(decision, context):
            return None
        delay = wait(decision, context, settings.backoff or ModelRetryBackoffSettings(), random.random)
        self.attempt += 1
        return Retry(context.attempt, delay, decision.reason or _reason(error, context.normalized))

    def _context(self, error: Exception, most: int, output_started: bool, now: float) -> RetryPolicyContext:
        request = ModelRetryAdviceRequest(
            error, self.attempt, self.stream, self.previous_response_id, self.conversation_id
        )
        # A model that was written without this base class need not know of advice.
        adviser: Any = getattr(self.model, "get_retry_advice", None)
        advice: ModelRetryAdvice | None = None if adviser is None else adviser(request)
        facts = normalized(error, now=now)
        if advice is not None and advice.normalized is not None:
            facts = advice.normalized.over(facts)
        return RetryPolicyContext(
            error,
            self.attempt,
            most,
            self.stream,
            facts,
            advice,
            self.previous_response_id,
            self.conversation_id,
            output_started,
        )


def as_the_client_does(context: RetryPolicyContext) -> bool:
    """The policy where none is given: what the `openai` client tries again by itself."""
    advice = context.provider_advice
    if advice is not None and advice.suggested is not None:
        return advice.suggested
    facts = context.normalized
    return facts.is_network_error or facts.is_timeout or _passes_by(facts.status_code)


def _is_allowed(decision: RetryDecision, context: RetryPolicyContext) -> bool:
    if context.output_started and not decision.even_after_output:
        return False
    if context.replay_safety == "unsafe":
        return decision.approve_unsafe_replay
    return context.replay_safety == "safe" or not context.stateful_request


def wait(
    decision: RetryDecision,
    context: RetryPolicyContext,
    backoff: ModelRetryBackoffSettings,
    chance: Callable[[], float],
) -> float:
    """Seconds to wait before the next try. `chance` gives numbers from 0 to 1."""
    for said in (decision.delay, context.asked_to_wait):
        if said is not None and math.isfinite(said):
            return max(said, 0.0)
    initial = 0.25 if backoff.initial_delay is None else backoff.initial_delay
    longest = 2.0 if backoff.max_delay is None else backoff.max_delay
    multiplier = 2.0 if backoff.multiplier is None else backoff.multiplier
    try:
        delay = min(initial * multiplier ** (context.attempt - 1), longest)
    except OverflowError:
        delay = longest
    if backoff.jitter is False:
        return delay
    return delay * (0.875 + 0.25 * (backoff.jitter if callable(backoff.jitter) else chance)())


# --- what is known of a failure ---------------------------------------------------------------


def normalized(error: Exception, *, now: float) -> ModelRetryNormalizedError:
    """What is known of `error`; `now` is in seconds since the epoch."""
    headers = _headers(error)
    status = getattr(error, "status_code", None)
    timed_out = isinstance(error, TimeoutError | ModelTimeoutError) or "Timeout" in type(error).__name__
    return ModelRetryNormalizedError(
        status_code=status if isinstance(status, int) else None,
        error_code=_code(error),
        message=_text(error),
        request_id=getattr(error, "request_id", None) or headers.get("x-request-id"),
        retry_after=retry_after(headers, now=now),
        is_abort=False,
        is_network_error=timed_out or _is_network_error(error),
        is_timeout=timed_out,
    )


def advice_of_client(request: ModelRetryAdviceRequest, *, now: float) -> ModelRetryAdvice | None:
    """What a failure behind an `AsyncOpenAI` says of trying again: by its status, its headers, its kind."""
    error = request.error
    facts = normalized(error, now=now)
    if facts.status_code is not None:
        return _advice_of_status(facts, _headers(error).get("x-should-retry"))
    if facts.error_code in _PASSING_CODES:
        return ModelRetryAdvice(suggested=True)
    if facts.is_network_error:
        # Whether the server has the request, nobody knows.
        return ModelRetryAdvice(suggested=True)
    return None


def _advice_of_status(facts: ModelRetryNormalizedError, said: str | None) -> ModelRetryAdvice:
    if said == "false":
        return ModelRetryAdvice(suggested=False, retry_after=facts.retry_after)
    if said == "true" or _passes_by(facts.status_code):
        # A server that answers with a status has not begun to answer the request.
        return ModelRetryAdvice(suggested=True, retry_after=facts.retry_after, replay_safety="safe")
    return ModelRetryAdvice(retry_after=facts.retry_after)


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds that a server asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date."""
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    said = headers.get("retry-after")
    seconds = _seconds(said)
    if seconds is not None or said is None:
        return seconds
    try:
        return max(parsedate_to_datetime(said).timestamp() - now, 0.0)
    except (ValueError, OverflowError, OSError):  # neither
        return None


def _seconds(said: str | None) -> float | None:
    try:
        seconds = float(said or "")
    except ValueError:
        return None
    return seconds if seconds >= 0 and math.isfinite(seconds) else None


def _passes_by(status: int | None) -> bool:
    return status is not None and (status in (408, 409, 429) or status >= 500)


def _is_network_error(error: Exception) -> bool:
    if isinstance(error, ConnectionError):
        return True
    if isinstance(error, ModelProtocolError):
        return error.cut_off
    # Not imported for this: where nobody has, the error cannot be one of its own.
    openai: Any = sys.modules.get("openai")
    if openai is not None and isinstance(error, openai.APIConnectionError):
        return True
    return any(base.__name__ in _TRANSPORT_ERRORS for base in type(error).__mro__)


_TRANSPORT_ERRORS = frozenset({"TransportError", "ClientConnectionError", "ClientPayloadError"})
"""The bases of what HTTP clients (httpx and its kin, aiohttp) raise where the line is at fault."""


def _headers(error: Exception) -> Mapping[str, str]:
    headers = getattr(getattr(error, "response", None), "headers", None)
    return cast("Mapping[str, str]", headers) if headers is not None and hasattr(headers, "get") else {}


def _code(error: Exception) -> str | None:
    if isinstance(error, ModelResponseError):
        return error.error_code
    # The `code` of our other exceptions is for clients, and says nothing of the server.
    code = None if isinstance(error, AgentsException) else getattr(error, "code", None)
    return code if isinstance(code, str) else None


def _text(error: Exception) -> str | None:
    try:
        return str(error)
    except Exception:
        return None


def _reason(error: Exception, facts: ModelRetryNormalizedError) -> str:
    """Why, without a word of the exception's own: what the log has, clients may read."""
    code = public_error(error).code
    if code == AgentsException.code and facts.is_network_error:  # of a library that we do not know
        code = "model_unavailable"
    return code if facts.status_code is None else f"{code} ({facts.status_code})"
