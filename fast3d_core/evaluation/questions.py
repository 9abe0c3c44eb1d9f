"""What a run asks: the samples and scenes of the datasets, and the plan that a method makes for each sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from fast3d_core.benchmarks.questions import annotation_file, check_samples, load_samples
from fast3d_core.config import Config, need_path
from fast3d_core.data.annotations import Sample, Scenes
from fast3d_core.data.detections import Detections
from fast3d_core.data.features import features_files
from fast3d_core.evaluation.context import Context
from fast3d_core.evaluation.planner import Planner
from fast3d_core.files.watched import WatchedFiles
from fast3d_core.gap.inputs import GapInputs
from fast3d_core.gap.predictor import MapPredictor
from fast3d_core.maps.kind import AttentionMap, AttentionMaps, MapKind
from fast3d_core.maps.origin import is_shipped, load_known_maps, log_unknown
from fast3d_core.maps.published import map_file
from fast3d_core.models.registry import scene_model
from fast3d_core.pruning import Pruner


@dataclass(frozen=True)
class Job:
    """One run: a pruning method with its settings.

    Attributes:
        name: of the run folder, under `config.runs`.
        maps: folder of attention maps, for methods that need them; map_key: which of an entry's maps to use.
        live: the GAP network predicts the maps while the run goes on, instead.
        map_kind: what the user says that the maps hold; None: as the files say.
    """

    name: str
    pruner: Pruner
    maps: Path | None = None
    map_key: str = "a_map"
    live: bool = False
    map_kind: MapKind | None = None


class Questions:
    """The samples and scenes of some datasets, checked against each other.

    Attributes:
        samples: dataset -> the samples to answer; totals: dataset -> how many its annotations hold.
        limit: only the first `limit` samples of each dataset are answered.
        units: of every prompt.
        files: what is read, watched for changes.

    Args:
        log: called, once a folder, about maps that may be of other questions.

    Raises:
        DataError: an annotation file is missing or malformed, or names a scene without features.
    """

    def __init__(
        self,
        config: Config,
        datasets: Sequence[str],
        limit: int | None = None,
        log: Callable[[str], None] = lambda _: None,
    ):
        self.folder = need_path(config, "data.annotations")
        model = scene_model(config)
        self.units = model.units_of(config)
        self.limit = limit
        self._config, self._log = config, log
        self.files = WatchedFiles()
        self.files.watch([annotation_file(self.folder, dataset) for dataset in datasets])
        everything = {dataset: load_samples(self.folder, dataset) for dataset in datasets}
        self.totals = {dataset: len(samples) for dataset, samples in everything.items()}
        self.samples = {dataset: samples[:limit] for dataset, samples in everything.items()}
        self._predictor: tuple[MapPredictor, GapInputs] | None = None
        self._maps: dict[tuple[Path, str], dict[str, AttentionMaps]] = {}
        self.files.watch(features_files(self.folder))
        self.scenes = Scenes(self.folder, self.units.count)
        for samples in self.samples.values():
            check_samples(self.scenes, samples)
        detections = Detections(self.folder, self.units.count, ("val",))
        self._context = Context(
            lambda: model.shape_of(config).layers, self.scenes.__getitem__, detections.boxes, detections.labels
        )

    def batches(self, size: int) -> list[list[Sample]]:
        """All batches, in order; a batch holds samples of one dataset.

        They depend on nothing else, so that a resumed run, or one on more processes, computes the very same batches.
        """
        return [samples[i : i + size] for samples in self.samples.values() for i in range(0, len(samples), size)]

    def planner(self, job: Job, device: torch.device | None = None) -> Planner:
        """What `job` plans for these questions, its maps read and checked.

        Args:
            device: where the GAP network predicts maps during the run, for which it is loaded. Without one, each map
                that is yet to be predicted is taken to be even: of such, most is kept, so sizes can be estimated by it.

        Raises `DataError`, see `load_known_maps`, `MapPredictor` and, for methods that read logits,
        `AttentionMaps.as_logits`.
        """
        if job.live:
            return self._live_planner(job, device)
        if job.maps is None:
            return self._planner(job)
        maps = self._known_maps(job.maps, job.map_key)
        if job.pruner.needs_logits:
            maps = {dataset: own.as_logits(job.map_kind) for dataset, own in maps.items()}
        return self._planner(job, lambda batch: maps[batch[0].dataset].of([sample.index for sample in batch]))

    def _live_planner(self, job: Job, device: torch.device | None) -> Planner:
        if device is None:
            return self._planner(job, lambda batch: AttentionMap("logits", torch.zeros(len(batch), self.units.count)))
        if self._predictor is None:
            predictor = MapPredictor.from_config(self._config, self.scenes, device)
            everything = [sample for samples in self.samples.values() for sample in samples]
            self._predictor = predictor, predictor.inputs_of_split(everything, "val", self.scenes)
            self.files.check()
        predictor, inputs = self._predictor
        return self._planner(job, partial(predictor, inputs), partial(predictor.flops, inputs))

    def _planner(
        self,
        job: Job,
        maps: Callable[[Sequence[Sample]], AttentionMap] | None = None,
        gap_flops: Callable[[Sample], float] | None = None,
    ) -> Planner:
        return Planner(job.pruner, self.units, self._context, maps, gap_flops)

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
                log_unknown(folder, unknown, self.folder, self._log)
            self._maps[folder, key] = maps
        return self._maps[folder, key]
