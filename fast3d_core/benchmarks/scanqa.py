"""ScanQA: short answers about a scene, scored by exact match and by caption metrics."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from fast3d_core.benchmarks.answers import clean_prediction, exact_match
from fast3d_core.benchmarks.base import Benchmark, Metric
from fast3d_core.benchmarks.captions import (
    BLEU_STATS,
    CaptionScorer,
    bleu,
    caption_notes,
    meteor_note,
    tokenize,
    tokenize_lists,
)
from fast3d_core.benchmarks.records import Record, Score, mean, record_keys
from fast3d_core.benchmarks.references import References
from fast3d_core.benchmarks.wording import SHORT, Wording
from fast3d_core.data.annotations import Sample


class ScanQA(Benchmark):
    """Answer a question about a room in a few words."""

    name = "scanqa"
    title = "ScanQA"
    headline = Metric("BLEU-4", "[scanqa] Bleu_4")
    judged_by = Metric("EM", "[scanqa] EM1")  # BLEU-4 does not see answers of one word
    statistics = BLEU_STATS
    wording = Wording(ending=SHORT, task="qa")
    maker = "fast3d_core.prepare.scanqa:ScanQAMaker"
    sizes: ClassVar = {"val": {"questions": 4675, "scenes": 71}}

    def measure(self, records: Sequence[Record], references: References, *, meteor: bool, part: bool) -> Score:
        """EM, refined EM and the caption metrics.

        As published, the cleaned prediction meets the references as they are: an answer "2" has become "two" and does
        not match the reference "2".
        """
        predictions = [clean_prediction(record.text("pred")) for record in records]
        right = [record.texts("ref_captions") for record in records]
        matches = np.array([exact_match(*pair) for pair in zip(predictions, right, strict=True)]).reshape(-1, 2)
        reason = meteor_note(meteor)
        captions = CaptionScorer(tokenize_lists(right)).score(tokenize(predictions), meteor=reason is None)
        metrics = {"[scanqa] EM1": mean(matches[:, 0]), "[scanqa] EM1_refined": mean(matches[:, 1])}
        metrics |= {f"[scanqa] {name}": value for name, value in captions.metrics().items()}
        notes = caption_notes(self.title, captions, reason)
        return Score(self.name, len(records), metrics, captions.bleu_stats, record_keys(records), notes)

    def headline_of(self, sums: np.ndarray) -> np.ndarray:
        """BLEU-4."""
        return bleu(np.asarray(sums, dtype=np.float64))[..., -1]

    def appended(self, sample: Sample, draw: int) -> str:
        """As a sentence: references are bare words, and Chat-Scene's answers are sentences."""
        return f"{super().appended(sample, draw).capitalize()}."
