"""Tokens that a run has used, per request and in sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openai.types.responses import ResponseUsage
    from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails


def _input_details() -> InputTokensDetails:
    from openai.types.responses.response_usage import InputTokensDetails

    return InputTokensDetails(cached_tokens=0, cache_write_tokens=0)


def _output_details() -> OutputTokensDetails:
    from openai.types.responses.response_usage import OutputTokensDetails

    return OutputTokensDetails(reasoning_tokens=0)


@dataclass
class RequestUsage:
    """Tokens of one model call."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputTokensDetails = field(default_factory=_input_details)
    output_tokens_details: OutputTokensDetails = field(default_factory=_output_details)


@dataclass
class Usage:
    """Tokens of a run so far, or of one response. Counts are tokens; `requests` counts model calls."""

    requests: int = 0
    input_tokens: int = 0
    input_tokens_details: InputTokensDetails = field(default_factory=_input_details)
    output_tokens: int = 0
    output_tokens_details: OutputTokensDetails = field(default_factory=_output_details)
    total_tokens: int = 0
    request_usage_entries: list[RequestUsage] = field(default_factory=list["RequestUsage"])
    estimated: bool = False
    """True where a server did not send its figures: some of these were counted by us, in the way
    that `millstream.models.estimate` tells, or nobody has counted them yet (all are 0).
    `requests` is exact."""

    def add(self, other: Usage) -> None:
        """Add the tokens of `other` to these; its requests are listed in `request_usage_entries`."""
        self.requests += other.requests
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.total_tokens += other.total_tokens
        self.estimated = self.estimated or other.estimated
        self.input_tokens_details = _sum_input(self.input_tokens_details, other.input_tokens_details)
        self.output_tokens_details = _sum_output(self.output_tokens_details, other.output_tokens_details)
        if other.request_usage_entries:
            self.request_usage_entries.extend(other.request_usage_entries)
        elif other.requests == 1 and other.total_tokens > 0:
            self.request_usage_entries.append(
                RequestUsage(
                    input_tokens=other.input_tokens,
                    output_tokens=other.output_tokens,
                    total_tokens=other.total_tokens,
                    input_tokens_details=other.input_tokens_details,
                    output_tokens_details=other.output_tokens_details,
                )
            )

    @classmethod
    def from_response(cls, usage: ResponseUsage | None) -> Usage:
        """Read the usage that a server sent with one response. None at all counts the request only, and is `estimated`.

        Total: what a compatible server sends in place of a number, or of an object, counts nothing.
        """
        numbers = ("input_tokens", "output_tokens", "total_tokens")
        read = _details(usage, "input_tokens_details", "cached_tokens")
        written = _details(usage, "output_tokens_details", "reasoning_tokens")
        return cls(
            requests=1,
            input_tokens=_count(usage, "input_tokens"),
            output_tokens=_count(usage, "output_tokens"),
            total_tokens=_count(usage, "total_tokens"),
            input_tokens_details=read or _input_details(),
            output_tokens_details=written or _output_details(),
            estimated=not any(isinstance(getattr(usage, name, None), int) for name in numbers),
        )

    def to_dict(self) -> dict[str, Any]:
        """The usage as plain JSON values, as it stands in events."""
        data: dict[str, Any] = {
            "requests": self.requests,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "total_tokens": self.total_tokens,
            "cached_tokens": getattr(self.input_tokens_details, "cached_tokens", 0) or 0,
            "reasoning_tokens": getattr(self.output_tokens_details, "reasoning_tokens", 0) or 0,
        }
        if self.estimated:
            data["estimated"] = True
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Usage:
        """Read what `to_dict` made. Total: what is missing, or no number, counts nothing."""

        def count(name: str) -> int:
            value = data.get(name)
            return value if isinstance(value, int) else 0

        read, written = _input_details(), _output_details()
        read.cached_tokens, written.reasoning_tokens = count("cached_tokens"), count("reasoning_tokens")
        return cls(
            requests=count("requests"),
            input_tokens=count("input_tokens"),
            input_tokens_details=read,
            output_tokens=count("output_tokens"),
            output_tokens_details=written,
            total_tokens=count("total_tokens"),
            estimated=data.get("estimated") is True,
        )


def _count(holder: Any, name: str) -> int:
    value = getattr(holder, name, None)
    return value if isinstance(value, int) else 0


def _details(usage: Any, name: str, count: str) -> Any:
    """The details of that name, if they are countable."""
    details = getattr(usage, name, None)
    return details if isinstance(getattr(details, count, None), int) else None


def _sum_input(left: InputTokensDetails, right: InputTokensDetails) -> InputTokensDetails:
    total = _input_details()
    total.cached_tokens = (left.cached_tokens or 0) + (right.cached_tokens or 0)
    total.cache_write_tokens = _cache_writes(left) + _cache_writes(right)
    return total


def _cache_writes(details: InputTokensDetails) -> int:
    # Servers that predate the field leave it out, and the types fill nothing in.
    return getattr(details, "cache_write_tokens", 0) or 0


def _sum_output(left: OutputTokensDetails, right: OutputTokensDetails) -> OutputTokensDetails:
    total = _output_details()
    total.reasoning_tokens = (left.reasoning_tokens or 0) + (right.reasoning_tokens or 0)
    return total
