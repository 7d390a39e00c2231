"""What tests of programs built on Millstream need: scripted models, contracts to hold to, hard values."""

from millstream.models.scripted import (
    InvalidModelStep,
    ModelCall,
    ModelScriptError,
    ModelStep,
    ModelStepSpec,
    ScriptedModel,
    UnconsumedModelSteps,
    UnexpectedModelCall,
    assistant_message,
    final_json,
    function_call,
    reasoning,
    refusal,
)
from millstream.testing.awkward import CANARY, AwkwardValue, awkward_values
from millstream.testing.logs import check_log

__all__ = [
    "CANARY",
    "AwkwardValue",
    "InvalidModelStep",
    "ModelCall",
    "ModelScriptError",
    "ModelStep",
    "ModelStepSpec",
    "ScriptedModel",
    "UnconsumedModelSteps",
    "UnexpectedModelCall",
    "assistant_message",
    "awkward_values",
    "check_log",
    "final_json",
    "function_call",
    "reasoning",
    "refusal",
]
