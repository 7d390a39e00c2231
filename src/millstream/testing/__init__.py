"""What tests of programs built on Millstream need: models that follow a script, and hard values."""

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
    "final_json",
    "function_call",
    "reasoning",
    "refusal",
]
