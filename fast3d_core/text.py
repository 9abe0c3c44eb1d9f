"""Texts that come from files, names of files among them, as people may see them."""

import re

_FORMULA = re.compile(r"[=+\-@\t\r\n]")


def printable(text: str) -> str:
    """`text` with what would move a terminal's cursor, or hide, or cannot be encoded, as escapes: names and labels come
    from files. What is printable stays as it is."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def csv_cell(text: str) -> str:
    """A text as a cell of a CSV file: on one line, and no formula to a spreadsheet, which runs those."""
    return printable(f"'{text}" if _FORMULA.match(text) else text)
