"""How answers are put into annotation files, as Chat-Scene's preprocessing does (its prompts/prompts.py, under the
licence in `fast3d_core/benchmarks/wording.py`)."""

import re
from collections.abc import Sequence

from fast3d_core.mentions import mention

_SENTENCE_END = re.compile(r"""(?:(?<!\.)\.|[?!])["')\]}]*\s+""")


def answer_slots(slots: Sequence[int]) -> str:
    """Multi3DRefer's answer that names detected objects, in the order given."""
    names = [mention(slot) for slot in slots]
    if not names:
        return "No."
    if len(names) < 3:
        return f"Yes. {' and '.join(names)}."
    return f"Yes. {', '.join(names[:-1])}, and {names[-1]}."


def answer_text(answer: str) -> str:
    """An answer, not empty, as training files have it: capitalised, everything else in lower case, with a full stop."""
    answer = answer.capitalize()
    return answer if answer.endswith(".") else answer + "."


def capitalize_sentences(text: str) -> str:
    """Sentences capitalised, everything else in lower case, one space between them.

    Chat-Scene takes NLTK's Punkt. This ends sentences where Punkt does, apart from what Punkt learnt or guesses about
    abbreviations; metrics do not see the difference, they ignore case.
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    sentences = [text[start:end].rstrip() for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return " ".join(sentence.capitalize() for sentence in sentences if sentence)
