"""What goes into an engine and what comes out of it: prompts, how to search for answers, and the answers.

Imports no torch, so that the config's schema, which holds `GenerationConfig`, is read in no time.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fast3d_core.errors import NotFiniteError, UsageError
from fast3d_core.fields import setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class GenerationConfig:
    """beam search"""

    beams: int = setting(5, "beams per sample; 1 is greedy search", at_least=1, at_most=1000)
    max_new_tokens: int = setting(64, "longest answer, in tokens", at_least=1, at_most=4096)
    repetition_penalty: float = setting(
        3.0, "penalty on tokens that are already there; 1 is off", at_least=0.01, at_most=100
    )
    # Scores are float32: beyond, 4096 to that power takes them, with what a sum may be, near its ends.
    length_penalty: float = setting(
        1.0, "exponent of the length that divides a finished beam's score", at_least=-5, at_most=5
    )
    min_length: int = setting(1, "shortest answer, in tokens", at_least=0, at_most=4096)


@dataclass(frozen=True)
class Prompt:
    """What the LLM reads.

    Attributes:
        embeds: (tokens, hidden).
        visual_start: index of the first visual token; visual: how many there are, in one run.
        prefix: what stands before the question, (fewer tokens, hidden): the very same tensor for all prompts about a
            scene, by which the prefix cache finds its keys and values.
    """

    embeds: "Tensor"
    visual_start: int
    visual: int
    prefix: "Tensor | None" = None

    def __len__(self) -> int:
        return len(self.embeds)

    @property
    def shared(self) -> int:
        """How many of the tokens, from the first, are the same for all prompts about the scene."""
        return 0 if self.prefix is None else len(self.prefix)


@dataclass(frozen=True)
class Generation:
    """What the LLM answers to one prompt.

    Attributes:
        ids: token ids, BOS in front, EOS at the end if the answer was closed.
        score: summed log-probability over length (`generation.length_penalty`); None for greedy search.
        steps: tokens generated until this sample was done, the last one included.
        visual: how many visual tokens the prompt had.
        stages: of each stage of the plan its layer and which visual tokens it kept at prefill, (count,) int64 offsets.
        kept_per_step: the tokens that the last layer saw at prefill and at each decoding step, where the reference
            engine answered (`Stage.every_step` selects again), else empty.
    """

    ids: list[int]
    score: float | None
    steps: int
    visual: int
    stages: "tuple[tuple[int, Tensor], ...]" = ()
    kept_per_step: "tuple[Tensor, ...]" = ()

    @property
    def kept(self) -> "Tensor":
        """Offsets of the visual tokens that the last layer saw at prefill."""
        import torch

        return self.stages[-1][1] if self.stages else torch.arange(self.visual)


def check_beams(settings: GenerationConfig, vocab: int) -> None:
    """Raises `UsageError` where beam search would need more candidates than the vocabulary has tokens."""
    if settings.beams > 1 and 2 * settings.beams > vocab:
        raise UsageError(
            f"generation.beams is {settings.beams}, but a step takes the best 2 x beams of the LLM's {vocab} tokens; "
            f"take at most {vocab // 2}"
        )


def not_finite(dtype: "torch.dtype") -> NotFiniteError:
    """The error for logits that are NaN or infinite."""
    name = str(dtype).removeprefix("torch.")
    files = "`fast3d doctor --deep` looks for such numbers in the files"
    advice = files if name == "float32" else f"try --set model.dtype=bfloat16 or float32, else {files}"
    return NotFiniteError(f"the LLM computes NaN or infinity in {name}; {advice}")
