"""The model that was chosen for a command, ready to be asked."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from millstream.agent.checks import reachable
from millstream.errors import UserError
from millstream.models.promise import Model, ModelProvider
from millstream.models.provider import PLACEHOLDER_KEY, MultiProvider, OpenAIProvider
from millstream.models.script import ModelCall, ModelStep
from millstream.models.scripted import ScriptedModel

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.models.choice import ModelChoice, Wire

TOKENS_PER_SECOND = 40.0
"""How fast the scripted model talks: as people read."""

HOW_TO = """\
To have a model answer, do one of these and run the command again:

  export OPENAI_API_KEY=…       for the OpenAI API
  export OPENAI_BASE_URL=…      for any server that speaks it
  start Ollama, llama.cpp, vLLM or LM Studio on this machine

`millstream models` shows which one would be used, and why. `millstream demo` shows
a run with several agents and tools."""


def build_model(choice: ModelChoice, environ: Mapping[str, str]) -> Model:
    """The model of `choice`."""
    if choice.is_scripted:
        return stand_in()
    # A key is for the place that the environment names, never for a server that was found.
    provider = OpenAIProvider(
        api_key=environ.get("OPENAI_API_KEY") or PLACEHOLDER_KEY,
        base_url=choice.base_url,
        use_responses=choice.wire == "responses",
    )
    return provider.get_model(choice.model)


def stand_in() -> ScriptedModel:
    """The scripted model that answers where there is no other: it says what it is, and what to do."""
    model = ScriptedModel(tokens_per_second=TOKENS_PER_SECOND)

    def answer(call: ModelCall) -> ModelStep:
        model.enqueue(ModelStep.respond(answer))
        return _explanation(call)

    model.enqueue(ModelStep.respond(answer))
    return model


def _explanation(call: ModelCall) -> ModelStep:
    schema = call.output_schema
    if schema is not None and not schema.is_plain_text():
        raise UserError(
            f"The agent's output is a {schema.name()}, which the scripted model cannot make up: it needs a real model."
        )
    helpers = [*(tool.name for tool in call.tools), *(handoff.agent_name for handoff in call.handoffs)]
    able = ""
    if helpers:
        able = f" I call no tools and hand over to nobody; a real model could use {', '.join(helpers)}."
    asked = " ".join(_last_text(call.input).split())
    asked = asked if len(asked) <= 60 else f"{asked[:60]}…"
    said = (
        "I am the scripted model: no language model reads this, and whatever you ask, this text is the answer. "
        f"You asked: “{asked}”.{able}"
    )
    return ModelStep(f"{textwrap.fill(said, 78, break_long_words=False)}\n\n{HOW_TO}")


def _last_text(input: Any) -> str:
    if isinstance(input, str):
        return input
    dicts = [cast("dict[str, Any]", item) for item in input if isinstance(item, dict)]
    texts = [item.get("content") for item in dicts if item.get("role") == "user"]
    return texts[-1] if texts and isinstance(texts[-1], str) else "…"


class ChosenProvider(ModelProvider):
    """Gives agents that name no model the chosen one; names are for the library's own provider.

    Args:
        chosen: the chosen model; None where every agent names its own.
        wire: the API that was asked for, if one was: then it holds for names too.
    """

    def __init__(self, chosen: Model | None, wire: Wire | None) -> None:
        self._chosen = chosen
        self._named = MultiProvider(openai_use_responses=None if wire is None else wire == "responses")

    def get_model(self, model_name: str | None) -> Model:
        """The chosen model for None, else the model of that name."""
        if model_name is None and self._chosen is not None:
            return self._chosen
        return self._named.get_model(model_name)

    async def aclose(self) -> None:
        """Release what the models hold."""
        if self._chosen is not None:
            await self._chosen.close()
        await self._named.aclose()


@dataclass(frozen=True)
class Chosen:
    """The models of a command."""

    for_all: Model | None
    """The model of every agent, whatever they name; None where each has its own."""
    provider: ChosenProvider
    """Finds the models of the others; to be closed."""
    told: tuple[str, ...]
    """What was chosen, and why: lines for the person at the terminal."""


async def choose_models(
    agent: Agent[Any], environ: Mapping[str, str], *, model: str | None, api: str | None, offline: bool
) -> Chosen:
    """The models for `agent` and those that it hands over to, as the options of a command line say.

    Raises:
        UserError: nothing can be chosen; as `millstream.models.choice.choose` says it.
    """
    from millstream.models.choice import asked_wire, choose

    agents, all_known = reachable(agent)
    own = [each for each in agents if each.model is not None]
    wire = asked_wire(environ, api)
    scripted = all(isinstance(each.model, ScriptedModel) for each in own)
    for_all = model is not None or (offline and not scripted)
    told: list[str] = []
    if agent.model is not None and not for_all:
        named = agent.model if isinstance(agent.model, str) else getattr(agent.model, "model", None)
        told.append(f"model: {named or type(agent.model).__name__} (the agent {agent.name} names it)")
    if len(own) == len(agents) and all_known and not for_all:
        return Chosen(None, ChosenProvider(None, wire), tuple(told))
    choice = await choose(environ, model=model, wire=api, offline=offline)
    rest = " for the agents that name none" if own and not for_all else ""
    told.append(f"model{rest}: {choice}")
    built = build_model(choice, environ)
    return Chosen(built if for_all else None, ChosenProvider(built, wire), tuple(told))
