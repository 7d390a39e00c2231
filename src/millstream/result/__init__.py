"""What a caller holds: the result of a run that is over, and the handle of one that streams."""

from millstream.result.base import AgentToolInvocation, RunResult, RunResultBase
from millstream.result.handle import RunResultStreaming, result_of

__all__ = [
    "AgentToolInvocation",
    "RunResult",
    "RunResultBase",
    "RunResultStreaming",
    "result_of",
]
