"""Finds the agent that `app.py:agent` or `package.module:agent` names."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from millstream.cli.problem import Problem

if TYPE_CHECKING:
    from millstream.agent import Agent

DEFAULT_NAME = "agent"

_SDK = "agents"
"""The package of the OpenAI Agents SDK."""
_MOVE = (
    "write `import millstream.compat; millstream.compat.install()` before the first import of agents, "
    "or import from millstream: see docs/coming-from-openai-agents.md."
)

_FILE = re.compile(r"(?P<where>.+\.py)(?::(?P<name>\w+))?")
_MODULE = re.compile(r"(?P<where>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)")


def names_app(word: str) -> bool:
    """Whether `word` of a command line names an app rather than being a word of the prompt."""
    return bool(_FILE.fullmatch(word) or _MODULE.fullmatch(word))


def load_agent(reference: str) -> Agent[Any]:
    """The agent that `reference` names; without a name `agent`, or the only one there is.

    Raises:
        Problem: no such file, module or agent, or it cannot be imported.
    """
    module, where, name = _module_of(reference)
    return _agent_of(module, where, name)


def load_app(reference: str) -> Any:
    """As `load_agent`; or the ASGI application that `reference` names.

    Where there is an application, it is not guessed which of the two is meant: an application has its own access.

    Raises:
        Problem: it names neither.
    """
    module, where, name = _module_of(reference)
    values = vars(module)
    if name is not None and _is_application(values.get(name)):
        return values[name]
    applications = [key for key, value in values.items() if _is_application(value)]
    if name is None and applications:
        agents = [key for key in values if key == DEFAULT_NAME]
        raise Problem(
            f"{where} has an application, and it is not clear what to serve.",
            f"name it: {', '.join(f'{where}:{key}' for key in applications + agents)}.",
        )
    return _agent_of(module, where, name)


def _is_application(value: object) -> bool:
    """Whether it is one of Starlette's, or FastAPI's: by names, as it need not be imported."""
    return any(cls.__name__ == "Starlette" for cls in type(value).__mro__)


def _module_of(reference: str) -> tuple[ModuleType, str, str | None]:
    """The module that `reference` names, imported; where that is, and what is named in it."""
    match = _FILE.fullmatch(reference) or _MODULE.fullmatch(reference)
    if match is None:
        raise Problem(
            f"{reference!r} names no app.", "name one as app.py, app.py:agent or package.module:agent."
        )
    where, name = match["where"], match["name"]
    return _from_file(where) if where.endswith(".py") else _from_name(where), where, name


def _from_file(where: str) -> ModuleType:
    file = Path(where)
    if not file.is_file():
        raise Problem(f"there is no file {where}.", f"looked in {Path.cwd()}.")
    name = file.stem
    if name in sys.modules or not name.isidentifier():  # a file called json.py must not become `json`
        name = "millstream_app"
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    if spec is None or spec.loader is None:
        raise Problem(f"{where} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    # As `python app.py` does: what lies beside the file can be imported.
    sys.path.insert(0, str(file.resolve().parent))
    sys.modules[name] = module
    loader = spec.loader
    _executed(lambda: loader.exec_module(module), where)
    return module


def _from_name(where: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.util.find_spec(where)
    except ModuleNotFoundError:
        found = None
    except Exception as error:  # a parent package that cannot be imported
        raise _import_problem(error, where) from error
    if found is None:
        raise Problem(f"there is no module {where}.", f"looked in {Path.cwd()} and in Python's own path.")
    return _executed(lambda: importlib.import_module(where), where)


def _executed(load: Any, where: str) -> Any:
    try:
        return load()
    except (Exception, SystemExit) as error:
        raise _import_problem(error, where) from error


def _import_problem(error: BaseException, where: str) -> Problem:
    told = " ".join(str(error).split())
    line = f"{where} cannot be imported: {type(error).__name__}{f': {told}' if told else ''}"
    frame = None if isinstance(error, SyntaxError) else _last_own_frame(error)
    if frame is not None:
        line += f"\n    {frame.filename}, line {frame.lineno}: {frame.line}"
    lacks_sdk = isinstance(error, ModuleNotFoundError) and error.name == _SDK
    return Problem(line, _MOVE if lacks_sdk else "--debug shows the whole traceback.")


def _last_own_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The line of the user's own code that led to `error`: not ours, not of the import machinery, not a library's."""
    ours = str(Path(__file__).parents[1])
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((ours, "<frozen"))
        and "site-packages" not in frame.filename
        and f"{os.sep}lib{os.sep}python" not in frame.filename
    ]
    return own[-1] if own else None


def _agent_of(module: ModuleType, where: str, name: str | None) -> Agent[Any]:
    from millstream.agent import Agent

    values = vars(module)
    agents: dict[str, Agent[Any]] = {
        key: cast("Agent[Any]", value) for key, value in values.items() if isinstance(value, Agent)
    }
    listed = f"{where} has: {', '.join(agents)}." if agents else f"{where} has no agents at its top level."
    if name is not None:
        if name not in values:
            raise Problem(f"{where} has no {name}.", listed)
        if name not in agents:
            raise _no_agent(values[name], where, name, listed)
        return agents[name]
    if DEFAULT_NAME in agents:
        return agents[DEFAULT_NAME]
    distinct = {id(agent): agent for agent in agents.values()}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    if not agents and any(_is_of_the_sdk(value) for value in values.values()):
        raise Problem(f"{where} has an Agent of the OpenAI Agents SDK, not of Millstream.", _MOVE)
    if not agents and DEFAULT_NAME in values:
        raise _no_agent(values[DEFAULT_NAME], where, DEFAULT_NAME, listed)
    if not agents:
        raise Problem(f"{where} has no agent.", f"an agent is made with: {DEFAULT_NAME} = Agent(name=…)")
    raise Problem(
        f"{where} has several agents, and none is called {DEFAULT_NAME}.",
        f"name one of them: {', '.join(f'{where}:{key}' for key in agents)}.",
    )


def _no_agent(value: object, where: str, name: str, listed: str) -> Problem:
    if _is_of_the_sdk(value):
        return Problem(f"{name} in {where} is an Agent of the OpenAI Agents SDK, not of Millstream.", _MOVE)
    if inspect.isfunction(value):
        hint = f"call it at the top level, such as: assistant = {name}(…), and run {where}:assistant."
        if inspect.iscoroutinefunction(value):
            hint = "make the agent at the top level, outside of any function."
        return Problem(f"{name} in {where} is a function, not an Agent.", hint)
    return Problem(f"{name} in {where} is not an Agent but {type(value).__name__}.", listed)


def _is_of_the_sdk(value: object) -> bool:
    cls = type(value)
    return cls.__name__ == "Agent" and cls.__module__.partition(".")[0] == _SDK
