"""What a benchmark is to the rest of fast3d: one object, defined in one file."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fast3d_core.benchmarks.records import Origin, Record, Score
from fast3d_core.benchmarks.references import References
from fast3d_core.benchmarks.wording import Wording
from fast3d_core.data.annotations import TYPE, Sample, read_samples
from fast3d_core.errors import DataError

ONE_RELEASE = "take all files of data.annotations from one release: `fast3d download annotations`"

_LONG = 10  # characters: a metric's name as long as "BLEU-4@0.5" takes two lines of a narrow column


@dataclass(frozen=True)
class Metric:
    """A metric in reports: what it is called there, and its key in `Score.metrics`."""

    label: str
    key: str


@dataclass(frozen=True)
class Concern:
    """What `fast3d doctor` says of the references: what it is, what to do about it, whether scores would be wrong."""

    what: str
    do: str = ONE_RELEASE
    wrong: bool = False


class Benchmark(ABC):
    """A benchmark: its files, its questions and their wording, its metrics, and how it is shown.

    A subclass sets `name`, `title` and `headline`, and defines `measure`; what else it has of its own it overrides. The
    defaults are those of questions about a room that short texts answer. It is made without arguments, once.

    Attributes:
        name: in the config, in options and in the names of files.
        title: in reports; hyphenated: the same with line breaks where a narrow column may break it.
        headline: the metric that stands for it.
        judged_by: the metric that one answer alone is judged by; None: the headline.
        statistics: columns of `Score.stats`.
        on_detected_boxes: it is scored by boxes, and its annotation files have "_mask3d" in their names.
        of_an_object: each question is about one object, the record's `obj_id`.
        type_field: what annotation files call a question's type.
        repeated: how records that repeat a question are scored.
        wording: its prompts.
        maker: "module:class" of the `RecordMaker` by which `fast3d prepare` makes its annotation files; None without.
        sizes: of the release by split, the number of records first: what `fast3d prepare` compares raw files with.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    hyphenated: ClassVar[str] = ""
    headline: ClassVar[Metric]
    judged_by: ClassVar[Metric | None] = None
    statistics: ClassVar[int] = 2
    on_detected_boxes: ClassVar[bool] = False
    of_an_object: ClassVar[bool] = False
    type_field: ClassVar[str] = TYPE
    repeated: ClassVar[str] = "each counts"
    wording: ClassVar[Wording] = Wording()
    maker: ClassVar[str | None] = None
    sizes: ClassVar[Mapping[str, Mapping[str, int]]] = {}

    # --- questions

    def file(self, folder: Path, split: str = "val") -> Path:
        """Where the questions of a split are in an annotations folder."""
        middle = "_mask3d" if self.on_detected_boxes else ""
        return folder / f"{self.name}{middle}_{split}.json"

    def samples(self, folder: Path, split: str = "val") -> list[Sample]:
        """All questions of a split, in file order. Raises `DataError` for a missing file or a malformed record."""
        return read_samples(
            self.file(folder, split),
            self.name,
            of_an_object=self.of_an_object,
            answered=split == "val",
            type_field=self.type_field,
        )

    def expected(self, sample: Sample) -> list[str] | None:
        """The right answers as a page shows them; None where the objects asked for are the answer."""
        return [str(text) for text in sample.ref_captions]

    def targets(self, sample: Sample) -> Sequence[Any]:
        """Ids of the ground-truth objects that a page outlines for a question."""
        return (sample.obj_id,) if self.of_an_object else ()

    def appended(self, sample: Sample, draw: int) -> str:
        """The answer that `fast3d extract` appends to a question of the val split: the reference that `draw`, a large
        random number, stands for.

        Raises `ValueError` where the record has none.
        """
        if not sample.ref_captions:
            raise ValueError(f"record {sample.index} has no reference answers ('ref_captions')")
        drawn = sample.ref_captions[draw % len(sample.ref_captions)]
        if not isinstance(drawn, str):
            raise ValueError(f"record {sample.index} has a reference answer that is no text: {str(drawn)[:80]}")
        return drawn

    # --- metrics

    @abstractmethod
    def measure(self, records: Sequence[Record], references: References, *, meteor: bool, part: bool) -> Score:
        """All metrics of these records, perhaps none; see `score` for the arguments.

        Raises `DataError` for a record that is damaged or does not fit the references; `Record` has readers of its
        fields that do.
        """

    def score(
        self,
        records: list[dict[str, Any]],
        references: References,
        *,
        meteor: bool = True,
        part: bool = False,
        origin: Origin | None = None,
    ) -> Score:
        """All metrics of the prediction `records`.

        `meteor=False` leaves METEOR out, which is slow and needs Java. `part=True` says that the records cover part of
        the benchmark on purpose, so that no other question counts as unanswered. `origin` is where they stand in an
        annotation file, for errors. Where no question comes with an answer, all metrics are None. Raises `DataError`
        for a record that is damaged or does not fit the references.
        """
        if not isinstance(records, list):
            raise DataError(f"{self.name} predictions: they must be a list of records, not {type(records).__name__}")
        checked = [
            Record(self.name, position, fields, origin, self.type_field) for position, fields in enumerate(records)
        ]
        if checked and self.is_unanswered(checked):
            note = f"{self.name}: the questions come without answers, as in test splits, so its scores are null."
            nothing = self.measure([], references, meteor=meteor, part=part)
            return replace(nothing, samples=len(records), notes=[note])
        result = self.measure(checked, references, meteor=meteor, part=part)
        if not records:
            return replace(result, notes=[f"{self.name}: there are no records, so there is nothing to score."])
        empty = sum(not record.text("pred").strip() for record in checked)
        notes = [f"{self.name}: {empty} of {len(checked)} answers are empty."] if empty else []
        return replace(result, notes=[*result.notes, *notes, *self.remarks(checked, references)])

    def headline_of(self, sums: np.ndarray) -> np.ndarray:
        """The headline metric (...) of summed statistics (..., k), one `Score.stats` row's columns each.

        Sum the rows of any multiset of records, as a bootstrap does, and it is that multiset's score; NaN where a rate
        has no record. Here: a sum over a count.
        """
        sums = np.asarray(sums, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            return sums[..., 0] / sums[..., 1]

    def remarks(self, records: Sequence[Record], references: References) -> list[str]:
        """Notes on answers that were scored, but hardly as they were meant; one line each."""
        return []

    def is_unanswered(self, records: Sequence[Record]) -> bool:
        """Whether none of these questions, at least one, comes with an answer to score against, as in test splits."""
        if self.of_an_object:
            return all(record.fields.get("gt_id") == -1 for record in records)
        return all(record.fields.get("ref_captions") in (None, []) for record in records)

    # --- what `fast3d doctor` and `fast3d prepare` look at

    def flaw(self, sample: Sample, named: Sequence[int]) -> str | None:
        """Why a question that names these objects does not fit the rest of its record; None where it does."""
        return None

    def concerns(self, samples: Sequence[Sample], references: References, published: bool) -> Iterator[Concern]:
        """What makes the scores of these questions, which can be scored, other than they should be.

        `published` says that they are to be compared with published scores.
        """
        return iter(())

    def described(self, samples: Sequence[Sample], references: References) -> str:
        """What else to say of questions that can be scored, behind a comma."""
        return ""

    def other_size(self, split: str, records: int) -> str:
        """What a raw file of a split that has another size than the release may be, as the end of a sentence."""
        return ". Is it cut, joined, or of another split? Scores over it are not those that are published"

    # --- what follows from the attributes

    @property
    def column(self) -> str:
        """The title of the headline in reports."""
        return f"{self.title} {self.headline.label}"

    @property
    def narrow_column(self) -> str:
        """The same in short lines."""
        metric = self.headline.label
        metric = metric if len(metric) < _LONG else metric.replace("@", "\n@")
        return f"{self.hyphenated or self.title}\n{metric}"

    @property
    def judge(self) -> Metric:
        """The metric that one answer alone is judged by."""
        return self.judged_by or self.headline
