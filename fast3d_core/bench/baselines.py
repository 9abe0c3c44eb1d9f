"""What the fast engine is compared with: `generate` of stock transformers, on the same weights.

Two settings need an equivalent where prompts are embedded. Its repetition penalty leaves out as many tokens as there is
padding, but of the generated ones, as there are no others; so a processor applies it that leaves out none, and counts
BOS, as the published runs do. And pruned tokens leave no gap in the positions, as gaps without a mask would be read as
packed sequences; that costs the same.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig as StockConfig
from transformers import LogitsProcessor, LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from fast3d_core.config import GenerationConfig
from fast3d_core.errors import PlanError
from fast3d_core.llm.families import Llm
from fast3d_core.llm.generation import Prompt
from fast3d_core.plan import Plan, View


@torch.inference_mode()
def stock_generate(
    llm: Llm,
    rows: Sequence[Tensor],
    settings: GenerationConfig,
    bos: int,
    eos: int,
    *,
    attentions: bool = False,
    first_scores: Callable[[], None] = lambda: None,
) -> list[list[int]]:
    """Answers of exactly `settings.max_new_tokens` tokens by cached beam search over one left-padded batch.

    Args:
        rows: (tokens, hidden) embedded prompts.
        attentions: ask for all attention weights, as the published code does; `llm` must run eager attention.
        first_scores: called when the scores of the first new token are there.

    Returns:
        Generated token ids.
    """
    longest = max(map(len, rows))
    embeds = torch.zeros(len(rows), longest, rows[0].shape[1], dtype=rows[0].dtype, device=rows[0].device)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for i, row in enumerate(rows):
        embeds[i, longest - len(row) :] = row
        mask[i, longest - len(row) :] = 1
    wanted = StockConfig(
        num_beams=settings.beams,
        do_sample=False,
        min_new_tokens=settings.max_new_tokens,
        max_new_tokens=settings.max_new_tokens,
        length_penalty=settings.length_penalty,
        early_stopping=False,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=eos,
        output_attentions=attentions,
        return_dict_in_generate=True,
    )
    processors = LogitsProcessorList([_First(first_scores)])
    if settings.repetition_penalty != 1:
        processors.append(_Penalty(float(settings.repetition_penalty), bos))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what transformers thinks of settings that mean nothing to greedy search
        made: Any = llm.generate(  # type: ignore[misc]  # its stub wants another class
            inputs_embeds=embeds,
            attention_mask=mask.to(embeds.device),
            generation_config=wanted,
            logits_processor=processors,
        )
    return made.sequences.tolist()


class _First(LogitsProcessor):
    """Changes nothing; calls `called` when it is called first."""

    def __init__(self, called: Callable[[], None]):
        self._called: Callable[[], None] | None = called

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._called:
            self._called()
            self._called = None
        return scores


class _Penalty(RepetitionPenaltyLogitsProcessor):
    """The penalty on BOS and all generated tokens."""

    def __init__(self, penalty: float, bos: int):
        super().__init__(penalty)
        self._bos = bos

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        bos = input_ids.new_full((len(input_ids), 1), self._bos)
        return super().__call__(torch.cat([bos, input_ids], dim=1), scores)  # type: ignore[arg-type]


def kept_at_start(plan: Plan) -> Tensor:
    """The offsets that stay of a plan that drops tokens before the first layer. Raises `PlanError` for a plan that does
    anything else."""
    there = View(torch.arange(plan.visual))
    if any(stage.layer > 0 or stage.waits for stage in plan.stages):
        raise PlanError("stock transformers can do without tokens before layer 0 only, and this method does more")
    return plan.resolve(0, there) if plan.stages else there.offsets


def without_pruned(prompt: Prompt, plan: Plan) -> Tensor:
    """The prompt's rows without the visual tokens that the plan drops before the first layer."""
    start, end = prompt.visual_start, prompt.visual_start + prompt.visual
    kept = (start + kept_at_start(plan)).to(prompt.embeds.device)
    return torch.cat([prompt.embeds[:start], prompt.embeds[kept], prompt.embeds[end:]])


@contextlib.contextmanager
def attention_of(llm: Llm, kind: str) -> Iterator[None]:
    """Lets stock transformers run "eager" or "sdpa" attention meanwhile."""
    before = llm.config._attn_implementation
    llm.set_attn_implementation(kind)
    try:
        yield
    finally:
        llm.set_attn_implementation(before)
