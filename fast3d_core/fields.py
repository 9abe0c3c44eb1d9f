"""Fields of dataclasses that people set: by a key of the config, or by an option of a command."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any


def setting(
    default: Any = dataclasses.MISSING,
    doc: str = "",
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    form: tuple[str, str] | None = None,
    choices: Callable[[], Sequence[str]] | None = None,
    written: bool = False,
) -> Any:
    """A field with what its users have to know.

    Args:
        default: without one, the field has to be given.
        doc: meaning and unit in one line.
        at_least, above, at_most: bounds of a number (each number has bounds on both sides).
        form: the regular expression of a text (a text needs one) and its description.
        choices: the names that a list of names may hold.
        written: a folder that commands write to.
    """
    bounds = {"at_least": at_least, "above": above, "at_most": at_most, "form": form, "choices": choices}
    return dataclasses.field(default=default, metadata={"doc": doc, "written": written, **bounds})
