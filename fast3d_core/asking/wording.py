"""From what somebody types to a prompt in the words that the model was trained on."""

import difflib
import re
import string
from collections.abc import Sequence

from fast3d_core.asking.rooms import SceneObject
from fast3d_core.benchmarks import benchmark, usable_benchmarks
from fast3d_core.data.annotations import MOST_CHARACTERS
from fast3d_core.errors import UsageError
from fast3d_core.mentions import Typed, mention, mentioned, typed

PLAIN = "plain"
"""The task of a text that is asked as it is typed; the others word it as a benchmark does (`Wording.task`)."""

DEFAULT_TASK = "qa"

_NEAREST = 3  # objects that an error names


def tasks() -> dict[str, str]:
    """The ways to word a text, the default first, and the dataset whose prompts are worded like that; "" for plain."""
    worded: dict[str, str] = {}
    for one in usable_benchmarks():
        if task := one.wording.task:
            worded.setdefault(task, one.name)
    return {DEFAULT_TASK: worded[DEFAULT_TASK], **worded, PLAIN: ""}


def dataset_of(task: str) -> str:
    """The dataset whose prompts are worded like that; "" for plain. Raises `UsageError` for an unknown wording."""
    known = tasks()
    if task not in known:
        raise UsageError(f"--task is one of {', '.join(known)}, not {task[:80]!r}")
    return known[task]


def prompt_of(text: str, task: str, scene: str, objects: Sequence[SceneObject]) -> str:
    """The prompt that asks `text` about a scene with these objects.

    Raises `UsageError` for a text that is empty, too long or invalid, holds control tokens or names an object that is
    not there, and for a task that is not known or needs something else.
    """
    dataset = dataset_of(task)
    if len(text) > MOST_CHARACTERS:
        raise UsageError(f"the question has more than {MOST_CHARACTERS} characters, which no LLM here reads")
    if re.search("[\ud800-\udfff]", text):
        raise UsageError("the question is not valid UTF-8 text")
    text = text.strip()
    if not text.strip(string.punctuation + string.whitespace):
        raise UsageError("the question is empty; ask something, such as 'how many chairs are there?'")
    if control := re.search("</?s>|<unk>", text):
        raise UsageError(f"the question holds {control[0]}, which the model reads as a control token; leave it out")
    named = [_check(one, scene, objects) for one in typed(text)]
    if not dataset:
        return text
    wording = benchmark(dataset).wording
    if not wording.names_an_object:
        return wording.prompt(text)
    if len(set(named)) != 1:
        near = ", ".join(map(str, _like(text, objects)))
        raise UsageError(f"--task {task} describes one object; name it by its number, such as {near}")
    return wording.prompt(mention(named[0]))


def named_slots(answer: str) -> list[int]:
    """The objects that an answer names, in order, each once."""
    return list(dict.fromkeys(mentioned(answer)))


def _like(text: str, objects: Sequence[SceneObject]) -> Sequence[SceneObject]:
    """The objects whose label is most like the text; the first ones where none is."""
    labels = difflib.get_close_matches(text[:80], sorted({one.label for one in objects if one.label}), n=1)
    return [one for one in objects if one.label in labels][:_NEAREST] or objects[:_NEAREST]


def _check(named: Typed, scene: str, objects: Sequence[SceneObject]) -> int:
    """The slot that a text names. Raises `UsageError` where the scene has none, or where it is written otherwise."""
    slot = named.unit
    if slot not in (one.slot for one in objects):
        nearest = sorted(sorted(objects, key=lambda one: abs(one.slot - slot))[:_NEAREST], key=lambda one: one.slot)
        raise UsageError(
            f"{scene} has no object {named.text[:40]}; its {len(objects)} objects include "
            f"{', '.join(map(str, nearest))} (`fast3d ask --scene list` lists all)"
        )
    if not named.exact:
        raise UsageError(f"write {mention(slot)}, not {named.text[:40]}: the model knows objects by that name alone")
    return slot
