"""Search over next tokens for a whole batch, as tensors on the device.

A step reads and writes the same tensors, in the same shapes, whatever its number, and does not wait for the device; so
it can be captured as a CUDA graph.

`BeamSearch` follows transformers 4.31 with early_stopping=False, as recorded in the published runs:

- scores are log-probabilities, after the repetition penalty (over BOS and generated tokens; the prompt is not counted);
- of the best 2 x beams candidates a step, EOS closes a hypothesis only at rank < beams;
- a hypothesis scores its sum / length ** length_penalty, where length counts BOS but not EOS;
- a sample is done when it has `beams` hypotheses and its worst is at least the best candidate's sum / length **
  length_penalty, where that length counts BOS and the new token; at the length limit open beams join the hypotheses.
"""

import torch
from torch import Tensor

from fast3d_core.llm.generation import GenerationConfig


class _Search:
    """What both searches keep.

    Attributes:
        ids: (samples, beams, 1 + max_new_tokens) the tokens so far, BOS first, and BOS where none is yet.
        length: () int64, how many tokens there are, BOS included.
        done: (samples,) bool; steps: (samples,) tokens generated until then.
        sums: (samples,) float32, of all logits until then: not finite where one of them was not, as no sum hides that.
    """

    def __init__(self, samples: int, settings: GenerationConfig, bos: int, eos: int, device: torch.device):
        self.settings = settings
        self.bos, self.eos = bos, eos
        self.length = torch.ones((), dtype=torch.long, device=device)
        self.ids = torch.full((samples, settings.beams, 1 + settings.max_new_tokens), bos, device=device)
        self.done = torch.zeros(samples, dtype=torch.bool, device=device)
        self.steps = torch.zeros(samples, dtype=torch.long, device=device)
        self.sums = torch.zeros(samples, device=device)
        self._places = torch.arange(1 + settings.max_new_tokens, device=device)

    def reset(self) -> None:
        """Back to the start, in the same tensors."""
        self.length.fill_(1)
        self.ids.fill_(self.bos)
        self.done.fill_(False)
        self.steps.zero_()
        self.sums.zero_()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to decode. Waits for the device."""
        return bool(self.done.all() | (self.length == self.ids.shape[2]))

    @property
    def finite(self) -> Tensor:
        """(samples,) bool, whether all logits were numbers; where not, the sample has no answer."""
        return self.sums.isfinite()

    def _add_up(self, logits: Tensor) -> None:
        """Logits (samples, beams, vocab), but for those of samples that are done: what these are does not count."""
        self.sums += logits.sum(dim=(1, 2)).masked_fill_(self.done, 0)  # one pass that writes next to nothing

    def _process(self, scores: Tensor) -> Tensor:
        """Repetition penalty and minimum length on (samples, beams, vocab) scores, in place."""
        seen = self.ids[:, : scores.shape[1]]  # where there is no token yet, BOS stands, which always was there
        values = scores.gather(2, seen)
        penalty = self.settings.repetition_penalty
        scores.scatter_(2, seen, torch.where(values < 0, values * penalty, values / penalty))
        if self.settings.min_length > 1:  # it counts BOS, as `length` does
            scores[..., self.eos].masked_fill_(self.length < self.settings.min_length, -torch.inf)
        return scores

    def _append(self, tokens: Tensor) -> None:
        """The new tokens (samples, beams) of all beams."""
        self.ids.copy_(torch.where(self._places == self.length, tokens[..., None], self.ids))
        self.length += 1


class GreedySearch(_Search):
    """The best token each step. The penalty acts on logits here, on log-probabilities in beam search."""

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Takes (samples, 1, vocab) float32 logits; returns the new tokens (samples, 1) and no reordering."""
        self._add_up(logits)
        tokens = self._process(logits.clone()).argmax(dim=-1)
        self._append(tokens)
        self.steps += ~self.done
        self.done |= tokens[:, 0] == self.eos
        return tokens, None

    def best(self) -> list[tuple[list[int], None]]:
        """Token ids of each sample, BOS first, EOS last where it came."""
        rows = zip(self.ids[:, 0].tolist(), self.steps.tolist(), strict=True)
        return [(ids[: 1 + steps], None) for ids, steps in rows]


class BeamSearch(_Search):
    """Beam search; see the module's text for the rules."""

    def __init__(self, samples: int, settings: GenerationConfig, bos: int, eos: int, device: torch.device):
        super().__init__(samples, settings, bos, eos, device)
        shape = (samples, settings.beams)
        self.scores = torch.empty(shape, device=device)
        self.closed_scores = torch.empty(shape, device=device)
        self.closed_ids = torch.empty_like(self.ids)
        self.closed_lengths = torch.empty(shape, dtype=torch.long, device=device)
        self.closed_by_eos = torch.empty(shape, dtype=torch.bool, device=device)
        # What the score of a hypothesis of 1, 2, ... tokens is divided by; of 0 there is none.
        norms = [1.0, *(length**settings.length_penalty for length in range(1, 2 + settings.max_new_tokens))]
        self._norms = torch.tensor(norms, device=device)
        self.reset()

    def reset(self) -> None:
        super().reset()
        self.scores.fill_(-torch.inf)
        self.scores[:, 0] = 0  # at the start all beams are equal: one of them is alive
        self.closed_scores.fill_(-torch.inf)
        self.closed_ids.copy_(self.ids)
        self.closed_lengths.zero_()
        self.closed_by_eos.fill_(False)

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """One step for every sample.

        Args:
            logits: (samples, beams, vocab) float32, or (samples, 1, vocab) after the prompt.

        Returns:
            The new tokens and the beams they continue, both (samples, beams).
        """
        self._add_up(logits)
        beams = self.settings.beams
        vocab = logits.shape[-1]
        scores = self._process(logits.log_softmax(dim=-1)).add_(self.scores[:, : logits.shape[1], None])
        candidates, indices = scores.flatten(1).topk(2 * beams, dim=1)
        sources, tokens = indices // vocab, indices % vocab
        is_eos = tokens == self.eos
        self._close(candidates[:, :beams], sources[:, :beams], is_eos[:, :beams] & ~self.done[:, None], by_eos=True)
        full = self.closed_scores.isfinite().all(dim=1)
        attainable = candidates[:, 0] / self._norm(self.length + 1)
        self.steps += ~self.done
        self.done |= full & (self.closed_scores.amin(dim=1) >= attainable)
        # The best `beams` candidates that go on; at most `beams` of the 2 x beams are EOS.
        going_on = is_eos.to(torch.int8).sort(dim=1, stable=True).indices[:, :beams]
        scores, sources, tokens = (x.gather(1, going_on) for x in (candidates, sources, tokens))
        self.scores.copy_(scores)
        self.ids.copy_(self.ids.gather(1, sources[..., None].expand_as(self.ids)))
        self._append(tokens)
        return tokens, sources

    def best(self) -> list[tuple[list[int], float]]:
        """Token ids of each sample's best hypothesis, BOS first, EOS last where it was closed, and its score."""
        everyone = torch.arange(self.settings.beams, device=self.ids.device).expand_as(self.scores)
        self._close(self.scores, everyone, ~self.done[:, None].expand_as(everyone), by_eos=False)
        best = self.closed_scores.argmax(dim=1, keepdim=True)
        columns = (self.closed_scores, self.closed_lengths, self.closed_by_eos)
        scores, lengths, by_eos = (x.gather(1, best)[:, 0].tolist() for x in columns)
        rows = self.closed_ids.gather(1, best[..., None].expand(-1, -1, self.ids.shape[2]))[:, 0].tolist()
        return [
            (ids[:length] + [self.eos] * closed, score)
            for ids, length, closed, score in zip(rows, lengths, by_eos, scores, strict=True)
        ]

    def _norm(self, length: Tensor) -> Tensor:
        return self._norms.index_select(0, length.view(1))  # indexing by a tensor of no dimension waits for the device

    def _close(self, sums: Tensor, sources: Tensor, which: Tensor, *, by_eos: bool) -> None:
        """Adds the beams `sources` (samples, n), where `which`, to the hypotheses and keeps the best of them."""
        scores = (sums / self._norm(self.length)).masked_fill(~which, -torch.inf)
        # Stable: among equals the earlier hypothesis stays.
        merged, order = torch.cat([self.closed_scores, scores], dim=1).sort(dim=1, descending=True, stable=True)
        order = order[:, : self.settings.beams]
        self.closed_scores.copy_(merged[:, : self.settings.beams])
        new_ids = self.ids.gather(1, sources[..., None].expand(-1, -1, self.ids.shape[2]))
        both = torch.cat([self.closed_ids, new_ids], dim=1)
        self.closed_ids.copy_(both.gather(1, order[..., None].expand(-1, -1, both.shape[2])))
        lengths = torch.cat([self.closed_lengths, self.length.expand_as(sources)], dim=1)
        self.closed_lengths.copy_(lengths.gather(1, order))
        flags = torch.cat([self.closed_by_eos, torch.full_like(which, by_eos)], dim=1)
        self.closed_by_eos.copy_(flags.gather(1, order))
