"""The benchmarks, an object each (`base.Benchmark`): the five here score as the published scorers do (Chat-Scene's
`utils/eval.py`), others come from other packages (entry points, see `fast3d_core.registry`)."""

from fast3d_core.benchmarks.base import Benchmark, Concern, Metric
from fast3d_core.benchmarks.records import Origin, Record, Score
from fast3d_core.benchmarks.references import References
from fast3d_core.benchmarks.registry import DATASETS, benchmark, benchmark_names, score, usable_benchmarks
from fast3d_core.benchmarks.wording import Wording

__all__ = [
    "DATASETS",
    "Benchmark",
    "Concern",
    "Metric",
    "Origin",
    "Record",
    "References",
    "Score",
    "Wording",
    "benchmark",
    "benchmark_names",
    "score",
    "usable_benchmarks",
]
