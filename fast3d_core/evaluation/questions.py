"""What a run asks: the samples and scenes of the datasets, and the plan that a method makes for each sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fast3d_core.benchmarks.questions import annotation_file, check_samples, load_samples
from fast3d_core.config import Config, need_path
from fast3d_core.data.annotations import Sample, Scenes
from fast3d_core.data.features import features_files
from fast3d_core.files.watched import WatchedFiles
from fast3d_core.gap.predictor import Predictor
from fast3d_core.maps.origin import is_shipped, load_known_maps, tell_unknown
from fast3d_core.maps.published import AttentionMaps, MapKind, map_file
from fast3d_core.models.registry import scene_model
from fast3d_core.plan import Plan, Units
from fast3d_core.pruning import PlanRequest, Pruner


@dataclass(frozen=True)
class Job:
    """One run: a pruning method with its settings.

    Attributes:
        name: of the run folder, under `config.runs`.
        maps: folder of attention maps, for methods that need them; map_key: which of an entry's maps to use.
        live: the GAP network predicts the maps while the run goes on, instead.
        map_kind: what the user says that the maps hold; None: as the files tell.
    """

    name: str
    pruner: Pruner
    maps: Path | None = None
    map_key: str = "a_map"
    live: bool = False
    map_kind: MapKind | None = None


Scores = Callable[[Sequence[Sample]], Sequence[Tensor] | Sequence[None]]
"""The attention map (units,) of each sample of a batch; None for methods that need none."""


@dataclass(frozen=True)
class Plans:
    """Makes the plans of a batch, each from the method and the sample's map alone."""

    pruner: Pruner
    units: Units
    scores: Scores

    def __call__(self, batch: Sequence[Sample]) -> list[Plan]:
        return [
            self.pruner.plan(PlanRequest(sample.dataset, sample.index, self.units, scores))
            for sample, scores in zip(batch, self.scores(batch), strict=True)
        ]


class LiveMaps:
    """Maps that the GAP network predicts when they are asked for; it is loaded at the first `load`."""

    def __init__(self, config: Config, questions: "Questions"):
        self._config, self._questions = config, questions
        self._row: dict[tuple[str, int], int] = {}
        self._predictor: Predictor | None = None

    def load(self, device: torch.device) -> None:
        """Loads network, tokeniser and scenes onto the device. Raises `DataError`, see `Predictor`."""
        if self._predictor is None:
            samples = [sample for samples in self._questions.samples.values() for sample in samples]
            self._row = {(sample.dataset, sample.index): row for row, sample in enumerate(samples)}
            self._predictor = Predictor(self._config, samples, "val", self._questions.scenes, device)
            self._questions.files.check()

    def __call__(self, batch: Sequence[Sample]) -> list[Tensor]:
        assert self._predictor is not None
        return list(self._predictor([self._row[sample.dataset, sample.index] for sample in batch]))

    def flops(self, sample: Sample) -> float:
        """Of predicting this sample's map."""
        assert self._predictor is not None
        return self._predictor.flops(self._row[sample.dataset, sample.index])


class Questions:
    """The samples and scenes of some datasets, checked against each other.

    Attributes:
        samples: dataset -> the samples to answer; totals: dataset -> how many its annotations hold.
        limit: only the first `limit` samples of each dataset are answered.
        units: of every prompt.
        files: what is read, watched for changes.

    Args:
        said: told, once a folder, of maps that may be of other questions.

    Raises:
        DataError: an annotation file is missing or malformed, or names a scene without features.
    """

    def __init__(
        self,
        config: Config,
        datasets: Sequence[str],
        limit: int | None = None,
        said: Callable[[str], None] = lambda _: None,
    ):
        self.folder = need_path(config, "data.annotations")
        self.units = scene_model(config).units_of(config)
        self.limit = limit
        self._config, self._said = config, said
        self.files = WatchedFiles()
        self.files.watch([annotation_file(self.folder, dataset) for dataset in datasets])
        everything = {dataset: load_samples(self.folder, dataset) for dataset in datasets}
        self.totals = {dataset: len(samples) for dataset, samples in everything.items()}
        self.samples = {dataset: samples[:limit] for dataset, samples in everything.items()}
        self.live_maps = LiveMaps(config, self)
        self._maps: dict[tuple[Path, str], dict[str, AttentionMaps]] = {}
        self.files.watch(features_files(self.folder))
        self.scenes = Scenes(self.folder, self.units.count)
        for samples in self.samples.values():
            check_samples(self.scenes, samples)

    def batches(self, size: int) -> list[list[Sample]]:
        """All batches, in order; a batch holds samples of one dataset.

        They depend on nothing else, so that a resumed run, or one on more processes, computes the very same batches.
        """
        return [samples[i : i + size] for samples in self.samples.values() for i in range(0, len(samples), size)]

    def plans(self, job: Job) -> Plans:
        """What `job` plans for these questions, its maps read and checked; live maps have to be loaded before use.

        Raises `DataError`, see `load_known_maps` and, for methods that read logits, `AttentionMaps.logits`.
        """
        if job.live:
            return Plans(job.pruner, self.units, self.live_maps)
        if job.maps is None:
            return Plans(job.pruner, self.units, lambda batch: [None] * len(batch))
        known = self._known_maps(job.maps, job.map_key)
        logits = job.pruner.needs_logits
        maps = {dataset: own.logits(job.map_kind) if logits else own.scores for dataset, own in known.items()}
        return Plans(job.pruner, self.units, lambda batch: [maps[s.dataset][s.index] for s in batch])

    def _known_maps(self, folder: Path, key: str) -> dict[str, AttentionMaps]:
        """By dataset; of a folder that was read before, what was read then."""
        if (folder, key) not in self._maps:
            self.files.watch([map_file(folder, dataset) for dataset in self.totals])
            maps, unknown = dict[str, AttentionMaps](), []
            for dataset, total in self.totals.items():
                questions = annotation_file(self.folder, dataset)
                maps[dataset], known = load_known_maps(
                    folder, dataset, questions, total, key=key, objects=self.units.count
                )
                unknown += [] if known else [dataset]
            if not is_shipped(self._config, folder) and folder not in (read for read, _ in self._maps):
                tell_unknown(folder, unknown, self.folder, self._said)
            self._maps[folder, key] = maps
        return self._maps[folder, key]

    def plans_beforehand(self, job: Job) -> Plans:
        """The same, for telling sizes: a map that is yet to be predicted is taken to be even, of which most is kept."""
        if not job.live:
            return self.plans(job)
        even = torch.zeros(self.units.count)
        return Plans(job.pruner, self.units, lambda batch: [even] * len(batch))
