"""What a run answered and kept, sample by sample, from its journal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fast3d_core.benchmarks import HEADLINES, References, score
from fast3d_core.errors import DataError
from fast3d_core.evaluation.journal import Entry, Journal
from fast3d_core.files.files import shown
from fast3d_core.plan import TOKENS_PER_OBJECT
from fast3d_core.report.runs import Run

JUDGED_BY = {
    **{dataset: (headline.label.split(maxsplit=1)[1], headline.key) for dataset, headline in HEADLINES.items()},
    "scanqa": ("EM", "[scanqa] EM1"),
}
"""The metric that an answer alone is judged by: short name, published name. The benchmark's headline, but for ScanQA,
whose BLEU-4 does not see answers of one word."""


@dataclass(frozen=True)
class Answered:
    """An answer, and the object slots of which any token was kept from layer K on; None where all were."""

    text: str
    kept: list[int] | None


Answers = Mapping[tuple[str, int], Answered]
"""By dataset and the sample's index in its annotations."""


def read_answers(run: Run) -> Answers:
    """All answers of a run; none for predictions that were only scored.

    Raises `DataError` for a damaged journal, and `VersionError` for one that another version of fast3d wrote.
    """
    batches = Journal(run.path, {}).batches().values()
    entries = [entry for batch in batches for entry in batch]
    if strange := next((entry for entry in entries if entry.dataset not in HEADLINES), None):
        raise DataError(
            f"the journal in {run.path} is damaged: it answers {shown(strange.dataset)}, which is no dataset",
            "run `fast3d eval` again",
        )
    return {(entry.dataset, entry.index): Answered(entry.pred, _objects(entry)) for entry in entries}


def judge(dataset: str, record: dict[str, Any], references: References) -> float | None:
    """The score of one prediction record alone, 0 to 1, by the benchmark's own metric (`JUDGED_BY`)."""
    return score(dataset, [record], references, meteor=False, part=True).metrics[JUDGED_BY[dataset][1]]


def _objects(entry: Entry) -> list[int] | None:
    return None if entry.kept is None else sorted({offset // TOKENS_PER_OBJECT for offset in entry.kept})
