"""The comparison of runs as plain data: scores, costs and differences, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fast3d_core.benchmarks import DATASETS, benchmark, benchmark_names
from fast3d_core.errors import DataError, UsageError
from fast3d_core.evaluation.result import DatasetStats
from fast3d_core.files.typed import STRICT
from fast3d_core.pruning import BASELINE, METHODS
from fast3d_core.report import published as paper
from fast3d_core.report.bootstrap import CONFIDENCE, Sampled, interval, resample
from fast3d_core.report.runs import Run

# In percent. A score below this has no ratio: BLEU-4's guard against 0/0 leaves up to 0.018 where no 4-gram matches.
_ZERO = 0.02
_FEW = 30  # samples; with fewer, a percentile interval is too narrow to be believed


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval, in percent.

    Attributes:
        value: null where it is undefined or unknown.
        low, high: the interval; null where there is none, e.g. for a single sample or a published number.
    """

    __pydantic_config__ = STRICT

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ScoreEstimate(Estimate):
    """The headline score of a dataset.

    Attributes:
        n: samples that it is computed from (Scan2Cap: objects of the corpus); null for a published score.
    """

    __pydantic_config__ = STRICT

    n: int | None = None


@dataclass(frozen=True)
class Difference(Estimate):
    """The paired difference of a headline score to the run `Report.against`, in percentage points.

    Attributes:
        n: samples that both runs cover; the difference is over these.
        verdict: better, worse, or undecided where the interval holds 0 (or there is none); same: the run itself.
    """

    __pydantic_config__ = STRICT

    n: int = 0
    verdict: str = "undecided"


@dataclass(frozen=True)
class ReportRow:
    """A run, or a published result.

    Attributes:
        name: the run's name.
        method: by name; null for scored predictions of unknown origin.
        published: whether this is a published result and not one of this machine's runs.
        scores: dataset -> headline score; a dataset that the run does not have is left out.
        ratio: score ratio, the mean over datasets of score / the vanilla run's, in percent, over the samples that both
            cover. Published rows: as published.
        ratio_datasets: how many datasets it is the mean of.
        pruning_ratio: measured layer-averaged percentage of visual tokens pruned. Published rows: that of the setting.
        flops: prefill and decode FLOPs of the LLM, and of GAP where it predicted during the run, mean per sample.
        flops_percent: the same in percent of the vanilla run's.
        samples_per_second: of generation.
        differences: dataset -> paired difference; only datasets with samples that both runs cover.
    """

    __pydantic_config__ = STRICT

    name: str
    method: str | None
    published: bool
    scores: dict[str, ScoreEstimate]
    ratio: Estimate = field(default_factory=Estimate)
    ratio_datasets: int = 0
    pruning_ratio: float | None = None
    flops: float | None = None
    flops_percent: float | None = None
    samples_per_second: float | None = None
    differences: dict[str, Difference] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The comparison of runs.

    Attributes:
        columns: dataset -> title of its headline score; the datasets that any run has, in the published order.
        vanilla: name of the run that the score ratio and FLOPs are relative to; null without one.
        against: name of the run that the differences are to; null without one.
        confidence: of the intervals, in percent.
        resamples, seed: of the bootstrap that they come from.
        published: where the published rows come from; null without such rows.
        rows: the vanilla run, the others by method and pruning ratio, then the published ones.
        notes: what limits the comparison, one line each.
    """

    __pydantic_config__ = STRICT

    columns: dict[str, str]
    vanilla: str | None
    against: str | None
    confidence: int
    resamples: int
    seed: int
    published: str | None
    rows: list[ReportRow]
    notes: list[str]


def build_report(
    runs: Sequence[Run],
    *,
    vanilla: str | None = None,
    against: str | None = None,
    published: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> Report:
    """Compares `runs`.

    Args:
        vanilla: name of the run that ratios are relative to; default: the one of the baseline method.
        against: name of the run that differences are to; default: the vanilla run.
        published: add the published rows.
        resamples, seed: of the bootstrap.

    Raises `UsageError` for a number out of range or a name that is none of the runs', `DataError` when a run shares no
    sample with the run that `against` names.
    """
    if not 100 <= resamples <= 100_000:
        raise UsageError(f"resamples is {resamples}; it must be 100 to 100000")
    if seed < 0:
        raise UsageError(f"seed is {seed}; it must not be negative")
    if not runs:
        raise UsageError("there is no run to report")
    by_name = {run.name: run for run in runs}
    for name in (vanilla, against):
        if name is not None and name not in by_name:
            raise UsageError(f"there is no run {name}; choose from {', '.join(by_name)}")
    notes = []
    if vanilla is None:
        found = [run.name for run in runs if run.result.method == BASELINE]
        vanilla = found[0] if len(found) == 1 else None
        if not found:
            notes.append(f"there is no score ratio: no run is {BASELINE}; add one, or name one with --vanilla RUN")
        elif vanilla is None:
            notes.append(f"there is no score ratio: {', '.join(found)} are {BASELINE}; name one with --vanilla RUN")
    base = by_name.get(vanilla or "")
    other = by_name.get(against or vanilla or "")
    runs = sorted(runs, key=lambda run: (run is not base, *_order(run)))
    samples = _Samples(runs, resamples, seed)
    if against and other:
        _require_overlap(runs, other)
    rows = [_row(run, base, other, samples) for run in runs]
    notes += _coverage_notes(runs, base or other or runs[0])
    notes += _ratio_notes(runs, rows, base, samples)
    notes += _sample_notes(rows)
    notes += _device_notes(runs)
    return Report(
        columns={dataset: benchmark(dataset).column for dataset in _datasets(runs, published)},
        vanilla=vanilla,
        against=other.name if other else None,
        confidence=CONFIDENCE,
        resamples=resamples,
        seed=seed,
        published=paper.SOURCE if published else None,
        rows=rows + (_published_rows() if published else []),
        notes=notes,
    )


class _Samples:
    """Scores and their resamples; runs that cover the same samples of a dataset are resampled together."""

    def __init__(self, runs: Sequence[Run], resamples: int, seed: int) -> None:
        self._resamples, self._seed = resamples, seed
        # Rows by key, in one order whatever the run's, so that a run's intervals do not depend on the other runs.
        self._rows: dict[tuple[str, str], dict[str, np.ndarray]] = {}
        self._own: dict[tuple[str, str], Sampled] = {}
        self._shared: dict[tuple[str, str, str], tuple[Sampled, Sampled]] = {}
        for dataset in benchmark_names():
            groups: dict[tuple[str, ...], list[str]] = {}
            for run in runs:
                if rows := _by_key(run.stats.get(dataset)):
                    self._rows[run.name, dataset] = rows
                    groups.setdefault(tuple(rows), []).append(run.name)
            for keys, names in groups.items():
                sampled = self._on(dataset, names, keys)
                self._own |= {(name, dataset): one for name, one in zip(names, sampled, strict=True)}

    def own(self, run: Run, dataset: str) -> Sampled | None:
        """Over all of the run's samples; None where it has none."""
        return self._own.get((run.name, dataset))

    def shared(self, run: Run, other: Run, dataset: str) -> tuple[Sampled, Sampled] | None:
        """Both over the samples that both cover; None where there is none."""
        rows, others = (self._rows.get((one.name, dataset), {}) for one in (run, other))
        if rows.keys() == others.keys():
            mine, theirs = self.own(run, dataset), self.own(other, dataset)
            return (mine, theirs) if mine and theirs else None
        keys = [key for key in rows if key in others]
        if not keys:
            return None
        pair = (run.name, other.name, dataset)
        if pair not in self._shared:
            mine, theirs = self._on(dataset, pair[:2], keys)
            self._shared[pair] = mine, theirs
        return self._shared[pair]

    def _on(self, dataset: str, names: Sequence[str], keys: Sequence[str]) -> list[Sampled]:
        stats = [np.stack([self._rows[name, dataset][key] for key in keys]) for name in names]
        return resample(dataset, stats, self._resamples, self._seed)


def _by_key(stats: DatasetStats | None) -> dict[str, np.ndarray]:
    return dict(sorted(zip(stats.keys, stats.stats, strict=True), key=lambda pair: pair[0])) if stats else {}


def _row(run: Run, base: Run | None, other: Run | None, samples: _Samples) -> ReportRow:
    result = run.result
    scores = {}
    for dataset in benchmark_names():
        if sampled := samples.own(run, dataset):
            low, high = _interval(sampled.draws, sampled.n)
            scores[dataset] = ScoreEstimate(sampled.score, low, high, sampled.n)
        elif dataset in run.stats:
            scores[dataset] = ScoreEstimate(n=0)
    ratio, ratio_datasets = _ratio(run, base, samples) if base else (Estimate(), 0)
    flops, base_flops = _flops(run), _flops(base) if base else None
    return ReportRow(
        name=run.name,
        method=result.method,
        published=False,
        scores=scores,
        ratio=ratio,
        ratio_datasets=ratio_datasets,
        pruning_ratio=_finite(result.pruning.ratio) if result.pruning else None,
        flops=flops,
        flops_percent=_finite(100 * flops / base_flops) if flops is not None and base_flops else None,
        samples_per_second=_finite(result.timing.samples_per_second) if result.timing else None,
        differences=_differences(run, other, samples) if other else {},
    )


def _ratio(run: Run, base: Run, samples: _Samples) -> tuple[Estimate, int]:
    """The score ratio and the number of datasets in it; undefined where a vanilla score is 0."""
    pairs = [pair for dataset in benchmark_names() if (pair := samples.shared(run, base, dataset))]
    if not pairs or any(theirs.score < _ZERO for _, theirs in pairs):
        return Estimate(), 0
    value = 100 * float(np.mean([mine.score / theirs.score for mine, theirs in pairs]))
    if run is base:
        return Estimate(value), len(pairs)  # 100 by definition, not by measurement
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = [np.where(theirs.draws < _ZERO, np.nan, mine.draws / theirs.draws) for mine, theirs in pairs]
    fewest = min(mine.n for mine, _ in pairs)
    return Estimate(value, *_interval(100 * np.mean(draws, axis=0), fewest)), len(pairs)


def _differences(run: Run, other: Run, samples: _Samples) -> dict[str, Difference]:
    differences = {}
    for dataset in benchmark_names():
        if pair := samples.shared(run, other, dataset):
            mine, theirs = pair
            low, high = _interval(mine.draws - theirs.draws, mine.n)
            if run is other:
                verdict = "same"
            elif low is None or high is None or low <= 0 <= high:
                verdict = "undecided"
            else:
                verdict = "better" if low > 0 else "worse"
            differences[dataset] = Difference(mine.score - theirs.score, low, high, mine.n, verdict)
    return differences


def _interval(draws: np.ndarray, n: int) -> tuple[float, float] | tuple[None, None]:
    return interval(draws) if n > 1 else (None, None)


def _flops(run: Run) -> float | None:
    cost = run.result.cost
    return _finite(cost.prefill_flops + cost.decode_flops + (cost.gap_flops or 0)) if cost else None


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


def _order(run: Run) -> tuple[int, float, str]:
    """Vanilla runs first, the methods in the registry's order, the unknown last; then by pruning ratio."""
    methods = list(METHODS)
    method = run.result.method
    rank = methods.index(method) if method in methods else len(methods)
    return rank, run.result.pruning.ratio if run.result.pruning else 0.0, run.name


def _datasets(runs: Sequence[Run], published: bool) -> list[str]:
    return [
        dataset
        for dataset in benchmark_names()
        if (published and dataset in DATASETS) or any(dataset in run.stats for run in runs)
    ]


def _published_rows() -> list[ReportRow]:
    rows = []
    for name, method, pruning_ratio, scores, ratio in paper.ROWS:
        by_dataset = {dataset: ScoreEstimate(score) for dataset, score in zip(DATASETS, scores, strict=True)}
        rows.append(ReportRow(name, method, True, by_dataset, Estimate(ratio), len(scores), pruning_ratio))
    return rows


def _require_overlap(runs: Sequence[Run], other: Run) -> None:
    for run in runs:
        if not any(set(run.stats[d].keys) & set(other.stats[d].keys) for d in run.stats if d in other.stats):
            raise DataError(
                f"{run.name} and {other.name} have no sample in common, so there is no difference; "
                "compare runs over the same annotations"
            )


def _coverage_notes(runs: Sequence[Run], base: Run) -> list[str]:
    """The runs that do not cover the same samples as `base`."""
    notes = []
    for run in runs:
        if parts := _uncovered(run, base):
            notes.append(f"{run.name} and {base.name} do not cover the same samples: {'; '.join(parts)}")
    return [*notes, _UNCOVERED] if notes else []


_UNCOVERED = (
    "scores over different samples do not compare; score ratio and differences are over those that both runs cover"
)


def _uncovered(run: Run, base: Run) -> list[str]:
    parts = []
    for one, two in ((run, base), (base, run)):
        if missing := [dataset for dataset in benchmark_names() if dataset in two.stats and dataset not in one.stats]:
            parts.append(f"{one.name} has no {', '.join(missing)}")
    for dataset in benchmark_names():
        if dataset in run.stats and dataset in base.stats:
            keys, others = set(run.stats[dataset].keys), set(base.stats[dataset].keys)
            counts = [one.result.samples.get(dataset) for one in (run, base)]
            if keys != others:
                parts.append(f"{dataset} {len(keys)} and {len(others)}, {len(keys & others)} of them the same")
            elif counts[0] != counts[1]:  # Scan2Cap may score the whole corpus, predicted or not
                parts.append(f"{dataset} {counts[0]} and {counts[1]} predictions")
    return parts


def _ratio_notes(runs: Sequence[Run], rows: Sequence[ReportRow], base: Run | None, samples: _Samples) -> list[str]:
    if base is None:
        return []
    pairs = {dataset: [samples.shared(run, base, dataset) for run in runs] for dataset in benchmark_names()}
    zero = [dataset for dataset, both in pairs.items() if any(pair and pair[1].score < _ZERO for pair in both)]
    if zero:
        return [f"the score ratio is undefined (-) where {base.name} scores 0: {', '.join(zero)}"]
    most = rows[0].ratio_datasets
    fewer = [f"{row.name} ({row.ratio_datasets} of {most})" for row in rows if 0 < row.ratio_datasets < most]
    return [f"the score ratio is over fewer datasets for {', '.join(fewer)}"] if fewer else []


def _sample_notes(rows: Sequence[ReportRow]) -> list[str]:
    few = {d: s.n for row in rows for d, s in row.scores.items() if s.n and s.n < _FEW}
    listed = ", ".join(f"{dataset} n={n}" for dataset, n in few.items())
    return [f"few samples ({listed}): such intervals are too narrow to decide anything"] if few else []


def _device_notes(runs: Sequence[Run]) -> list[str]:
    devices: dict[str, list[str]] = {}
    for run in runs:
        if run.result.environment and run.result.timing:
            environment = run.result.environment
            devices.setdefault(f"{environment.processes} x {environment.device}", []).append(run.name)
    if len(devices) < 2:
        return []
    listed = "; ".join(f"{device}: {', '.join(names)}" for device, names in devices.items())
    return [f"samples/s are not comparable, the runs are of different devices ({listed})"]
