"""SQA3D: short answers from where the asker stands, scored by exact match, also by question type, and as captions."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from fast3d_core.benchmarks.answers import clean_answer, clean_prediction, exact_match
from fast3d_core.benchmarks.base import Benchmark, Metric
from fast3d_core.benchmarks.captions import CaptionScorer, caption_notes, meteor_note, tokenize, tokenize_lists
from fast3d_core.benchmarks.records import Record, Score, mean, record_keys
from fast3d_core.benchmarks.references import References
from fast3d_core.benchmarks.wording import SHORT, Wording
from fast3d_core.data.annotations import Sample

TYPES = range(6)  # the question begins with what, is, how, can, which, or anything else


class SQA3D(Benchmark):
    """Answer a question about a room, asked from where somebody stands in it, in a few words."""

    name = "sqa3d"
    title = "SQA3D"
    headline = Metric("EM-R", "[sqa3d] EM1_refined")
    type_field = "sqa_type"
    wording = Wording(ending=SHORT)
    maker = "fast3d_core.prepare.sqa3d:SQA3DMaker"
    sizes: ClassVar = {"val": {"questions": 3261}, "test": {"questions": 3519}}

    def measure(self, records: Sequence[Record], references: References, *, meteor: bool, part: bool) -> Score:
        """EM, refined EM (both also by question type) and the caption metrics, predictions and references cleaned."""
        predictions = [clean_prediction(record.text("pred")) for record in records]
        right = [[clean_answer(text) for text in record.texts("ref_captions")] for record in records]
        matches = np.array([exact_match(*pair) for pair in zip(predictions, right, strict=True)]).reshape(-1, 2)
        metrics = {"[sqa3d] EM1": mean(matches[:, 0]), "[sqa3d] EM1_refined": mean(matches[:, 1])}
        kinds = np.array([record.choice("type_info", TYPES) for record in records])
        for kind in TYPES:
            # Published: the count starts at 1e-10, so that a type without a question scores 0.
            rates = matches[kinds == kind].sum(0) / ((kinds == kind).sum() + 1e-10)
            metrics[f"[sqa3d] EM_type{kind}"] = float(rates[0]) if records else None
            metrics[f"[sqa3d] EM_refined_type{kind}"] = float(rates[1]) if records else None
        reason = meteor_note(meteor)
        captions = CaptionScorer(tokenize_lists(right)).score(tokenize(predictions), meteor=reason is None)
        metrics |= {f"[sqa3d] {name}": value for name, value in captions.metrics().items()}
        stats = np.stack([matches[:, 1], np.ones(len(records))], axis=1).astype(np.float64)
        notes = caption_notes(self.title, captions, reason)
        return Score(self.name, len(records), metrics, stats, record_keys(records), notes)

    def appended(self, sample: Sample, draw: int) -> str:
        """As a sentence: references are bare words, and Chat-Scene's answers are sentences."""
        return f"{super().appended(sample, draw).capitalize()}."

    def other_size(self, split: str, records: int) -> str:
        """An early release has val and test swapped."""
        test = self.sizes["test"]["questions"]
        if split == "val" and records == test:
            return f", and its test split {test:,}: an early release has the two swapped, take a later one"
        return super().other_size(split, records)
