"""Every word of the demo's prompts and answers."""

from collections.abc import Iterable

from fast3d_core.benchmarks.wording import SHORT
from fast3d_core.demo.questions.multi3dref import TEMPLATES as MULTI3DREF
from fast3d_core.demo.questions.names import NUMBERS
from fast3d_core.demo.questions.refer import SUPERLATIVES
from fast3d_core.demo.questions.scan2cap import TEMPLATES as SCAN2CAP
from fast3d_core.demo.questions.scanrefer import TEMPLATES as SCANREFER
from fast3d_core.demo.questions.sqa3d import DIRECTIONS, SIDES
from fast3d_core.demo.rooms import COLOURS, KINDS, MATERIALS, SIZES


def _words(texts: Iterable[str]) -> set[str]:
    return {word.strip('.,?"') for text in texts for word in text.split()} - {"", "{}"}


WORDS = tuple(
    sorted(
        _words([*SCANREFER, *MULTI3DREF, *SCAN2CAP, SHORT, *SIZES, *COLOURS, *MATERIALS, *NUMBERS, *SIDES])
        | _words(text for kind in KINDS for text in (kind.name, kind.plural))
        | _words(DIRECTIONS)
        | _words(how for how, _ in SUPERLATIVES)
        | _words(
            (
                "a an the on under near yes no Yes No closest to farthest from",
                "This is There It next What color material How many are in room Is there Which direction should I go",
                "Can I reach from here I am standing next to and facing on my left or right Am I closer",
            )
        )
    )
)
"""Every word of prompts and answers, sentence-initial answer words apart, which are these capitalised."""
