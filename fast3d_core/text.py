"""Texts and values that come from files or other libraries, as people may see them."""

import re
from collections.abc import Callable
from typing import Any

_FORMULA = re.compile(r"[=+\-@\t\r\n]")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def printable(text: str, instead: Callable[[str], str] = _escaped) -> str:
    """`text` with what would move a terminal's cursor, or hide, or cannot be encoded, as escapes: names and labels come
    from files. What is printable stays as it is.

    Args:
        instead: what stands for a character that is not printable.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else instead(c) for c in text)


def printable_lines(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def csv_cell(text: str) -> str:
    """A text as a cell of a CSV file: on one line, and no formula to a spreadsheet, which runs those."""
    return printable(f"'{text}" if _FORMULA.match(text) else text)


def shown(value: Any) -> str:
    """A value for an error message: one short line; only the kind of what could be long, or too long to spell."""
    if isinstance(value, (str, bool, float)) or value is None or (isinstance(value, int) and abs(value) < 10**20):
        return ascii(value[:60] if isinstance(value, str) else value)
    return f"this {type(value).__name__}"


def first_line(error: BaseException) -> str:
    """What another library says, cut to one line."""
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__
