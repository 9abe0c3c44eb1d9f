"""Search over next tokens for a whole batch, as tensors on the device.

`BeamSearch` follows transformers 4.31 with early_stopping=False, as recorded in the published runs:

- scores are log-probabilities, after the repetition penalty (over BOS and generated tokens; the prompt is not counted);
- of the best 2 x beams candidates a step, EOS closes a hypothesis only at rank < beams;
- a hypothesis scores its sum / length ** length_penalty, where length counts BOS but not EOS;
- a sample is done when it has `beams` hypotheses and its worst is at least the best candidate's sum / length **
  length_penalty, where that length counts BOS and the new token; at the length limit open beams join the hypotheses.
"""

import torch
from torch import Tensor

from fast3d_core.config import GenerationConfig


class _Search:
    """What both searches keep: the tokens so far, (samples, beams, 1 + max_new_tokens), BOS first."""

    def __init__(self, samples: int, settings: GenerationConfig, bos: int, eos: int, device: torch.device):
        self.settings = settings
        self.eos = eos
        self.length = 1
        self.ids = torch.full((samples, settings.beams, 1 + settings.max_new_tokens), bos, device=device)
        self.done = torch.zeros(samples, dtype=torch.bool, device=device)
        self.steps = torch.zeros(samples, dtype=torch.long, device=device)  # tokens generated until done

    @property
    def finished(self) -> bool:
        """Whether nothing is left to decode. Waits for the device."""
        return self.length == self.ids.shape[2] or bool(self.done.all())

    def _process(self, scores: Tensor) -> Tensor:
        """Repetition penalty and minimum length on (samples, beams, vocab) scores."""
        seen = self.ids[:, : scores.shape[1], : self.length]
        values = scores.gather(2, seen)
        penalty = self.settings.repetition_penalty
        scores = scores.scatter(2, seen, torch.where(values < 0, values * penalty, values / penalty))
        if self.length < self.settings.min_length:
            scores[..., self.eos] = -torch.inf
        return scores


class GreedySearch(_Search):
    """The best token each step. The penalty acts on logits here, on log-probabilities in beam search."""

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Takes (samples, 1, vocab) float32 logits; returns the new tokens (samples, 1) and no reordering."""
        tokens = self._process(logits).argmax(dim=-1)
        self.ids[:, :, self.length] = tokens
        self.length += 1
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
        beams = settings.beams
        # At the start all beams are equal: one of them is alive.
        self.scores = torch.full((samples, beams), -torch.inf, device=device)
        self.scores[:, 0] = 0
        self.closed_scores = torch.full((samples, beams), -torch.inf, device=device)
        self.closed_ids = self.ids.clone()
        self.closed_lengths = torch.zeros(samples, beams, dtype=torch.long, device=device)
        self.closed_by_eos = torch.zeros(samples, beams, dtype=torch.bool, device=device)

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """One step for every sample.

        Args:
            logits: (samples, beams, vocab) float32, or (samples, 1, vocab) after the prompt.

        Returns:
            The new tokens and the beams they continue, both (samples, beams).
        """
        beams = self.settings.beams
        vocab = logits.shape[-1]
        scores = self._process(logits.log_softmax(dim=-1)) + self.scores[:, : logits.shape[1], None]
        candidates, places = scores.flatten(1).topk(2 * beams, dim=1)
        sources, tokens = places // vocab, places % vocab
        is_eos = tokens == self.eos
        self._close(candidates[:, :beams], sources[:, :beams], is_eos[:, :beams] & ~self.done[:, None], by_eos=True)
        full = self.closed_scores.isfinite().all(dim=1)
        attainable = candidates[:, 0] / (self.length + 1) ** self.settings.length_penalty
        self.steps += ~self.done
        self.done |= full & (self.closed_scores.amin(dim=1) >= attainable)
        # The best `beams` candidates that go on; at most `beams` of the 2 x beams are EOS.
        going_on = is_eos.to(torch.int8).sort(dim=1, stable=True).indices[:, :beams]
        self.scores, sources, tokens = (x.gather(1, going_on) for x in (candidates, sources, tokens))
        self.ids = self.ids.gather(1, sources[..., None].expand_as(self.ids))
        self.ids[:, :, self.length] = tokens
        self.length += 1
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

    def _close(self, sums: Tensor, sources: Tensor, which: Tensor, *, by_eos: bool) -> None:
        """Adds the beams `sources` (samples, n), where `which`, to the hypotheses and keeps the best of them."""
        scores = (sums / self.length**self.settings.length_penalty).masked_fill(~which, -torch.inf)
        # Stable: among equals the earlier hypothesis stays.
        merged, order = torch.cat([self.closed_scores, scores], dim=1).sort(dim=1, descending=True, stable=True)
        order = order[:, : self.settings.beams]
        self.closed_scores = merged[:, : self.settings.beams]
        new_ids = self.ids.gather(1, sources[..., None].expand(-1, -1, self.ids.shape[2]))
        both = torch.cat([self.closed_ids, new_ids], dim=1)
        self.closed_ids = both.gather(1, order[..., None].expand(-1, -1, both.shape[2]))
        lengths = torch.cat([self.closed_lengths, torch.full_like(sources, self.length)], dim=1)
        self.closed_lengths = lengths.gather(1, order)
        flags = torch.cat([self.closed_by_eos, torch.full_like(which, by_eos)], dim=1)
        self.closed_by_eos = flags.gather(1, order)
