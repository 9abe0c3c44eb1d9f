"""A question, and the form of its answer."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        answer: what to learn, in the released training files' form.
        obj_id: the thing that is meant, if it is one (scanrefer, scan2cap); pred_id: the slot that scan2cap names.
        refs: the references to score against; for multi3dref the things that are meant.
        type: multi3dref's eval type, sqa3d's question type, otherwise 0.
        about: the things that the answer rests on, targets and anchors.
    """

    dataset: str
    prompt: str
    answer: str
    obj_id: int
    pred_id: int
    refs: tuple[Any, ...]
    type: str | int
    about: tuple[int, ...]


def sentence(answer: str) -> str:
    """The answer with a capital and a full stop, as the training files have it."""
    return f"{answer[0].upper()}{answer[1:]}."


Answered = tuple[str, str, tuple[int, ...]] | None
"""The question, its answer, and the things that this rests on."""
