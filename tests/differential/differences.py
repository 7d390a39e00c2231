"""What differs from the SDK on purpose: the table, and what each entry excuses.

An entry is applied to the scenarios it names and to nothing else. Its `excuse` gets what the
SDK did and what we did, and makes of the first what it allows for; whatever then still
differs fails the test. So does an entry that excuses nothing any more, and one that the page
for those who come from the SDK does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

Record = dict[str, Any]
Excuse = Callable[[Record, Record], None]


@dataclass(frozen=True)
class Difference:
    """One row of the table."""

    name: str
    """As the page for users calls it."""
    sdk: str
    here: str
    why: str
    excuse: Excuse
    """Changes the SDK's record to what ours may be; takes from ours only what the row is about."""
    scenarios: tuple[str, ...]
    """Those it applies to, each of which has to need it; `ANY` and `GENERATED` stand for others."""

    def concerns(self, scenario: str) -> bool:
        """Whether the entry is applied to `scenario`."""
        return scenario in self.scenarios or ANY in self.scenarios


ANY = "any other scenario"
GENERATED = "what test_fuzz.py generates"


def excused(scenario: str, sdk: Record, ours: Record) -> set[str]:
    """Apply the entries that concern `scenario` to the SDK's record; the names of those that changed it."""
    used: set[str] = set()
    for each in DIFFERENCES:
        before = repr(sdk)
        if each.concerns(scenario):
            each.excuse(sdk, ours)
        if repr(sdk) != before:
            used.add(each.name)
    return used


# --- excuses ----------------------------------------------------------------------------------


def refused(by: str) -> Excuse:
    """We refuse with an error of class `by` what the SDK takes, or trips over in a way of its own."""

    def excuse(sdk: Record, ours: Record) -> None:
        error = ours.get("set_up") or ours.get("error")
        if error is not None and by in error["classes"]:
            sdk.clear()
            sdk.update(ours)

    return excuse


def accepted(sdk: Record, ours: Record) -> None:
    """We take what the SDK refuses."""
    if "error" not in ours and "set_up" not in ours:
        sdk.clear()
        sdk.update(ours)


def accepted_tools(sdk: Record, ours: Record) -> None:
    """We make a tool of what the SDK refuses."""
    if sdk["notes"] and not ours["notes"]:
        sdk["notes"], sdk["calls"] = ours["notes"], ours["calls"]


def refused_afterwards(sdk: Record, ours: Record) -> None:
    """What a program does with the state of a run is refused, and so nothing comes of it."""
    if "refused" in ours.get("after", ()):
        sdk["after"], sdk["calls"] = ours["after"], ours["calls"]


def error_texts(sdk: Record, ours: Record) -> None:
    """The text of an error is another, and nothing else of it."""
    for key in ("error", "set_up"):
        if key in sdk and key in ours:
            sdk[key]["text"] = ours[key]["text"]


def error_classes(sdk: Record, ours: Record) -> None:
    """An error is of a narrower class: whatever catches the SDK's catches ours."""
    for key in ("error", "set_up"):
        if key in sdk and key in ours and set(sdk[key]["classes"]) <= set(ours[key]["classes"]):
            sdk[key]["classes"] = ours[key]["classes"]


def noted_error_classes(sdk: Record, ours: Record) -> None:
    """As `error_classes`, where a scenario noted the class: a `SchemaError` is a `UserError`."""
    for theirs, note in zip(sdk["notes"], ours["notes"], strict=False):
        if note[1] == "SchemaError" and theirs[1] in ("UserError", "PydanticInvalidForJsonSchema"):
            theirs[1] = note[1]


_HISTORY = (
    "new_items",
    "raw_responses",
    "to_input_list",
    "to_input_list_normalized",
    "tool_input_guardrails",
    "tool_output_guardrails",
)


def more_is_kept(sdk: Record, ours: Record) -> None:
    """After an error or a cancellation more is kept: what the SDK has, and more of the same run."""
    if "error" not in sdk and ["cancelled"] not in sdk["notes"]:
        return
    if "error" in sdk and "error" in ours:
        sdk["error"].setdefault("run_data", ours["error"].get("run_data"))
    for theirs, here in _pairs(sdk, ours):
        for key in _HISTORY:
            if key in theirs and _is_part(theirs[key], here[key]):
                theirs[key] = here[key]
        if theirs.get("last_response_id", "") is None:
            theirs["last_response_id"] = here["last_response_id"]
    if "events" in sdk and "events" in ours:
        added = _added(sdk["events"], ours["events"])
        if added is not None and all(is_item(each) for each in added):
            sdk["events"] = ours["events"]


def is_item(event: Any) -> bool:
    return event[0] == "run_item_stream_event"


def _is_part(part: list[Any], whole: list[Any]) -> bool:
    """Whether all of `part` is in `whole`, in order."""
    return _added(part, whole) is not None


def _added(part: list[Any], whole: list[Any]) -> list[Any] | None:
    """What `whole` has besides `part`; None where not all of `part` is in it, in order."""
    added: list[Any] = []
    at = 0
    for each in whole:
        if at < len(part) and each == part[at]:
            at += 1
        else:
            added.append(each)
    return added if at == len(part) else None


def filtered_items(sdk: Record, ours: Record) -> None:
    """`new_items` has what a handoff's filter hid, and so has `to_input_list()`; its event is there too."""
    for key in ("new_items", "to_input_list"):
        if _is_part(sdk["result"][key], ours["result"][key]):
            sdk["result"][key] = ours["result"][key]
    if "events" in sdk and _is_part(sdk["events"], ours["events"]):
        sdk["events"] = ours["events"]


def more_is_stored(sdk: Record, ours: Record) -> None:
    """A session is given what it is given there, and more."""
    if _is_part(sdk["notes"], ours["notes"]):
        sdk["notes"] = ours["notes"]


def added_once_more(sdk: Record, ours: Record) -> None:
    """What a session has not taken is added again; without the input no turn begins."""
    more_is_stored(sdk, ours)
    no_turn_began(sdk, ours)


def output_of_a_failed_run(sdk: Record, ours: Record) -> None:
    """A run that had its output when its session did not take it keeps it."""
    if "events" in sdk:
        output_at_cancel(sdk, ours)


def stored_first(sdk: Record, ours: Record) -> None:
    """The input is stored before it is judged, streamed or not."""
    if "events" in sdk and sorted(sdk["notes"], key=repr) == sorted(ours["notes"], key=repr):
        sdk["notes"] = ours["notes"]


def without_its_call(sdk: Record, ours: Record) -> None:
    """An answer without a call is not given to the model."""
    keys = ("input", "to_input_list", "to_input_list_normalized")
    pairs = [(sdk["result"], ours["result"], key) for key in keys]
    pairs += [(theirs, here, "input") for theirs, here in zip(sdk["calls"], ours["calls"], strict=True)]
    for theirs, here, key in pairs:
        added = _added(here[key], theirs[key])
        if added is not None and all(each["type"] == "function_call_output" for each in added):
            theirs[key] = here[key]


def refused_turn(sdk: Record, ours: Record) -> None:
    """`current_turn` after `MaxTurnsExceeded` is the last turn that was taken."""
    if (
        "handle" in sdk
        and "handle" in ours
        and sdk["handle"]["current_turn"] == ours["handle"]["current_turn"] + 1
    ):
        sdk["handle"]["current_turn"] -= 1


def normalized_history(sdk: Record, ours: Record) -> None:
    """`to_input_list(mode="normalized")` of a plain run has everything, as that of a streamed one has there."""
    theirs, here = sdk.get("result"), ours.get("result")
    if theirs and here and _is_part(theirs["to_input_list_normalized"], here["to_input_list_normalized"]):
        theirs["to_input_list_normalized"] = here["to_input_list_normalized"]


def handoff_descriptions(sdk: Record, ours: Record) -> None:
    """The default description of a handoff is worded otherwise."""
    for theirs, here in zip(sdk["calls"], ours["calls"], strict=False):
        for one, other in zip(theirs["handoffs"], here["handoffs"], strict=False):
            ending = f" to the {one['agent_name']} agent to handle the request. "
            if one["tool_description"].startswith(f"Handoff{ending}"):
                own = one["tool_description"].removeprefix(f"Handoff{ending}")
                if other["tool_description"] == f"Hand over to the {one['agent_name']} agent. {own}".rstrip():
                    one["tool_description"] = other["tool_description"]


def empty_deltas(sdk: Record, ours: Record) -> None:
    """A scripted model streams no delta of a text that is empty."""
    if "events" in sdk:
        sdk["events"] = [each for each in sdk["events"] if not _is_empty_delta(each)]
        _renumber(sdk["events"])


def _is_empty_delta(event: Any) -> bool:
    return event[0] == "raw_response_event" and event[1].get("delta") == ""


def _renumber(events: list[Any]) -> None:
    number = 0
    for event in events:
        if event[0] == "raw_response_event":
            number = 0 if event[1]["type"] == "response.created" else number
            event[1]["sequence_number"] = number
            number += 1


def output_at_cancel(sdk: Record, ours: Record) -> None:
    """A run that had its output when it was cancelled keeps it."""
    if sdk["result"]["final_output"] is None:
        sdk["result"]["final_output"] = ours["result"]["final_output"]


def calls_by_then(sdk: Record, ours: Record) -> None:
    """A model may have been asked, and was left at once, where a run is cancelled at its first event."""
    if not sdk["calls"] and len(ours["calls"]) == 1:
        sdk["calls"] = ours["calls"]


def request_of_a_cancelled_response(sdk: Record, ours: Record) -> None:
    """A response that is cancelled before its end has no usage."""
    if sdk["result"]["usage"]["requests"] == ours["result"]["usage"]["requests"] + 1:
        sdk["result"]["usage"]["requests"] -= 1


def request_without_usage(sdk: Record, ours: Record) -> None:
    """A response whose server tells no usage counts as a request, streamed or not."""
    if "events" in sdk:
        usages = [each["usage"] for each in sdk["result"]["raw_responses"]]
        for usage in [*usages, sdk["result"]["usage"]]:
            usage["requests"] = usage["requests"] or 1


def usage_of_tries(sdk: Record, ours: Record) -> None:
    """Tries that failed count in the run's usage, not in that of the response that came at last."""
    for theirs, here in _pairs(sdk, ours):
        for one, other in zip(theirs["raw_responses"], here["raw_responses"], strict=False):
            one["usage"] = other["usage"]
        theirs["usage"]["request_usage_entries"] = here["usage"]["request_usage_entries"]
        if "error" in sdk:
            theirs["usage"]["requests"] = here["usage"]["requests"]


def _pairs(sdk: Record, ours: Record) -> list[tuple[Record, Record]]:
    """What both sides tell of a run: its result, and its exception's `run_data`."""
    both = [
        (sdk.get("result"), ours.get("result")),
        (sdk.get("error", {}).get("run_data"), ours.get("error", {}).get("run_data")),
    ]
    return [(theirs, here) for theirs, here in both if theirs is not None and here is not None]


def input_descriptions(sdk: Record, ours: Record) -> None:
    """The one text that an agent takes as a tool is described otherwise."""
    _reword(sdk, "Default input schema for agent-as-tool calls.", "A task for the agent, in words.")


def structured_inputs(sdk: Record, ours: Record) -> None:
    """What an agent is told of structured input is worded otherwise, and tells of the same."""
    for theirs, here in zip(sdk["calls"], ours["calls"], strict=False):
        for one, other in zip(theirs["input"], here["input"], strict=False):
            text, told = str(one.get("content", "")), str(other.get("content", ""))
            is_one = text.startswith("You are being called as a tool.")
            if is_one and told.startswith("Another agent calls you as a tool."):
                facts = [line for line in text.splitlines() if line.lstrip().startswith(("- ", '"'))]
                if all(fact in told for fact in facts):
                    one["content"] = told


def nested_streams(sdk: Record, ours: Record) -> None:
    """The model of an agent that is a tool is asked for a stream where that of the run is."""
    for theirs, here in zip(sdk["calls"], ours["calls"], strict=False):
        theirs["streamed"] = theirs["streamed"] or ("events" in ours and here["streamed"])


def no_overflow(sdk: Record, ours: Record) -> None:
    """A callback for events that is slow holds its agent up, and loses nothing."""
    if ours["notes"] and not sdk["notes"]:
        sdk.clear()
        sdk.update(ours)


def _reword(value: Any, old: str, new: str) -> None:
    """Replace a part of the texts in all of `value`."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(each, str):
            value[key] = each.replace(old, new)
        elif isinstance(each, dict | list):
            _reword(each, old, new)


def told_of_arguments(sdk: Record, ours: Record) -> None:
    """The model is told what was wrong with its arguments."""
    text = "An error occurred while running the tool. Please try again."
    told = next(each["output"] for each in ours["result"]["new_items"] if "output" in each)
    if told.startswith(f"{text} Error: Invalid JSON input for tool"):
        _replace(sdk, text, told)


def _replace(value: Any, old: str, new: str) -> None:
    """Replace text in all of `value`."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        if each == old:
            value[key] = new
        elif isinstance(each, dict | list):
            _replace(each, old, new)


def order_of_outputs(sdk: Record, ours: Record) -> None:
    """Outputs that stand side by side stand in our order: that of the calls."""
    calls = zip(sdk["calls"], ours["calls"], strict=False)
    for theirs, here in ((sdk, ours), *_pairs(sdk, ours), *calls):
        for key in ("events", "new_items", "to_input_list", "to_input_list_normalized", "input"):
            if isinstance(theirs.get(key), list) and key in here:
                theirs[key] = _in_order_of(here[key], theirs[key])


def _in_order_of(model: list[Any], items: list[Any]) -> list[Any]:
    """`items` with neighbouring outputs in the order that they have in `model`."""
    places = {call_id: place for place, each in enumerate(model) if (call_id := _answered(each))}
    ordered: list[Any] = []
    for is_output, group in groupby(items, key=lambda each: _answered(each) is not None):
        run = list(group)
        ordered += sorted(run, key=lambda each: places.get(_answered(each) or "", -1)) if is_output else run
    return ordered


def _answered(value: Any) -> str | None:
    """The call that `value` (an event, an item or an input item) is the output of."""
    item = value[-1] if isinstance(value, list) else value
    raw = item.get("raw_item", item) if isinstance(item, dict) else {}
    return raw["call_id"] if raw.get("type") == "function_call_output" else None


def asked_once(sdk: Record, ours: Record) -> None:
    """`is_enabled` is asked once a turn."""
    if all(each in ours["notes"] for each in sdk["notes"]):
        sdk["notes"] = ours["notes"]


def sent_again(sdk: Record, ours: Record) -> None:
    """What a response without an id was sent is sent again: the server cannot know what it was about."""
    for theirs, here in zip(sdk["calls"], ours["calls"], strict=True):
        if _is_part(theirs["input"], here["input"]):
            theirs["input"] = here["input"]


# --- the table --------------------------------------------------------------------------------

STRUCTURED = (
    "an_agent_that_is_given_a_dataclass",
    "an_agent_that_is_given_a_dataclass_and_its_schema",
    "an_agent_that_is_given_a_model_and_its_schema",
    "an_agent_that_is_given_a_model_without_descriptions_and_its_schema",
    "an_agent_that_is_given_a_nested_model_and_its_schema",
)


def inputs_as_lists(sdk: Record, ours: Record) -> None:
    """A text that is the input comes to a guardrail as a text, streamed or not."""
    for theirs, here in zip(sdk["notes"], ours["notes"], strict=False):
        for index, (one, other) in enumerate(zip(theirs, here, strict=False)):
            if one == [{"content": other, "role": "user"}]:
                theirs[index] = other


def no_turn_began(sdk: Record, ours: Record) -> None:
    """The turn whose model was not asked does not count."""
    if (
        "handle" in sdk
        and not ours["calls"]
        and (sdk["handle"]["current_turn"], 0)
        == (
            1,
            ours["handle"]["current_turn"],
        )
    ):
        sdk["handle"]["current_turn"] = 0


def not_asked(sdk: Record, ours: Record) -> None:
    """The model is not asked where a parallel guardrail trips at once."""
    if len(sdk["calls"]) == 1 and not ours["calls"]:
        sdk["calls"] = []
        sdk["events"] = [each for each in sdk["events"] if each[0] != "raw_response_event"]
        for theirs, here in _pairs(sdk, ours):
            theirs["usage"] = here["usage"]


def blocked_outputs(sdk: Record, ours: Record) -> None:
    """Of the call whose output was blocked, the arguments are kept, and what the model said."""
    for theirs, here in _pairs(sdk, ours):
        for one, other in zip(theirs["new_items"], here["new_items"], strict=False):
            if one["raw_item"] == {key: other["raw_item"].get(key) for key in one["raw_item"]}:
                one["raw_item"] = other["raw_item"]
        for one, other in zip(theirs["raw_responses"], here["raw_responses"], strict=False):
            one["output"] = one["output"] or other["output"]


def hooks_behind(sdk: Record, ours: Record) -> None:
    """A hook is not called where the one before it raised."""
    if "error" in sdk and sdk["error"]["text"].endswith(" broke") and _is_part(ours["notes"], sdk["notes"]):
        sdk["notes"] = ours["notes"]


def tool_hooks(sdk: Record, ours: Record) -> None:
    """What a hook raises is what it raised, also where a tool is about to run, or has run."""
    if sdk["error"]["text"] == f"Error running tool look: {ours['error']['text']}":
        for key in ("text", "classes"):
            sdk["error"][key] = ours["error"][key]


DIFFERENCES = [
    Difference(
        "the input that guardrails of a streamed run are given",
        "a list of items, also where the input is a text",
        "the input as it was given, as in a plain run",
        "one guardrail serves both",
        inputs_as_lists,
        (
            "input_guardrails_that_pass",
            "a_plain_function_as_input_guardrail",
            "a_blocking_input_guardrail_that_trips",
            "a_parallel_input_guardrail_that_trips_before_a_tool",
            "the_other_input_guardrails_of_one_that_trips",
            "input_guardrails_of_the_second_agent",
        ),
    ),
    Difference(
        "`current_turn` of a run that a guardrail stopped before its model was asked",
        "1",
        "0",
        "no turn began",
        no_turn_began,
        (
            "a_blocking_input_guardrail_that_trips",
            "a_parallel_input_guardrail_that_trips_before_a_tool",
            "the_other_input_guardrails_of_one_that_trips",
            "a_blocking_input_guardrail_that_raises",
            "a_parallel_input_guardrail_that_raises",
            "an_input_guardrail_that_gives_nothing",
            "a_session_and_an_input_guardrail_that_trips",
            "guardrails_that_are_no_functions",
        ),
    ),
    Difference(
        "a parallel guardrail that trips without waiting for anything",
        "a streamed run may have asked the model",
        "the model is not asked",
        "it would be paid for",
        not_asked,
        ("a_parallel_input_guardrail_that_trips_before_a_tool",),
    ),
    Difference(
        "a guardrail that returns no `GuardrailFunctionOutput`",
        "an `AttributeError`",
        "`UserError`, which names the guardrail",
        "the mistake is told where it was made",
        refused("UserError"),
        ("an_input_guardrail_that_gives_nothing",),
    ),
    Difference(
        "a tool's output that an output guardrail blocked",
        "replaced in the history; the call loses its other fields, the response is emptied, and the exception has "
        "no `run_data`",
        "replaced in the history and in `run_data`, and that is all",
        "what the model asked for is not what was blocked",
        blocked_outputs,
        (
            "an_output_guardrail_of_a_tools_output_trips",
            "a_message_for_a_tools_output_that_is_blocked",
            "a_formatter_for_a_tools_output_that_is_blocked",
        ),
    ),
    Difference(
        "hooks of a run and of its agent on one moment",
        "are called side by side: both, also where one raises",
        "one after the other, in the same order; behind one that raises none",
        "they run in the run's own task, and see its context variables",
        hooks_behind,
        (
            "a_run_hook_that_raises_on_llm_start",
            "a_run_hook_that_raises_on_agent_start",
            "a_run_hook_that_raises_on_agent_end",
            "a_run_hook_that_raises_on_handoff",
            "a_run_hook_that_raises_on_tool_start",
            "a_run_hook_that_raises_on_tool_end",
            "an_agent_hook_that_raises_on_llm_end",
        ),
    ),
    Difference(
        "what `on_tool_start` or `on_tool_end` raises",
        "a `UserError` that says that the tool failed",
        "what was raised, with a note that names the hook, as for every hook",
        "the tool did not fail",
        tool_hooks,
        (
            "a_run_hook_that_raises_on_tool_start",
            "a_run_hook_that_raises_on_tool_end",
            "an_agent_hook_that_raises_on_tool_start",
            "an_agent_hook_that_raises_on_tool_end",
        ),
    ),
    Difference(
        "`hooks=` of a run that are no `RunHooks`",
        "a `TypeError`",
        "`UserError`",
        "one family of errors",
        refused("UserError"),
        ("hooks_of_an_agent_for_a_run", "no_hooks_for_a_run"),
    ),
    Difference(
        "a hook that is not `async`",
        "a `TypeError`, when it has been called",
        "is called",
        "nothing speaks against it",
        accepted,
        ("hooks_whose_method_is_a_plain_function",),
    ),
    Difference(
        "two tools, or a tool and a handoff, of one name",
        "a warning, and one of them wins",
        '`DuplicateToolError`, also of agents that are handed over to; `tool_name_collision_policy="warn"` '
        "is the SDK's way",
        "the one that loses is never called, and nobody notices",
        refused("DuplicateToolError"),
        (
            "two_tools_of_one_name",
            "two_tools_of_one_name_where_that_is_an_error",
            "a_tool_and_a_handoff_of_one_name",
        ),
    ),
    Difference(
        "a kind in `error_handlers` that does not exist",
        "ignored",
        "`UserError` when the run is called",
        "a misspelt handler handles nothing",
        refused("UserError"),
        ("a_handler_of_a_kind_that_does_not_exist",),
    ),
    Difference(
        "`max_turns=0`",
        "`MaxTurnsExceeded`",
        "`UserError`",
        "no run can succeed with it",
        refused("UserError"),
        ("no_turns_at_all",),
    ),
    Difference(
        "a starting agent, tool or handoff that is none",
        "an `AttributeError` later, or ignored",
        "`UserError` where it is given",
        "the mistake is told where it was made",
        refused("UserError"),
        ("something_that_is_no_agent", "no_tool_at_all_in_the_list", "no_agent_at_all_in_the_handoffs"),
    ),
    Difference(
        "input that no model takes",
        "sent, or an error of Python's own",
        "`InputItemError` when the run is called, with the place in the list",
        "the model's server says less, and later",
        refused("InputItemError"),
        ("a_number_as_input", "an_input_item_without_anything"),
    ),
    Difference(
        "a dict of settings with a key that is no setting",
        "`TypeError`",
        "`UserError`, which says which key may have been meant",
        "one family of errors",
        refused("UserError"),
        ("a_configuration_with_an_unknown_field",),
    ),
    Difference(
        "what a `handoff_history_mapper` returns",
        "taken as it is, a text as a list of letters",
        "`UserError` if it is no list of items",
        "the model's server says less, and later",
        refused("UserError"),
        ("a_history_nested_in_a_way_that_gives_no_items",),
    ),
    Difference(
        "`response.incomplete`",
        "a `ModelBehaviorError`",
        "accepted: what was said becomes items, and the run goes on",
        "the text is there, and paid for",
        accepted,
        ("a_response_that_is_not_complete",),
    ),
    Difference(
        "`ModelRetrySettings` without a policy, or without `max_retries`",
        "nothing is tried again",
        "what the client tries again; twice",
        "who sets it wants it",
        accepted,
        ("no_tries_without_a_policy",),
    ),
    Difference(
        "a `ConnectionError`",
        "no `network_error()`",
        "one",
        "it is one",
        accepted,
        ("a_line_that_broke",),
    ),
    Difference(
        "a `UserError`",
        "tried again, where the policy says so",
        "never",
        "it would be the same mistake",
        refused("UserError"),
        ("a_users_mistake_that_is_tried_again",),
    ),
    Difference(
        "usage of tries that failed",
        "requests, and empty entries, of the response that came at last; of a run that failed, none",
        "requests of the run",
        "a response tells what it used itself",
        usage_of_tries,
        (
            "a_model_that_advises_a_try",
            "a_model_that_advises_against_a_try",
            "a_policy_for_a_status",
            "a_policy_that_gives_a_decision",
            "a_policy_that_is_a_coroutine",
            "a_try_in_the_second_turn",
            "a_try_that_helps",
            "tries_that_do_not_help",
        ),
    ),
    Difference(
        "two calls of one `call_id` in a response",
        "`ModelBehaviorError`",
        "both are answered, in order",
        "some servers count their ids anew in every response, or not at all",
        accepted,
        ("one_call_id_for_two_calls",),
    ),
    Difference(
        "parameters that begin with `_`, and `functools.partial`",
        "no tool can be made of them",
        "tools like any other",
        "nothing speaks against it",
        accepted_tools,
        ("schema_of_an_underscore", "schema_of_a_partial_function"),
    ),
    Difference(
        "a state that is run on from again",
        "goes on from where the first run came to, or asks the model once more",
        "`RunStateError`; `to_state()` of what came of it, or `RunState.after(error)`",
        "what was approved is done once",
        refused_afterwards,
        ("a_state_that_goes_on_twice",),
    ),
    Difference(
        "a decision over a call that does not wait, or was decided over otherwise",
        "taken, and of two the last",
        "`ApprovalError`; the same decision again changes nothing",
        "who decided should know that it was in vain",
        refused_afterwards,
        ("decisions_that_cannot_be_taken",),
    ),
    Difference(
        "classes of errors",
        "`UserError`, `ModelBehaviorError`",
        "classes of their own below these: `except` catches what it caught",
        "a program can tell them apart",
        error_classes,
        (
            GENERATED,
            "a_context_that_is_not_first",
            "a_function_about_approval_that_raises",
            "a_stream_that_is_cut_off",
            "a_tool_made_by_hand_that_raises",
            "a_tool_whose_error_ends_the_run",
            "an_agent_whose_failure_ends_the_run",
            "an_mcp_tool_raises_an_error_of_its_own_and_that_ends_the_run",
            "two_mcp_servers_have_a_tool_of_one_name",
            "hooks_of_a_tool_that_ends_the_run",
            "a_tool_input_guardrail_that_raises",
            "a_tool_output_guardrail_that_raises",
            "an_output_type_that_cannot_be_strict",
            "a_script_that_is_too_short",
            "a_session_and_a_tool_that_ends_the_run",
            "spans_of_a_run_that_a_tool_ends",
        ),
    ),
    Difference(
        "a type without a JSON schema",
        "an error of pydantic's",
        "`SchemaError`, a `UserError`",
        "one family of errors",
        noted_error_classes,
        (
            "schema_of_a_callable",
            "schema_of_a_list_of_dicts",
            "schema_of_a_mapping",
            "schema_of_an_open_model",
            "schema_of_keywords",
        ),
    ),
    Difference(
        "texts of errors",
        "short; those about a model's output say nothing of it",
        "say what was wrong and what to change",
        "they are read by whoever has to mend it",
        error_texts,
        (
            GENERATED,
            "a_backlog_of_no_events",
            "a_callback_for_events_that_is_none",
            "a_callback_that_takes_too_much",
            "two_mcp_servers_have_a_tool_of_one_name",
            "a_context_that_is_not_first",
            "a_filter_and_a_conversation",
            "a_filter_that_gives_something_else",
            "a_handler_that_misses_the_output_type",
            "a_handoff_with_a_bad_input",
            "a_handoff_with_no_input",
            "a_script_that_is_too_short",
            "a_session_and_a_conversation_of_the_server",
            "a_session_and_responses_of_the_server",
            "a_session_callback_that_gives_a_tuple",
            "a_session_callback_that_gives_none",
            "a_stream_that_is_cut_off",
            "an_input_without_a_callback",
            "hooks_of_a_run_for_an_agent",
            "an_output_that_is_a_list_that_is_not_wrapped",
            "an_output_that_is_a_list_wrapped_otherwise",
            "an_output_that_is_a_missing_field",
            "an_output_that_is_a_number_for_a_model",
            "an_output_that_is_cut_off_json",
            "an_output_that_is_no_json",
            "an_output_that_is_the_wrong_type",
            "an_output_type_that_cannot_be_strict",
            "bad_arguments_end_the_run_where_no_error_function_is",
            "parameters_that_are_no_type",
        ),
    ),
    Difference(
        "arguments of a tool call that are not valid",
        "the model is told to try again",
        "the model is told what was wrong with them, too",
        "so that it can do better",
        told_of_arguments,
        (
            "an_agent_that_is_given_no_json",
            "an_agent_that_is_given_nothing",
            "an_agent_that_is_given_the_wrong_type",
            "arguments_that_are_no_json",
            "arguments_of_the_wrong_type",
            "arguments_that_are_missing",
        ),
    ),
    Difference(
        "description of the text that an agent takes as a tool",
        '"Default input schema for agent-as-tool calls."',
        '"A task for the agent, in words."',
        "it is told to a model",
        input_descriptions,
        (ANY, "an_agent_as_a_tool"),
    ),
    Difference(
        "text that an agent is given of structured input",
        'begins with "You are being called as a tool."',
        "tells of the same in other words",
        "",
        structured_inputs,
        STRUCTURED,
    ),
    Difference(
        "the model of an agent that is a tool",
        "is asked for a stream where there is an `on_stream`",
        "also where the run that calls it streams",
        "its text is in the log as it forms",
        nested_streams,
        (ANY, "an_agent_as_a_tool"),
    ),
    Difference(
        "an `on_stream` that is slow",
        "fails its tool when `on_stream_max_pending_events` events wait",
        "holds its agent up between turns; the number has no effect",
        "the log keeps the events, and nothing piles up",
        no_overflow,
        ("a_callback_for_events_that_is_slow",),
    ),
    Difference(
        "empty texts of a `ScriptedModel`",
        "one delta that is empty",
        "no delta",
        "no server sends one",
        empty_deltas,
        (
            "a_handoff_with_no_input",
            "a_message_without_text",
            "an_agent_that_is_given_nothing",
            "an_output_type_and_no_message",
            "arguments_that_are_an_empty_text",
        ),
    ),
    Difference(
        "default description of a handoff",
        '"Handoff to the X agent to handle the request."',
        '"Hand over to the X agent."',
        "",
        handoff_descriptions,
        (ANY, "a_handoff"),
    ),
    Difference(
        "outputs of calls whose tool does not exist",
        "behind those of the other calls",
        "in the order of the calls",
        "one order, whatever became of them",
        order_of_outputs,
        (GENERATED, "an_unknown_tool_that_the_model_is_told_of"),
    ),
    Difference(
        "a run that failed or was cancelled",
        "`run_data` of its own exceptions",
        "every exception has `run_data`, with all items and `partial_text`; open tool calls are answered, so the "
        "history is valid",
        "what went before an error is what one needs after it",
        more_is_kept,
        (ANY, "a_tool_whose_error_ends_the_run", "a_model_that_raises", "cancelled_at_a_delta"),
    ),
    Difference(
        "`new_items` after a handoff's filter",
        "without what the filter hid",
        'every item; `to_input_list(mode="normalized")` gives what the model was given',
        "a filter is about what the next agent sees, not about what happened",
        filtered_items,
        (
            "a_filter_that_hides_tools",
            "a_filter_that_removes_all_tools",
            "a_session_and_a_handoff_that_shows_nothing",
        ),
    ),
    Difference(
        "what a session has of a handoff that a filter hid",
        "nothing",
        "every item",
        "a session has what happened",
        more_is_stored,
        ("a_session_and_a_handoff_that_shows_nothing",),
    ),
    Difference(
        "what a session has of a turn in which a tool or a guardrail failed",
        "the calls that had been answered, or nothing",
        "the whole turn; what failed has an answer that says so",
        "tools that have run did what they do: the next run is to know",
        more_is_stored,
        ("a_session_and_a_tool_that_ends_the_run",),
    ),
    Difference(
        "a session that does not take something",
        "the run fails",
        "the run fails, and what is missing is added once more when it has ended",
        "often it was locked for a moment, and the history has no hole then",
        added_once_more,
        ("a_session_that_does_not_take_the_input", "a_session_that_does_not_take_a_turn"),
    ),
    Difference(
        "the output of a run whose session does not take it",
        "lost, where it is streamed",
        "`final_output` has it; the run has failed all the same",
        "it was streamed",
        output_of_a_failed_run,
        ("a_session_that_does_not_take_the_output",),
    ),
    Difference(
        "when the input of a streamed run is stored in its session",
        "when the blocking input guardrails have judged it",
        "before, as of a plain run",
        "one loop",
        stored_first,
        ("a_session_and_an_input_guardrail_that_trips",),
    ),
    Difference(
        "an answer in a session whose call is not there",
        "given to the model",
        "left out, as are calls without an answer in both, and reasoning without what it led to",
        "the model's server would refuse it; a limit may well cut a turn in two",
        without_its_call,
        ("an_answer_in_a_session_that_has_no_call",),
    ),
    Difference(
        "`current_turn` after `MaxTurnsExceeded`",
        "counts the turn that was refused",
        "the last turn that was taken",
        "it never began",
        refused_turn,
        (
            GENERATED,
            "a_handler_that_gives_nothing",
            "a_handler_that_misses_the_output_type",
            "a_handler_that_raises",
            "a_handoff_that_is_the_last_turn",
            "a_session_and_too_many_turns",
            "an_output_guardrail_of_what_a_handler_gives",
            "spans_of_too_many_turns",
            "the_default_limit_of_turns",
            "too_many_turns",
        ),
    ),
    Difference(
        '`to_input_list(mode="normalized")` where the server keeps the history',
        "of a plain run, without earlier tool calls; of a streamed one, with them",
        "everything",
        "plain and streamed runs are the same",
        normalized_history,
        (GENERATED, "the_server_keeps_the_history_by_itself"),
    ),
    Difference(
        "a response without an id, where the server is to keep the history",
        "the next call sends only what is new",
        "the next call sends everything again",
        "the server could not know what it is about",
        sent_again,
        ("responses_without_an_id",),
    ),
    Difference(
        "`is_enabled`",
        "asked twice a turn",
        "asked once a turn",
        "it may cost something",
        asked_once,
        ("an_agent_as_a_tool_that_asks_whether_it_is_enabled", "tools_that_are_not_enabled"),
    ),
    Difference(
        "usage of a response whose server tells none",
        "no request, where it is streamed",
        "one request",
        "it was made",
        request_without_usage,
        ("a_response_without_usage",),
    ),
    Difference(
        "how soon a model hears of a cancellation",
        "when the reader comes to it: the whole response may have come by then",
        "at once: what a response would have used, had it ended, is not counted",
        "cancel means stop",
        request_of_a_cancelled_response,
        ("cancelled_at_a_delta",),
    ),
    Difference(
        "cancelling at the first event",
        "the model is not asked",
        "the model may have been asked already, and is left at once",
        "a run does not wait to be read before it begins",
        calls_by_then,
        ("cancelled_at_the_first_event",),
    ),
    Difference(
        "cancelling a run that has its output",
        "the output is lost",
        "nothing changes",
        "there is nothing left to stop",
        output_at_cancel,
        ("cancelled_when_all_is_said",),
    ),
]
