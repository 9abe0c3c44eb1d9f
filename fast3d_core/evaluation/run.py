"""`fast3d eval`: questions through a scene model under a pruning method, batch by batch, to predictions and results."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from accelerate import PartialState

from fast3d_core import __version__
from fast3d_core.benchmarks.questions import annotation_file
from fast3d_core.config import Config, need_checkpoint, need_path, to_dict
from fast3d_core.data.annotations import Sample, locations_file
from fast3d_core.data.features import features_files
from fast3d_core.evaluation.asked import check_references
from fast3d_core.evaluation.batch_size import batch_size
from fast3d_core.evaluation.conclude import conclude
from fast3d_core.evaluation.costs import made_entry
from fast3d_core.evaluation.journal import Entry, Journal
from fast3d_core.evaluation.needs import Needs
from fast3d_core.evaluation.overlap import Ready, answer_all
from fast3d_core.evaluation.planner import Planner
from fast3d_core.evaluation.questions import Job, Questions
from fast3d_core.evaluation.result import Result
from fast3d_core.evaluation.sharing import largest_first, shared
from fast3d_core.files.locks import sole_use
from fast3d_core.files.tensors import fingerprints
from fast3d_core.gap.text import encoder_files, encoder_fingerprint
from fast3d_core.llm.generation import Generation
from fast3d_core.maps.published import map_file
from fast3d_core.models.base import SceneModel
from fast3d_core.models.loading import load_model
from fast3d_core.models.registry import scene_model
from fast3d_core.pruning import METHODS
from fast3d_core.runtime.devices import join_processes, out_of_memory_says, own_device, smallest, wait_for_everyone
from fast3d_core.runtime.progress import Progress


def evaluate(
    config: Config,
    jobs: Sequence[Job],
    questions: Questions,
    progress: Progress,
    *,
    restart: bool = False,
    meteor: bool = True,
) -> list[Result]:
    """Runs the jobs one after another on one loaded model; each leaves a folder `config.runs / job.name`.

    Several processes, as `accelerate launch` starts them, share the batches; the first one merges what they answered,
    and the others return no results.
    Jobs that are complete are read back without loading the model; those that were interrupted continue.

    Raises:
        UsageError, DataError: see `sole_use`, `Journal.open`, `SceneModel.from_config`, `Questions.planner`,
            `join_processes`.
        StoppedError: another process has stopped.
    """
    state = join_processes(config.model.device, progress.waiting)
    for job in jobs:
        questions.planner(job)  # before any run starts: a bad map file stops the command here
    if state.is_main_process:
        check_references(questions.samples, questions.folder)  # so does what only scoring would find
    model = _Model(config, questions, state, progress)
    results = []
    folders = [config.runs / job.name for job in jobs] if state.is_main_process else []
    with sole_use(*folders, other="choose another --name"):
        journals = [_journal(job, model, state, progress, restart=restart) for job in jobs]
        questions.files.check()  # of all runs: what they say they depend on is what was read
        for job, journal in zip(jobs, journals, strict=True):
            if state.is_main_process:
                journal.open(restart=restart)
            wait_for_everyone(state)
            _answer(job, journal, model, state, progress)
            if state.is_main_process:
                processes = state.num_processes
                results.append(conclude(config, job, questions, journal, model.device, processes, meteor=meteor))
            wait_for_everyone(state)
    return results


def _journal(job: Job, model: "_Model", state: PartialState, progress: Progress, *, restart: bool) -> Journal:
    """The journal of a run, not opened yet, with what its answers depend on."""
    config, questions, device = model.config, model.questions, model.device
    size = batch_size(config, job, questions, device, state.num_processes, restart=restart)
    size = smallest(size, state)  # the memories of several GPUs may differ
    if config.eval.batch_size == "auto":
        progress.sized(job.name, size)
    datasets = list(questions.samples)
    questions.files.watch(_files(config, job, datasets))
    questions.files.watch(encoder_files(config.gap.text_encoder) if job.live else ())
    return Journal(config.runs / job.name, settings(config, job, datasets, questions.limit, device, size))


def settings(
    config: Config, job: Job, datasets: Sequence[str], limit: int | None, device: torch.device, batch_size: int
) -> dict[str, Any]:
    """Everything that a run's answers depend on, as plain data; files by size and digest, not by path."""
    plain = to_dict(config)
    network = need_checkpoint(config, "gap.checkpoint") if job.live else None
    files = [path for path in _files(config, job, datasets) if path != network]
    prints = fingerprints(files)
    package = METHODS.package(job.pruner.name)
    gap = {}
    if network:
        prints |= fingerprints([network], whole=True)
        gap = {"live": True, "heads": config.gap.heads, "text_encoder": encoder_fingerprint(config.gap.text_encoder)}
    return {
        "fast3d_version": __version__,
        "method": job.pruner.name,
        **({"method_package": package} if package else {}),
        **asdict(job.pruner),
        **({} if job.maps is None else {"map_key": job.map_key}),
        **({} if job.map_kind is None else {"map_kind": job.map_kind}),
        **({"gap": gap} if gap else {}),
        "datasets": list(datasets),
        "limit": limit,
        "model": config.model.kind,
        "units": asdict(scene_model(config).units_of(config)),
        "max_objects": config.data.max_objects,
        "lora_alpha": plain["model"]["lora_alpha"],
        "dtype": plain["model"]["dtype"],
        "device": device.type,
        "generation": plain["generation"],
        "batch_size": batch_size,
        "engine": config.eval.engine,
        "reuse_scene": config.eval.reuse_scene,
        "files": prints,
    }


def _files(config: Config, job: Job, datasets: Sequence[str]) -> list[Path]:
    """The files that a run reads, but for the text encoder's."""
    folder = need_path(config, "data.annotations")
    files = scene_model(config).files(config)
    files += [annotation_file(folder, dataset) for dataset in datasets]
    files += features_files(folder)
    if job.maps is not None:
        files += [map_file(job.maps, dataset) for dataset in datasets]
    if job.live:
        files += [locations_file(folder, "val"), need_checkpoint(config, "gap.checkpoint")]
    elif METHODS.package(job.pruner.name) and locations_file(folder, "val").exists():
        files.append(locations_file(folder, "val"))  # it may look at boxes and labels, which no method here does
    return files


class _Model:
    """The model, loaded when the first batch needs it, so that a finished run is read back without."""

    def __init__(self, config: Config, questions: Questions, state: PartialState, progress: Progress):
        self.config, self.questions, self._progress = config, questions, progress
        self.device = own_device(config.model.device, state)
        self._model: SceneModel | None = None

    def load(self) -> SceneModel:
        """The model, loaded if it is not."""
        if self._model is None:
            self._model = load_model(self.config, self.questions.scenes, self.device, self._progress)
            self.questions.files.check()
        return self._model

    def prepare(self, number: int, samples: list[Sample], planner: Planner) -> Ready:
        """A batch with all that decoding it takes."""
        model, scenes = self.load(), self.questions.scenes
        with out_of_memory_says(_out_of_memory(self.device, len(samples))):
            start = time.perf_counter()
            plans = planner(samples)  # live maps come back to the CPU, so the GPU's part of this time is over
            planning = time.perf_counter() - start
            prompts = model.prompts([scenes[s.scene_id] for s in samples], [s.prompt for s in samples])
        return Ready(number, samples, plans, prompts, planning if planner.gap_flops else 0.0)

    def generations(self, ready: Ready, meanwhile: Callable[[], None]) -> list[Generation]:
        """What the LLM answers to a batch; for `meanwhile`, see `FastEngine.generate`."""
        settings, options = self.config.generation, self.config.eval
        with out_of_memory_says(_out_of_memory(self.device, len(ready.samples))):
            return self.load().generations(
                ready.prompts, ready.plans, settings, options.engine, options.reuse_scene, meanwhile
            )

    def entries(self, ready: Ready, generations: list[Generation], planner: Planner) -> list[Entry]:
        """A journal entry for each sample of a batch."""
        model, reuse, flops = self.load(), self.config.eval.reuse_scene, planner.gap_flops
        return [
            made_entry(sample, prompt, one, model.answer(one).text, reuse, flops and flops(sample))
            for sample, prompt, one in zip(ready.samples, ready.prompts, generations, strict=True)
        ]


def _out_of_memory(device: torch.device, batch_size: int) -> str:
    if batch_size == 1:
        return f"{device} is out of memory at batch size 1; free some, or prune more"
    return (
        f"{device} is out of memory at batch size {batch_size}; answers so far are kept. "
        f"Try --batch {batch_size // 2} --restart, or --batch {batch_size // 2} with another --name"
    )


def _answer(job: Job, journal: Journal, model: _Model, state: PartialState, progress: Progress) -> None:
    """This process's part of the batches that are not done yet; all of them are done when this returns."""
    batches = model.questions.batches(journal.settings["batch_size"])
    done = journal.batches()
    session = journal.next_session()
    wait_for_everyone(state)  # every process has looked before the first one appends
    pending = [number for number in range(len(batches)) if number not in done]
    planner = model.questions.planner(job)
    if state.num_processes > 1:
        sized = {number: batches[number] for number in pending}
        pending = largest_first(sized, Needs.of_config(model.config), planner)
    if state.process_index < len(pending):
        model.load()  # here, so that no batch's time holds it
        planner = model.questions.planner(job, model.device)
    report = _Report(job.name, batches, pending, progress)

    def prepare(number: int) -> Ready:
        return model.prepare(number, batches[number], planner)

    end = time.perf_counter()

    def answer(ready: Ready, meanwhile: Callable[[], None]) -> tuple[list[Generation], float]:
        nonlocal end
        report.begin(ready.number)
        generations = model.generations(ready, meanwhile)
        start, end = end, time.perf_counter()
        return generations, end - start

    def write(ready: Ready, answered: tuple[list[Generation], float]) -> None:
        generations, seconds = answered
        entries = model.entries(ready, generations, planner)
        journal.append(session, state.process_index, ready.number, seconds, entries, ready.gap_seconds)
        report.done(ready.number)

    answer_all(shared(pending, state), prepare, answer, write, model.device)
    wait_for_everyone(state)
    report.done()


class _Report:
    """Tells how far a run is, of all processes: batches are handed out in order, so those before one that is done are
    done too, or nearly.

    Args:
        pending: the numbers of the batches to be done, in that order.
    """

    def __init__(self, run: str, batches: list[list[Sample]], pending: Sequence[int], progress: Progress):
        self._run, self._batches, self._progress = run, batches, progress
        self._left = deque(pending)
        self._begun: set[str] = set()
        self._lock = RLock()  # batches begin in one thread and are done in another

    def begin(self, number: int) -> None:
        """This process begins with a batch."""
        dataset = self._batches[number][0].dataset
        with self._lock:
            if dataset in self._begun:
                return
            self._begun.add(dataset)
            total, left = (
                sum(len(self._batches[i]) for i in numbers if self._batches[i][0].dataset == dataset)
                for numbers in (range(len(self._batches)), self._left)
            )
            self._progress.start(self._run, dataset, total, total - left)

    def done(self, number: int | None = None) -> None:
        """It has done that batch; without a number, all are done."""
        with self._lock:
            while self._left:
                one = self._left[0]
                self.begin(one)
                self._left.popleft()
                self._progress.advance(self._run, self._batches[one][0].dataset, len(self._batches[one]))
                if one == number:
                    break
