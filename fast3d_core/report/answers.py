"""What a run answered and kept, sample by sample, from its journal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fast3d_core.benchmarks import References, benchmark, benchmark_names
from fast3d_core.benchmarks.records import is_index
from fast3d_core.errors import DataError
from fast3d_core.evaluation.journal import Journal
from fast3d_core.plan import Units
from fast3d_core.report.runs import Run
from fast3d_core.text import shown

_PUBLISHED = Units(count=100, tokens=3)  # Chat-Scene's: identifier, 3D and 2D feature of an object


@dataclass(frozen=True)
class Answered:
    """An answer, and the object slots of which the last layer saw any token; None where it saw all."""

    text: str
    kept: list[int] | None


Answers = Mapping[tuple[str, int], Answered]
"""By dataset and the sample's index in its annotations."""


def read_answers(run: Run) -> Answers:
    """All answers of a run; none for predictions that were only scored.

    Raises `DataError` for a damaged journal, and `VersionError` for one that another version of fast3d wrote.
    """
    units = units_of(run)
    batches = Journal(run.path, {}).batches().values()
    entries = [entry for batch in batches for entry in batch]
    if strange := next((entry for entry in entries if entry.dataset not in benchmark_names()), None):
        raise DataError(
            f"the journal in {run.path} is damaged: it answers {shown(strange.dataset)}, which is no dataset",
            "run `fast3d eval` again",
        )
    return {
        (entry.dataset, entry.index): Answered(entry.pred, None if entry.kept is None else units.of(entry.kept))
        for entry in entries
    }


def units_of(run: Run) -> Units:
    """The units of a run's prompts, from its settings; what these do not hold is as in the published runs."""
    settings = run.result.settings
    found = settings.get("units")
    units = found if isinstance(found, dict) else {"count": settings.get("max_objects")}
    count, tokens = units.get("count"), units.get("tokens")
    return Units(
        count if is_index(count) and count else _PUBLISHED.count,
        tokens if is_index(tokens) and tokens else _PUBLISHED.tokens,
    )


def judge(dataset: str, record: dict[str, Any], references: References) -> float | None:
    """The score of one prediction record alone, 0 to 1, by `Benchmark.judge`."""
    judged = benchmark(dataset)
    return judged.score([record], references, meteor=False, part=True).metrics[judged.judge.key]
