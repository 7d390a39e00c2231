"""Is a history one that models take? Says what they would refuse it for."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

FAKE_ID = "__fake_id__"


def wrong_in(items: Sequence[Any]) -> list[str]:
    """What a model's server would complain of, item by item."""
    problems: list[str] = []
    waiting: Counter[str] = Counter()
    for place, item in enumerate(items):
        kind = item.get("type", "message")
        call_id = item.get("call_id")
        after = items[place + 1] if place + 1 < len(items) else {"role": "user"}
        if kind == "function_call":
            waiting[call_id] += 1
        elif kind == "function_call_output":
            if not waiting[call_id]:
                problems.append(f"{place}: an output of the call {call_id}, which is not there")
            waiting[call_id] -= 1
        elif waiting.total():
            problems.append(
                f"{place}: {kind}, where the calls {list(waiting.elements())} wait for their output"
            )
        if kind == "reasoning" and not is_said(after):
            problems.append(f"{place}: reasoning, and not what it led to")
    return [*problems, *(f"the end: no output of the call {call_id}" for call_id in waiting.elements())]


def is_said(item: Any) -> bool:
    if item.get("type", "message") == "message":
        return item["role"] == "assistant" and item.get("id") != FAKE_ID
    return item["type"] in ("function_call", "reasoning")
