"""Scan2Cap: describe a detected object; a caption counts only if the object's box overlaps the ground truth's."""

from collections.abc import Sequence

import numpy as np

from fast3d_core.benchmarks import boxes
from fast3d_core.benchmarks.captions import (
    BLEU_STATS,
    CAPTION_METRICS,
    CaptionScorer,
    caption_notes,
    meteor_note,
    tokenize,
    tokenize_lists,
)
from fast3d_core.benchmarks.records import Record, Score
from fast3d_core.benchmarks.references import References

THRESHOLDS = (0.25, 0.5)
EMPTY = "sos eos"  # what an object without a caption that counts is scored as


def score(records: Sequence[Record], references: References, meteor: bool, part: bool = False) -> Score:
    """Caption metrics at both thresholds over every object of the corpus, predicted or not; if `part`, only over the
    predicted ones.

    Published habits: predictions are wrapped in "sos ... eos" whether or not the corpus is, and the last of several
    predictions for an object counts, with its own IoU.
    """
    if not records:
        names = [f"[scan2cap] {name}@{threshold:.2f}" for threshold in THRESHOLDS for name in CAPTION_METRICS]
        return Score("scan2cap", 0, dict.fromkeys(names), np.zeros((0, BLEU_STATS)), [], [])
    corpus = references.corpus
    last: dict[str, tuple[str, float]] = {}
    for record, overlap in zip(records, overlaps(records, references).tolist(), strict=True):
        key = f"{record.text('scene_id')}|{record.index('gt_id')}"
        if key not in corpus:
            raise record.error(
                f'"{key[:100]}" is not in {references.corpus_file} (scene_id|{record.called("gt_id")})',
                "use the corpus that the predictions are for",
            )
        last[key] = (f"sos {record.text('pred')} eos", overlap)
    notes = []
    if part:
        notes.append(
            f"Scan2Cap: scored over the {len(last)} of the corpus's {len(corpus)} objects that were asked for."
        )
        corpus = {key: captions for key, captions in corpus.items() if key in last}
    elif len(last) < len(corpus):
        notes.append(
            f"Scan2Cap: {len(corpus) - len(last)} of the corpus's {len(corpus)} objects have no prediction "
            "and count as empty captions."
        )
    reason = meteor_note(meteor)
    scorer = CaptionScorer(tokenize_lists(list(corpus.values())))
    captions = dict(zip(last, tokenize(text for text, _ in last.values()), strict=True))
    metrics: dict[str, float | None] = {}
    for threshold in THRESHOLDS:
        chosen = [captions[key] if key in last and last[key][1] >= threshold else EMPTY for key in corpus]
        scores = scorer.score(chosen, meteor=reason is None)
        metrics |= {f"[scan2cap] {name}@{threshold:.2f}": value for name, value in scores.metrics().items()}
        reason = reason or scores.meteor_failed  # which would only fail again at the other threshold
    notes += [*caption_notes("Scan2Cap", scores, reason), *unwrapped_notes(references)]
    return Score("scan2cap", len(records), metrics, scores.bleu_stats, list(corpus), notes)


def unwrapped_notes(references: References) -> list[str]:
    """Says how many captions of the corpus lack the "sos ... eos" that they have where scores are published."""
    captions = [caption for several in references.corpus.values() for caption in several]
    bare = sum(not _is_wrapped(caption) for caption in captions)
    if not bare:
        return []
    return [
        f"Scan2Cap: {bare} of {len(captions)} captions in {references.corpus_file} are not wrapped in "
        '"sos ... eos", as predictions are and as the corpus of published scores is, so its scores are lower than '
        "those; `fast3d prepare` writes a wrapped one."
    ]


def overlaps(records: Sequence[Record], references: References) -> np.ndarray:
    """(n,) IoU of each record's detected instance with its ground-truth object."""
    detected = [record.box(references.instances, record.index("pred_id"), "pred_id") for record in records]
    truth = [record.box(references.objects, record.index("gt_id"), "gt_id") for record in records]
    return boxes.iou(np.reshape(detected, (-1, 6)), np.reshape(truth, (-1, 6)))


def _is_wrapped(caption: str) -> bool:
    words = caption.lower().split()
    return len(words) > 1 and words[0] == "sos" and words[-1] == "eos"
