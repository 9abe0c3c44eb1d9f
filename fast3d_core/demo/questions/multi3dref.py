"""Multi3DRefer's kind of question: which objects, none or several, does a description fit?"""

import numpy as np

from fast3d_core.demo.detection import Detection
from fast3d_core.demo.questions.draws import TRIES, pick, pick_weighted
from fast3d_core.demo.questions.names import NAMES, Name, article, draw_anchor, invented, some_name
from fast3d_core.demo.questions.question import Question
from fast3d_core.demo.rooms import KINDS, Room
from fast3d_core.mentions import mention

TEMPLATES = (
    'Are there any objects fitting the description of "{}"? If so, kindly provide the IDs for those objects.',
    'Do any objects match the description of "{}"? If they do, please share the IDs of those objects.',
    'Is there anything that matches the description "{}"? If yes, please share the IDs of those objects.',
)
_EVAL_TYPES = {"zt_wo_d": 0.12, "zt_w_d": 0.18, "st_wo_d": 0.12, "st_w_d": 0.28, "mt": 0.3}
_MOST_TARGETS = 5


def multi3dref(room: Room, detection: Detection, rng: np.random.Generator) -> Question | None:
    """A question of a random eval type, or None."""
    wanted = pick_weighted(rng, _EVAL_TYPES)
    for _ in range(2 * TRIES):
        found = _absent(room, rng, wanted) if wanted[:2] == "zt" else _present(room, rng)
        if not found:
            continue
        words, targets, kind, anchors = found
        others = np.count_nonzero(room.kinds == kind) > len(targets)
        count = min(len(targets), 2)
        if (
            len(targets) <= _MOST_TARGETS
            and wanted == ("zt", "st", "mt")[count] + ("", "_w_d", "_wo_d")[0 if count == 2 else 1 if others else 2]
        ):
            slots = sorted({int(slot) for slot in detection.slots[targets]})
            prompt = pick(rng, TEMPLATES).format(words)
            refs = tuple(int(target) for target in targets)
            return Question("multi3dref", prompt, answer_ids(slots), 0, 0, refs, wanted, (*refs, *anchors))
    return None


def answer_ids(slots: list[int]) -> str:
    """The answer that names these slots, in the released form: "No.", "Yes. <OBJ003> and <OBJ010>." """
    if not slots:
        return "No."
    *most, last = map(mention, slots)
    if len(most) < 2:
        return f"Yes. {' and '.join([*most, last])}."
    return f"Yes. {', '.join(most)}, and {last}."


_Several = tuple[str, np.ndarray, int, tuple[int, ...]] | None
"""The words, (k,) the things that fit them, their class, and the anchors."""


def _plain(rng: np.random.Generator, name: Name) -> str:
    """Singular or plural, whatever the number of things, so that the words do not give it away."""
    return article(name.words()) if rng.random() < 0.5 else name.words(plural=True)


def _present(room: Room, rng: np.random.Generator) -> _Several:
    """ "a red chair", "cups on the desk", "boxes near the large window": any number of things."""
    name = some_name(room, rng, int(rng.random() * len(room)))
    fits = name.fits(room)
    if rng.random() < 0.5:
        return _plain(rng, name), np.flatnonzero(fits), name.kind, ()
    anchor = draw_anchor(room, rng)
    if not anchor:
        return None
    other, words = anchor
    how, relation = pick(rng, (("on", room.on), ("under", room.under), ("near", room.near), ("near", room.near)))
    related = relation[:, other]
    if (related[fits] == -1).any() or (how != "near" and not relation[:, other].any()):
        return None
    return f"{_plain(rng, name)} {how} the {words}", np.flatnonzero(fits & (related == 1)), name.kind, (other,)


def _absent(room: Room, rng: np.random.Generator, wanted: str) -> _Several:
    """Something that is not there: a class, or of a class that is there another size, colour, material or place."""
    kinds = np.flatnonzero((np.bincount(room.kinds, minlength=len(KINDS)) > 0) == (wanted == "zt_w_d"))
    if not len(kinds):
        return None
    if wanted == "zt_w_d" and rng.random() < 0.4:
        return _present(room, rng)
    kind = int(pick(rng, room.kinds) if wanted == "zt_w_d" else pick(rng, kinds))
    name = invented(rng, kind, pick(rng, NAMES))
    return _plain(rng, name), np.flatnonzero(name.fits(room)), kind, ()
