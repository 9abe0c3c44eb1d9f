"""What a run answered and kept, sample by sample, from its journal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fast3d_core.benchmarks import References, benchmark, benchmark_names
from fast3d_core.errors import DataError
from fast3d_core.evaluation.journal import Journal
from fast3d_core.plan import TOKENS_PER_OBJECT
from fast3d_core.report.runs import Run


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
                if dataset not in benchmark_names() or not _is_index(index) or not isinstance(text, str):
                    raise ValueError("an entry is no answer")
                answers[dataset, index] = Answered(text, _objects(entry["kept"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the journal in {run.path} is damaged ({str(error)[:80]}); run `fast3d eval` again") from None
    return answers


def judge(dataset: str, record: dict[str, Any], references: References) -> float | None:
    """The score of one prediction record alone, 0 to 1, by `Benchmark.judge`."""
    judged = benchmark(dataset)
    return judged.score([record], references, meteor=False, part=True).metrics[judged.judge.key]


def _objects(kept: Any) -> list[int] | None:
    if kept is None:
        return None
    if not isinstance(kept, list) or not all(map(_is_index, kept)):
        raise ValueError("what was kept is no list of tokens")
    return sorted({token // TOKENS_PER_OBJECT for token in kept})


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
