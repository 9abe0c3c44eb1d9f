"""The reference engine: the published behaviour to the letter, one sample at a time.

Nothing is dropped: tokens that a stage of a plan prunes are masked from its layer on, and FastV selects its set again
at every step. Slow, short, and independent of the fast engine: the two share the weights and the sub-layers in
`weights.py`, but no mask, cache or beam code. It is the oracle of the tests, and what reproduces the published FastV
numbers.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fast3d_core.llm.families import Llm, check_window
from fast3d_core.llm.generation import Generation, GenerationConfig, Prompt, check_beams, not_finite
from fast3d_core.llm.weights import finish_layer, project
from fast3d_core.plan import Plan, Stage, View


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
    """One prompt going through the LLM.

    Attributes:
        kept: the offsets that each stage of the plan keeps, as selected at prefill; held from then on.
        kept_per_step: what the last layer saw at prefill and at each decoding step.
    """

    llm: Llm
    prompt: Prompt
    plan: Plan
    cache: _Cache = field(default_factory=lambda: _Cache([], []))
    kept: list[Tensor] = field(default_factory=list)
    kept_per_step: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        prompt = self.prompt
        self.plan.check_fit(
            len(self.llm.model.layers), prompt.visual, len(prompt) - prompt.visual_start - prompt.visual
        )

    def logits(self, x: Tensor) -> Tensor:
        """Next-token logits (beams, vocab) after reading the new tokens `x` (beams, tokens, hidden)."""
        past = self.cache.keys[0].shape[1] if self.cache.keys else 0
        new = x.shape[1]
        positions = torch.arange(past, past + new, device=x.device)
        cos, sin = (part[0] for part in self.llm.model.rotary_emb(x, positions[None]))
        visible = causal = torch.arange(past + new, device=x.device) <= positions[:, None]  # (new, past + new)
        there, weights = torch.arange(self.prompt.visual), None
        numbers = {stage.layer: number for number, stage in enumerate(self.plan.stages)}
        for i, layer in enumerate(self.llm.model.layers):
            if i in numbers:
                there, x = self._enter(numbers[i], there, x, weights, prefill=past == 0)
                visible = self._hide(causal, there)
            q, k, v = project(layer, x, cos, sin)
            k, v = self.cache.append(i, k, v)
            attended, weights = _attend(q, k, v, visible)
            x = finish_layer(layer, x, attended)
        self.kept_per_step.append(there)
        logits = self.llm.lm_head(self.llm.model.norm(x[:, -1])).float()
        if not logits.isfinite().all():
            raise not_finite(self.llm.dtype)
        return logits

    def _enter(
        self, number: int, there: Tensor, x: Tensor, weights: Tensor | None, *, prefill: bool
    ) -> tuple[Tensor, Tensor]:
        """Which of the visual tokens that are `there` a stage keeps, and the hidden states that enter its layer.

        Args:
            x: (beams, new, hidden) as they leave the layer before; weights: (beams, heads, new, all) of that layer.
        """
        stage = self.plan.stages[number]
        if not (prefill or stage.every_step):
            return self.kept[number], x
        view = self._view(stage, there, x, weights)
        kept = self.plan.resolve(number, view)
        if prefill:
            self.kept.append(kept)
        if stage.merge is not None:
            merged = stage.merged(view, torch.searchsorted(there, kept).to(x.device))
            x = x.index_copy(1, (self.prompt.visual_start + kept).to(x.device), merged[None])
        return kept, x

    def _view(self, stage: Stage, there: Tensor, x: Tensor, weights: Tensor | None) -> View:
        """What a stage looks at; of beam 0, which decides for all beams, as published."""
        columns = (self.prompt.visual_start + there).to(x.device)
        shares, device = None, x.device
        if weights is not None and {"last", "text"} & set(stage.look):
            shares = weights[0, ..., columns].float().mean(dim=0)  # (new, n)
        if set(stage.look) <= {"last", "text"}:
            device = torch.device("cpu")
            shares = None if shares is None else shares.cpu()
        behind = self.prompt.visual_start + self.prompt.visual
        return View(
            there.to(device),
            last=shares[-1] if shares is not None and "last" in stage.look else None,
            text=shares[behind:] if shares is not None and "text" in stage.look else None,
            keys=self.cache.keys[stage.layer - 1][0, columns] if "keys" in stage.look else None,
            hidden=x[0, columns] if "hidden" in stage.look else None,
        )

    def _hide(self, causal: Tensor, kept: Tensor) -> Tensor:
        """Masks every visual column that is not kept, for all rows, those of the pruned tokens included."""
        start, end = self.prompt.visual_start, self.prompt.visual_start + self.plan.visual
        visible = causal.clone()
        visible[:, start:end] = False
        columns = start + kept.to(causal.device)
        visible[:, columns] = causal[:, columns]
        # Pruned tokens with no text before them would see nothing, which is NaN; no other row sees what they compute.
        blind = ~visible.any(dim=1)
        visible[blind] = causal[blind]
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
    stages = tuple((stage.layer, kept) for stage, kept in zip(plan.stages, run.kept, strict=True))
    return Generation(ids, score, steps, prompt.visual, stages, tuple(run.kept_per_step))


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
