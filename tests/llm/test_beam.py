"""The batched searches against the reference engine's, on toy language models that end often."""

import hashlib
from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast3d_core.config import GenerationConfig
from fast3d_core.llm import reference
from fast3d_core.llm.engine.beam import BeamSearch, GreedySearch

BOS, EOS = 1, 2


def toy_logits(seed: int, ids: list[int], vocab: int, eos_bias: float) -> torch.Tensor:
    """Next-token logits that depend on the whole history."""
    digest = hashlib.sha256(repr((seed, ids)).encode()).digest()
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))) * 2
    logits[EOS] += eos_bias
    return logits


class ToyRun:
    """Stands in for the reference engine's run over a prompt: it knows the history of each beam, as a cache would."""

    def __init__(self, seed, vocab, eos_bias):
        self.seed, self.vocab, self.eos_bias = seed, vocab, eos_bias
        self.beams = [[BOS]]
        self.cache = self
        self.prompt = self
        self.embeds = torch.zeros(1)
        self.llm = self
        self.model = self

    def embed_tokens(self, tokens):
        for ids, token in zip(self.beams, tokens.tolist(), strict=True):
            ids.append(token)
        return tokens

    def logits(self, x):
        return torch.stack([toy_logits(self.seed, ids, self.vocab, self.eos_bias) for ids in self.beams])

    def reorder(self, sources):
        self.beams = [list(self.beams[source]) for source in sources]


@settings(max_examples=150, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=4),
    beams=st.integers(1, 5),
    vocab=st.integers(12, 20),
    eos_bias=st.floats(-3, 6),
    max_new_tokens=st.integers(1, 9),
    min_length=st.integers(0, 4),
    length_penalty=st.sampled_from([0.0, 0.5, 1.0, 2.0, -1.0]),
    repetition_penalty=st.sampled_from([1.0, 3.0, 0.7]),
)
def test_batched_search_equals_the_plain_one(seeds, vocab, eos_bias, **values):
    chosen = replace(GenerationConfig(), **values)
    plain = reference._greedy_search if chosen.beams == 1 else reference._beam_search
    want = [plain(ToyRun(seed, vocab, eos_bias), chosen, BOS, EOS) for seed in seeds]

    kind = GreedySearch if chosen.beams == 1 else BeamSearch
    search = kind(len(seeds), chosen, BOS, EOS, torch.device("cpu"))

    def logits(rows):
        return torch.stack([torch.stack([toy_logits(s, ids, vocab, eos_bias) for ids in r]) for s, r in rows])

    search.advance(logits([(seed, [[BOS]]) for seed in seeds]))
    while not search.finished:
        histories = search.ids[:, :, : search.length].tolist()
        search.advance(logits(zip(seeds, histories, strict=True)))
    steps = search.steps.tolist()
    for (ids, score), step, (want_ids, want_score, want_steps) in zip(search.best(), steps, want, strict=True):
        assert ids == want_ids
        assert step == want_steps
        assert (score is None) == (want_score is None)
        if score is not None:
            assert abs(score - want_score) < 1e-4 * max(1, abs(want_score))
