"""What a run answered and kept, sample by sample, from its journal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fast3d_core.benchmarks import HEADLINES, References, score
from fast3d_core.errors import DataError
from fast3d_core.evaluation.journal import Journal
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
    """All answers of a run; none for predictions that were only scored. Raises `DataError` for a damaged journal."""
    answers = {}
    try:
        for batch in Journal(run.path, {}).batches().values():
            for entry in batch:
                dataset, index, text = entry["dataset"], entry["index"], entry["pred"]
                if dataset not in HEADLINES or not _is_index(index) or not isinstance(text, str):
                    raise ValueError("an entry is no answer")
                answers[dataset, index] = Answered(text, _objects(entry["kept"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the journal in {run.path} is damaged ({str(error)[:80]}); run `fast3d eval` again") from None
    return answers


def judge(dataset: str, record: dict[str, Any], references: References) -> float | None:
    """The score of one prediction record alone, 0 to 1, by the benchmark's own metric (`JUDGED_BY`)."""
    return score(dataset, [record], references, meteor=False, part=True).metrics[JUDGED_BY[dataset][1]]


def _objects(kept: Any) -> list[int] | None:
    if kept is None:
        return None
    if not isinstance(kept, list) or not all(map(_is_index, kept)):
        raise ValueError("what was kept is no list of tokens")
    return sorted({token // TOKENS_PER_OBJECT for token in kept})


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
