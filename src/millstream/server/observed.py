"""What is seen of a server from outside: a line in its log where a run begins and ends here, and its numbers.

Rules of this file:

1. It looks, and does nothing to a run or a stream.
2. Its numbers are the instruments of `millstream.metrics`. Two servers in one process write one series.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING

from millstream import metrics
from millstream.delivery.feed import Feed
from millstream.events import RawResponsesStreamEvent, RunFailed, RunPaused

with contextlib.suppress(ModuleNotFoundError):  # the extra "otel"
    import opentelemetry.metrics  # noqa: F401  # here, where files may be read, and not by the first run  # pyright: ignore[reportUnusedImport]

if TYPE_CHECKING:
    from millstream.clock import Clock
    from millstream.delivery.feed import Messages
    from millstream.log.promise import Batch, Payload
    from millstream.log.store import RunStore
    from millstream.metrics import Instrument, Sample, Transport
    from millstream.result import RunResultStreaming
    from millstream.run.active import ActiveRun

logger = logging.getLogger("millstream")


class Observed:
    """The runs and streams of one server.

    Args:
        store: where its runs are.
        clock: measures how long they take.
    """

    def __init__(self, store: RunStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._runs: set[RunResultStreaming] = set()
        self._streams: dict[Feed, Transport] = {}
        self._timing: set[asyncio.Task[None]] = set()
        metrics.watch(self)

    def run(self, run: RunResultStreaming, asked: float | None = None) -> Callable[[], None]:
        """Tell that a run goes on here from now on. To be called when it does no longer: what is returned.

        Args:
            run: its handle.
            asked: when it was asked for, by the server's clock; None for one that did not begin with a request.
        """
        active, since = _active(run), self._clock.monotonic()
        logger.info("run %s: %s", run.run_id, _how_it_goes_on(active))
        self._runs.add(run)
        timing = None
        if asked is not None and metrics.are_read():
            timing = asyncio.get_running_loop().create_task(self._time_beginning(run.run_id, asked))
            self._timing.add(timing)
            timing.add_done_callback(self._timing.discard)

        def over() -> None:
            self._runs.discard(run)
            if active.is_left and timing is not None:
                timing.cancel()  # of another process's run it is not ours to say how fast it was
            self._tell_end(active, self._clock.monotonic() - since)

        return over

    @contextlib.contextmanager
    def stream(self, feed: Messages, transport: Transport) -> Generator[None]:
        """A stretch in which `feed` is sent; one that is no run's is not counted."""
        if not isinstance(feed, Feed):
            yield
            return
        self._streams[feed] = transport
        try:
            yield
        finally:
            del self._streams[feed]

    def samples(self, instrument: Instrument) -> Iterable[Sample]:
        """What is going on at the moment. Asked in a thread of the exporter's."""
        if instrument is metrics.RUNS:
            return [(len(self._runs), {})]
        streams = self._streams.copy()
        by_transport: dict[str, list[int]] = {"sse": [], "websocket": []}
        for feed, transport in streams.items():
            by_transport[transport].append(max(0, self._store.known_end(feed.run_id) - feed.passed))
        number = len if instrument is metrics.STREAMS else _furthest
        return [(number(lags), {"millstream.transport": name}) for name, lags in by_transport.items()]

    def _tell_end(self, run: ActiveRun, seconds: float) -> None:
        attributes = {"millstream.run.status": (status := _status(run))}
        if isinstance(run.terminal, RunFailed):
            attributes["error.type"] = run.terminal.code
        metrics.record(metrics.DURATION, seconds, attributes)
        if status == "failed":
            run.log_failure()
        elif status != "left":  # which was told by whoever left it
            logger.info("run %s: %s after %.3f s", run.run_id, status, seconds)

    async def _time_beginning(self, run_id: str, asked: float) -> None:
        """Measure how long the first event of a run is in coming, and its first text. A reader as any other."""
        instrument = metrics.FIRST_EVENT
        with contextlib.suppress(Exception):  # who reads the run, or writes it, is told
            cursor = self._store.cursor(run_id)
            while (batch := await cursor.next()) is not None:
                if instrument is metrics.FIRST_EVENT:
                    metrics.record(instrument, self._clock.monotonic() - asked)
                    instrument = metrics.FIRST_TEXT
                if _has_text(batch, run_id):
                    metrics.record(instrument, self._clock.monotonic() - asked)
                    return
                if _pauses(batch, run_id):
                    return


def _how_it_goes_on(run: ActiveRun) -> str:
    if run.attempt is not None:
        return f"goes on here, as attempt {run.attempt.number}"
    return "goes on" if run.goes_on else "begins"


def _status(run: ActiveRun) -> str:
    """How a run that is done ended here."""
    if run.terminal is not None:
        return run.terminal.type.removeprefix("run.")
    return "left" if run.is_left else "paused"


def _furthest(lags: list[int]) -> int:
    return max(lags, default=0)


def _has_text(batch: Batch, run_id: str) -> bool:
    return batch.stamp.run_id == run_id and any(_TEXT in _raw(payload) for payload in batch.payloads)


_TEXT = b'"response.output_text.delta"'


def _raw(payload: Payload) -> bytes:
    if isinstance(payload, bytes):
        return payload
    return payload.json if isinstance(payload, RawResponsesStreamEvent) else b""


def _pauses(batch: Batch, run_id: str) -> bool:
    return batch.stamp.run_id == run_id and isinstance(batch.payloads[-1], RunPaused)


def _active(run: RunResultStreaming) -> ActiveRun:
    return run._run  # pyright: ignore[reportPrivateUsage]
