"""What a scenario is written against: the public names of one of the two packages.

A scenario is a function of a `Kit` that gives a `Case`. It names nothing but what both
packages export, so the same function describes the same agents to either of them:

    @scenario
    def a_plain_answer(kit: Kit) -> Case:
        return Case(kit.Agent(name="A", model=kit.script([kit.say("Hello.")])))

This file, the scenarios and `record.py` run under two interpreters: they import nothing of
either package, and nothing that is only there for tests.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SDK = "agents"
OURS = "millstream"

# Where a public name may live, besides at the top of its package.
_MODULES = {
    SDK: ("testing", "tool_context", "run", "decorators", "usage", "extensions.handoff_filters", "mcp"),
    OURS: ("testing", "extensions.handoff_filters", "mcp"),
}


class Kit:
    """The public names of a package as attributes, its scripted models, and a place for notes."""

    def __init__(self, package: str) -> None:
        self._modules = [
            importlib.import_module(package),
            *(importlib.import_module(f"{package}.{name}") for name in _MODULES[package]),
        ]
        # A scripted model of ours streams word by word, one of the SDK's text by text: as one delta
        # each, the raw events can be compared too.
        self._options: dict[str, Any] = {"chunk_size": 10**9} if package == OURS else {}
        self.models: list[Any] = []
        """Every scripted model that was made: what they were asked is part of the record."""
        self.notes: list[Any] = []
        """What the functions of a scenario saw."""

    def __getattr__(self, name: str) -> Any:
        for module in self._modules:
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"{self._modules[0].__name__} exports no {name}")

    def script(self, *steps: Any, **options: Any) -> Any:
        """A scripted model."""
        model = self.ScriptedModel(list(steps), **self._options, **options)
        self.models.append(model)
        return model

    def say(self, text: str, item_id: str = "msg_1") -> Any:
        """A message of the model."""
        return self.assistant_message(text, item_id=item_id)

    def call(self, name: str, arguments: Any = "{}", call_id: str = "call_1") -> Any:
        """A tool call of the model."""
        return self.function_call(name, arguments, call_id=call_id)

    def note(self, *values: Any) -> None:
        """Put what a function of the scenario saw into the record."""
        self.notes.append(values)


@dataclass
class Case:
    """One run: what is run, how, and what its reader does."""

    agent: Any
    input: Any = "Hello"
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of `Runner.run` and `Runner.run_streamed`."""
    on_event: Callable[[Any, Any], None] | None = None
    """Called by the reader of the streamed run with its handle and each event."""
    after: Callable[[Any], Any] | None = None
    """Called with the result; what it gives is part of the record. May be a coroutine function."""


Scenario = Callable[[Kit], Case]

SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    """Enter a scenario under the name of its function."""
    name = function.__name__
    assert name not in SCENARIOS, f"two scenarios are called {name}"
    SCENARIOS[name] = function
    return function
