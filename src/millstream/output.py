"""Tool outputs: what a tool may return, and how it reaches the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NotRequired, TypeAlias, cast

from pydantic import BaseModel, ValidationError, model_validator
from typing_extensions import TypedDict


class ToolOutputText(BaseModel):
    """Text for the model."""

    type: Literal["text"] = "text"
    text: str


class ToolOutputImage(BaseModel):
    """An image for the model: a URL (also a `data:` one), or a file that the model's host keeps."""

    type: Literal["image"] = "image"
    image_url: str | None = None
    file_id: str | None = None
    detail: Literal["low", "high", "auto"] | None = None

    @model_validator(mode="after")
    def _has_a_source(self) -> ToolOutputImage:
        if self.image_url is None and self.file_id is None:
            raise ValueError("At least one of image_url or file_id must be provided")
        return self


class ToolOutputFileContent(BaseModel):
    """A file for the model: its data (base64), a URL, or a file that the model's host keeps."""

    type: Literal["file"] = "file"
    file_data: str | None = None
    file_url: str | None = None
    file_id: str | None = None
    filename: str | None = None

    @model_validator(mode="after")
    def _has_a_source(self) -> ToolOutputFileContent:
        if self.file_data is None and self.file_url is None and self.file_id is None:
            raise ValueError("At least one of file_data, file_url, or file_id must be provided")
        return self


class ToolOutputTextDict(TypedDict):
    """`ToolOutputText` as a dict."""

    type: Literal["text"]
    text: str


class ToolOutputImageDict(TypedDict):
    """`ToolOutputImage` as a dict."""

    type: Literal["image"]
    image_url: NotRequired[str]
    file_id: NotRequired[str]
    detail: NotRequired[Literal["low", "high", "auto"]]


class ToolOutputFileContentDict(TypedDict):
    """`ToolOutputFileContent` as a dict."""

    type: Literal["file"]
    file_data: NotRequired[str]
    file_url: NotRequired[str]
    file_id: NotRequired[str]
    filename: NotRequired[str]


ToolOutput: TypeAlias = ToolOutputText | ToolOutputImage | ToolOutputFileContent
"""What a tool returns, alone or in a list, where text is not enough."""

_KINDS: dict[Any, type[ToolOutput]] = {
    "text": ToolOutputText,
    "image": ToolOutputImage,
    "file": ToolOutputFileContent,
}


def tool_output_parts(output: object) -> str | list[dict[str, Any]]:
    """What the model is told of `output`: a list of text, image and file parts, or text.

    Parts are made of `ToolOutput*` objects, of dicts that are like them, and of lists that
    hold nothing else. Any other value is its `text_of`. Total, with lone surrogates replaced.
    """
    if issubclass(type(output), str):
        return _valid(str.__str__(cast("str", output)))
    try:
        parts = _parts(output)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException:  # an object that does not even say what it is
        parts = None
    return _valid(text_of(output)) if parts is None else parts


def text_of(value: object) -> str:
    """`str(value)`, total: a value whose `str()` raises, or would never end, is told by its class."""
    try:
        if not _is_vast(value):
            return str.__str__(str(value))  # what a class of text holds, without the class
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException:  # also what would end the program: a value may not do that
        pass
    return f"<{type(value).__name__}: no text>"


MOST_VALUES = 1_000_000
"""Of how many values, each counted as often as it is found, a text is made."""


def _is_vast(value: object) -> bool:
    """Whether lists in lists hold so many values that their text would be written for ever."""
    if not issubclass(type(value), _CONTAINERS):
        return False
    above: list[tuple[int, Iterator[Any]]] = [(id(value), _values(value))]
    path = {id(value)}
    count = 0
    while above:
        name, values = above[-1]
        for each in values:
            count += 1
            if count > MOST_VALUES:
                return True
            if issubclass(type(each), _CONTAINERS) and id(each) not in path:
                path.add(id(each))
                above.append((id(each), _values(each)))
                break
        else:
            above.pop()
            path.discard(name)
    return False


_CONTAINERS = (list, tuple, dict, set, frozenset)


def _values(container: Any) -> Iterator[Any]:
    return iter(container.values() if issubclass(type(container), dict) else container)


def _parts(output: object) -> list[dict[str, Any]] | None:
    if isinstance(output, list) and output:
        parts = [_part(each) for each in cast("list[Any]", output)]
        return None if None in parts else cast("list[dict[str, Any]]", parts)
    part = _part(output)
    return None if part is None else [part]


def _part(value: Any) -> dict[str, Any] | None:
    if isinstance(value, Mapping):
        kind = _KINDS.get(_hashable(cast("Mapping[str, Any]", value).get("type")))
        if kind is None:
            return None
        try:
            value = kind.model_validate(value)
        except ValidationError:
            return None  # a dict of the tool's own that merely looks like one of these
    if not isinstance(value, ToolOutputText | ToolOutputImage | ToolOutputFileContent):
        return None
    fields = value.model_dump(exclude_none=True)
    return {name: _valid(each) for name, each in fields.items()} | {"type": f"input_{value.type}"}


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str) else None


def _valid(text: str) -> str:
    """`text` without lone surrogates, which no wire can carry."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text
