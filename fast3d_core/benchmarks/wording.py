"""How prompts are worded: the one place that `fast3d prepare`, `fast3d ask` and the checks of annotations share.

The prompts of this folder's benchmarks and their answers' form (`fast3d_core/prepare/answers.py`) are as Chat-Scene's
preprocessing has them (its prompts/prompts.py, https://github.com/ZzZZCHS/Chat-Scene), under this licence:

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

import string
from dataclasses import dataclass

SHORT = " Answer the question using a single word or phrase."

_QUESTION, _DESCRIPTION, _OBJECT = "<question>", "<description>", "<id>"


@dataclass(frozen=True)
class Wording:
    """The prompts of a benchmark.

    Attributes:
        templates: one is drawn for each prompt. What a prompt is about stands in place of "<question>", of
            "<description>" (which loses one mark of punctuation at its end), or of "<id>" (one object's mention).
        ending: how every prompt ends.
        task: what `fast3d ask --task` calls it; None where `ask` does not word questions like that.
        asked: position of the template that `ask` takes.
    """

    templates: tuple[str, ...] = (_QUESTION,)
    ending: str = ""
    task: str | None = None
    asked: int = 0

    @property
    def names_an_object(self) -> bool:
        """Whether a prompt is about one object that it mentions."""
        return _OBJECT in self.templates[self.asked]

    def prompt(self, about: str, template: str | None = None) -> str:
        """The prompt about a question, a description or a mention, which must not be empty; by default as `ask` words
        it."""
        template = self.templates[self.asked] if template is None else template
        if _DESCRIPTION in template:
            filled = template.replace(_DESCRIPTION, about[: -1 if about[-1] in string.punctuation else None])
        else:
            filled = template.replace(_OBJECT, about).replace(_QUESTION, about)
        return filled if self.is_usual(filled) else filled + self.ending

    def is_usual(self, prompt: str) -> bool:
        """Whether a prompt ends as it should, white space aside."""
        return prompt.rstrip().endswith(self.ending.strip())
