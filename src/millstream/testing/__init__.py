"""What tests of programs built on Millstream need: scripted models, contracts to hold to, hard values."""

from millstream.models.script import (
    InvalidModelStep,
    ModelCall,
    ModelScriptError,
    ModelStep,
    ModelStepSpec,
    UnconsumedModelSteps,
    UnexpectedModelCall,
    assistant_message,
    final_json,
    function_call,
    reasoning,
    refusal,
)
from millstream.models.scripted import ScriptedModel
from millstream.testing import faults
from millstream.testing.awkward import CANARY, AwkwardValue, awkward_values
from millstream.testing.clock import ManualClock
from millstream.testing.logs import check_log, check_store
from millstream.testing.model_server import ModelServer, ReceivedRequest
from millstream.testing.sessions import check_session
from millstream.testing.streams import (
    StreamChecker,
    StreamGrammarError,
    StreamProblem,
    StreamReport,
    check_stream,
)

__all__ = [
    "CANARY",
    "AwkwardValue",
    "InvalidModelStep",
    "ManualClock",
    "ModelCall",
    "ModelScriptError",
    "ModelServer",
    "ModelStep",
    "ModelStepSpec",
    "ReceivedRequest",
    "ScriptedModel",
    "StreamChecker",
    "StreamGrammarError",
    "StreamProblem",
    "StreamReport",
    "UnconsumedModelSteps",
    "UnexpectedModelCall",
    "assistant_message",
    "awkward_values",
    "check_log",
    "check_session",
    "check_store",
    "check_stream",
    "faults",
    "final_json",
    "function_call",
    "reasoning",
    "refusal",
]
