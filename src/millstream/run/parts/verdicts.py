"""Guardrails that judge side by side: their verdicts in the order in which they come.

Rules of this file:

1. Each guardrail has a task of its own. What it found is recorded and written when it is known.
2. The first that trips or raises is the failure; then the others are cancelled, and not heard any more.
3. What has not passed has not: also one whose task ends in a way of its own is a failure.
4. None is left running. One that will not be cancelled has `GRACE` seconds, as a tool has; what
   it finds later is not heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from millstream.errors import AgentsException
from millstream.events import GuardrailResult
from millstream.run.tools import GRACE, look_at, wait_bounded
from millstream.tracing import guardrail_span

if TYPE_CHECKING:
    from millstream.guardrail import InputGuardrailResult, OutputGuardrailResult
    from millstream.run.active import ActiveRun

logger = logging.getLogger("millstream")

TResult = TypeVar("TResult", bound="InputGuardrailResult | OutputGuardrailResult")


class Verdicts(Generic[TResult]):
    """The verdicts of some guardrails on one thing.

    Args:
        run: the run that they judge.
        heard: takes each verdict that comes; what it raises is the failure.
        failed: called with the failure, the moment it is known.
    """

    def __init__(
        self,
        run: ActiveRun,
        heard: Callable[[TResult], Awaitable[None]],
        failed: Callable[[BaseException], object] = lambda _: None,
    ) -> None:
        self._run = run
        self._heard = heard
        self._failed = failed
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._failure: BaseException | None = None
        self._is_over = False

    def ask(self, stage: str, judging: Iterable[tuple[str, Callable[[], Awaitable[TResult]]]]) -> None:
        """Let guardrails of the `stage` judge, each by its name and what gives its verdict when it is called.

        It is called in the guardrail's own task, which a loop that shuts down may never begin.
        """
        for guardrail, verdict in judging:
            name = f"{stage} guardrail {guardrail!r}"
            task = asyncio.get_running_loop().create_task(self._judge(name, guardrail, verdict))
            task.add_done_callback(look_at)
            # As for the run's own task: a loop that is closed carelessly says nothing of ours.
            task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]
            self._tasks[task] = name

    @property
    def failure(self) -> BaseException | None:
        """What was raised, or the first trip, once there is one."""
        return self._failure

    async def given(self) -> None:
        """Wait until all have judged.

        Raises:
            BaseException: the failure, when the others have been cancelled.
        """
        try:
            if self._failure is None and self._tasks:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        except asyncio.CancelledError:
            await self.stop()
            raise
        for task, name in self._tasks.items():
            if task.cancelled():  # by itself
                self._fail(_cancelled(name))
        if self._failure is not None:
            await self.stop()
            raise self._failure

    async def stop(self) -> None:
        """Cancel those that have not judged, and wait for them, but not for ever."""
        for task in self._tasks:
            task.cancel()
        pending = await wait_bounded(list(self._tasks), GRACE, self._run.config.clock)
        self._is_over = True
        for task in pending:
            logger.warning(
                "run %s: the %s did not stop when it was cancelled and is left behind",
                self._run.run_id,
                self._tasks[task],
            )
        self._tasks.clear()

    async def _judge(self, name: str, guardrail: str, verdict: Callable[[], Awaitable[TResult]]) -> None:
        try:
            with guardrail_span(guardrail) as span:
                result = await verdict()
                span.span_data.triggered = result.output.tripwire_triggered
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            error = _cancelled(name)
            error.__cause__ = cancelled
            self._fail(error)
            raise error from cancelled
        except GeneratorExit:
            raise  # its loop was closed under it
        except BaseException as error:
            with contextlib.suppress(Exception):  # an exception that is frozen, or has ideas of its own
                error.add_note(f"Raised by the {name} of run {self._run.run_id}.")
            self._fail(error)
            raise
        if self._is_over or self._failure is not None:
            return
        try:
            await self._heard(result)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        if self._failure is None and not self._is_over:
            self._failure = error
            self._failed(error)


def _cancelled(name: str) -> AgentsException:
    return AgentsException(f"The {name} was cancelled, but nobody cancelled it.")


async def tell(run: ActiveRun, stage: str, guardrail: str, *, tripped: bool, info: Any) -> None:
    """Write the verdict of a guardrail."""
    await run.write(GuardrailResult(guardrail=guardrail, stage=stage, tripped=tripped, info=info))
