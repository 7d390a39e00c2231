"""`millstream chat`: a conversation at the terminal, or line by line from a pipe."""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from millstream.cli import exits
from millstream.cli.chat_commands import Command, Draft, Message, Mistake, help_text, parse
from millstream.cli.problem import Problem, explain, say, tell

if TYPE_CHECKING:
    import asyncio

    from millstream.cli.chat_sources import Person, Pipe
    from millstream.cli.conversation import Conversation
    from millstream.cli.interrupts import Interrupts, Stop
    from millstream.events import Entry
    from millstream.result import RunResultStreaming

NAME = "chat"
HELP = "talk with an agent, answer by answer"
EPILOG = """\
examples:
  millstream chat                      a plain assistant
  millstream chat app.py               `agent` in app.py, or its only one
  millstream chat -i "You are terse."  an assistant that is told so first
  millstream chat -m qwen3             with this model
  millstream chat < questions.txt      each line a message; only answers
                                       are printed
  millstream chat --json < q.txt       the entries of each run's log

Esc or Ctrl-C stops an answer, Ctrl-D ends the chat, /help shows the rest.
"""

PROMPT, GOES_ON = "> ", ". "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    from millstream.cli.run import add_agent_arguments
    from millstream.cli.show import add_style_arguments

    parser.add_argument("app", nargs="?", metavar="APP", help="the agent to talk with")
    add_agent_arguments(parser)
    parser.add_argument(
        "--no-history", action="store_true", help="keep no history file (also: MILLSTREAM_HISTORY=none)"
    )
    add_style_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    import asyncio

    from millstream.cli.interrupts import GRACE, Interrupts
    from millstream.cli.run import agent_of, check_instructions

    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise Problem("standard input is closed, so there is nobody to talk with.")
    check_instructions(args.app, args.instructions)
    agent = agent_of(args.app, args.instructions)

    # Slow to import, or of no use before: `--help` does without.
    from millstream.cli.chat_sources import Person, Pipe
    from millstream.cli.conversation import Conversation

    conversation = Conversation(agent, max_turns=args.max_turns)
    with contextlib.ExitStack() as stack:
        person = stack.enter_context(Person(history=not args.no_history)) if sys.stdin.isatty() else None
        interrupts = Interrupts(grace=GRACE, leaving=person.leave if person else None)
        stack.enter_context(interrupts)
        loop = stack.enter_context(asyncio.Runner())
        stack.callback(lambda: loop.run(conversation.aclose()))
        chat = _Chat(conversation, person or Pipe(), interrupts, loop, args)
        try:
            return chat.run()
        except KeyboardInterrupt:
            return interrupts.exit_code


class _Chat:
    """Reads messages and commands, and has them answered, until there are no more."""

    def __init__(
        self,
        conversation: Conversation,
        source: Person | Pipe,
        interrupts: Interrupts,
        loop: asyncio.Runner,
        args: argparse.Namespace,
    ) -> None:
        self._conversation = conversation
        self._source = source
        self._interrupts = interrupts
        self._loop = loop
        self._args = args
        self._code = exits.OK
        """The exit code: that of the first failure, where nobody sits there to see it."""
        self._draft = Draft()
        """What has been read of the message that is being written."""
        self._just_answered = False
        """Whether nothing has been written or pressed since the last answer."""

    def run(self) -> int:
        self._choose(self._args.model, offline=self._args.offline)
        self._tell_models()
        if self._source.is_person:
            say("Esc stops an answer, Ctrl-D ends the chat, /help shows the rest.")
        while True:
            try:
                text = self._read()
                self._just_answered = False
                self._source.remember(text)
                if not self._obey(text):
                    return self._code
            except EOFError:
                return self._code
            except KeyboardInterrupt:
                if self._leaves():
                    return self._code

    # --- reading ---------------------------------------------------------------------------

    def _read(self) -> str:
        """The next message, of one line or several."""
        draft = self._draft = Draft()
        prompt = PROMPT
        self._source.end_line()
        while True:
            try:
                text = draft.add(self._source.read(prompt))
            except EOFError:
                self._source.end_line()
                if not draft.is_open:
                    raise
                text = draft.close()
            if text is not None:
                return text
            prompt = GOES_ON

    def _leaves(self) -> bool:
        """Whether what interrupted the reading of a line ends the chat, or only that line."""
        source, late = self._source, self._just_answered
        if not source.is_person:
            self._code = self._interrupts.exit_code
            return True
        source.end_line()
        code = self._interrupts.exit_code
        if not self._goes_on():
            return True
        self._just_answered = False
        if source.unfinished or self._draft.is_open:
            return False
        # It may have been meant for the answer, which had just ended: nobody wants to lose a chat by that.
        if late:
            say("Ctrl-C again, or Ctrl-D, ends the chat.")
            return False
        self._code = code
        return True

    # --- doing -----------------------------------------------------------------------------

    def _obey(self, text: str) -> bool:
        """Do what `text` asks for; False where that is to end."""
        asked = parse(text)
        if isinstance(asked, Message):
            return self._answer(asked.text)
        if isinstance(asked, Mistake):
            self._failed(Problem(asked.line, asked.hint))
        if isinstance(asked, Command):
            return _COMMANDS[asked.name](self, asked.argument)
        return True

    def _answer(self, text: str) -> bool:
        from millstream.cli.interrupts import Stop

        stop = Stop()
        self._interrupts.stops(stop)
        try:
            problem = self._asked(lambda: self._conversation.ask(text), stop)
        except OSError:  # the output, not the run
            raise
        except Exception as error:
            problem = explain(error)
        finally:
            self._interrupts.stops(None)
        self._just_answered = True
        if not self._goes_on():
            return False
        if problem is not None:
            self._failed(problem)
        return True

    def _asked(self, start: Callable[[], RunResultStreaming], stop: Stop) -> Problem | None:
        """Have a message answered, with a question wherever a call waits for approval; what went wrong."""
        from millstream.cli.asking import decide

        while True:
            handle, problem = self._loop.run(self._follow(start, stop))
            if not handle.interruptions:
                break
            self._interrupts.stops(None)
            try:
                state = decide(handle, self._source.ask)
            except (EOFError, KeyboardInterrupt):
                self._source.end_line()
                self._goes_on()
                break
            self._interrupts.stops(stop)
            start = functools.partial(self._conversation.go_on, state)
        self._conversation.keep(handle)
        return None if stop.was_asked and handle.is_cancelled else problem

    async def _follow(
        self, start: Callable[[], RunResultStreaming], stop: Stop
    ) -> tuple[RunResultStreaming, Problem | None]:
        from millstream.cli.show import follow

        handle = start()
        with self._source.keys(self._interrupts.interrupt):
            try:
                return handle, await follow(handle, self._writer(), stop)
            except BaseException:
                self._conversation.keep(handle)
                raise

    def _writer(self) -> Callable[[Entry], None]:
        """What shows one run. A new one for each: the width of the terminal may have changed."""
        from millstream.cli.show import style_of, writer

        style = style_of(self._args)
        if style == "view" and not self._source.is_person:
            style = "text"
        return writer(style, colour=False if self._args.no_color else None)

    def _goes_on(self) -> bool:
        """Whether the chat outlives the signal that came, if one did: a person's Ctrl-C it does."""
        import signal

        number = self._interrupts.number
        if number is not None and not (number == signal.SIGINT and self._source.is_person):
            self._code = self._interrupts.exit_code
            return False
        self._interrupts.forget()
        return True

    def _choose(self, model: str | None, *, offline: bool = False) -> None:
        """Choose the models; a signal cuts the search for them short."""
        import asyncio

        async def choose() -> None:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            self._interrupts.stops(lambda: loop.call_soon_threadsafe(task.cancel))
            await self._conversation.choose(model=model, api=self._args.api, offline=offline)

        try:
            self._loop.run(choose())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            self._interrupts.stops(None)

    def _failed(self, problem: Problem) -> None:
        code = problem.report(debug=self._args.debug)
        if not self._source.is_person:
            self._code = self._code or code

    # --- commands --------------------------------------------------------------------------

    def _model(self, name: str) -> bool:
        if name:
            try:
                self._choose(name)
            except KeyboardInterrupt:
                return self._goes_on()
            except Exception as error:
                self._failed(explain(error))
                return True
        self._tell_models()
        return True

    def _tell_models(self) -> None:
        for line in self._conversation.models:
            say(line)

    def _reset(self, _: str) -> bool:
        self._conversation.reset()
        say("the conversation begins anew.")
        return True

    def _usage(self, _: str) -> bool:
        from millstream.terminal.view import tokens

        answers, usage = self._conversation.answers, self._conversation.usage.to_dict()
        counted = [f"{answers} answer{'' if answers == 1 else 's'}", *tokens(usage)]
        say(f"usage: {' · '.join(counted)}")
        return True

    def _help(self, _: str) -> bool:
        tell(help_text())
        return True

    def _exit(self, _: str) -> bool:
        return False


_COMMANDS: dict[str, Callable[[_Chat, str], bool]] = {
    "model": _Chat._model,  # pyright: ignore[reportPrivateUsage]
    "reset": _Chat._reset,  # pyright: ignore[reportPrivateUsage]
    "usage": _Chat._usage,  # pyright: ignore[reportPrivateUsage]
    "help": _Chat._help,  # pyright: ignore[reportPrivateUsage]
    "exit": _Chat._exit,  # pyright: ignore[reportPrivateUsage]
}
