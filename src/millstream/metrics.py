"""What is counted for operators, by the API of OpenTelemetry, and how each number is called.

Rules of this file:

1. The program chooses where numbers go: they go to its global `MeterProvider`. Where nobody has loaded the
   API of OpenTelemetry, nobody can have chosen, and nothing is done.
2. Nothing is counted per token: per run, per reader, per read at most.
3. No attribute takes a value that a client can choose freely: each value is a series that somebody pays for.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from millstream.about import __version__

Transport: TypeAlias = Literal["sse", "websocket"]
"""How a stream is sent."""

Sample: TypeAlias = "tuple[int, Mapping[str, str]]"
"""What a state is at the moment, and its attributes."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""The bounds of a histogram: a first word takes milliseconds or seconds, a run may take half an hour."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One of the numbers."""

    kind: Literal["counter", "histogram", "observable_up_down_counter", "observable_gauge"]
    name: str
    unit: str
    description: str


RUNS = Instrument(
    "observable_up_down_counter", "millstream.run.active", "{run}", "Runs that this process runs."
)
DURATION = Instrument(
    "histogram", "millstream.run.duration", "s", "How long runs took in this process, by how they ended."
)
FIRST_EVENT = Instrument(
    "histogram",
    "millstream.run.time_to_first_event",
    "s",
    "From the request that begins a run to its first event in the log.",
)
FIRST_TEXT = Instrument(
    "histogram",
    "millstream.run.time_to_first_text",
    "s",
    "From the request that begins a run to the first text of its answer in the log.",
)
TAKEOVERS = Instrument(
    "counter", "millstream.run.takeovers", "{run}", "Runs of another process that this one went on with."
)
STREAMS = Instrument(
    "observable_up_down_counter",
    "millstream.stream.active",
    "{stream}",
    "Streams that clients follow in this process.",
)
LAG = Instrument(
    "observable_gauge",
    "millstream.stream.lag",
    "{event}",
    "How many events the stream that is furthest behind is behind its run.",
)
DROPPED = Instrument(
    "counter",
    "millstream.stream.dropped",
    "{stream}",
    "Streams that were let go because their client took nothing.",
)
BAD_FIELDS = Instrument(
    "counter",
    "millstream.event.bad_fields",
    "{field}",
    "Fields of events that had no JSON, and have a placeholder in their place.",
)

INSTRUMENTS = (RUNS, DURATION, FIRST_EVENT, FIRST_TEXT, TAKEOVERS, STREAMS, LAG, DROPPED, BAD_FIELDS)
"""All of them. The table in `docs/observability.md` is this one."""


def add(instrument: Instrument, amount: int = 1, attributes: Mapping[str, str] | None = None) -> None:
    """Count `amount` more."""
    if made := _made():
        made[instrument.name].add(amount, attributes)


def record(instrument: Instrument, seconds: float, attributes: Mapping[str, str] | None = None) -> None:
    """Put a time into a histogram."""
    if made := _made():
        made[instrument.name].record(seconds, attributes)


def are_read() -> bool:
    """Whether the program has chosen a provider, so that it is worth while to measure what costs something."""
    provider = _provider()
    return provider is not None and not type(provider).__module__.startswith("opentelemetry.metrics")


class States(Protocol):
    """What has states: a server."""

    def samples(self, instrument: Instrument) -> Iterable[Sample]:
        """What `instrument` is at the moment. May be asked in any thread."""
        ...


def watch(states: States) -> None:
    """Have `states` looked at, from here on, whenever the numbers are read. Holds it weakly."""
    _watched.add(states)
    _made()


_watched: weakref.WeakSet[States] = weakref.WeakSet()


def _callback(instrument: Instrument, together: Callable[[Iterable[int]], int]) -> Callable[[Any], Any]:
    """What the provider asks for a state: that of all servers of this process, as they all write one series."""

    def observe(_: Any) -> list[Any]:
        from opentelemetry.metrics import Observation

        by_attributes: dict[tuple[tuple[str, str], ...], list[int]] = {}
        for states in list(_watched):
            for value, attributes in states.samples(instrument):
                by_attributes.setdefault(tuple(attributes.items()), []).append(value)
        return [Observation(together(values), dict(key)) for key, values in by_attributes.items()]

    return observe


# --- the provider --------------------------------------------------------------------------------

_made_by: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()
"""The instruments, by their provider: a program may choose one after its first run."""


def _provider() -> Any:
    api = sys.modules.get("opentelemetry.metrics")
    return None if api is None else api.get_meter_provider()


def _made() -> dict[str, Any]:
    """The instruments of the program's provider, by name; none where there is no provider."""
    provider = _provider()
    if provider is None:
        return {}
    made = _made_by.get(provider)
    if made is None:
        meter = provider.get_meter("millstream", __version__)
        made = _made_by[provider] = {each.name: _make(meter, each) for each in INSTRUMENTS}
    return made


def _make(meter: Any, each: Instrument) -> Any:
    more: dict[str, Any] = {}
    if each.kind == "histogram":
        more["explicit_bucket_boundaries_advisory"] = SECONDS
    elif each.kind != "counter":
        more["callbacks"] = [_callback(each, max if each.kind == "observable_gauge" else sum)]
    return getattr(meter, f"create_{each.kind}")(
        each.name, unit=each.unit, description=each.description, **more
    )
