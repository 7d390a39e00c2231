"""The caller's handlers for errors that may become an output: checked, asked, and what they gave taken in."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, cast

from millstream import codec
from millstream.config import RunErrorData, RunErrorHandlerInput, RunErrorHandlerResult, RunErrorHandlers
from millstream.context import settle
from millstream.errors import AgentsException, ModelBehaviorError, UserError
from millstream.output import text_of

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.run.state import RunProgress


class ErrorHandlers:
    """The handlers of one run, by the kind of error.

    Args:
        handlers: as the caller gave them.

    Raises:
        UserError: one of them could never be called.
    """

    def __init__(self, handlers: RunErrorHandlers[Any] | None) -> None:
        self._handlers = _checked(handlers)

    async def result(
        self, kind: str, error: AgentsException, progress: RunProgress
    ) -> RunErrorHandlerResult | None:
        """What the handler makes of `error`; None where there is none, or it leaves the error as it is.

        Raises:
            UserError: it gave what is no result.
            Exception: what it raised.
        """
        handler = self._handlers.get(kind)
        if handler is None:
            return None
        data = RunErrorData(
            input=progress.input,
            new_items=list(progress.new_items),
            history=progress.input_items(),
            output=progress.as_input(progress.new_items),
            raw_responses=list(progress.raw_responses),
            last_agent=progress.current_agent,
        )
        error.run_data = progress.error_details()
        given = await settle(
            handler(
                RunErrorHandlerInput(
                    error=cast("Any", error), context=progress.context_wrapper, run_data=data
                )
            )
        )
        return None if given is None else _result(given)


def as_written(agent: Agent[Any], output: Any) -> str:
    """`output`, from an error handler, as the agent's model would have written it.

    Raises:
        UserError: it is not of the agent's output type.
    """
    schema = agent.output_schema()
    if schema is None or schema.is_plain_text():
        return text_of(output)
    dump: Any = getattr(output, "model_dump_json", None)
    text = codec.encode(output).decode() if dump is None else str(dump(by_alias=True))
    for written in (text, f'{{"response":{text}}}'):  # what is no object travels in one
        with contextlib.suppress(ModelBehaviorError):
            schema.validate_json(written)
            return written
    raise UserError(
        f"An error handler of agent {agent.name!r} returned a {type(output).__name__} as final_output, "
        f"which is not a valid {schema.name()}."
    )


def _checked(handlers: RunErrorHandlers[Any] | None) -> dict[str, Any]:
    if handlers is not None and not isinstance(handlers, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UserError(f"error_handlers takes a dict of functions, not {type(handlers).__name__}.")
    given: dict[str, Any] = dict(handlers or {})
    known = RunErrorHandlers.__annotations__
    for kind, handler in given.items():
        if kind not in known:
            raise UserError(f"error_handlers has no {kind!r}. It has: {', '.join(known)}.")
        if handler is not None and not callable(handler):
            raise UserError(f"error_handlers[{kind!r}] takes a function, not {type(handler).__name__}.")
    return given


def _result(given: Any) -> RunErrorHandlerResult:
    if isinstance(given, RunErrorHandlerResult):
        return given
    if not isinstance(given, dict) or "final_output" not in given:
        return RunErrorHandlerResult(final_output=given)
    try:
        return RunErrorHandlerResult(**cast("dict[str, Any]", given))
    except TypeError:
        raise UserError(
            "An error handler returned a dict that has more than final_output and include_in_history: "
            f"{', '.join(map(repr, cast('dict[str, Any]', given)))}."
        ) from None
