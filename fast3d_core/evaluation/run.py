"""`fast3d eval`: questions through Chat-Scene under a pruning method, batch by batch, to predictions and a result."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from accelerate import PartialState

from fast3d_core.chat_scene.loading import load_model
from fast3d_core.chat_scene.model import ChatScene
from fast3d_core.config import Config, need_path, to_dict
from fast3d_core.data.annotations import Sample, annotation_file, locations_file
from fast3d_core.data.features import features_files
from fast3d_core.data.settings import llm_files
from fast3d_core.data.tensors import fingerprints
from fast3d_core.devices import join_processes, out_of_memory_says, own_device
from fast3d_core.evaluation.conclude import conclude
from fast3d_core.evaluation.journal import Journal
from fast3d_core.evaluation.questions import Job, LiveMaps, Plans, Questions
from fast3d_core.evaluation.result import Result
from fast3d_core.gap.maps import map_file
from fast3d_core.gap.text import encoder_fingerprint
from fast3d_core.progress import Progress


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

    Under `accelerate launch` the batches are shared out, the first process merges, and the others return no results.
    Jobs that are complete are read back without loading the model; those that were interrupted continue.

    Raises:
        UsageError, DataError: see `Journal.open`, `ChatScene.from_config`, `load_maps`.
    """
    state = join_processes(config.model.device)
    batches = questions.batches(config.eval.batch_size)
    plans = [questions.plans(job) for job in jobs]  # before any run starts: a bad map file stops the command here
    model = _Model(config, questions, state, progress)
    results = []
    for job, plan in zip(jobs, plans, strict=True):
        journal = Journal(
            config.runs / job.name, settings(config, job, list(questions.samples), questions.limit, model.device)
        )
        if state.is_main_process:
            journal.open(restart=restart)
        state.wait_for_everyone()
        live = questions.live_maps if job.live else None
        _answer(job.name, batches, plan, live, journal, model, state, progress)
        state.wait_for_everyone()
        if state.is_main_process:
            processes = state.num_processes
            results.append(conclude(config, job, questions, journal, model.device, processes, meteor=meteor))
        state.wait_for_everyone()
    return results


def settings(
    config: Config, job: Job, datasets: Sequence[str], limit: int | None, device: torch.device
) -> dict[str, Any]:
    """Everything that a run's answers depend on, as plain data; files by size and digest, not by place."""
    plain = to_dict(config)
    folder = need_path(config, "data.annotations")
    checkpoint = need_path(config, "model.checkpoint")
    files = [annotation_file(folder, dataset) for dataset in datasets]
    files += features_files(folder)
    if job.maps is not None:
        files += [map_file(job.maps, dataset) for dataset in datasets]
    files = [*llm_files(config.model.llm), checkpoint, *files]
    prints = fingerprints(files)
    gap = {}
    if job.live:
        network, locations = need_path(config, "gap.checkpoint"), locations_file(folder, "val")
        prints |= fingerprints([network], whole=True) | fingerprints([locations])
        gap = {"live": True, "heads": config.gap.heads, "text_encoder": encoder_fingerprint(config.gap.text_encoder)}
    return {
        "method": job.pruner.name,
        **asdict(job.pruner),
        **({} if job.maps is None else {"map_key": job.map_key}),
        **({"gap": gap} if gap else {}),
        "datasets": list(datasets),
        "limit": limit,
        "max_objects": config.data.max_objects,
        "lora_alpha": plain["model"]["lora_alpha"],
        "dtype": plain["model"]["dtype"],
        "device": device.type,
        "generation": plain["generation"],
        "batch_size": config.eval.batch_size,
        "engine": config.eval.engine,
        "files": prints,
    }


class _Model:
    """The model, loaded when the first batch needs it, so that a finished run is read back without."""

    def __init__(self, config: Config, questions: Questions, state: PartialState, progress: Progress):
        self._config, self._questions, self._progress = config, questions, progress
        self.device = own_device(config.model.device, state)
        self._model: ChatScene | None = None

    def load(self) -> ChatScene:
        """The model, loaded if it is not."""
        if self._model is None:
            self._model = load_model(self._config, self._questions.scenes, self.device, self._progress)
        return self._model

    def answer(
        self, batch: Sequence[Sample], plans: Plans, live: LiveMaps | None
    ) -> tuple[list[dict[str, Any]], float]:
        """A journal entry for each sample of a batch, and the seconds that live maps took."""
        config, scenes = self._config, self._questions.scenes
        model = self.load()
        start = time.perf_counter()
        with out_of_memory_says(_out_of_memory(self.device, len(batch))):
            planned = plans(batch)  # live maps come back to the CPU, so the GPU's part of this time is over
            planning = time.perf_counter() - start
            prompts = [model.prompt(scenes[sample.scene_id], sample.prompt) for sample in batch]
            answers = model.generate(prompts, planned, config.generation, config.eval.engine)
        entries = [
            {
                "dataset": sample.dataset,
                "index": sample.index,
                "pred": answer.text,
                "tokens": len(prompt),
                "steps": answer.generation.steps,
                "layer": plan.layer,
                "kept": answer.generation.kept.tolist() if len(answer.generation.kept) < plan.visual else None,
                **({"gap_flops": live.flops(sample)} if live else {}),
            }
            for sample, prompt, plan, answer in zip(batch, prompts, planned, answers, strict=True)
        ]
        return entries, planning if live else 0.0


def _out_of_memory(device: torch.device, batch_size: int) -> str:
    if batch_size == 1:
        return f"{device} is out of memory at batch size 1; free some, or prune more"
    return (
        f"{device} is out of memory at batch size {batch_size}; answers so far are kept. "
        f"Try --set eval.batch_size={batch_size // 2} with another --name, or with --restart"
    )


def _answer(
    run: str,
    batches: list[list[Sample]],
    plans: Plans,
    live: LiveMaps | None,
    journal: Journal,
    model: _Model,
    state: PartialState,
    progress: Progress,
) -> None:
    """This process's share of the batches that are not done yet."""
    done = journal.batches()
    session = journal.next_session()
    state.wait_for_everyone()  # every process has looked before the first one appends
    pending = [number for number in range(len(batches)) if number not in done]
    mine = pending[state.process_index :: state.num_processes]
    if mine:
        model.load()  # here, so that no batch's time holds it
        if live:
            live.load(model.device)
    started = None
    for number in mine:
        batch = batches[number]
        dataset = batch[0].dataset
        if dataset != started:
            started = dataset
            before = sum(len(batches[i]) for i in done if batches[i][0].dataset == dataset)
            share = sum(len(batches[i]) for i in mine if batches[i][0].dataset == dataset)
            progress.start(run, dataset, before + share, before)
        start = time.perf_counter()
        samples, gap_seconds = model.answer(batch, plans, live)
        journal.append(session, state.process_index, number, time.perf_counter() - start, samples, gap_seconds)
        progress.advance(run, dataset, len(batch))
