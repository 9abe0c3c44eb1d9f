"""JSON files that fast3d wrote, read back as the types that they were written from.

pydantic checks them, strictly: no text is taken for a number, no boolean for an integer, a number is finite, and no
field is unknown. It is imported with the first of these types, which no command needs before it runs.
"""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fast3d_core.errors import DataError
from fast3d_core.files.files import load_json_text
from fast3d_core.text import shown

T = TypeVar("T")

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""`__pydantic_config__` of a dataclass that is read from a file."""

LENIENT = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
"""The same where a file may hold more than is used of it."""

KEEPING = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
"""The same for a `TypedDict` that keeps what is not used of it."""

# How pydantic names the members of a union in the location of an error.
_MEMBER = re.compile(r"(constrained-)?(float|int|str|bool)|(dict|list|tuple)\[.*\]")
_REASONS = {
    "missing": "is missing",
    "missing_argument": "is missing",
    "unexpected_keyword_argument": "is no field of it",
    "unexpected_property": "is no field of it",
}
_OURS = "Value error, "  # what pydantic writes before the message of a `ValueError`
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)
_LONGEST = 80  # characters of a field's location in an error: names of fields may be a stranger's


class FieldError(ValueError):
    """A value does not fit its type; the message is one line that names the field.

    Attributes:
        location: the names and positions that lead to the field; empty for the whole value, or where it is no JSON.
        is_json: whether the text is JSON at all.
    """

    def __init__(self, error: ValidationError):
        # The deepest of several: of a value that fits no member of a union, that of the member which it is most like.
        found = max(error.errors(include_url=False, include_context=False), key=lambda one: len(_location(one)))
        self.location = _location(found)
        self.is_json = found["type"] != "json_invalid"
        super().__init__(_sentence(found, ascii(".".join(map(str, self.location))[:_LONGEST])[1:-1]))


def parse_typed(kind: type[T], text: str) -> T:
    """The value of type `kind` that a JSON text holds.

    Only for types without `Any`, which lets through what `parse_json` refuses. Raises `FieldError`.
    """
    try:
        value: T = _adapter(kind).validate_json(text)
        return value
    except ValidationError as error:
        raise FieldError(error) from None


def load_typed(kind: type[T], path: Path, what: str, remedy: str) -> T:
    """The content of a JSON file as a value of type `kind`.

    Args:
        what: what errors call the file; remedy: what is to be done where it is damaged.

    Raises `DataError` where it is missing, no JSON (see `load_json`), or not of that type: then it names the field.
    """
    text, _ = load_json_text(path, what)  # refuses what `Any` lets through: NaN, huge integers, halves of characters
    try:
        return parse_typed(kind, text)
    except FieldError as error:
        raise DataError(f"{path} is damaged: {error}", remedy) from None


def to_json(value: Any) -> str:
    """A value of such a type as one line of JSON."""
    return _adapter(type(value)).dump_json(value).decode()


def _location(found: Any) -> tuple[int | str, ...]:
    return tuple(one for one in found["loc"] if not (isinstance(one, str) and _MEMBER.fullmatch(one)))


def _sentence(found: Any, location: str) -> str:
    """What pydantic found, on one short line; of the value only as much as `shown` shows."""
    kind, message = found["type"], str(found["msg"])
    if kind == "json_invalid":
        return "it is not valid JSON"
    if kind in _REASONS:
        return f"{location} {_REASONS[kind]}"
    if kind == "value_error":  # ours, from a `__post_init__`
        return f"{location}: {message.removeprefix(_OURS)}" if location else message.removeprefix(_OURS)
    return f"{location or 'it'} is {shown(found['input'])}: {message[:1].lower()}{message[1:120]}"
