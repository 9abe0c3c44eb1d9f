"""How texts name a unit of a scene: `<OBJ017>` is unit 17, in questions, answers, and the files of both.

The form is Chat-Scene's; annotation files and the published scorers know no other.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# As published: exactly three digits, of any script, and capitals.
_MENTION = re.compile(r"<OBJ(\d{3})>")
# What a file may hold where somebody named more units than three digits can.
_OVERLONG = re.compile(r"<OBJ(\d{3,9})>")
# What somebody may type who means a mention.
_TYPED = re.compile(r"<\s*OBJ\s*([0-9]+)\s*>", re.IGNORECASE)

MOST = 1000
"""Units that three digits can name."""


@dataclass(frozen=True)
class Typed:
    """A mention as somebody typed it: its `text`, the `unit` that is meant, and whether it is `exact`: `mention`'s."""

    text: str
    unit: int

    @property
    def exact(self) -> bool:
        return self.text == mention(self.unit)


def mention(unit: int) -> str:
    """The name of a unit in text, e.g. `<OBJ007>`."""
    return f"<OBJ{unit:03}>"


def mentioned(text: str) -> list[int]:
    """The units that a text names, in order, as the published scorers read them."""
    return [int(digits) for digits in _MENTION.findall(text)]


def mentioned_beyond(text: str) -> list[int]:
    """The same, those included whose number has more than three digits: a text must not name them, but may."""
    return [int(digits) for digits in _OVERLONG.findall(text)]


def typed(text: str) -> Iterator[Typed]:
    """What reads like a mention in a text that somebody typed, in order."""
    for match in _TYPED.finditer(text):
        yield Typed(match[0], int(match[1][:9]))
