"""Tokens add up, whatever a server leaves out."""

from typing import Any

import pytest
from openai.types.responses import ResponseUsage
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

from millstream.usage import RequestUsage, Usage


def one_call(n: int, *, cached: int = 0, thought: int = 0) -> Usage:
    return Usage(
        requests=1,
        input_tokens=n,
        output_tokens=2 * n,
        total_tokens=3 * n,
        input_tokens_details=InputTokensDetails(cached_tokens=cached, cache_write_tokens=1),
        output_tokens_details=OutputTokensDetails(reasoning_tokens=thought),
    )


def test_usage_starts_at_nothing() -> None:
    assert Usage().to_dict() == {
        "requests": 0,
        "input_tokens": 0,
        "output_tokens": 0,
        "total_tokens": 0,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
    }


def test_calls_add_up_and_are_listed_one_by_one() -> None:
    usage = Usage()

    usage.add(one_call(1, cached=5))
    usage.add(one_call(10, cached=6, thought=7))

    assert usage.to_dict() == {
        "requests": 2,
        "input_tokens": 11,
        "output_tokens": 22,
        "total_tokens": 33,
        "cached_tokens": 11,
        "reasoning_tokens": 7,
    }
    assert usage.input_tokens_details.cache_write_tokens == 2
    assert [entry.total_tokens for entry in usage.request_usage_entries] == [3, 30]
    assert isinstance(usage.request_usage_entries[0], RequestUsage)


def test_a_nested_run_adds_its_calls_one_by_one_too() -> None:
    nested, outer = Usage(), Usage()
    nested.add(one_call(1))
    nested.add(one_call(2))

    outer.add(one_call(3))
    outer.add(nested)

    assert outer.requests == 3
    assert [entry.input_tokens for entry in outer.request_usage_entries] == [3, 1, 2]


def test_adding_changes_only_the_sum() -> None:
    call, usage = one_call(1, cached=5), Usage()
    before = call.to_dict()

    usage.add(call)
    usage.add(call)

    assert call.to_dict() == before
    assert call.request_usage_entries == []
    assert Usage().request_usage_entries == []


def test_a_call_that_counted_nothing_is_no_entry() -> None:
    usage = Usage()

    usage.add(Usage(requests=1))

    assert usage.requests == 1
    assert usage.request_usage_entries == []


def test_usage_is_read_off_a_response() -> None:
    usage = Usage.from_response(
        ResponseUsage(
            input_tokens=1,
            input_tokens_details=InputTokensDetails(cached_tokens=4, cache_write_tokens=0),
            output_tokens=2,
            output_tokens_details=OutputTokensDetails(reasoning_tokens=5),
            total_tokens=3,
        )
    )

    assert usage.to_dict() == {
        "requests": 1,
        "input_tokens": 1,
        "output_tokens": 2,
        "total_tokens": 3,
        "cached_tokens": 4,
        "reasoning_tokens": 5,
    }


def test_a_response_without_usage_is_a_request_all_the_same() -> None:
    assert Usage.from_response(None) == Usage(requests=1, estimated=True)


def test_nulls_of_compatible_servers_count_as_nothing() -> None:
    nulls: Any = ResponseUsage.construct(
        None,
        input_tokens=None,
        input_tokens_details=None,
        output_tokens=7,
        output_tokens_details={"reasoning_tokens": None},
        total_tokens=None,
    )
    usage = Usage.from_response(nulls)

    total = Usage()
    total.add(usage)

    assert (total.input_tokens, total.output_tokens, total.total_tokens) == (0, 7, 0)
    assert total.to_dict()["reasoning_tokens"] == 0


def test_details_of_an_older_server_lack_what_came_later() -> None:
    older: Any = InputTokensDetails.construct(None, cached_tokens=3)
    usage = Usage()

    usage.add(Usage(requests=1, input_tokens=5, total_tokens=5, input_tokens_details=older))

    assert usage.input_tokens_details.cached_tokens == 3
    assert usage.input_tokens_details.cache_write_tokens == 0


def test_an_estimate_makes_the_sum_one() -> None:
    usage = Usage()

    usage.add(Usage(requests=1, output_tokens=3, total_tokens=3, estimated=True))
    usage.add(one_call(1))

    assert usage.estimated
    assert usage.to_dict()["estimated"] is True


@pytest.mark.hostile
def test_what_is_no_number_counts_nothing() -> None:
    sent: Any = ResponseUsage.construct(
        input_tokens="many", output_tokens=5, total_tokens=None, input_tokens_details="x"
    )

    assert Usage.from_response(sent).output_tokens == 5
    assert not Usage.from_response(sent).estimated
    for none in ("lots", ResponseUsage.construct(input_tokens="many")):
        usage = Usage.from_response(none)  # type: ignore[arg-type]
        assert usage.estimated
        usage.add(Usage.from_response(sent))
        assert usage.to_dict()["output_tokens"] == 5
