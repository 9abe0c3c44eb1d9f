"""Scan2Cap: describe a detected object; a caption counts only if the object's box overlaps the ground truth's."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from fast3d_core.benchmarks import boxes
from fast3d_core.benchmarks.base import Benchmark, Concern, Metric
from fast3d_core.benchmarks.captions import (
    BLEU_STATS,
    CAPTION_METRICS,
    CaptionScorer,
    bleu,
    caption_notes,
    meteor_note,
    tokenize,
    tokenize_lists,
)
from fast3d_core.benchmarks.records import Record, Score
from fast3d_core.benchmarks.references import References
from fast3d_core.benchmarks.wording import Wording
from fast3d_core.data.annotations import Sample

THRESHOLDS = (0.25, 0.5)
EMPTY = "sos eos"  # what an object without a caption that counts is scored as

# fmt: off
_PROMPTS = (
    "Begin by detailing the visual aspects of the <id> before delving into its spatial context among other elements "
    "within the scene.",
    "First, depict the physical characteristics of the <id>, followed by its placement and interactions within the "
    "surrounding environment.",
    "Describe the appearance of the <id>, then elaborate on its positioning relative to other objects in the scene.",
    "Paint a picture of the visual attributes of <id>, then explore how it relates spatially to other elements in the "
    "scene.",
    "Start by articulating the outward features of the <id>, then transition into its spatial alignment within the "
    "broader scene.",
    "Provide a detailed description of the appearance of <id> before analyzing its spatial connections with other "
    "elements in the scene.",
    "Capture the essence of the appearance of <id>, then analyze its spatial relationships within the scene's context.",
    "Detail the physical characteristics of the <id> and subsequently examine its spatial dynamics amidst other "
    "objects in the scene.",
    "Describe the visual traits of <id> first, then elucidate its spatial arrangements in relation to neighboring "
    "elements.",
    "Begin by outlining the appearance of <id>, then proceed to illustrate its spatial orientation within the scene "
    "alongside other objects.",
)
# fmt: on


class Scan2Cap(Benchmark):
    """Describe a detected object, in ScanRefer's words. It is scored by object of the corpus, not by record."""

    name = "scan2cap"
    title = "Scan2Cap"
    hyphenated = "Scan2-\nCap"
    headline = Metric("BLEU-4@0.5", "[scan2cap] Bleu_4@0.50")
    statistics = BLEU_STATS
    on_detected_boxes = True
    of_an_object = True
    repeated = "the last answer counts"
    wording = Wording(_PROMPTS, task="caption", asked=2)
    maker = "fast3d_core.prepare.scan2cap:Scan2CapMaker"
    sizes: ClassVar = {"val": {"descriptions": 9508, "objects": 2068, "scenes": 141}}

    def measure(self, records: Sequence[Record], references: References, *, meteor: bool, part: bool) -> Score:
        """Caption metrics at both thresholds over every object of the corpus, predicted or not; if `part`, only over
        the predicted ones.

        Published habits: predictions are wrapped in "sos ... eos" whether or not the corpus is, and the last of several
        predictions for an object counts, with its own IoU.
        """
        if not records:
            names = [f"[scan2cap] {name}@{threshold:.2f}" for threshold in THRESHOLDS for name in CAPTION_METRICS]
            return Score(self.name, 0, dict.fromkeys(names), np.zeros((0, BLEU_STATS)), [], [])
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
        return Score(self.name, len(records), metrics, scores.bleu_stats, list(corpus), notes)

    def headline_of(self, sums: np.ndarray) -> np.ndarray:
        """BLEU-4."""
        return bleu(np.asarray(sums, dtype=np.float64))[..., -1]

    def flaw(self, sample: Sample, named: Sequence[int]) -> str | None:
        """The object that the prompt names is the one whose box counts."""
        if not named or named[0] == sample.pred_id:
            return None
        return f"asks about object {named[0]}, but its pred_id is {sample.pred_id}"

    def concerns(self, samples: Sequence[Sample], references: References, published: bool) -> Iterator[Concern]:
        """A corpus that is not wrapped, or of other objects."""
        for note in unwrapped_notes(references) if published else ():
            yield Concern(note.split(";")[0], "`fast3d prepare` writes a wrapped one")
        corpus = set(references.corpus)
        left = corpus - {f"{sample.scene_id}|{sample.obj_id}" for sample in samples}
        if 2 * len(left) > len(corpus):
            yield Concern(
                f"{self.name}: of {len(corpus)} objects in {references.corpus_file}, the questions leave out "
                f"{len(left)}, which count as empty captions",
                wrong=True,
            )


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
