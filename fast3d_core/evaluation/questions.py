"""What a run asks: the samples and scenes of the datasets, and the plan that a method makes for each sample."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fast3d_core.config import Config, need_path
from fast3d_core.data.annotations import Sample, Scenes, load_samples
from fast3d_core.gap.maps import load_maps
from fast3d_core.plan import Plan
from fast3d_core.pruning import PlanRequest, Pruner


@dataclass(frozen=True)
class Job:
    """One run: a pruning method with its settings.

    Attributes:
        name: of the run folder, under `config.runs`.
        maps: folder of attention maps, for methods that need them; map_key: which of an entry's maps to use.
    """

    name: str
    pruner: Pruner
    maps: Path | None = None
    map_key: str = "a_map"


@dataclass(frozen=True)
class Plans:
    """Makes the plan for any sample from the method and the maps (dataset -> sample index -> scores) alone."""

    pruner: Pruner
    objects: int
    maps: dict[str, dict[int, Tensor]] | None

    def __call__(self, sample: Sample) -> Plan:
        scores = None if self.maps is None else self.maps[sample.dataset][sample.index]
        return self.pruner.plan(PlanRequest(sample.dataset, sample.index, self.objects, scores))


class Questions:
    """The samples and scenes of some datasets, checked against each other.

    Attributes:
        samples: dataset -> the samples to answer; totals: dataset -> how many its annotations hold.
        limit: only the first `limit` samples of each dataset are answered.

    Raises:
        DataError: an annotation file is missing or malformed, or names a scene without features.
    """

    def __init__(self, config: Config, datasets: Sequence[str], limit: int | None = None):
        self.folder = need_path(config, "data.annotations")
        self.objects = config.data.max_objects
        self.limit = limit
        everything = {dataset: load_samples(self.folder, dataset) for dataset in datasets}
        self.totals = {dataset: len(samples) for dataset, samples in everything.items()}
        self.samples = {dataset: samples[:limit] for dataset, samples in everything.items()}
        self._maps: dict[tuple[Path, str], dict[str, dict[int, Tensor]]] = {}
        self.scenes = Scenes(self.folder, self.objects)
        for samples in self.samples.values():
            self.scenes.check(samples)

    def batches(self, size: int) -> list[list[Sample]]:
        """All batches, in order; a batch holds samples of one dataset.

        They depend on nothing else, so that a resumed run, or one on more processes, computes the very same batches.
        """
        return [samples[i : i + size] for samples in self.samples.values() for i in range(0, len(samples), size)]

    def plans(self, job: Job) -> Plans:
        """What `job` plans for these questions, its maps read and checked."""
        if job.maps is None:
            return Plans(job.pruner, self.objects, None)
        if (job.maps, job.map_key) not in self._maps:
            self._maps[job.maps, job.map_key] = {
                dataset: load_maps(job.maps, dataset, total, key=job.map_key, objects=self.objects)
                for dataset, total in self.totals.items()
            }
        return Plans(job.pruner, self.objects, self._maps[job.maps, job.map_key])
