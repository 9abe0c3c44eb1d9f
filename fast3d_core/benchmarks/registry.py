"""The benchmarks by name, each imported when it is asked for."""

import functools
from typing import Any

from fast3d_core.benchmarks.base import Benchmark
from fast3d_core.benchmarks.records import Score
from fast3d_core.benchmarks.references import References
from fast3d_core.registry import BENCHMARKS

DATASETS: tuple[str, ...] = tuple(BENCHMARKS.builtin)
"""The five published benchmarks, in the order of published tables."""


def benchmark_names() -> tuple[str, ...]:
    """All benchmarks that are there, in the order in which they are reported."""
    return BENCHMARKS.names()


@functools.cache
def benchmark(name: str) -> Benchmark:
    """The benchmark of that name. Raises `UsageError` where there is none, `DataError` where it is broken."""
    found = BENCHMARKS.load(name)
    if not (isinstance(found, type) and issubclass(found, Benchmark)):
        raise BENCHMARKS.broken(name, "it is no subclass of fast3d_core.benchmarks.Benchmark")
    try:
        made = found()
        complete = made.name == name and made.title and made.headline.key
    except (AttributeError, TypeError) as error:
        raise BENCHMARKS.broken(name, str(error)) from None
    if not complete:
        raise BENCHMARKS.broken(name, f"its name, title or headline is missing or another; its name is {made.name}")
    return made


def score(
    dataset: str, records: list[dict[str, Any]], references: References, *, meteor: bool = True, part: bool = False
) -> Score:
    """All metrics of the prediction `records` of one benchmark; see `Benchmark.score`."""
    return benchmark(dataset).score(records, references, meteor=meteor, part=part)
