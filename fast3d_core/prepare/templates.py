"""The wording of prompts and answers, as Chat-Scene's preprocessing has it (its prompts/prompts.py).

From Chat-Scene (https://github.com/ZzZZCHS/Chat-Scene), under this licence:

    MIT License

    Copyright (c) 2023 Chat-3D

    Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
    documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
    rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to
    permit persons to whom the Software is furnished to do so, subject to the following conditions:

    The above copyright notice and this permission notice shall be included in all copies or substantial portions of
    the Software.

    THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO
    THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
    AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT,
    TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
    SOFTWARE.
"""

import re
import string
from collections.abc import Sequence

from fast3d_core.mentions import mention

SHORT = " Answer the question using a single word or phrase."

# fmt: off
SCANREFER = (
    'Share the ID of the object that best fits the description "<description>".',
    'Kindly provide the ID of the object that closely matches the description "<description>".',
    'What is the ID of the object that aligns with the description "<description>"?',
    'Identify the ID of the object that closely resembles the description "<description>".',
    'What\'s the ID of the object that corresponds to the description "<description>"?',
    'Give the ID of the object that most accurately describes the description "<description>".',
    'Share the ID of the object that best corresponds to the description "<description>".',
    'Identify the ID of the object that closely aligns with the description "<description>".',
    'What is the ID of the object that matches the description "<description>"?',
)
MULTI3DREF = (
    'Are there any objects fitting the description of "<description>"? If so, kindly provide the IDs for those '
    "objects.",
    'Do any objects match the description of "<description>"? If they do, please share the IDs of those objects.',
    'Is there anything that matches the description "<description>"? If yes, please share the IDs of those objects.',
    'Are there objects that correspond to the description "<description>"? If there are, kindly list their IDs.',
    'Does anything fit the description of "<description>"? If it does, could you list the IDs for those objects?',
    'Are there objects described as "<description>"? If there are, please provide the IDs for those objects.',
    'Have any objects been described as "<description>"? If so, please share the IDs of those objects.',
    'Do any objects meet the criteria of "<description>"? If they do, kindly provide the IDs of those objects.',
    'Are there objects with the attributes of "<description>"? If there are, please list their IDs.',
    'Are there any objects that correspond to the description "<description>"? If yes, could you share the IDs for '
    "those objects?",
)
SCAN2CAP = (
    "Begin by detailing the visual aspects of the <id> before delving into its spatial context among other elements "
    "within the scene.",
    "First, depict the physical characteristics of the <id>, followed by its placement and interactions within the "
    "surrounding environment.",
    "Describe the appearance of the <id>, then elaborate on its positioning relative to other objects in the scene.",
    "Paint a picture of the visual attributes of <id>, then explore how it relates spatially to other elements in the "
    "scene.",
    "Start by articulating the outward features of the <id>, then transition into its spatial alignment within the "
    "broader scene.",
    "Provide a detailed description of the appearance of <id> before analyzing its spatial connections with other "
    "elements in the scene.",
    "Capture the essence of the appearance of <id>, then analyze its spatial relationships within the scene's context.",
    "Detail the physical characteristics of the <id> and subsequently examine its spatial dynamics amidst other "
    "objects in the scene.",
    "Describe the visual traits of <id> first, then elucidate its spatial arrangements in relation to neighboring "
    "elements.",
    "Begin by outlining the appearance of <id>, then proceed to illustrate its spatial orientation within the scene "
    "alongside other objects.",
)
# fmt: on

_SENTENCE_END = re.compile(r"""(?:(?<!\.)\.|[?!])["')\]}]*\s+""")


def describe(template: str, description: str) -> str:
    """A prompt about a description, which must not be empty and loses one mark of punctuation at its end."""
    return template.replace("<description>", description[: -1 if description[-1] in string.punctuation else None])


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
