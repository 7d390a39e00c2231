"""Problems: what went wrong, as one line and a hint for the person at the terminal."""

from __future__ import annotations

import sys
import traceback

from millstream.cli import exits


class Problem(Exception):
    """Ends a command with one line, perhaps a hint, and an exit code."""

    def __init__(self, line: str, hint: str | None = None, *, code: int = exits.USAGE) -> None:
        super().__init__(line)
        self.line = line
        self.hint = hint
        self.code = code

    def report(self, *, debug: bool = False) -> int:
        """Write it to standard error; the exit code."""
        cause = self.__cause__
        if debug and cause is not None:
            traceback.print_exception(cause)
        say(f"error: {self.line}")
        if self.hint:
            say(f"hint: {self.hint}")
        return self.code


def say(text: str) -> None:
    """Tell the person at the terminal, on a line that says who speaks, something that is not output."""
    tell(f"millstream: {text}")


def tell(text: str) -> None:
    """Tell the person at the terminal, in lines of their own, something that is not output."""
    if sys.stderr is None:  # closed by whoever started us  # pyright: ignore[reportUnnecessaryComparison]
        return
    encoding = sys.stderr.encoding or "utf-8"
    try:
        print(text.encode(encoding, "replace").decode(encoding), file=sys.stderr, flush=True)
    except OSError:
        pass


MODELS_HINT = "`millstream models` shows what would be used, and why."

DEBUG_HINT = "--debug shows the whole traceback."

HINTS: dict[str, str] = {
    # Ours.
    "MaxTurnsExceeded": "--max-turns N allows more.",
    "MissingKeyError": "set OPENAI_API_KEY, start a local server, or choose with --model. " + MODELS_HINT,
    "UnknownModelError": MODELS_HINT,
    "DuplicateToolError": "name_override= renames a tool, and tool_name_override= a handoff.",
    "NotSupportedError": "this version of Millstream does not have it. " + DEBUG_HINT,
    "ModelProtocolError": "does the server speak this API? --api chat and --api responses choose one.",
    "ModelTimeoutError": "is the model still loading? Trying again may help.",
    "ModelBehaviorError": "the model, not the program, went wrong; another try, or another model, may do better.",
    "LogUnavailableError": "is its server running, its disk full, its file in use or read-only? Trying again may help.",
    "LogDamagedError": "nothing was changed; was it written by something else, or by a later version?",
    # A server of runs.
    "ServerUnreachableError": "is the server running, and is its address right? --url, or MILLSTREAM_URL.",
    "AccessDeniedError": "--token TOKEN, or MILLSTREAM_TOKEN, lets you in.",
    # The client of the model's server.
    "APITimeoutError": "is the model still loading? Trying again may help.",
    "APIConnectionError": "is the server running, and is its address right? " + MODELS_HINT,
    "AuthenticationError": "is the key right for this server? It is OPENAI_API_KEY, unless the model has its own.",
    "PermissionDeniedError": "may this key use this model?",
    "NotFoundError": "does the server have this model, and this API? --model and --api choose. "
    + MODELS_HINT,
    "RateLimitError": "the server has had enough for now: wait, or look at the account's quota.",
    "InternalServerError": "the model's server is at fault, not the program; trying again later may help.",
    "BadRequestError": "does the model support what the agent needs? --debug shows the request's failure in full.",
}
"""What may help, by the name of an exception's class or of one of its bases."""

_LIMITS = frozenset(
    {
        "MaxTurnsExceeded",
        "InputGuardrailTripwireTriggered",
        "OutputGuardrailTripwireTriggered",
        "ToolInputGuardrailTripwireTriggered",
        "ToolOutputGuardrailTripwireTriggered",
    }
)


def explain(error: BaseException) -> Problem:
    """The problem that an exception is. By names of classes: their modules need not be imported."""
    names = [cls.__name__ for cls in type(error).__mro__]
    # Our notes are written to be hints; those of other exceptions may be anything.
    noted = " ".join(getattr(error, "__notes__", ())) if "UserError" in names else ""
    hint = noted or next((HINTS[name] for name in names if name in HINTS), DEBUG_HINT)
    code = exits.FAILED
    if not _LIMITS.isdisjoint(names):
        code = exits.LIMIT
    elif "UserError" in names and "ToolFailedError" not in names:
        code = exits.USAGE
    problem = Problem(f"{names[0]}: {_first_lines(error)}", hint, code=code)
    problem.__cause__ = error
    return problem


def _first_lines(error: BaseException) -> str:
    whole = str(error)
    if "\n  - " in whole:  # a list of ways out, for programs: at the terminal the hint has them
        whole = whole.partition("\n")[0]
    text = " ".join(whole.split())
    return text if len(text) <= 400 else f"{text[:400]}…"
