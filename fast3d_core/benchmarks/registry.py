"""The benchmarks by name, each imported when it is asked for."""

import contextlib
import functools
from typing import Any

from fast3d_core.benchmarks.base import Benchmark
from fast3d_core.benchmarks.records import Score
from fast3d_core.benchmarks.references import References
from fast3d_core.errors import DataError
from fast3d_core.registry import BENCHMARKS, PUBLISHED
from fast3d_core.text import first_line

DATASETS: tuple[str, ...] = PUBLISHED
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
    except Exception as error:  # whatever a stranger's class does
        raise BENCHMARKS.broken(name, first_line(error)) from error
    if not complete:
        raise BENCHMARKS.broken(name, f"its name, title or headline is missing or another; its name is {made.name}")
    return made


def usable_benchmarks() -> list[Benchmark]:
    """All benchmarks but those of other packages that are broken, for what is to work without them."""
    found = []
    for name in benchmark_names():
        with contextlib.suppress(DataError):  # raised where one is asked for by name
            found.append(benchmark(name))
    return found


def score(
    dataset: str, records: list[dict[str, Any]], references: References, *, meteor: bool = True, part: bool = False
) -> Score:
    """All metrics of the prediction `records` of one benchmark; see `Benchmark.score`."""
    return benchmark(dataset).score(records, references, meteor=meteor, part=part)
