"""`fast3d extract`: the LLM's attention over the objects, recorded with the answer appended. GAP learns to predict it.

The sequence is the usual prompt with the answer behind it, and no end symbol. The map of a sample is the attention of
all text rows behind the model's prefix (`a_map`), or of the question's rows (`a_map_ori`), to the tokens of each unit,
averaged over rows, layers and heads. A model whose visual tokens stand behind the question has no such prefix.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from fast3d_core import __version__
from fast3d_core.benchmarks import benchmark
from fast3d_core.benchmarks.questions import annotation_file, check_samples, load_samples
from fast3d_core.config import Config, ModelConfig, need_path, output_path, to_dict
from fast3d_core.data.annotations import Sample, Scenes
from fast3d_core.data.features import features_files
from fast3d_core.errors import DataError, UsageError
from fast3d_core.files.fingerprints import file_hash, fingerprint
from fast3d_core.files.locks import sole_use
from fast3d_core.files.tensors import fingerprints
from fast3d_core.files.watched import WatchedFiles
from fast3d_core.llm.record_attention import Text, text_attention
from fast3d_core.maps import store as stores
from fast3d_core.maps.ledger import EXPORTED_FILE, is_ours, read_exported, write_known
from fast3d_core.maps.published import MAP_KEYS, extracted_content, map_file
from fast3d_core.maps.shards import Shard
from fast3d_core.maps.store import PartInfo, TargetStore
from fast3d_core.models.base import SceneModel
from fast3d_core.models.loading import load_model
from fast3d_core.models.registry import check_shares_prefix, scene_model
from fast3d_core.runtime.devices import join_processes, out_of_memory_says, own_device, wait_for_everyone
from fast3d_core.runtime.draws import seed_of
from fast3d_core.runtime.progress import Progress

SPLITS = ("train", "val")


@dataclass(frozen=True)
class SplitSamples:
    """One dataset of one split, to be extracted.

    Attributes:
        annotations: its file; digest: sha256 of that; total: how many samples it holds.
        samples: those to extract, the first ones; answers: what is appended to each.
    """

    split: str
    dataset: str
    annotations: Path
    digest: str
    total: int
    samples: list[Sample]
    answers: list[str]

    @property
    def name(self) -> str:
        return f"{self.split}/{self.dataset}"


@dataclass(frozen=True)
class Summary:
    """What was extracted of a part.

    Attributes:
        computed: how many of the samples this call extracted; the others were there before.
        seconds: computing time of these, added up over processes, without loading the model.
        mass: mean share of a text row's attention that falls on the objects; mass_per_layer: in each layer.
    """

    part: str
    samples: int
    computed: int
    seconds: float
    mass: float
    mass_per_layer: list[float]

    @property
    def samples_per_second(self) -> float | None:
        """Of one process; None where all samples were there before."""
        return self.computed / max(self.seconds, 1e-9) if self.computed else None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "samples_per_second": self.samples_per_second}


def load_part(folder: Path, split: str, dataset: str, limit: int | None, seed: int) -> SplitSamples:
    """Reads a dataset's samples and decides on their answers.

    Raises:
        DataError: the annotation file is missing or malformed, or a record has no answer.
    """
    path = annotation_file(folder, dataset, split)
    if split == "train" and not path.exists():
        raise DataError(f"data.annotations: {path} does not exist; without training annotations use --split val")
    files = WatchedFiles()
    files.watch([path])
    everything = load_samples(folder, dataset, split)
    digest = file_hash(path)
    files.check()
    samples = everything[:limit]
    try:
        answers = [answer(sample, split, seed) for sample in samples]
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    return SplitSamples(split, dataset, path, digest, len(everything), samples, answers)


def answer(sample: Sample, split: str, seed: int) -> str:
    """The text appended to a sample's question.

    Training records have one. Of a validation record the published extraction takes a random reference; here the draw
    depends on seed, split, dataset and index alone. See `Benchmark.appended`.

    Raises:
        ValueError: the record has no such text.
    """
    if split == "train":
        if not isinstance(sample.caption, str):
            raise ValueError(f"record {sample.index} has no answer ('caption'), but training needs one")
        return sample.caption
    return benchmark(sample.dataset).appended(sample, seed_of(seed, split, sample.dataset, sample.index))


def record(model: SceneModel, scenes: Scenes, samples: Sequence[Sample], answers: Sequence[str]) -> dict[str, Tensor]:
    """The maps of one batch, on the CPU, in the names and shapes of `store`, all float32."""
    position = {scene_id: i for i, scene_id in enumerate(dict.fromkeys(sample.scene_id for sample in samples))}
    prefixes = [model.prefix(scenes[scene_id]) for scene_id in position]
    texts = []
    for sample, appended in zip(samples, answers, strict=True):
        embeds = model.text(sample.prompt, appended)
        question = min(model.question_rows(sample.prompt), len(embeds))
        texts.append(Text(embeds, position[sample.scene_id], question))
    per_token = text_attention(model.llm, prefixes, texts)
    layers = per_token.unflatten(-1, (-1, model.units.tokens)).sum(dim=-1)  # (samples, layers, 2, units)
    maps = {}
    for i, key in enumerate(MAP_KEYS):
        maps[f"{key}_layers"] = layers[:, :, i].cpu()
        maps[key] = layers[:, :, i].mean(dim=1).cpu()
    return maps


def settings(config: Config, seed: int) -> dict[str, Any]:
    """Everything that the maps of any part depend on, as plain data; files by size and digest, not by path.

    Batches are left out: they matter no more than the device does, in the last digits.
    """
    return {
        "fast3d_version": __version__,
        "seed": seed,
        "dtype": config.model.dtype,
        "lora_alpha": to_dict(config)["model"]["lora_alpha"],
        **({} if config.model.kind == ModelConfig.kind else {"model": config.model.kind}),  # as stores had it before
        "max_objects": config.data.max_objects,
        "layers": scene_model(config).shape_of(config).layers,
        "shard": stores.SHARD,
        "files": fingerprints(_files(config)),
    }


def _files(config: Config) -> list[Path]:
    """The files that all maps depend on."""
    folder = need_path(config, "data.annotations")
    return [*scene_model(config).files(config), *features_files(folder)]


def extract(
    config: Config,
    parts: Sequence[SplitSamples],
    progress: Progress,
    *,
    batch_size: int = 32,
    seed: int = 0,
    restart: bool = False,
) -> list[Summary]:
    """Extracts the parts into the store in `maps.targets`, continuing what an interrupted extraction left.

    Under `accelerate launch` the shards are dealt out; the first process returns the summaries, the others none.

    Raises:
        UsageError, DataError: see `sole_use`, `TargetStore.create`, `SceneModel.from_config`; a scene lacks features.
    """
    check_shares_prefix(scene_model(config), "`fast3d extract`")
    state = join_processes(config.model.device, progress.waiting)
    folder = output_path(config, "maps.targets")
    own = [folder] if state.is_main_process else []
    with sole_use(*own, other="choose another folder with --set maps.targets=DIR"):
        return _extract(config, parts, state, progress, batch_size=batch_size, seed=seed, restart=restart)


def _extract(
    config: Config,
    parts: Sequence[SplitSamples],
    state: PartialState,
    progress: Progress,
    *,
    batch_size: int,
    seed: int,
    restart: bool,
) -> list[Summary]:
    device = own_device(config.model.device, state)
    folder = output_path(config, "maps.targets")
    files = WatchedFiles()
    files.watch(_files(config))
    scenes = Scenes(need_path(config, "data.annotations"), config.data.max_objects)
    for part in parts:
        check_samples(scenes, part.samples, part.split)
    if state.is_main_process:
        infos = {part.name: PartInfo(part.digest, part.total, len(part.samples)) for part in parts}
        TargetStore.create(folder, settings(config, seed), infos, restart=restart)
    wait_for_everyone(state)
    store = TargetStore.open(folder)
    todo = [(part, number) for part in parts for number in range(-(-len(part.samples) // store.shard))]
    pending = [
        (part, number)
        for part, number in todo
        if not store.is_done(part.split, part.dataset, number, len(_shard_of(part, number, store)))
    ]
    wait_for_everyone(state)  # every process has looked before the first one writes
    mine = pending[state.process_index :: state.num_processes]
    if mine:
        model = load_model(config, scenes, device, progress)
        files.check()  # what the store says of the maps is what was read
        started: SplitSamples | None = None
        for part, number in mine:
            if part is not started:
                started = part
                left = sum(len(_shard_of(part, n, store)) for p, n in pending if p is part)
                share = sum(len(_shard_of(part, n, store)) for p, n in mine if p is part)
                done = len(part.samples) - left
                progress.start(part.split, part.dataset, done + share, done)
            shard = _extract_shard(model, scenes, part, _shard_of(part, number, store), batch_size, progress)
            store.write(part.split, part.dataset, number, shard)
    wait_for_everyone(state)
    if not state.is_main_process:
        return []
    return [_summary(store, part, {number for one, number in pending if one is part}) for part in parts]


def check_export(parts: Sequence[SplitSamples], folder: Path) -> None:
    """Raises `UsageError` if a file that `export` would write is there and is not what it left there."""
    known = read_exported(folder)
    for part in parts:
        path = map_file(folder, part.dataset, part.split)
        if path.exists() and not is_ours(known.get(path.name), path):
            raise UsageError(
                f"{folder} holds maps that fast3d did not export ({path.name}); give --export another folder, "
                "or --restart to replace them"
            )


def export(store: TargetStore, parts: Sequence[SplitSamples], folder: Path, *, restart: bool = False) -> list[Path]:
    """Writes the published `infer_attn_maps_{split}_{dataset}.pt` of each part; returns the files.

    Beside them `EXPORTED_FILE` keeps their fingerprints, by which `check_export` knows them, and those of their
    questions.

    Args:
        restart: replace whatever is there.

    Raises `UsageError`, see `sole_use` and `check_export`.
    """
    paths = []
    with sole_use(folder, other="give --export another folder"):
        if not restart:
            check_export(parts, folder)
        known = read_exported(folder)
        for part in parts:
            count = len(part.samples)
            maps = {
                key: store.read(part.split, part.dataset, annotations=part.annotations, samples=count, key=key)
                for key in MAP_KEYS
            }
            path, content = map_file(folder, part.dataset, part.split), extracted_content(maps)
            entry = {"part": part.name, "annotations": fingerprint(part.annotations)}
            write_known(folder / EXPORTED_FILE, known, path.name, entry, path, content)
            paths.append(path)
    return paths


def _shard_of(part: SplitSamples, number: int, store: TargetStore) -> range:
    """The indices of a shard's samples."""
    return range(number * store.shard, min((number + 1) * store.shard, len(part.samples)))


def _extract_shard(
    model: SceneModel, scenes: Scenes, part: SplitSamples, indices: range, batch_size: int, progress: Progress
) -> Shard:
    """A shard, batch by batch; its batches depend on `batch_size` alone, whoever computes it and when."""
    begin = time.perf_counter()
    batches = []
    for first in range(indices.start, indices.stop, batch_size):
        batch = slice(first, min(first + batch_size, indices.stop))
        samples = part.samples[batch]
        with out_of_memory_says(_out_of_memory(model.device, len(samples))):
            maps = record(model, scenes, samples, part.answers[batch])
        wrong = [s.index for s, row in zip(samples, maps["a_map"], strict=True) if not row.isfinite().all()]
        if wrong:
            raise DataError(
                f"{part.name}: the attention of sample {wrong[0]} is NaN; try --set model.dtype=bfloat16 or float32"
            )
        batches.append(maps)
        progress.advance(part.split, part.dataset, len(samples))
    maps = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    answers = [part.answers[i] for i in indices]
    return Shard(torch.arange(indices.start, indices.stop), maps, answers, time.perf_counter() - begin)


def _out_of_memory(device: torch.device, batch_size: int) -> str:
    if batch_size == 1:
        return f"{device} is out of memory at batch size 1; free some"
    return (
        f"{device} is out of memory at batch size {batch_size}; what is extracted is kept, "
        f"the same command continues with a smaller --batch-size, such as {batch_size // 2}"
    )


def _summary(store: TargetStore, part: SplitSamples, computed: Collection[int]) -> Summary:
    """Read back shard by shard, of which these were computed now.

    A shard may hold more samples than were asked for, by an earlier, larger extraction.
    """
    seconds, new = 0.0, 0
    mass = torch.zeros(1 + store.layers, dtype=torch.float64)
    shards = store.shards(part.split, part.dataset, len(part.samples), ["a_map", "a_map_layers"])
    for number, shard in enumerate(shards):
        wanted = len(_shard_of(part, number, store))
        if number in computed:
            seconds += shard.seconds
            new += wanted
        mass[0] += shard.maps["a_map"][:wanted].sum(dtype=torch.float64)
        mass[1:] += shard.maps["a_map_layers"][:wanted].sum(dim=(0, 2), dtype=torch.float64)
    means = (mass / len(part.samples)).tolist()
    return Summary(part.name, len(part.samples), new, seconds, means[0], means[1:])
