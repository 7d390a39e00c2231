"""When a model call that failed is tried again: the settings, and the policies that decide.

Descriptions only. What is made of them stands in `models/retry.py`, and is acted on in one
place of the loop.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from millstream.config.coerce import from_dict
from millstream.context import settle
from millstream.errors import UserError


@dataclass
class ModelRetryBackoffSettings:
    """How long to wait before a try, where neither the policy nor the server says.

    The first wait is `initial_delay`, each one after it `multiplier` times as long, none longer
    than `max_delay`; None is 0.25 s, 2 and 2 s.
    """

    initial_delay: float | None = None
    max_delay: float | None = None
    multiplier: float | None = None
    jitter: bool | Callable[[], float] | None = None
    """Whether a wait is made up to an eighth longer or shorter, so that many runs do not come back
    at once; None does. A function that returns numbers from 0 to 1 takes the place of chance."""

    def __post_init__(self) -> None:
        for name in ("initial_delay", "max_delay", "multiplier"):
            value: Any = getattr(self, name)
            if value is not None and not (_is_number(value) and value >= 0):
                raise UserError(f"ModelRetryBackoffSettings.{name} is a number of at least 0, not {value!r}.")
        jitter: Any = self.jitter
        if not (jitter is None or isinstance(jitter, bool) or callable(jitter)):
            raise UserError(f"ModelRetryBackoffSettings.jitter is True, False or a function, not {jitter!r}.")

    def to_json_dict(self) -> dict[str, Any]:
        """The settings as JSON values; a function in place of chance has none, and is told as True."""
        jitter = True if callable(self.jitter) else self.jitter
        return {**dataclasses.asdict(self), "jitter": jitter}


@dataclass
class ModelRetrySettings:
    """How often a model call is tried again, after what wait, and on whose word. A dict of the fields will do.

    Where these settings are given, the client's own retries are off for the call: two who try
    again would multiply.
    """

    max_retries: int | None = None
    """Tries after the first; None is 2."""
    backoff: ModelRetryBackoffSettings | None = None
    policy: RetryPolicy | None = field(default=None, repr=False)
    """Says whether to try again. None does what the `openai` client does: after connections that fail,
    the statuses 408, 409, 429 and those from 500 on, and where the server itself says so."""

    def __post_init__(self) -> None:
        if self.backoff is not None:
            self.backoff = from_dict(ModelRetryBackoffSettings, self.backoff, "ModelRetrySettings.backoff")
        retries: Any = self.max_retries
        if retries is not None and (isinstance(retries, bool) or not isinstance(retries, int) or retries < 0):
            raise UserError(
                f"ModelRetrySettings.max_retries is a whole number of at least 0, not {retries!r}."
            )
        policy: Any = self.policy
        if policy is not None and not callable(policy):
            raise UserError(
                f"ModelRetrySettings.policy is a function or one of retry_policies, not {type(policy).__name__}."
            )

    def resolve(self, override: ModelRetrySettings) -> ModelRetrySettings:
        """These settings, with what `override` sets put over them, back-off by back-off setting."""
        backoff = override.backoff
        if backoff is not None and self.backoff is not None:
            backoff = _over(self.backoff, backoff)
        return _over(self, dataclasses.replace(override, backoff=backoff))

    def to_json_dict(self) -> dict[str, Any]:
        """The settings as JSON values, without the policy, which has none."""
        backoff = None if self.backoff is None else self.backoff.to_json_dict()
        return {"max_retries": self.max_retries, "backoff": backoff}


def _over(base: Any, override: Any) -> Any:
    given = {f.name: getattr(override, f.name) for f in dataclasses.fields(override)}
    return dataclasses.replace(base, **{name: value for name, value in given.items() if value is not None})


# --- what a policy is asked with --------------------------------------------------------------

_LEFT_OUT: Any = object()


@dataclass(init=False)
class ModelRetryNormalizedError:
    """What is known of a failure, whatever its class."""

    status_code: int | None
    error_code: str | None
    message: str | None
    request_id: str | None
    retry_after: float | None
    """Seconds that the server asks to wait."""
    is_abort: bool
    """Whether the call was given up on purpose: then it is never tried again."""
    is_network_error: bool
    """Whether the connection failed, or nothing came over it in time."""
    is_timeout: bool

    def __init__(
        self,
        status_code: int | None = _LEFT_OUT,
        error_code: str | None = _LEFT_OUT,
        message: str | None = _LEFT_OUT,
        request_id: str | None = _LEFT_OUT,
        retry_after: float | None = _LEFT_OUT,
        is_abort: bool = _LEFT_OUT,
        is_network_error: bool = _LEFT_OUT,
        is_timeout: bool = _LEFT_OUT,
    ) -> None:
        """Take the facts. What is left out is unknown: where an adviser is asked, his None replaces ours."""
        facts: list[tuple[str, Any, Any]] = [
            ("status_code", status_code, None),
            ("error_code", error_code, None),
            ("message", message, None),
            ("request_id", request_id, None),
            ("retry_after", retry_after, None),
            ("is_abort", is_abort, False),
            ("is_network_error", is_network_error, False),
            ("is_timeout", is_timeout, False),
        ]
        self._given: dict[str, Any] = {name: value for name, value, _ in facts if value is not _LEFT_OUT}
        for name, value, otherwise in facts:
            setattr(self, name, otherwise if value is _LEFT_OUT else value)

    def over(self, base: ModelRetryNormalizedError) -> ModelRetryNormalizedError:
        """What is known of `base`, with what was given here put over it."""
        return ModelRetryNormalizedError(**(base._given | self._given))


@dataclass
class ModelRetryAdviceRequest:
    """What a model is asked for advice with: its own failure."""

    error: Exception
    attempt: int
    """Which try has failed, from 1."""
    stream: bool
    previous_response_id: str | None = None
    conversation_id: str | None = None


@dataclass
class ModelRetryAdvice:
    """What a model, or the server behind it, says of a failure of its own."""

    suggested: bool | None = None
    """Whether to try again; None where nothing is known."""
    retry_after: float | None = None
    replay_safety: str | None = None
    """ "safe": the server has not acted on the request. "unsafe": it may have. None: not known."""
    reason: str | None = None
    normalized: ModelRetryNormalizedError | None = None
    response_started: bool = False


@dataclass
class RetryPolicyContext:
    """What a policy is asked with."""

    error: Exception
    attempt: int
    """Which try has failed, from 1."""
    max_retries: int
    stream: bool
    normalized: ModelRetryNormalizedError
    provider_advice: ModelRetryAdvice | None = None
    previous_response_id: str | None = None
    conversation_id: str | None = None
    output_started: bool = False
    """Whether readers have seen some of the answer: then only `RetryDecision.even_after_output` helps."""

    @property
    def stateful_request(self) -> bool:
        """Whether the server keeps the history that the request goes on from."""
        return bool(self.previous_response_id or self.conversation_id)

    @property
    def replay_safety(self) -> str:
        """What the model says of sending the request again: "safe", "unsafe", or else "unknown"."""
        said = None if self.provider_advice is None else self.provider_advice.replay_safety
        return said if said in ("safe", "unsafe") else "unknown"

    @property
    def response_started(self) -> bool:
        """Whether the model says that its answer had begun."""
        return self.provider_advice is not None and self.provider_advice.response_started

    @property
    def asked_to_wait(self) -> float | None:
        """Seconds that the model, or the server behind it, asks to wait; None where neither says."""
        advice = self.provider_advice
        if advice is not None and advice.retry_after is not None:
            return advice.retry_after
        return self.normalized.retry_after


@dataclass
class RetryDecision:
    """What a policy says. True and False are short for it."""

    retry: bool
    delay: float | None = None
    """Seconds to wait; None leaves it to the server's `Retry-After`, then to the back-off."""
    reason: str | None = None
    """Stands in `model.retried`, where clients may read it."""
    approve_unsafe_replay: bool = False
    """Try again although the model says that the server may have acted on the request."""
    even_after_output: bool = field(default=False, kw_only=True)
    """Try again although readers have seen some of the answer, which is superseded then."""
    _veto: bool = field(default=False, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, said: Any) -> RetryDecision:
        """What a policy returned, as a decision.

        Raises:
            UserError: it is none.
        """
        if isinstance(said, RetryDecision):
            return said
        if said is None or isinstance(said, bool):
            return cls(bool(said))
        raise UserError(
            f"A retry policy returned a {type(said).__name__}: True, False or a RetryDecision is due."
        )

    def and_then(self, later: RetryDecision) -> RetryDecision:
        """Both of two that say yes: what the later one says goes before."""
        return RetryDecision(
            True,
            self.delay if later.delay is None else later.delay,
            self.reason if later.reason is None else later.reason,
            self.approve_unsafe_replay or later.approve_unsafe_replay,
            even_after_output=self.even_after_output or later.even_after_output,
        )


RetryPolicy: TypeAlias = Callable[
    [RetryPolicyContext], "Awaitable[bool | RetryDecision] | bool | RetryDecision"
]
"""Says whether a model call is tried again. May be async."""


# --- ready-made policies ----------------------------------------------------------------------


class _RetryPolicies:
    """Policies to take, and to put together."""

    def never(self) -> RetryPolicy:
        """Do not try again."""
        return lambda _: False

    def provider_suggested(self) -> RetryPolicy:
        """Where the model's server says so. Where it says the contrary, also against others in `any()`."""

        def policy(context: RetryPolicyContext) -> RetryDecision:
            advice = context.provider_advice
            decision = RetryDecision(advice is not None and advice.suggested is True)
            decision._veto = advice is not None and advice.suggested is False  # pyright: ignore[reportPrivateUsage]
            return decision

        return policy

    def network_error(self) -> RetryPolicy:
        """Where the connection failed, or nothing came over it in time."""
        return lambda context: context.normalized.is_network_error or context.normalized.is_timeout

    def http_status(self, statuses: Iterable[int]) -> RetryPolicy:
        """Where the server answered with one of these statuses.

        Raises:
            UserError: they are no whole numbers.
        """
        given: Any = statuses
        wanted = frozenset(cast("Iterable[Any]", given)) if isinstance(given, Iterable) else frozenset({None})
        if not all(isinstance(status, int) for status in wanted):
            raise UserError(
                f"retry_policies.http_status takes statuses such as [429, 503], not {statuses!r}."
            )
        return lambda context: context.normalized.status_code in wanted

    def retry_after(self) -> RetryPolicy:
        """Where the server says how long to wait."""
        return lambda context: context.asked_to_wait is not None

    def any(self, *policies: RetryPolicy) -> RetryPolicy:
        """Where one of `policies` says yes. All are asked; a delay of a later one goes before."""
        _check_policies("any", policies)

        async def policy(context: RetryPolicyContext) -> RetryDecision:
            said = [RetryDecision.of(await settle(cast("Any", each)(context))) for each in policies]
            together = RetryDecision(False)
            for decision in said:
                if decision._veto:  # pyright: ignore[reportPrivateUsage]
                    return decision
                if decision.retry:
                    together = together.and_then(decision)
            return together

        return policy

    def all(self, *policies: RetryPolicy) -> RetryPolicy:
        """Where all of `policies` say yes, and there is one. The first no is the last to be asked."""
        _check_policies("all", policies)

        async def policy(context: RetryPolicyContext) -> RetryDecision:
            together = RetryDecision(False)
            for each in policies:
                decision = RetryDecision.of(await settle(cast("Any", each)(context)))
                if not decision.retry:
                    return decision
                together = together.and_then(decision)
            return together

        return policy

    def even_after_output(self, policy: RetryPolicy) -> RetryPolicy:
        """Where `policy` says yes, also when readers have seen some of the answer: it is superseded then."""
        _check_policies("even_after_output", (policy,))

        async def also(context: RetryPolicyContext) -> RetryDecision:
            decision = RetryDecision.of(await settle(cast("Any", policy)(context)))
            return dataclasses.replace(decision, even_after_output=True) if decision.retry else decision

        return also

    def __repr__(self) -> str:
        return "retry_policies"


retry_policies = _RetryPolicies()
"""Policies for `ModelRetrySettings.policy`."""


def _check_policies(name: str, policies: Iterable[Any]) -> None:
    for policy in policies:
        if not callable(policy):
            raise UserError(f"retry_policies.{name} takes policies, not {type(policy).__name__}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
