"""The verdicts of guardrails in a run's state: what was found, and by which guardrail, by its name.

A guardrail that is read back says how it is called and judges nothing: what judges in a run that
goes on are the guardrails of its agents, tools and configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, cast

from millstream import codec
from millstream.errors import UserError
from millstream.guardrail import (
    GuardrailFunctionOutput,
    InputGuardrail,
    InputGuardrailResult,
    OutputGuardrail,
    OutputGuardrailResult,
    ToolGuardrailFunctionOutput,
    ToolInputGuardrail,
    ToolInputGuardrailResult,
    ToolOutputGuardrail,
    ToolOutputGuardrailResult,
)
from millstream.items import AgentRef
from millstream.run.kept.document import VerdictDocument

if TYPE_CHECKING:
    from millstream.run.state import RunProgress

_KINDS: tuple[tuple[str, Any, Any], ...] = (
    ("input_guardrail_results", InputGuardrail, InputGuardrailResult),
    ("output_guardrail_results", OutputGuardrail, OutputGuardrailResult),
    ("tool_input_guardrail_results", ToolInputGuardrail, ToolInputGuardrailResult),
    ("tool_output_guardrail_results", ToolOutputGuardrail, ToolOutputGuardrailResult),
)
"""The lists of verdicts, and the classes of what is in them."""


def verdicts_of(progress: RunProgress) -> dict[str, list[VerdictDocument]]:
    """The verdicts so far, by the names of their lists."""
    return {name: [_document(each) for each in getattr(progress, name)] for name, *_ in _KINDS}


def _document(result: Any) -> VerdictDocument:
    output = result.output
    return VerdictDocument(
        guardrail=result.guardrail.get_name(),
        info=codec.decode(codec.encode(output.output_info)),
        tripped=getattr(output, "tripwire_triggered", False),
        behavior=getattr(output, "behavior", {}),
        agent=getattr(getattr(result, "agent", None), "name", None),
        output=codec.decode(codec.encode(getattr(result, "agent_output", None))),
    )


def take_verdicts(
    progress: RunProgress, documents: dict[str, list[VerdictDocument]], agent: Callable[[str], Any]
) -> None:
    """Put the verdicts that a state has into `progress`; `agent` finds an agent by its name."""
    for name, guardrail, result in _KINDS:
        getattr(progress, name).extend(
            _result(guardrail, result, document, agent) for document in documents.get(name, ())
        )


def _result(guardrail: Any, result: Any, document: VerdictDocument, agent: Callable[[str], Any]) -> Any:
    by = guardrail(_gone, document.guardrail)
    if result in (ToolInputGuardrailResult, ToolOutputGuardrailResult):
        return result(by, ToolGuardrailFunctionOutput(document.info, cast("Any", document.behavior)))
    output = GuardrailFunctionOutput(document.info, document.tripped)
    if result is InputGuardrailResult:
        return result(by, output)
    name = document.agent or ""
    return result(by, document.output, agent(name) or AgentRef(name), output)


def _gone(*_: Any) -> NoReturn:
    raise UserError(
        "This guardrail was read back from the state of a run: it has a name, and judges nothing."
    )
