"""BLEU, ROUGE-L, CIDEr (and METEOR where it can run) of captions against several references each.

Written from the metrics' papers and equal to pycocoevalcap 1.2, which the published scores come from, its constants
and habits included. Texts are strings of tokens separated by single spaces, as `ptb.tokenize` returns them.
"""

import functools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fast3d_core.benchmarks import meteor as meteor_metric
from fast3d_core.benchmarks import ptb
from fast3d_core.benchmarks.records import mean
from fast3d_core.errors import Fast3DError

ORDERS = 4
BLEU_STATS = 2 * ORDERS + 2  # clipped matches and candidate n-grams of the four orders, candidate and reference length
CAPTION_METRICS = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr")

# pycocoevalcap's guards against 0/0 in BLEU; they show where an n-gram order has no match (1e-13, not 0).
_TINY, _SMALL = 1e-15, 1e-9
_ROUGE_BETA = 1.2
_CIDER_SIGMA = 6.0

NGrams = list[Counter[tuple[str, ...]]]  # one counter per order
# TF-IDF weights and their norm by order, and the number of words.
Vector = tuple[list[dict[tuple[str, ...], float]], list[float], int]


_tokenized = functools.lru_cache(maxsize=1 << 16)(ptb.tokenize)


def tokenize(texts: Iterable[str]) -> list[str]:
    """Each text tokenised; the repeated ones once, also those of another call: references are scored run after run."""
    return [_tokenized(text) for text in texts]


def tokenize_lists(lists: Sequence[Sequence[str]]) -> list[list[str]]:
    """Lists of texts, tokenised."""
    flat = iter(tokenize(text for texts in lists for text in texts))
    return [[next(flat) for _ in texts] for texts in lists]


def meteor_note(wanted: bool) -> str | None:
    """Why METEOR will be None, or None if it will be computed."""
    return meteor_metric.available() if wanted else "METEOR is null: it was not asked for."


def bleu(stats: np.ndarray) -> np.ndarray:
    """BLEU-1..4 (..., 4) of summed statistics (..., 10), columns as `BLEU_STATS` lists them."""
    matches, totals = stats[..., :ORDERS], stats[..., ORDERS : 2 * ORDERS]
    precisions = np.cumprod((matches + _TINY) / (totals + _SMALL), axis=-1)
    ratio = (stats[..., -2:-1] + _TINY) / (stats[..., -1:] + _SMALL)
    return precisions ** (1 / np.arange(1, ORDERS + 1)) * np.exp(np.minimum(0, 1 - 1 / ratio))


@dataclass(frozen=True)
class CaptionScores:
    """Per-sample results of n candidates: BLEU's statistics (n, 10), ROUGE-L (n,), CIDEr (n,), and METEOR's total.

    `meteor_failed` says why METEOR is None although it was to be computed.
    """

    bleu_stats: np.ndarray
    rouge_l: np.ndarray
    cider: np.ndarray
    meteor: float | None
    meteor_failed: str | None = None

    @property
    def has_cider(self) -> bool:
        """Whether CIDEr means anything: it weighs words by how few samples have them, which of one sample is 0."""
        return len(self.cider) > 1

    def metrics(self) -> dict[str, float | None]:
        """The corpus scores under their published names; all None for an empty set, CIDEr for a single sample."""
        if not len(self.bleu_stats):
            return dict.fromkeys(CAPTION_METRICS)
        bleus = bleu(self.bleu_stats.sum(0)).tolist()
        cider = mean(self.cider) if self.has_cider else None
        return dict(zip(CAPTION_METRICS, [*bleus, self.meteor, mean(self.rouge_l), cider], strict=True))


def caption_notes(label: str, scores: CaptionScores, reason: str | None) -> list[str]:
    """Why some of a benchmark's caption metrics are None; `reason` is `meteor_note`'s."""
    notes = [why for why in (reason or scores.meteor_failed,) if why]
    if len(scores.cider) == 1:
        notes.append(
            f"{label}: CIDEr is null: of a single sample it is 0 by definition, whatever the answer, and the published "
            "scorer gives 0."
        )
    return notes


class CaptionScorer:
    """Scores candidates against one set of references (n lists of at least one), which it counts once.

    CIDEr weighs an n-gram by the number of samples whose references hold it, so the set matters, not the sample alone.
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        self.references = references
        self._grams = [[_ngrams(text) for text in texts] for texts in references]
        self._most = [_maximum(grams) for grams in self._grams]
        frequency = Counter(gram for most in self._most for counts in most for gram in counts)
        # Inverse document frequency; an n-gram that is in no reference counts as if it were in one sample's.
        self._log_size = math.log(max(1, len(references)))
        self._rarity = {gram: self._log_size - math.log(count) for gram, count in frequency.items()}
        self._vectors = [[self._vector(grams) for grams in sample] for sample in self._grams]

    def score(self, candidates: Sequence[str], meteor: bool) -> CaptionScores:
        """Scores of one candidate per sample; METEOR (slow, needs Java) only on demand."""
        grams = [_ngrams(text) for text in candidates]
        stats = [self._bleu_stats(*sample) for sample in zip(grams, self._grams, self._most, strict=True)]
        cider = [self._cider(*sample) for sample in zip(grams, self._vectors, strict=True)]
        rouge = [_rouge_l(*sample) for sample in zip(candidates, self.references, strict=True)]
        total, failed = self._meteor(candidates) if meteor and candidates else (None, None)
        return CaptionScores(
            np.array(stats, dtype=np.float64).reshape(-1, BLEU_STATS),
            np.array(rouge, dtype=np.float64),
            np.array(cider, dtype=np.float64),
            total,
            failed,
        )

    def _meteor(self, candidates: Sequence[str]) -> tuple[float | None, str | None]:
        """METEOR's total, or why there is none: its program must not cost the other scores."""
        try:
            return meteor_metric.meteor(candidates, self.references)[0], None
        except Fast3DError as error:
            return None, str(error).replace("METEOR:", "METEOR is null:", 1)

    @staticmethod
    def _bleu_stats(candidate: NGrams, references: list[NGrams], most: NGrams) -> list[int]:
        matches = [
            sum(min(count, limits[gram]) for gram, count in counts.items() if gram in limits)
            for counts, limits in zip(candidate, most, strict=True)
        ]
        totals = [counts.total() for counts in candidate]
        length = totals[0]
        # The reference nearest in length, the shorter of two as near.
        nearest = min((abs(grams[0].total() - length), grams[0].total()) for grams in references)[1]
        return [*matches, *totals, length, nearest]

    def _vector(self, grams: NGrams) -> Vector:
        rarity, unseen = self._rarity, self._log_size
        weights = [{gram: count * rarity.get(gram, unseen) for gram, count in counts.items()} for counts in grams]
        norms = [math.sqrt(sum(weight * weight for weight in order.values())) for order in weights]
        return weights, norms, grams[0].total()

    def _cider(self, candidate: NGrams, references: list[Vector]) -> float:
        weights, norms, length = self._vector(candidate)
        total = 0.0
        for reference_weights, reference_norms, reference_length in references:
            penalty = math.exp(-((length - reference_length) ** 2) / (2 * _CIDER_SIGMA**2))
            for order, theirs in enumerate(reference_weights):
                norm = norms[order] * reference_norms[order]
                if norm:
                    shared = ((weight, theirs[gram]) for gram, weight in weights[order].items() if gram in theirs)
                    total += penalty * sum(min(weight, other) * other for weight, other in shared) / norm
        return 10 * total / (ORDERS * len(references))


def _ngrams(text: str) -> NGrams:
    words = text.split()
    return [Counter(zip(*(words[start:] for start in range(order)), strict=False)) for order in range(1, ORDERS + 1)]


def _maximum(references: list[NGrams]) -> NGrams:
    """The most often an n-gram occurs in one of the references."""
    most: NGrams = [Counter() for _ in range(ORDERS)]
    for grams in references:
        for limits, counts in zip(most, grams, strict=True):
            for gram, count in counts.items():
                if count > limits[gram]:
                    limits[gram] = count
    return most


def _rouge_l(candidate: str, references: Sequence[str]) -> float:
    """ROUGE-L of the best precision and the best recall, perhaps of two different references."""
    # An empty text counts as one empty word: pycocoevalcap splits at every space.
    words = candidate.split(" ")
    precision = recall = 0.0
    for reference in references:
        others = reference.split(" ")
        common = lcs_length(words, others)
        precision = max(precision, common / len(words))
        recall = max(recall, common / len(others))
    if not precision:
        return 0.0
    return (1 + _ROUGE_BETA**2) * precision * recall / (recall + _ROUGE_BETA**2 * precision)


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the table at a time as the bits of one integer.

    Bit i of `row` is 0 where the length grows at word i of `first` (Hyyrö 2004, "Bit-parallel LCS-length computation
    revisited").
    """
    positions: dict[str, int] = {}
    for index, word in enumerate(first):
        positions[word] = positions.get(word, 0) | 1 << index
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        hits = row & positions.get(word, 0)
        row = (row + hits | row - hits) & full
    return len(first) - row.bit_count()
