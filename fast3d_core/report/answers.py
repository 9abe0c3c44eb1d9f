"""What a run answered and kept, sample by sample, from its journal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fast3d_core.benchmarks import References, benchmark, benchmark_names
from fast3d_core.errors import DataError
from fast3d_core.evaluation.journal import Journal
from fast3d_core.plan import Units
from fast3d_core.report.runs import Run

_PUBLISHED = Units(count=100, tokens=3)  # Chat-Scene's: identifier, 3D and 2D feature of an object


@dataclass(frozen=True)
class Answered:
    """An answer, and the object slots of which any token was kept from layer K on; None where all were."""

    text: str
    kept: list[int] | None


Answers = Mapping[tuple[str, int], Answered]
"""By dataset and the sample's index in its annotations."""


def read_answers(run: Run) -> Answers:
    """All answers of a run; none for predictions that were only scored. Raises `DataError` for a damaged journal."""
    answers, units = {}, units_of(run)
    try:
        for batch in Journal(run.path, {}).batches().values():
            for entry in batch:
                dataset, index, text = entry["dataset"], entry["index"], entry["pred"]
                if dataset not in benchmark_names() or not _is_index(index) or not isinstance(text, str):
                    raise ValueError("an entry is no answer")
                answers[dataset, index] = Answered(text, _objects(entry["kept"], units))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the journal in {run.path} is damaged ({str(error)[:80]}); run `fast3d eval` again") from None
    return answers


def units_of(run: Run) -> Units:
    """The units of a run's prompts, from its settings; what these do not tell is as in the published runs."""
    settings = run.result.settings
    found = settings.get("units")
    told = found if isinstance(found, dict) else {"count": settings.get("max_objects")}
    count, tokens = told.get("count"), told.get("tokens")
    return Units(
        count if _is_index(count) and count else _PUBLISHED.count,
        tokens if _is_index(tokens) and tokens else _PUBLISHED.tokens,
    )


def judge(dataset: str, record: dict[str, Any], references: References) -> float | None:
    """The score of one prediction record alone, 0 to 1, by `Benchmark.judge`."""
    judged = benchmark(dataset)
    return judged.score([record], references, meteor=False, part=True).metrics[judged.judge.key]


def _objects(kept: Any, units: Units) -> list[int] | None:
    if kept is None:
        return None
    if not isinstance(kept, list) or not all(map(_is_index, kept)):
        raise ValueError("what was kept is no list of tokens")
    return units.of(kept)


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
