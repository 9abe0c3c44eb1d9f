"""The reference engine: the published behaviour to the letter, one sample at a time.

Nothing is dropped: tokens that a plan prunes are masked in layers >= K, and FastV picks its set anew at every step.
Slow, short, and independent of the fast engine: the two share the weights and the sub-layers in `llm.py`, but no mask,
cache or beam code. It is the oracle of the tests, and what reproduces the published FastV numbers.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fast3d_core.llm.families import Llm, check_window
from fast3d_core.llm.generation import Generation, GenerationConfig, Prompt, check_beams, not_finite
from fast3d_core.llm.weights import finish_layer, project
from fast3d_core.plan import Plan


@dataclass
class _Cache:
    """Keys and values of every token so far, pruned ones included, per layer: (beams, tokens, kv heads, head_dim)."""

    keys: list[Tensor]
    values: list[Tensor]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if layer == len(self.keys):
            self.keys.append(k)
            self.values.append(v)
        else:
            self.keys[layer] = torch.cat([self.keys[layer], k], dim=1)
            self.values[layer] = torch.cat([self.values[layer], v], dim=1)
        return self.keys[layer], self.values[layer]

    def reorder(self, beams: list[int]) -> None:
        self.keys = [k[beams] for k in self.keys]
        self.values = [v[beams] for v in self.values]


@dataclass
class _Run:
    """One prompt going through the LLM."""

    llm: Llm
    prompt: Prompt
    plan: Plan
    cache: _Cache = field(default_factory=lambda: _Cache([], []))
    kept_per_step: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.plan.check_fit(len(self.llm.model.layers), self.prompt.visual)

    def logits(self, x: Tensor) -> Tensor:
        """Next-token logits (beams, vocab) after reading the new tokens `x` (beams, tokens, hidden)."""
        past = self.cache.keys[0].shape[1] if self.cache.keys else 0
        new = x.shape[1]
        positions = torch.arange(past, past + new, device=x.device)
        cos, sin = (table[0] for table in self.llm.model.rotary_emb(x, positions[None]))
        causal = torch.arange(past + new, device=x.device) <= positions[:, None]  # (new, past + new)
        visible = causal
        if self.plan.choose is None:
            visible = self._hide(causal, self.plan.kept)
        for i, layer in enumerate(self.llm.model.layers):
            q, k, v = project(layer, x, cos, sin)
            k, v = self.cache.append(i, k, v)
            attended, weights = _attend(q, k, v, visible if i >= self.plan.layer else causal)
            if self.plan.choose is not None and i == self.plan.layer - 1:
                # Published FastV: beam 0's newest token, mean over heads, decides for all beams.
                start = self.prompt.visual_start
                row = weights[0, :, -1, start : start + self.plan.visual].float().mean(dim=0)
                visible = self._hide(causal, self.plan.resolve(row.cpu()))
            x = finish_layer(layer, x, attended)
        logits = self.llm.lm_head(self.llm.model.norm(x[:, -1])).float()
        if not logits.isfinite().all():
            raise not_finite(self.llm.dtype)
        return logits

    def _hide(self, causal: Tensor, kept: Tensor | None) -> Tensor:
        """Masks every visual column that is not kept, for all rows, those of the pruned tokens included."""
        assert kept is not None
        self.kept_per_step.append(kept)
        start, end = self.prompt.visual_start, self.prompt.visual_start + self.plan.visual
        visible = causal.clone()
        visible[:, start:end] = False
        columns = start + kept.to(causal.device)
        visible[:, columns] = causal[:, columns]
        return visible


def _attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """Eager attention. q (beams, new, heads, d), k and v (beams, all, kv heads, d), visible (new, all)."""
    groups = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~visible, -math.inf).softmax(dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v), weights


@torch.inference_mode()
def first_logits(llm: Llm, prompt: Prompt, plan: Plan) -> Tensor:
    """Next-token logits (vocab,) float32 after the prompt."""
    check_window(llm.config, len(prompt))
    return _Run(llm, prompt, plan).logits(prompt.embeds[None])[0]


@torch.inference_mode()
def generate(llm: Llm, prompt: Prompt, plan: Plan, settings: GenerationConfig, bos: int, eos: int) -> Generation:
    """The answer to one prompt, by beam search, or by greedy search where `settings.beams` is 1.

    Raises:
        PlanError: see `Plan.check_fit`.
        UsageError: see `check_beams`.
        DataError: see `check_window`.
        NotFiniteError: the LLM computes NaN or infinity.
    """
    check_beams(settings, llm.config.vocab_size)
    check_window(llm.config, len(prompt), settings.max_new_tokens)
    run = _Run(llm, prompt, plan)
    search = _greedy_search if settings.beams == 1 else _beam_search
    ids, score, steps = search(run, settings, bos, eos)
    return Generation(ids, score, steps, run.kept_per_step[0], tuple(run.kept_per_step))


def _embed(run: _Run, tokens: list[int]) -> Tensor:
    ids = torch.tensor(tokens, device=run.prompt.embeds.device)
    return run.llm.model.embed_tokens(ids)[:, None]


def _process(scores: Tensor, ids: list[int], settings: GenerationConfig, eos: int) -> Tensor:
    """Repetition penalty over BOS and the generated tokens, then the minimum length; `scores` is (vocab,)."""
    scores = scores.clone()
    seen = torch.tensor(sorted(set(ids)), device=scores.device)
    values = scores[seen]
    scores[seen] = torch.where(values < 0, values * settings.repetition_penalty, values / settings.repetition_penalty)
    if len(ids) < settings.min_length:
        scores[eos] = -math.inf
    return scores


def _greedy_search(run: _Run, settings: GenerationConfig, bos: int, eos: int) -> tuple[list[int], None, int]:
    ids = [bos]
    logits = run.logits(run.prompt.embeds[None])
    while True:
        ids.append(int(_process(logits[0], ids, settings, eos).argmax()))
        if ids[-1] == eos or len(ids) == 1 + settings.max_new_tokens:
            return ids, None, len(ids) - 1
        logits = run.logits(_embed(run, ids[-1:]))


def _beam_search(run: _Run, settings: GenerationConfig, bos: int, eos: int) -> tuple[list[int], float, int]:
    """Beam search of transformers 4.31 with early_stopping=False; lengths count BOS, and EOS is not part of them."""
    beams: list[tuple[list[int], float]] = [([bos], 0.0)]
    finished: list[tuple[float, list[int]]] = []
    logits = run.logits(run.prompt.embeds[None])
    run.cache.reorder([0] * settings.beams)
    for step in range(1, settings.max_new_tokens + 1):
        scores = torch.stack(
            [
                _process(row.log_softmax(-1), ids, settings, eos) + total
                for row, (ids, total) in zip(logits, beams, strict=True)
            ]
        )
        best = scores.flatten().topk(2 * settings.beams)
        candidates = [
            (s, *divmod(i, scores.shape[1])) for s, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        chosen: list[tuple[int, list[int], float]] = []
        for rank, (total, source, token) in enumerate(candidates):
            ids = beams[source][0]
            if token != eos:
                chosen.append((source, [*ids, token], total))
            elif rank < settings.beams:
                _add(finished, total / len(ids) ** settings.length_penalty, [*ids, eos], settings.beams)
            if len(chosen) == settings.beams:
                break
        beams = [(ids, total) for _, ids, total in chosen]
        attainable = candidates[0][0] / (step + 1) ** settings.length_penalty
        if len(finished) == settings.beams and min(finished)[0] >= attainable:
            break
        if step < settings.max_new_tokens:
            run.cache.reorder([source for source, _, _ in chosen])
            logits = run.logits(_embed(run, [ids[-1] for ids, _ in beams]))
    else:
        for ids, total in beams:
            _add(finished, total / len(ids) ** settings.length_penalty, ids, settings.beams)
    score, ids = sorted(finished, key=lambda hypothesis: hypothesis[0])[-1]
    return ids, score, step


def _add(finished: list[tuple[float, list[int]]], score: float, ids: list[int], limit: int) -> None:
    """Keeps the `limit` best hypotheses."""
    finished.append((score, ids))
    if len(finished) > limit:
        finished.remove(min(finished, key=lambda hypothesis: hypothesis[0]))
