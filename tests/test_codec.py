"""Promise 5: encoding is total, and what goes out is strict."""

import dataclasses
import datetime
import decimal
import enum
import gc
import json
import logging
import pathlib
import re
import threading
import uuid
import warnings
from typing import Any, NamedTuple, NoReturn, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream import codec
from millstream.codec import BadField
from millstream.errors import DecodeError
from millstream.testing import CANARY, AwkwardValue, awkward_values

AWKWARD = awkward_values()
SMALL_AWKWARD = {
    name: value for name, value in AWKWARD if not name.startswith(("huge", "sixty", "endless", "range"))
}


def strict(data: bytes) -> Any:
    """Read as the strictest of readers: UTF-8, one line, no NaN, no half of a surrogate pair."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    text = data.decode("utf-8", "strict")
    assert not re.search("[\x00-\x1f\x85\u2028\u2029]", text), "not one clean line"
    value = json.loads(text, parse_constant=refuse)
    json.dumps(value, ensure_ascii=False).encode("utf-8", "strict")
    return value


# --- total ------------------------------------------------------------------------------------


@pytest.mark.parametrize("awkward", AWKWARD, ids=lambda a: a.name)
def test_every_awkward_value_becomes_strict_json(awkward: AwkwardValue) -> None:
    bad: list[BadField] = []

    alone = codec.encode(awkward.value, bad=bad)
    in_company = codec.encode({"before": 1, "value": awkward.value, "after": {"x": [2]}})

    strict(alone)
    company = strict(in_company)
    assert (company["before"], company["after"]) == (1, {"x": [2]}), "its neighbours are whole"
    assert codec.is_clean(alone)
    assert codec.is_clean(in_company)
    assert len(alone) < 20_000_000
    assert CANARY.encode() not in alone + in_company
    assert CANARY not in repr(bad)


@pytest.mark.parametrize("awkward", AWKWARD, ids=lambda a: a.name)
def test_what_was_encoded_once_is_encoded_the_same_ever_after(awkward: AwkwardValue) -> None:
    once = codec.encode({"value": awkward.value, "more": 1})

    again = codec.encode(codec.decode(once))

    assert again == once


@pytest.mark.parametrize("awkward", AWKWARD, ids=lambda a: a.name)
def test_what_was_replaced_is_told_by_path_and_type(awkward: AwkwardValue) -> None:
    bad: list[BadField] = []

    data = codec.encode({"item": [awkward.value]}, bad=bad)

    assert all(field.path.startswith("item[0]") for field in bad)
    assert (b"$unserializable" not in data) or bad


def test_there_are_at_least_forty_kinds_of_awkward_values() -> None:
    assert len({awkward.name for awkward in AWKWARD}) >= 40


def test_encoding_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for awkward in awkward_values():
            codec.encode(awkward.value)
        gc.collect()


class Interrupts:
    def __repr__(self) -> str:
        raise KeyboardInterrupt


def test_an_interrupt_passes_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        codec.encode([Interrupts()])


def test_encoding_works_with_the_last_of_the_stack() -> None:
    value = {"a": {"b": [object(), {"c": float("nan")}]}}

    def encoded_deep_down() -> list[bytes]:
        try:
            deeper = encoded_deep_down()
        except RecursionError:
            deeper = []
        try:
            return [*deeper, codec.encode(value)]
        except RecursionError:  # not one frame was left for `encode` itself
            return deeper

    results = encoded_deep_down()

    assert len(results) > 100
    assert all(strict(data) for data in results)


def test_a_list_that_another_thread_writes_to_is_encoded() -> None:
    shared: dict[Any, Any] = {"k": [object()]}
    stop = threading.Event()

    def write() -> None:
        n = 0
        while not stop.is_set():
            shared[n % 1000] = n
            shared.pop((n - 500) % 1000, None)
            n += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(300):
            strict(codec.encode(shared))
    finally:
        stop.set()
        thread.join()


# --- what stands for what -------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Name(str):
    __slots__ = ()


class Point(NamedTuple):
    x: int
    y: int


class Typed(TypedDict):
    a: int


@dataclasses.dataclass
class Record:
    when: datetime.date
    tags: set[str]


class Model(pydantic.BaseModel):
    id: uuid.UUID
    extra: dict[str, Any] = {}


class Struct(msgspec.Struct):
    x: int


class Attrs:
    """As the attrs library leaves its classes."""

    __attrs_attrs__ = (type("Attribute", (), {"name": "x"}),)

    def __init__(self) -> None:
        self.x = 1


class Agent:
    name = "helper"

    def __millstream_json__(self) -> Any:
        return {"name": self.name}


ID = uuid.UUID(int=5)
ZONE = datetime.timezone(datetime.timedelta(hours=2))


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (datetime.datetime(2024, 2, 29, 1, 2, 3, tzinfo=ZONE), "2024-02-29T01:02:03+02:00"),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (datetime.time(1, 2, 3), "01:02:03"),
        (datetime.timedelta(seconds=90), "PT90S"),
        (ID, "00000000-0000-0000-0000-000000000005"),
        (decimal.Decimal("1.10"), "1.10"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Name("n"), "n"),
        (Point(1, 2), [1, 2]),
        (Typed(a=1), {"a": 1}),
        ({"b", "a", "c"}, ["a", "b", "c"]),
        ({1: 2}.keys(), [1]),
        ({1: 2}.values(), [2]),
        ({1: 2}.items(), [[1, 2]]),
        (range(3), [0, 1, 2]),
        (Record(datetime.date(2024, 2, 29), {"a"}), {"when": "2024-02-29", "tags": ["a"]}),
        (Model(id=ID), {"id": str(ID), "extra": {}}),
        (pydantic.RootModel[list[int]]([1, 2]), [1, 2]),
        (Struct(4), {"x": 4}),
        (Attrs(), {"x": 1}),
        (Agent(), {"name": "helper"}),
        ({"agents": (Agent(),)}, {"agents": [{"name": "helper"}]}),
        ({Colour.RED: 1, ID: 2, True: 3, None: 4, 5: 5, 1.5: 6}, None),
        (2**64, 2**64),
        (-(2**70), -(2**70)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_a_natural_form_takes_it(value: Any, plain: Any) -> None:
    if plain is None:
        plain = {"red": 1, str(ID): 2, "true": 3, "null": 4, "5": 5, "1.5": 6}
    bad: list[BadField] = []

    data = codec.encode(value, bad=bad)

    assert strict(data) == plain
    assert bad == []


def test_an_object_of_the_models_wire_is_written_as_it_was_sent() -> None:
    from openai.types.responses import ResponseFunctionToolCall

    call = ResponseFunctionToolCall.model_validate(
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "new_field": [1]}
    )

    assert strict(codec.encode({"raw_item": call}))["raw_item"] == {
        "type": "function_call",
        "call_id": "c",
        "name": "f",
        "arguments": "{}",
        "new_field": [1],
    }


def test_one_bad_field_of_a_wire_object_spoils_only_itself() -> None:
    from openai.types.responses import ResponseFunctionToolCall

    call = ResponseFunctionToolCall.construct(
        None, type="function_call", call_id="c", name=object(), arguments="{}"
    )

    assert strict(codec.encode(call)) == {
        "type": "function_call",
        "call_id": "c",
        "name": {"$unserializable": "object"},
        "arguments": "{}",
    }


def test_one_bad_field_of_a_pydantic_dataclass_spoils_only_itself() -> None:
    @pydantic.dataclasses.dataclass
    class Form:
        good: int
        bad: Any

    assert strict(codec.encode(Form(1, b"\xff"))) == {
        "good": 1,
        "bad": {"$unserializable": "bytes", "repr": "b'\\xff'"},
    }


def test_a_key_that_cannot_be_told_is_named_by_its_type() -> None:
    class Key:
        def __millstream_json__(self) -> NoReturn:
            raise RuntimeError(CANARY)

    (key,) = strict(codec.encode({Key(): 1}))

    assert key.startswith("$unserializable: ")
    assert key.endswith(".Key")


def test_text_keeps_being_text_when_it_is_mended() -> None:
    bad: list[BadField] = []

    data = codec.encode({"half": "a\ud83d", "pair": "\ud83d\ude00"}, bad=bad)

    assert strict(data) == {"half": "a\ufffd", "pair": "😀"}
    assert bad == [BadField("half", "str")]


def test_long_text_is_cut_and_marked() -> None:
    bad: list[BadField] = []

    data = codec.encode({"text": "x" * 100_000_000, "id": "y" * 1000}, bad=bad)

    cut = strict(data)
    assert len(cut["text"]) <= codec.MAX_TEXT
    assert re.fullmatch(r"x{16000000,} …\[cut: (\d+) characters more\]", cut["text"])
    assert cut["text"].count("x") + int(re.findall(r"\d+", cut["text"])[0]) == 100_000_000
    assert cut["id"] == "y" * 1000, "what comes after keeps its own share"
    assert bad == [BadField("text", "str")]


def test_text_up_to_the_limit_is_whole() -> None:
    text = "é" * (codec.MAX_TEXT - 4)

    assert codec.decode(codec.encode({"text": text})) == {"text": text}


def test_fields_after_a_huge_one_are_whole() -> None:
    event = {"type": "run.completed", "output": [object()] * 150_000, "usage": {"requests": 1}, "state": "x"}

    plain = strict(codec.encode(event))

    assert (plain["type"], plain["usage"], plain["state"]) == ("run.completed", {"requests": 1}, "x")
    assert plain["output"][-1] == {"$unserializable": "list", "reason": "too large"}


def test_a_huge_text_costs_its_short_neighbours_nothing() -> None:
    bad: list[BadField] = []
    huge = "x" * (codec.MAX_TEXT + 4_000_000)
    item = {"raw": {"output": huge, "type": "function_call_output"}, "again": huge, "id": "y" * 1000}

    data = codec.encode({"item": item}, bad=bad)

    plain = strict(data)["item"]
    assert (plain["raw"]["type"], plain["id"]) == ("function_call_output", "y" * 1000)
    assert plain["raw"]["output"].startswith("x" * 16_000_000)
    assert plain["again"] == codec.CUT_MARK.format(len(huge))
    assert bad == [BadField("item.raw.output", "str"), BadField("item.again", "str")]
    assert codec.encode(codec.decode(data)) == data


def test_short_texts_behind_a_huge_one_are_bounded_too() -> None:
    value = {"all": ["x" * codec.MAX_TEXT, *(["y" * 50] * 10_000)]}

    data = codec.encode(value)

    assert len(data) < codec.MAX_TEXT + 2 * codec.FLOOR_TEXT
    assert strict(data)["all"][-1] == {"$unserializable": "list", "reason": "too large"}
    assert codec.encode(codec.decode(data)) == data


def test_nesting_up_to_the_limit_is_whole() -> None:
    value: Any = 1
    for _ in range(codec.MAX_DEPTH):
        value = [value]

    assert codec.decode(codec.encode(value)) == value


def test_bad_fields_are_counted_to_a_limit() -> None:
    bad: list[BadField] = []

    codec.encode([float("nan")] * 1000, bad=bad)

    assert len(bad) == codec.MAX_BAD


def test_a_path_reads_as_one_would_write_it() -> None:
    bad: list[BadField] = []

    codec.encode({"item": {"output": [0, {"x": b""}, {"a b\n": b""}, {7: b""}, {(1,): b""}]}}, bad=bad)

    assert [field.path for field in bad] == [
        "item.output[1].x",
        r"item.output[2]['a b\n']",
        "item.output[3][7]",
        "item.output[4][<tuple>]",
        "item.output[4][<tuple>]",
    ]


def test_placeholders_say_what_stood_there_and_not_where_in_memory() -> None:
    class Told:
        def __repr__(self) -> str:
            return "<Told at 0x7f00 \ud800>" + "x" * 1000

    value = {"told": Told(), "nan": float("nan"), "cycle": [], "error": ValueError("secret")}
    value["cycle"].append(value["cycle"])

    plain = strict(codec.encode(value))

    told = plain.pop("told")
    assert told["repr"].startswith("<Told \ufffd>xxx")
    assert len(told["repr"]) == codec.MAX_REPR
    assert plain == {
        "nan": {"$unserializable": "float", "repr": "nan"},
        "cycle": [{"$unserializable": "list", "reason": "cycle"}],
        "error": {"$unserializable": "ValueError"},
    }


def test_names_of_types_are_plain_text_whatever_the_class_says() -> None:
    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            raise RuntimeError(name)

    Nameless = Meta("Nameless", (), {})
    Moduleless = type("Moduleless\n", (), {"__module__": 5})
    Speechless = type("Speechless", (), {"__module__": dict(awkward_values())["repr raises"]})

    assert codec.type_name(Nameless).endswith("Nameless")
    assert codec.type_name(Moduleless) == "5.Moduleless\\n"
    assert codec.type_name(Speechless) == "object"
    assert codec.type_name(int) == "int"
    strict(codec.encode([Nameless(), Moduleless(), Speechless()]))


# --- properties -------------------------------------------------------------------------------


class Awkward(NamedTuple):
    """Stands for an awkward value where hypothesis handles it, which breaks on some of them itself."""

    name: str

    def __millstream_json__(self) -> Any:
        return SMALL_AWKWARD[self.name]


any_text = st.text(st.characters(codec=None, categories=None), max_size=20)
plain_scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
plain_values = st.recursive(
    plain_scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30
)
leaves = (
    plain_scalars
    | st.floats()
    | any_text
    | st.binary()
    | st.complex_numbers()
    | st.decimals()
    | st.dates()
    | st.datetimes()
    | st.timedeltas()
    | st.uuids()
    | st.builds(Awkward, st.sampled_from(sorted(SMALL_AWKWARD)))
)
keys = any_text | st.integers() | st.floats() | st.none() | st.binary(max_size=3) | st.tuples(st.integers())
anything = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner) | st.builds(Point, inner, inner)
    ),
    max_leaves=30,
)


@given(anything)
def test_anything_parses_strictly(value: Any) -> None:
    data = codec.encode(value)

    strict(data)
    assert codec.is_clean(data)


@given(plain_values)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    bad: list[BadField] = []

    back = codec.decode(codec.encode(value, bad=bad))

    assert back == value
    assert repr(back) == repr(value), "types and signs too"
    assert bad == []


@given(plain_values)
def test_the_walk_gives_what_the_way_through_c_gives(value: Any) -> None:
    with_a_bad_field = codec.encode([value, object()])

    assert codec.decode(with_a_bad_field)[0] == value


# --- decoding -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"a":}', "byte 5"),
        (b"NaN", "byte 0"),
        (b"", "truncated"),
        (b'{"a":1', "truncated"),
        (b"1 2", "trailing characters (byte 3)"),
        (b'"\xff"', "UTF-8"),
        (b'"\\ud800"', "Not JSON"),
        ('"\ud800"', "UTF-8"),
        (b'"a\nb"', "byte 2"),
        (b"[" * 100_000, "too deep"),
        (b"1e999", "out of range"),
        (5, "bytes-like"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_json_is_one_error_that_says_where(text: Any, says: str) -> None:
    with pytest.raises(DecodeError, match=re.escape(says)) as caught:
        codec.decode(text)

    assert caught.value.__cause__ is None
    assert "msgspec" not in str(caught.value)


def test_json_is_read_from_bytes_and_text_alike() -> None:
    assert codec.decode(b'{"a":[1,2.5,null]}') == codec.decode('{"a":[1,2.5,null]}') == {"a": [1, 2.5, None]}


# --- clean or not ---------------------------------------------------------------------------------


def is_clean_by_definition(data: bytes) -> bool:
    try:
        text = data.decode("utf-8", "strict")
    except UnicodeDecodeError:
        return False
    if re.search("[\x00-\x1f\x85\u2028\u2029]", text):
        return False
    json.dumps(json.loads(text), ensure_ascii=False)
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "strict")
    except UnicodeEncodeError:
        return False
    return True


# Other libraries write JSON with what is not clean: halves of pairs, raw separators, many lines.
foreign_json = st.builds(
    lambda value, ascii_only, indent: json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode(
        "utf-8", "replace" if ascii_only else "surrogatepass"
    ),
    st.recursive(
        any_text
        | st.sampled_from(["\ud83d\ude00", "\\ud800", "\\\ud800", "\x85", "\u2028", "é", "\x7f", "’"]),
        lambda inner: st.lists(inner) | st.dictionaries(any_text, inner),
        max_leaves=8,
    ),
    st.booleans(),
    st.sampled_from([None, 0, 1]),
)


@given(foreign_json)
def test_clean_is_what_its_definition_says(data: bytes) -> None:
    assert codec.is_clean(data) == is_clean_by_definition(data)


@given(foreign_json)
def test_cleaning_makes_clean_and_changes_nothing_else(data: bytes) -> None:
    cleaned = codec.clean(data)

    assert is_clean_by_definition(cleaned)
    strict(cleaned)
    if codec.is_clean(data):
        assert cleaned == data


@pytest.mark.parametrize(
    ("dirty", "cleaned"),
    [
        (b'{"a":\n1}', b'{"a": 1}'),
        ('["\u2028\u2029\x85"]'.encode(), rb'["\u2028\u2029\u0085"]'),
        (rb'["\ud83d\ude00"]', rb'["\ud83d\ude00"]'),
        (rb'["\uD83D"]', rb'["\ufffd"]'),
        (rb'["\ud83d\ud83d\ude00"]', rb'["\ufffd\ud83d\ude00"]'),
        (rb'["\\ud83d"]', rb'["\\ud83d"]'),
        (rb'["\\\ud83d"]', rb'["\\\ufffd"]'),
        (b'["\xff\xe9"]', '["\ufffd\ufffd"]'.encode()),
    ],
)
def test_cleaning(dirty: bytes, cleaned: bytes) -> None:
    assert codec.clean(dirty) == cleaned
    assert codec.is_clean(dirty) == (dirty == cleaned)


# --- the log line -----------------------------------------------------------------------------------


def test_bad_fields_are_one_line_in_the_log_and_never_the_values(caplog: pytest.LogCaptureFixture) -> None:
    bad: list[BadField] = []
    codec.encode({"data": {"token": f"{CANARY}\ud800", "raw": CANARY.encode()}, "n": [1j] * 20}, bad=bad)

    codec.log_bad_fields(logging.getLogger("millstream"), bad, "tool.progress", "run_1")
    codec.log_bad_fields(logging.getLogger("millstream"), [], "tool.progress", "run_1")

    (line,) = [record.getMessage() for record in caplog.records]
    assert "run run_1" in line
    assert "tool.progress" in line
    assert "data.token (str), data.raw (bytes), n[0] (complex)" in line
    assert "and 12 more" in line
    assert "\n" not in line
    assert CANARY not in line
