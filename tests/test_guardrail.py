"""Guardrails as descriptions."""

from typing import Any

import pytest

from millstream.guardrail import (
    GuardrailFunctionOutput,
    InputGuardrail,
    OutputGuardrail,
    ToolGuardrailFunctionOutput,
    ToolInputGuardrail,
    ToolOutputGuardrail,
    input_guardrail,
    output_guardrail,
    tool_input_guardrail,
    tool_output_guardrail,
)


def check(*args: Any) -> Any:
    return GuardrailFunctionOutput(None, tripwire_triggered=False)


@pytest.mark.parametrize(
    ("decorator", "kind"),
    [
        (input_guardrail, InputGuardrail),
        (output_guardrail, OutputGuardrail),
        (tool_input_guardrail, ToolInputGuardrail),
        (tool_output_guardrail, ToolOutputGuardrail),
    ],
)
def test_a_decorator_makes_a_guardrail_with_and_without_parentheses(decorator: Any, kind: type[Any]) -> None:
    bare, named = decorator(check), decorator(name="named")(check)

    assert (type(bare), type(named)) == (kind, kind)
    assert bare.guardrail_function is check
    assert (bare.get_name(), named.get_name()) == ("check", "named")


def test_an_input_guardrail_runs_beside_the_model_unless_told_otherwise() -> None:
    assert input_guardrail(check).run_in_parallel
    assert not input_guardrail(run_in_parallel=False)(check).run_in_parallel


def test_a_guardrail_of_a_nameless_function_has_the_name_of_its_class() -> None:
    class Check:
        def __call__(self, *args: Any) -> Any: ...

    assert InputGuardrail(Check()).get_name() == "Check"


def test_a_tool_guardrail_allows_rejects_or_stops() -> None:
    made = ToolGuardrailFunctionOutput

    assert made.allow("i") == made("i", {"type": "allow"}) == made("i")
    assert made.reject_content("no", "i") == made("i", {"type": "reject_content", "message": "no"})
    assert made.raise_exception("i") == made("i", {"type": "raise_exception"})
