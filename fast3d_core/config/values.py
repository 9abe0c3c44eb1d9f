"""Values of the config: checked against their key's type and bounds, and written as text."""

import dataclasses
import difflib
import json
import math
import operator
import os
import re
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from fast3d_core.errors import UsageError
from fast3d_core.text import printable


def checked(name: str, key: "dataclasses.Field[Any]", value: Any, where: str, base: Path) -> Any:
    """`value` in the type of `key`, paths absolute under `base`; `UsageError` when it is of another type or range."""
    try:
        if key.type is bool:
            if not isinstance(value, bool):
                raise _WrongError("true or false", value)
            return value
        if key.type in (int, float):
            return _number(key, typing.cast(type, key.type), value)
        if int in typing.get_args(key.type):
            return _number_or_word(key, value)
        if key.type is str:
            pattern, expected = key.metadata["form"]
            if not isinstance(value, str) or not re.fullmatch(pattern, value):
                raise _WrongError(expected, value)
            return value
        if typing.get_origin(key.type) is Literal:
            choices = typing.get_args(key.type)
            return _one_of(choices, value, f"one of {', '.join(choices)}")
        if typing.get_origin(key.type) is tuple:
            return _names(key.metadata["choices"](), value)
        return _path(key, value, base)
    except _WrongError as wrong:
        raise UsageError(f"{where}: {name} must be {wrong}") from None


class _WrongError(Exception):
    """Reads "<what is expected>, not <what was found><hint>"."""

    def __init__(self, expected: str, found: Any, hint: str = "") -> None:
        super().__init__(f"{expected}, not {show(found)}{hint}")


def _number_or_word(key: "dataclasses.Field[Any]", value: Any) -> float | str:
    """An integer, or one of the words that may stand for it."""
    kind, words = typing.get_args(key.type)
    if value in typing.get_args(words):
        return value
    if isinstance(value, str):
        raise _WrongError(f"an integer or {' or '.join(typing.get_args(words))}", value)
    return _number(key, kind, value)


def _number(key: "dataclasses.Field[Any]", kind: type, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        raise _WrongError("a number" if kind is float else "an integer", value)
    if not math.isfinite(value):
        raise _WrongError("a finite number", value)
    for words, bound, holds in bounds_of(key):
        if not holds(value, bound):
            raise _WrongError(f"{words} {bound}", value)
    return kind(value)


def bounds_of(key: "dataclasses.Field[Any]") -> list[tuple[str, float, Callable[[float, float], bool]]]:
    """The bounds of a number: in words, the bound, and the comparison that must hold."""
    known = (("at_least", operator.ge), ("above", operator.gt), ("at_most", operator.le))
    bounds = [(name.replace("_", " "), key.metadata[name], holds) for name, holds in known]
    return [(words, bound, holds) for words, bound, holds in bounds if bound is not None]


def _one_of(choices: Sequence[str], value: Any, expected: str) -> str:
    if not isinstance(value, str):
        raise _WrongError(expected, value)
    if value not in choices:
        near = difflib.get_close_matches(value[:100], choices, n=1)
        raise _WrongError(expected, value, f'; did you mean "{near[0]}"?' if near else "")
    return value


def _names(choices: Sequence[str], value: Any) -> tuple[str, ...]:
    expected = f"a list of names out of {', '.join(choices)}"
    if not isinstance(value, list) or not value:
        raise _WrongError(expected, value, f"; write [{value}]" if value in choices else "")
    for i, item in enumerate(value):
        _one_of(choices, item, expected)
        if item in value[:i]:
            raise _WrongError("a list without repeats", value)
    return tuple(value)


def _path(key: "dataclasses.Field[Any]", value: Any, base: Path) -> Path | str:
    """A path under `base`. Where a hub name may stand too, a text is a path when such a folder exists or when it is
    written like one, so that a missing folder is reported as such and not asked of the hub."""
    sure = key.type is Path
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise _WrongError("a path" if sure else "a folder or a Hugging Face model name", value)
    try:
        path = base / (Path(value).expanduser() if value.startswith("~") else value)  # not ./~, which Path shortens
    except RuntimeError:
        raise _WrongError("under a home folder that exists", value) from None
    # Path.is_dir would raise for a name that is too long
    is_path = sure or os.path.isdir(path) or re.match(r"/|~|\.\.?(/|$)", value)  # noqa: PTH112
    return path if is_path else value


def plain(value: Any) -> Any:
    """A setting as YAML and JSON know it."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def show(value: Any) -> str:
    """A value for an error message: one line, short, nothing that moves a terminal's cursor."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return printable(text if len(text) <= 80 else text[:77] + "...")
