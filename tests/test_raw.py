"""Model events come out typed, and as if each had been validated as its one class."""

import copy
import inspect
import pickle
import typing
from typing import Any, Literal

import pytest
from openai import BaseModel
from openai.types.responses import (
    ResponseCompletedEvent,
    ResponseOutputItem,
    ResponseOutputItemDoneEvent,
    ResponseStreamEvent,
    ResponseTextDeltaEvent,
)
from openai.types.responses.response_text_delta_event import Logprob

from millstream import codec, raw
from millstream.errors import DecodeError


def members(union: Any) -> list[type[BaseModel]]:
    return list(typing.get_args(typing.get_args(union)[0]))


EVENT_CLASSES = members(ResponseStreamEvent)
ITEM_CLASSES = members(ResponseOutputItem)


def sample(annotation: Any, *, everything: bool) -> Any:
    """Some JSON for a type; of an object every field, or only those that it requires."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return args[0]
    if origin is typing.Annotated:
        return sample(args[0], everything=everything)
    if origin in (list, typing.Sequence) or str(origin) == "<class 'collections.abc.Sequence'>":
        return [sample(args[0], everything=everything)]
    if origin is dict:
        return {"key": sample(args[1], everything=everything)}
    if args:  # a union: the first that is not None
        return sample(next(arg for arg in args if arg is not type(None)), everything=everything)
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return sample_of(annotation, everything=everything)
    plain: dict[Any, Any] = {str: "téxt", int: 7, float: 0.5, bool: True, object: {"k": [1]}, Any: {"k": [1]}}
    return plain[annotation]


def sample_of(cls: type[Any], *, everything: bool = False) -> dict[str, Any]:
    return {
        field.alias or name: sample(field.annotation, everything=everything)
        for name, field in cls.model_fields.items()
        if everything or field.is_required()
    }


def type_of(cls: type[Any]) -> str:
    return typing.get_args(cls.model_fields["type"].annotation)[0]


def assert_same(event: Any, validated: BaseModel) -> None:
    """Nothing that a program can ask of the two tells them apart."""
    assert type(event) is type(validated)
    assert isinstance(event, BaseModel)
    assert event == validated
    assert event.model_fields_set == validated.model_fields_set
    assert event.model_extra == validated.model_extra
    assert event.model_dump() == validated.model_dump()
    assert event.model_dump(exclude_unset=True) == validated.model_dump(exclude_unset=True)
    assert codec.decode(event.model_dump_json()) == codec.decode(validated.model_dump_json())
    assert event.to_dict() == validated.to_dict()
    for name in [*type(validated).model_fields, *(validated.model_extra or {})]:
        assert getattr(event, name) == getattr(validated, name)
    assert copy.copy(event) == copy.deepcopy(event) == validated
    assert event.model_copy(update={"type": "x"}) != validated
    back = pickle.loads(pickle.dumps(event))
    assert back == validated
    assert back.model_fields_set == validated.model_fields_set


# --- one class per type -------------------------------------------------------------------------


@pytest.mark.parametrize("everything", [False, True], ids=["required fields", "all fields"])
@pytest.mark.parametrize("cls", EVENT_CLASSES, ids=type_of)
def test_an_event_is_as_if_validated(cls: type[BaseModel], everything: bool) -> None:
    values = sample_of(cls, everything=everything)

    event = raw.decode(codec.encode(values))

    assert_same(event, cls.model_validate(values))


@pytest.mark.parametrize("cls", EVENT_CLASSES, ids=type_of)
def test_fields_that_the_types_do_not_know_are_kept(cls: type[BaseModel]) -> None:
    values = sample_of(cls) | {"obfuscation": "abc", "new_in_2030": {"a": [1]}}

    event: Any = raw.decode(codec.encode(values))

    assert_same(event, cls.model_validate(values))
    assert event.new_in_2030 == {"a": [1]}


@pytest.mark.parametrize("cls", EVENT_CLASSES, ids=type_of)
def test_an_event_is_written_as_it_was_sent(cls: type[BaseModel]) -> None:
    values = sample_of(cls, everything=True) | {"new_in_2030": None}
    data = codec.encode(values)

    assert codec.decode(raw.encode(raw.decode(data))) == values


@pytest.mark.parametrize("cls", EVENT_CLASSES, ids=type_of)
def test_fields_that_a_server_left_out_leave_a_usable_event(cls: type[BaseModel]) -> None:
    kind = type_of(cls)

    event: Any = raw.decode(codec.encode({"type": kind}))

    assert event.__class__ is cls
    assert event.type == kind
    assert codec.decode(raw.encode(event)) == {"type": kind}


def test_the_values_of_deltas_are_not_checked() -> None:
    flat = [kind for cls in EVENT_CLASSES if (kind := type_of(cls)).endswith(".delta")]

    unchecked = [kind for kind in flat if (reader := raw._READERS[kind]) and not reader.is_never_flat]

    assert set(flat) - set(unchecked) == {"response.shell_call_output_content.delta"}


# --- the text delta, which is nearly all there is ---------------------------------------------------

DELTA: dict[str, Any] = {
    "type": "response.output_text.delta",
    "sequence_number": 7,
    "item_id": "msg_1",
    "output_index": 0,
    "content_index": 0,
    "delta": " wörld\u2028",
    "logprobs": [],
}


def decoded(values: dict[str, Any]) -> ResponseTextDeltaEvent:
    event = raw.decode(codec.encode(values))
    assert isinstance(event, ResponseTextDeltaEvent)
    return event


def test_a_delta_that_was_not_sent_adds_nothing() -> None:
    assert decoded({"type": "response.output_text.delta"}).delta == ""
    arguments: Any = raw.decode(b'{"type":"response.function_call_arguments.delta"}')
    assert arguments.delta == ""


def test_a_text_delta_has_its_text() -> None:
    assert decoded(DELTA).delta == " wörld\u2028"


@pytest.mark.parametrize("order", [list(DELTA), list(reversed(DELTA))], ids=["sent", "reversed"])
def test_the_order_of_the_keys_does_not_matter(order: list[str]) -> None:
    values = {key: DELTA[key] for key in order}

    assert_same(decoded(values), ResponseTextDeltaEvent.model_validate(values))


def test_probabilities_are_typed_where_they_are_sent() -> None:
    values = DELTA | {"logprobs": [{"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b"}]}]}

    event = decoded(values)

    assert_same(event, ResponseTextDeltaEvent.model_validate(values))
    assert isinstance(event.logprobs[0], Logprob)


@pytest.mark.parametrize("logprobs", [None, "missing"])
def test_a_server_that_sends_no_probabilities_gives_none(logprobs: Any) -> None:
    values = {key: value for key, value in DELTA.items() if key != "logprobs"}
    if logprobs is None:
        values["logprobs"] = None

    event = decoded(values)

    assert not event.logprobs
    assert event.model_dump(exclude_unset=True) == values


def test_events_share_nothing_that_can_be_changed() -> None:
    short = {key: value for key, value in DELTA.items() if key != "logprobs"}
    one, other = decoded(short), decoded(short)

    one.logprobs.append(Logprob(token="x", logprob=0.0))
    one.delta = "changed"
    one.model_extra["more"] = 1  # pyright: ignore[reportOptionalSubscript]
    setattr(one, "later", 2)  # noqa: B010  # a field that the type does not have

    assert other.logprobs == []
    assert other.delta == " wörld\u2028"
    assert other.model_extra == {}
    assert other.model_fields_set == set(short)
    assert decoded(short).model_fields_set == set(short)


ALIKE = [DELTA | {"delta": f"word {n}", "sequence_number": n} for n in range(20)]


@pytest.mark.parametrize("more", [{}, {"obfuscation": "x"}, {"class": None}], ids=repr)
def test_events_that_are_alike_are_decoded_in_one_as_one_by_one(more: dict[str, Any]) -> None:
    together = raw.decode_alike([codec.encode(values | more) for values in ALIKE])

    assert together is not None
    for event, values in zip(together, ALIKE, strict=True):
        assert_same(event, ResponseTextDeltaEvent.model_validate(values | more))


@pytest.mark.parametrize("name", ["a-b", "_private", ""])
def test_a_field_whose_name_is_none_of_pythons_is_kept_all_the_same(name: str) -> None:
    values = DELTA | {name: 1}
    event = decoded(values)

    assert event == ResponseTextDeltaEvent.model_validate(values)
    assert event.model_extra == {name: 1}


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "response.refusal.delta"},
        {"type": "response.thing.invented"},
        {"type": None},
        {"logprobs": [{"token": "a", "logprob": -0.5, "top_logprobs": []}]},
        {"logprobs": None, "item_id": "other"},
        {"invented": 1},
    ],
    ids=repr,
)
@pytest.mark.parametrize("place", [0, 1, 19])
def test_an_odd_one_among_them_changes_nothing(odd: dict[str, Any], place: int) -> None:
    sent = [codec.encode(values | (odd if n == place else {})) for n, values in enumerate(ALIKE)]
    missing = [
        {key: v[key] for key in v if key != "item_id"} if n == place else v for n, v in enumerate(ALIKE)
    ]
    without = [codec.encode(values) for values in missing]

    for jsons in (sent, without):
        together = raw.decode_alike(jsons)
        if together is not None:
            for event, json in zip(together, jsons, strict=True):
                assert_same(event, raw.decode(json))


def test_a_server_that_invents_keys_gets_its_events_all_the_same() -> None:
    for n in range(200):
        values = DELTA | {f"key_{n}": n}
        assert_same(decoded(values), ResponseTextDeltaEvent.model_validate(values))


# --- what no type is known for ------------------------------------------------------------------------


def test_an_event_of_an_unknown_type_passes() -> None:
    values = {"type": "response.thing.invented", "sequence_number": 1, "payload": {"a": [1, None]}}

    event: Any = raw.decode(codec.encode(values))

    assert type(event).__name__ == "UnknownRawEvent"
    assert event.type == "response.thing.invented"
    assert event.payload == {"a": [1, None]}
    assert codec.decode(raw.encode(event)) == values


@pytest.mark.parametrize(
    "data", [b"[]", b"{}", b"7", b'"type"', b"null", b'{"type":', b"", b'{"type":["a"]}'], ids=repr
)
def test_what_is_no_event_is_one_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        raw.decode(data)


def test_a_value_of_the_wrong_type_is_passed_on_as_sent() -> None:
    values = sample_of(EVENT_CLASSES[0]) | {"sequence_number": {"not": "a number"}}

    event: Any = raw.decode(codec.encode(values))

    assert event.__class__ is EVENT_CLASSES[0]
    assert event.sequence_number == {"not": "a number"}


# --- items ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("everything", [False, True], ids=["required fields", "all fields"])
@pytest.mark.parametrize("cls", ITEM_CLASSES, ids=type_of)
def test_an_output_item_is_typed(cls: type[BaseModel], everything: bool) -> None:
    values = sample_of(cls, everything=everything)

    assert_same(raw.item_from(values), cls.model_validate(values))


@pytest.mark.parametrize("cls", ITEM_CLASSES, ids=type_of)
def test_an_output_item_in_an_event_is_as_if_validated_there(cls: type[BaseModel]) -> None:
    item = sample_of(cls, everything=True) | {"type": type_of(cls)}
    done = sample_of(ResponseOutputItemDoneEvent) | {"item": item}
    completed = sample_of(ResponseCompletedEvent)
    completed["response"]["output"] = [item, item]

    assert_same(raw.decode(codec.encode(done)), ResponseOutputItemDoneEvent.model_validate(done))
    assert_same(raw.decode(codec.encode(completed)), ResponseCompletedEvent.model_validate(completed))


@pytest.mark.parametrize(
    "item", [{"type": "invented_item"}, {"type": "message", "content": "text"}, "text", None]
)
def test_an_item_that_does_not_validate_is_passed_on_in_its_event_as_sent(item: Any) -> None:
    event = sample_of(ResponseOutputItemDoneEvent) | {"item": item}

    assert codec.decode(raw.encode(raw.decode(codec.encode(event)))) == event


@pytest.mark.parametrize(
    "value", [None, "text", [1], {"type": "function_call_output", "output": "x"}, {"type": ["odd"]}, {}]
)
def test_what_no_model_outputs_stays_what_it_is(value: Any) -> None:
    if isinstance(value, dict) and value.get("type") == "function_call_output":
        value = {"type": "invented_item"}

    assert raw.item_from(value) is value


def test_an_item_that_lacks_fields_is_built_from_what_is_there() -> None:
    item = raw.item_from({"type": "function_call", "name": "f", "arguments": "{}"})

    assert item.name == "f"
    assert codec.decode(raw.encode(item)) == {"type": "function_call", "name": "f", "arguments": "{}"}


# --- writing ----------------------------------------------------------------------------------------------


def test_an_event_that_pydantic_cannot_write_is_written_all_the_same() -> None:
    event = ResponseTextDeltaEvent.construct(None, **DELTA | {"delta": object()})

    assert codec.decode(raw.encode(event))["delta"] == {"$unserializable": "object"}
    assert codec.decode(raw.encode(event))["item_id"] == "msg_1"


def test_an_event_that_is_no_model_is_written_as_what_it_is() -> None:
    assert raw.encode({"type": "x", "n": float("nan")}) == (
        b'{"type":"x","n":{"$unserializable":"float","repr":"nan"}}'
    )
    assert raw.encode(None) == b"null"
