"""Model settings."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.shared import Reasoning

from millstream.config import MCPToolChoice, ModelSettings
from millstream.errors import UserError

NAMES = [f.name for f in dataclasses.fields(ModelSettings)]


def test_every_setting_is_left_to_the_model() -> None:
    assert set(ModelSettings().to_json_dict().values()) == {None}


def test_what_an_override_sets_is_put_over_and_extra_args_are_merged() -> None:
    base = ModelSettings(
        temperature=0.5, tool_choice="auto", extra_args={"a": 1}, extra_body={"x": 1}, metadata={"a": "b"}
    )
    override = ModelSettings(
        top_p=0.1, tool_choice="required", extra_args={"b": 2}, extra_body={"y": 2}, metadata={"c": "d"}
    )

    assert base.resolve(override) == ModelSettings(
        temperature=0.5,
        top_p=0.1,
        tool_choice="required",
        extra_args={"a": 1, "b": 2},
        extra_body={"y": 2},
        metadata={"c": "d"},
    )
    assert base.temperature == 0.5
    assert base.extra_args == {"a": 1}


def test_nothing_put_over_settings_leaves_them() -> None:
    settings = ModelSettings(temperature=0.5)

    assert settings.resolve(None) is settings
    assert settings.resolve(ModelSettings()) == settings


SETTINGS = st.builds(
    ModelSettings,
    temperature=st.none() | st.floats(0, 2),
    max_tokens=st.none() | st.integers(1, 9),
    tool_choice=st.none() | st.sampled_from(["auto", "none", "search"]),
    extra_args=st.none() | st.dictionaries(st.sampled_from("ab"), st.integers(0, 9)),
)


@given(SETTINGS, SETTINGS, SETTINGS)
def test_settings_may_be_put_over_each_other_in_any_grouping(
    a: ModelSettings, b: ModelSettings, c: ModelSettings
) -> None:
    def merged(settings: ModelSettings) -> ModelSettings:
        return dataclasses.replace(settings, extra_args=settings.extra_args or None)

    assert merged(a.resolve(b).resolve(c)) == merged(a.resolve(b.resolve(c)))


def test_the_tool_choice_alone_can_be_taken_back() -> None:
    assert ModelSettings(top_p=1, tool_choice="required").resolve_tool_choice(None) == ModelSettings(top_p=1)


def test_settings_are_json() -> None:
    settings = ModelSettings(
        temperature=1,
        reasoning=Reasoning(effort="low"),
        tool_choice=MCPToolChoice("server", "tool"),
        extra_body=print,
    )

    plain = json.loads(json.dumps(settings.to_json_dict()))

    assert plain["reasoning"]["effort"] == "low"
    assert plain["tool_choice"] == {"server_label": "server", "name": "tool"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": "warm"}, "temperature is a number or None, not str"),
        ({"max_tokens": True}, "max_tokens is a number"),
        ({"timeout": 0}, "timeout is a number of seconds greater than 0"),
        ({"timeout": float("nan")}, "timeout"),
        ({"tool_choice": 3}, "tool_choice is 'auto'"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModelSettings(**values)


def test_settings_given_as_a_dict_are_checked_key_by_key() -> None:
    assert ModelSettings.of({"top_p": 1}, "here") == ModelSettings(top_p=1)
    with pytest.raises(
        UserError, match=r"here: ModelSettings has no 'temperatur'\. Did you mean 'temperature'\?"
    ):
        ModelSettings.of({"temperatur": 1}, "here")
    with pytest.raises(UserError, match="here takes a ModelSettings or a dict, not int"):
        ModelSettings.of(3, "here")
