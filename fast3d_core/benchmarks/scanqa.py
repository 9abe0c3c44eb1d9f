"""ScanQA: short answers about a scene, scored by exact match and by caption metrics."""

from collections.abc import Sequence

import numpy as np

from fast3d_core.benchmarks.answers import clean_prediction, exact_match
from fast3d_core.benchmarks.captions import CaptionScorer, caption_notes, meteor_note, tokenize, tokenize_lists
from fast3d_core.benchmarks.records import Record, Score, mean, record_keys


def score(records: Sequence[Record], meteor: bool) -> Score:
    """EM, refined EM and the caption metrics.

    As published, the cleaned prediction meets the references as they are: an answer "2" has become "two" and does not
    match the reference "2".
    """
    predictions = [clean_prediction(record.text("pred")) for record in records]
    references = [record.texts("ref_captions") for record in records]
    matches = np.array([exact_match(*pair) for pair in zip(predictions, references, strict=True)]).reshape(-1, 2)
    reason = meteor_note(meteor)
    captions = CaptionScorer(tokenize_lists(references)).score(tokenize(predictions), meteor=reason is None)
    metrics = {"[scanqa] EM1": mean(matches[:, 0]), "[scanqa] EM1_refined": mean(matches[:, 1])}
    metrics |= {f"[scanqa] {name}": value for name, value in captions.metrics().items()}
    notes = caption_notes("ScanQA", captions, reason)
    return Score("scanqa", len(records), metrics, captions.bleu_stats, record_keys(records), notes)
