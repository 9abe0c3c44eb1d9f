"""The loop over steps and epochs; see the package for what a step depends on."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import GradientAccumulationPlugin
from torch import Tensor, nn

from fast3d_core import __version__
from fast3d_core.config import Config
from fast3d_core.errors import DataError
from fast3d_core.files.locks import sole_use
from fast3d_core.gap.checkpoint import read_tensors, save_gap, write_published
from fast3d_core.gap.network import kl_loss
from fast3d_core.gap.quality import MapQuality, map_quality
from fast3d_core.gap.training.data import load_data
from fast3d_core.gap.training.options import Trained, TrainingOptions, TrainingProgress
from fast3d_core.gap.training.schedule import CLIP, lr_factor, parameter_groups
from fast3d_core.gap.training.state import (
    BEST_FILE,
    LAST_FILE,
    TrainingState,
    append_log,
    check_folder,
    checkpoints_in,
    clear_folder,
    cut_log,
    has_best,
    load_last,
    save_last,
)
from fast3d_core.runtime.devices import join_processes, on_cpu, out_of_memory_says, own_device, wait_for_everyone
from fast3d_core.runtime.draws import seed_of
from fast3d_core.runtime.graphs import Inputs, StepGraphs

_CHECK_STEPS = 20  # losses stay on the device that long: reading one makes the GPU wait


def train(
    config: Config,
    options: TrainingOptions,
    targets: Path,
    folder: Path,
    datasets: Sequence[str],
    val_datasets: Sequence[str],
    progress: TrainingProgress,
    *,
    resume: bool = False,
    restart: bool = False,
    tensorboard: bool = False,
) -> Trained | None:
    """Trains a new network on the train maps in `targets`; None on all but the first of several processes.

    Args:
        folder: gets the best and the last checkpoint and the log.
        resume: continue from the last checkpoint, if there is one.
        restart: throw an earlier run in `folder` away.

    Raises:
        UsageError: another command is at work in `folder`; it holds a run, and neither `resume` nor `restart` is set;
            or that was made with other settings.
        DataError: maps or files are missing or do not fit, the loss became NaN, the disk is full, memory ran out.
    """
    join_processes(config.model.device, progress.waiting)
    accelerator = Accelerator(
        cpu=on_cpu(config.model.device),
        device_placement=False,  # config.model.device decides
        # Not what a launcher's own config says: the options do, and a resumed run depends on nothing else.
        mixed_precision="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        log_with="tensorboard" if tensorboard else None,
        project_dir=str(folder) if tensorboard else None,
    )
    too_large = (
        f"{accelerator.device} is out of memory at --batch-size {options.batch_size}; "
        "try a smaller one, or --precision bf16"
    )
    try:
        own = [folder] if accelerator.is_main_process else []
        with out_of_memory_says(too_large), sole_use(*own, other="train into another folder with --out"):
            run = TrainingRun(config, options, targets, folder, datasets, val_datasets, progress, accelerator)
            run.prepare(resume=resume, restart=restart)
            if tensorboard:
                accelerator.init_trackers("tensorboard")
            run.train()
            wait_for_everyone(PartialState())
    finally:
        accelerator.end_training()
    if not accelerator.is_main_process:
        return None
    best_epoch = run.state.best_step // run.epoch_steps
    return Trained(folder / BEST_FILE, run.steps, options.epochs, best_epoch, run.state.best, run.quality)


def export_best(best: Path, path: Path) -> None:
    """Writes our best weights in the published form."""
    tensors, metadata = read_tensors(best)
    write_published(path, tensors, metadata["step"])


class TrainingRun:
    """One run: what is trained on what, and where it stands. Arguments as of `train`."""

    def __init__(
        self,
        config: Config,
        options: TrainingOptions,
        targets: Path,
        folder: Path,
        datasets: Sequence[str],
        val_datasets: Sequence[str],
        progress: TrainingProgress,
        accelerator: Accelerator,
    ):
        self.options, self.folder, self.progress, self.accelerator = options, folder, progress, accelerator
        self.device = own_device(config.model.device, accelerator.state)
        self.processes, self.process = accelerator.num_processes, accelerator.process_index
        progress.loading()
        data = load_data(config, options, targets, datasets, val_datasets, self.device)
        self.network, self.data, self.val = data.network, data.train, data.val
        self.batch = options.batch_size * self.processes
        self.epoch_steps = math.ceil(len(self.data) / self.batch)
        self.steps = options.epochs * self.epoch_steps
        self.state = TrainingState()
        self.quality: dict[str, MapQuality] = {}
        self._epoch, self._order = -1, torch.empty(0)  # the samples in the order of an epoch
        self.settings = {
            "fast3d_version": __version__,
            **{key: value for key, value in asdict(options).items() if key not in ("batch_size", "save_every")},
            "batch_size": self.batch,  # of all processes: a step must be the same step
            "processes": self.processes,  # each draws its own dropout
            "shape": asdict(self.network.shape),
            **data.origin,
        }

    def prepare(self, *, resume: bool, restart: bool) -> None:
        """Builds the optimizer, and continues from the last checkpoint if asked to."""
        self.network.to(self.device)
        self.named = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        on_gpu = self.device.type == "cuda"
        groups = parameter_groups(self.named, self.options)
        for group in groups:  # on the device, where a captured step reads it
            group["lr"] = torch.tensor(group["peak"], device=self.device)
        optimizer = torch.optim.AdamW(groups, fused=on_gpu, capturable=on_gpu)
        left = checkpoints_in(self.folder)
        wait_for_everyone(PartialState())  # all have looked before the first one writes
        check_folder(self.folder, left, resume=resume, restart=restart)
        if self.accelerator.is_main_process and (not left or restart):  # a log without weights is worth nothing
            clear_folder(self.folder)
        if left and not restart:
            self._continue(optimizer)
        self.network.train()
        wait_for_everyone(PartialState())
        self.model, self.optimizer = self.accelerator.prepare(self.network, optimizer)
        captured = on_gpu and self.processes == 1
        self._graphs = StepGraphs(self._compute, self.device) if captured else None
        parameters = sum(p.numel() for p in self.network.parameters())
        self.progress.start(len(self.data), self.steps, self.state.step, parameters)

    def _continue(self, optimizer: torch.optim.Optimizer) -> None:
        """Goes on from the last checkpoint."""
        self.state = load_last(self.folder, self.settings, self.steps, self.network, self.named, optimizer, self.device)
        if self.accelerator.is_main_process:
            cut_log(self.folder, self.state.step)
        if self.state.best_step == self.state.step and self.state.step and not has_best(self.folder, self.state):
            self._save_best()

    def train(self) -> None:
        """Makes the steps that are left, and measures the network after each epoch."""
        pending: list[Tensor] = []
        since = time.perf_counter()
        while self.state.step < self.steps:
            pending.append(self._step())
            self.state.step += 1
            epoch_over = self.state.step % self.epoch_steps == 0
            save = epoch_over or self.state.step % self.options.save_every == 0
            if save or len(pending) == _CHECK_STEPS:
                self._check(pending, since)
                pending = []
                best = self._validate() if epoch_over else False
                if save:
                    self._save()
                if best:  # after the last, which says so: what a kill between leaves out is written by the next command
                    self._save_best()
                since = time.perf_counter()
        if not self.quality:  # nothing was left to do
            self.quality = self._measure()

    def _rows(self, step: int) -> Tensor:
        """The samples of a step, of all processes."""
        epoch, index = divmod(step, self.epoch_steps)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(seed_of(self.options.seed, epoch))
            self._epoch, self._order = epoch, torch.randperm(len(self.data), generator=generator)
        return self._order[index * self.batch : (index + 1) * self.batch]

    def _step(self) -> Tensor:
        """One step; (2,) this process's share of the loss, and the gradient's norm, on the device."""
        step = self.state.step
        rows = self._rows(step)
        mine = rows[self.process :: self.processes]
        # Gradients are averaged over processes; so weighed, they are those of the mean over all rows. A process that
        # has no row in the last batch of an epoch takes part with weight 0.
        weight = self.processes / len(rows) if len(mine) else 0.0
        mine = mine if len(mine) else rows[:1]
        torch.manual_seed(seed_of(self.options.seed, step, self.process))  # dropout
        for group in self.optimizer.param_groups:
            group["lr"].fill_(group["peak"] * lr_factor(step, self.epoch_steps, self.steps))
        width = self.data.inputs.width(mine)
        if self._graphs and len(mine) == self.options.batch_size:
            return self._graphs({"rows": mine}, width)
        return self._compute({"rows": mine.to(self.device, non_blocking=True)}, width, weight)

    def _compute(self, given: Inputs, width: int, weight: float | None = None) -> Tensor:
        """Forward, backward and update on this process's rows, on the device; nothing here waits for the device.

        `weight` is each row's in the loss; None is the mean.
        """
        rows = given["rows"]
        # Without the cache of cast weights, which a captured step cannot share with others.
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.options.precision == "bf16", cache_enabled=False
        ):
            logits = self.model(*self.data.inputs.at(rows, width))
        losses = kl_loss(logits, self.data.targets[rows])
        loss = losses.mean() if weight is None else losses.sum() * weight
        self.accelerator.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.named.values(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return torch.stack([loss.detach() / self.processes, norm])

    def _check(self, pending: list[Tensor], since: float) -> None:
        """Reads the losses of the steps since then, logs them, and stops where one is not finite."""
        values = torch.stack(pending)
        if self.processes > 1:
            values = torch.stack([self.accelerator.reduce(values[:, 0].contiguous(), "sum"), values[:, 1]], dim=1)
        values = values.cpu()  # here the device's work is waited for
        seconds = time.perf_counter() - since
        first = self.state.step - len(pending)
        for offset, (loss, norm) in enumerate(values.tolist()):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise DataError(self._not_finite(first + offset))
        loss, norm = values.mean(dim=0).tolist()
        rate = len(pending) * len(self.data) / self.epoch_steps / seconds
        lr = float(self.optimizer.param_groups[0]["lr"])
        epoch = self.state.step / self.epoch_steps
        self._log(epoch=round(epoch, 4), lr=lr, loss=loss, grad_norm=norm, samples_per_second=round(rate, 2))
        self.progress.trained(self.state.step, epoch, loss, lr, rate)

    def _not_finite(self, step: int) -> str:
        samples = [self.data.inputs.samples[row] for row in self._rows(step).tolist()]
        named = ", ".join(f"{sample.dataset}/{sample.index}" for sample in samples[:3])
        more = f" and {len(samples) - 3} more" if len(samples) > 3 else ""
        epoch, batch = divmod(step, self.epoch_steps)
        return (
            f"the loss is NaN or infinite in batch {batch + 1} of epoch {epoch + 1} (step {step + 1}; samples {named}"
            f"{more}); {self._kept()}. Train into another folder with a lower --lr, or with --precision fp32"
        )

    def _kept(self) -> str:
        last = self.folder / LAST_FILE
        return f"the last good checkpoint {last} is kept" if last.exists() else "no checkpoint was written yet"

    def _validate(self) -> bool:
        """Measures the network; whether it is the best so far."""
        self.quality = self._measure()
        scores = {dataset: quality.f1[min(quality.f1)] for dataset, quality in self.quality.items()}
        # Published: the best by ScanRefer's top-5.
        score = scores.get("scanrefer", sum(scores.values()) / len(scores))
        best = score > self.state.best
        if best:
            self.state.best, self.state.best_step = score, self.state.step
        epoch = self.state.step // self.epoch_steps
        self._log(epoch=epoch, best=best, val={name: asdict(quality) for name, quality in self.quality.items()})
        self.progress.validated(self.state.step, epoch, self.quality, best)
        return best

    @torch.inference_mode()
    def _measure(self) -> dict[str, MapQuality]:
        """Agreement on the validation sets, which the processes share out."""
        self.network.eval()
        logits = torch.zeros_like(self.val.targets)
        mine = torch.arange(len(self.val))[self.process :: self.processes]
        for rows in mine.split(self.options.batch_size) if len(mine) else ():
            logits[rows] = self.network(*self.val.inputs.batch(rows)).float()
        if self.processes > 1:
            logits = self.accelerator.reduce(logits, "sum")
        self.network.train()
        logits, targets = logits.cpu(), self.val.targets.cpu()
        if wrong := (~logits.isfinite().all(-1)).nonzero().flatten().tolist():
            sample = self.val.inputs.samples[wrong[0]]
            raise DataError(
                f"the network gives NaN or infinity for validation sample {sample.dataset}/{sample.index} after step "
                f"{self.state.step}; are its features sound? {self._kept()}"
            )
        return {
            dataset: map_quality(logits[rows.start : rows.stop], targets[rows.start : rows.stop])
            for dataset, rows in self.val.rows.items()
        }

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            save_last(self.folder, self.state, self.settings, self.network, self.named, self.optimizer.state)

    def _save_best(self) -> None:
        if self.accelerator.is_main_process:
            save_gap(self.folder / BEST_FILE, self.network, self.state.step)

    def _log(self, **values: Any) -> None:
        """A line in the log, and in TensorBoard where that is wanted."""
        numbers = {name: value for name, value in values.items() if isinstance(value, float)}
        for dataset, quality in values.get("val", {}).items():
            numbers |= {f"{dataset}/kl": quality["kl"], **{f"{dataset}/f1_top{k}": f for k, f in quality["f1"].items()}}
        self.accelerator.log(numbers, step=self.state.step)
        if self.accelerator.is_main_process:
            append_log(self.folder, self.state.step, values)
