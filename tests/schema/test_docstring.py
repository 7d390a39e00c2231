"""Docstrings of three styles, and of none."""

import subprocess
import sys
from typing import Any

import pytest

from millstream.schema import generate_func_documentation


def google(x: int, *args: int, **kwargs: int) -> None:
    """Short line.

    Longer text
    over lines.

    Note: mind this.

    Args:
        x: the x
            continued
        *args: the rest
        **kwargs: the named

    Returns:
        something

    Raises:
        ValueError: never
    """


def numpy(x: int, y: int) -> None:
    """Short line.

    Parameters
    ----------
    x : int
        the x
    y
        the y
        more

    Returns
    -------
    int
        something
    """


def sphinx(x: int, y: int) -> None:
    """Short line.

    :param x: the x
    :param int y: the y
      more
    :returns: something
    """


def test_google() -> None:
    docs = generate_func_documentation(google)

    assert docs.name == "google"
    assert docs.description == "Short line.\n\nLonger text\nover lines.\n\nNote: mind this."
    assert docs.param_descriptions == {"x": "the x\ncontinued", "args": "the rest", "kwargs": "the named"}


def test_numpy() -> None:
    docs = generate_func_documentation(numpy)

    assert (docs.description, docs.param_descriptions) == ("Short line.", {"x": "the x", "y": "the y\nmore"})


def test_sphinx() -> None:
    docs = generate_func_documentation(sphinx)

    assert (docs.description, docs.param_descriptions) == ("Short line.", {"x": "the x", "y": "the y\nmore"})


@pytest.mark.parametrize(("func", "style"), [(google, "google"), (numpy, "numpy"), (sphinx, "sphinx")])
def test_a_style_that_is_named_is_the_one_that_is_found(func: Any, style: Any) -> None:
    assert generate_func_documentation(func, style) == generate_func_documentation(func)


def test_a_docstring_of_another_style_than_named_is_all_description() -> None:
    docs = generate_func_documentation(numpy, "sphinx")

    assert docs.param_descriptions is None
    assert "Parameters" in (docs.description or "")


def test_sections_alone_are_no_description() -> None:
    def func(x: int) -> None: ...

    func.__doc__ = """
        Args:
            x: the x
        """

    docs = generate_func_documentation(func)

    assert (docs.description, docs.param_descriptions) == (None, {"x": "the x"})


def test_text_after_an_example_belongs_to_the_description() -> None:
    def func(x: int) -> None:
        """Before.

        Examples:
            >>> func(1)

        After.
        """

    assert generate_func_documentation(func).description == "Before.\n\nAfter."


def test_plain_text_with_colons_and_lists_is_all_description() -> None:
    def func() -> None:
        """Text: with a colon.

        - one
        - two: three
        """

    assert generate_func_documentation(func).description == "Text: with a colon.\n\n- one\n- two: three"


def crowded_google(city: str, unit: str) -> None:
    """Weather. For each city:
    Args:
        city: the city
        unit: the unit
    Returns:
        something
    Raises:
        ValueError: never
    """


def crowded_google_after_a_section(city: str, unit: str) -> None:
    """Weather. For each city:

    Example:
        weather("Oslo")
    args:
        city: the city
        unit: the unit
    """


def crowded_numpy(city: str, unit: str) -> None:
    """Weather. For each city:
    Parameters
    ----------
    city : str
        the city
    unit : str
        the unit
    Returns
    -------
    int
        something
    """


def crowded_sphinx(city: str, unit: str) -> None:
    """Weather. For each city:
    :param city: the city
    :param unit: the unit
    :returns: something
    """


@pytest.mark.parametrize(
    "func", [crowded_google, crowded_google_after_a_section, crowded_numpy, crowded_sphinx]
)
def test_a_heading_right_below_text_is_a_heading(func: Any) -> None:
    docs = generate_func_documentation(func)

    assert docs.description == "Weather. For each city:"
    assert docs.param_descriptions == {"city": "the city", "unit": "the unit"}


def test_a_heading_with_nothing_indented_below_it_is_text() -> None:
    def func() -> None:
        """Weather.
        Returns:
        the temperature
        """

    assert generate_func_documentation(func).description == "Weather.\nReturns:\nthe temperature"


def test_no_docstring_is_no_documentation() -> None:
    def func() -> None: ...

    docs = generate_func_documentation(func)

    assert (docs.name, docs.description, docs.param_descriptions) == ("func", None, None)


@pytest.mark.slow
def test_a_tool_without_sections_imports_neither_the_parser_nor_openai() -> None:
    program = (
        "import sys\n"
        "from millstream import Agent, tool\n"
        "@tool\n"
        "def add(a: int, b: int = 2) -> int:\n"
        "    'Add two numbers: a plain docstring.'\n"
        "    return a + b\n"
        "print([name for name in ('openai', 'griffe') if name in sys.modules])\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
