"""Reading answers: object ids, and the question-answering benchmarks' cleaning and exact match.

The cleaning rules (spelling mistakes of the annotators, numbers as words, no articles) are those of Chat-Scene's
evaluation (MIT), which has them from LEO, embodied-generalist (MIT).
"""

import re
from collections.abc import Sequence

# fmt: off
_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)
# fmt: on
_WORDS = {
    **{str(number): word for number, word in enumerate(_NUMBERS)},
    "23": "twenty-three",
    "none": "zero",
    "behine": "behind",
    "chai": "chair",
    "let": "left",
    "letf": "left",
    "oclock": "o'clock",
    "rght": "right",
    "rigth": "right",
    "tehre": "there",
    "tv": "TV",
    "wasing": "washing",
    "waslked": "walked",
}


def clean_answer(text: str) -> str:
    """A short answer in lower case (but "TV"), without punctuation and articles, its numbers as words.

    The order matters: spaces are stripped before the punctuation goes ("table ." keeps its space), and an article is
    dropped only before a word, one kind after the other ("a the an" becomes "an").
    """
    text = re.sub("^ +| +$", "", text.lower())
    text = re.sub(" {2,}", " ", text)
    text = re.sub(r"[^a-zA-Z0-9,'\s\-:]+", "", text)
    text = re.sub(r"\bo' +clock\b", "o'clock", text)
    text = re.sub(r"\w+", lambda word: _WORDS.get(word[0], word[0]), text)
    text = re.sub(r"\b([a-zA-Z]+)[0-9]\b", r"\1", text)  # "mat2"
    for article in ("a", "an", "the"):
        text = re.sub(rf"\b{article} ([a-zA-Z]+)", r"\1", text)
    return re.sub(r"\bbackwards\b", "backward", text)


def clean_prediction(text: str) -> str:
    """`clean_answer` of a generated answer, its full stop taken off first (unless it is all there is)."""
    return clean_answer(text[:-1] if len(text) > 1 and text.endswith(".") else text)


def exact_match(prediction: str, references: Sequence[str]) -> tuple[bool, bool]:
    """(EM, refined EM) of one answer. Refined: one contains the other, spaces aside; "black" matches "blackboard".

    An empty prediction matches nothing.
    """
    if not prediction:
        return False, False
    if prediction in references:
        return True, True
    packed = "".join(prediction.split())
    return False, any(packed in other or other in packed for other in ("".join(ref.split()) for ref in references))
