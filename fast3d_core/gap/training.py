"""Training the GAP network on extracted attention maps (arXiv 2507.09334, section 4.1).

A step depends on nothing but the options and its number: the order of an epoch is drawn from (seed, epoch), dropout
from (seed, step, process), the learning rate is a function of the step. So the last checkpoint holds the weights,
AdamW's moments and the step, which stands for the states of random generators and scheduler; a run continued from it
computes the very steps that an uninterrupted one computes (on a GPU, up to the order in which it adds).
"""

import contextlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import GradientAccumulationPlugin
from torch import Tensor, nn

from fast3d_core import __version__
from fast3d_core.benchmarks.questions import annotation_file, load_samples
from fast3d_core.config import Config, need_path
from fast3d_core.data.annotations import Scenes, locations_file
from fast3d_core.data.features import features_files
from fast3d_core.errors import DataError, UsageError
from fast3d_core.files.files import atomic_write
from fast3d_core.files.fingerprints import differences, digest
from fast3d_core.files.locks import sole_use
from fast3d_core.files.tensors import TensorFile, fingerprints, write_tensors
from fast3d_core.files.watched import WatchedFiles
from fast3d_core.gap.checkpoint import read_tensors, save_gap, write_published
from fast3d_core.gap.inputs import GapInputs, gap_inputs, load_targets
from fast3d_core.gap.network import GapNetwork, GapShape, kl_loss
from fast3d_core.gap.quality import MapQuality, map_quality
from fast3d_core.gap.text import QuestionTokenizer, encoder_files, encoder_fingerprint, load_text_encoder
from fast3d_core.runtime.devices import join_processes, on_cpu, out_of_memory_says, own_device, wait_for_everyone
from fast3d_core.runtime.draws import seed_of
from fast3d_core.runtime.graphs import Inputs, StepGraphs

BEST_FILE, LAST_FILE, LOG_FILE = "checkpoint_best.safetensors", "checkpoint_last.safetensors", "log.jsonl"

# The published recipe (arXiv 2507.09334), as far as it is no option.
_WEIGHT_DECAY = 0.01
_CLIP = 5.0
_WARMUP_EPOCHS = 0.1
_FLOOR = 0.001  # of the peak learning rate

_CHECK_STEPS = 20  # losses stay on the device that long: reading one makes the GPU wait


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; the defaults are the published recipe.

    Attributes:
        batch_size: samples a process and step (published: 64 on each of 4 GPUs).
        lr, text_lr: peak learning rates of the network and of the text encoder in it.
        precision: bf16 computes matrix products in bfloat16; weights and moments are float32.
        layers: which of the LLM's layers the target averages, see `parse_layers`.
        freeze_text: leave the text encoder as it is.
        dropout: everywhere; None is the published 0.1, 0.3 in the head, and the text encoder's own.
        save_every: steps between two writings of the last checkpoint, beside the one at the end of each epoch.
    """

    epochs: int = 50
    batch_size: int = 64
    lr: float = 8e-4
    text_lr: float = 8e-5
    precision: Literal["fp32", "bf16"] = "fp32"
    map_key: str = "a_map"
    layers: str = "all"
    spatial: bool = True
    freeze_text: bool = False
    dropout: float | None = None
    seed: int = 0
    save_every: int = 500

    def __post_init__(self) -> None:
        for name, most in (("epochs", 100_000), ("batch_size", 65_536), ("save_every", 10**9)):
            value, option = getattr(self, name), f"--{name.replace('_', '-')}"
            if value < 1:
                raise UsageError(f"{option} must be at least 1, not {value}")
            if value > most:
                raise UsageError(f"{option} must be at most {most}, not {value}")
        if not -(2**63) <= self.seed < 2**63:  # the checkpoint's settings could not be read back
            raise UsageError(f"--seed must fit 64 bits, {self.seed} does not")
        for name in ("lr", "text_lr"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(f"--{name.replace('_', '-')} must lie in (0, 1], not {getattr(self, name):g}")
        if self.precision not in ("fp32", "bf16"):
            raise UsageError(f"--precision must be fp32 or bf16, not {self.precision!r}")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise UsageError(f"--dropout must lie in [0, 1), not {self.dropout:g}")


class TrainingProgress(Protocol):
    """What a training run tells about itself."""

    def waiting(self, what: str) -> None:
        """This process waits for the others, `what` says for which; told by each that waits."""

    def loading(self) -> None:
        """Files are being read."""

    def start(self, samples: int, steps: int, done: int, parameters: int) -> None:
        """Training begins: `done` of `steps` steps were made before."""

    def trained(self, step: int, epoch: float, loss: float, lr: float, samples_per_second: float) -> None:
        """Some steps further; `loss` is their mean."""

    def validated(self, step: int, epoch: int, quality: Mapping[str, MapQuality], best: bool) -> None:
        """An epoch is over; `best` says that its weights are the best so far."""


@dataclass(frozen=True)
class Trained:
    """What a training run leaves.

    Attributes:
        best: file of the best weights; best_epoch: when they were; score: their top-5 F1 (of ScanRefer if it is
            validated on, else the mean).
        epochs: that were made; quality: dataset -> agreement on the validation set after the last one.
    """

    best: Path
    steps: int
    epochs: int
    best_epoch: int
    score: float
    quality: dict[str, MapQuality]


@dataclass(frozen=True)
class _Part:
    """Samples to train or validate on, and their maps on the device."""

    inputs: GapInputs
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)


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
    best_epoch = run.best_step // run.epoch_steps
    return Trained(folder / BEST_FILE, run.steps, options.epochs, best_epoch, run.best, run.quality)


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
        annotations = need_path(config, "data.annotations")
        wanted = [("train", name) for name in datasets] + [("val", name) for name in val_datasets]
        files = features_files(annotations)
        files += [annotation_file(annotations, name, split) for split, name in wanted]
        files += [locations_file(annotations, split) for split in ("train", "val")]
        watched = WatchedFiles()
        watched.watch([*files, *encoder_files(config.gap.text_encoder)])
        samples = {(split, name): load_samples(annotations, name, split) for split, name in wanted}
        maps = {
            part: load_targets(config, targets, *part, len(samples[part]), key=options.map_key, layers=options.layers)
            for part in wanted
        }
        scenes = Scenes(annotations, config.data.max_objects)
        torch.manual_seed(seed_of(options.seed))  # of the initial weights
        self.network = _new_network(config, options, scenes)
        tokenizer = QuestionTokenizer(config.gap.text_encoder)

        def part(split: str, names: Sequence[str]) -> _Part:
            asked = [sample for name in names for sample in samples[split, name]]
            inputs = gap_inputs(config, asked, split, scenes, tokenizer, self.network, self.device)
            return _Part(inputs, torch.cat([maps[split, name] for name in names]).to(self.device))

        self.data = part("train", datasets)
        self.val = part("val", val_datasets)
        self.val_rows: dict[str, range] = {}
        first = 0
        for name in val_datasets:
            self.val_rows[name] = range(first, first := first + len(samples["val", name]))
        self.batch = options.batch_size * self.processes
        self.epoch_steps = math.ceil(len(self.data) / self.batch)
        self.steps = options.epochs * self.epoch_steps
        self.step, self.best, self.best_step = 0, -math.inf, 0
        self.quality: dict[str, MapQuality] = {}
        self._epoch, self._order = -1, torch.empty(0)  # the samples in the order of an epoch
        self.settings = {
            "fast3d_version": __version__,
            **{key: value for key, value in asdict(options).items() if key not in ("batch_size", "save_every")},
            "batch_size": self.batch,  # of all processes: a step must be the same step
            "processes": self.processes,  # each draws its own dropout
            "shape": asdict(self.network.shape),
            "targets": {f"{split} {dataset}": digest(value) for (split, dataset), value in maps.items()},
            "text_encoder": encoder_fingerprint(config.gap.text_encoder),
            "files": fingerprints(files),
        }
        watched.check()

    def prepare(self, *, resume: bool, restart: bool) -> None:
        """Builds the optimizer, and continues from the last checkpoint if asked to."""
        self.network.to(self.device)
        self.named = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        on_gpu = self.device.type == "cuda"
        groups = _groups(self.named, self.options)
        for group in groups:  # on the device, where a captured step reads it
            group["lr"] = torch.tensor(group["peak"], device=self.device)
        optimizer = torch.optim.AdamW(groups, fused=on_gpu, capturable=on_gpu)
        last = self.folder / LAST_FILE
        left = [self.folder / name for name in (BEST_FILE, LAST_FILE) if (self.folder / name).exists()]
        wait_for_everyone(PartialState())  # all have looked before the first one writes
        if left and not resume and not restart:
            raise UsageError(
                f"{self.folder} holds a training run or its weights ({left[0].name}); "
                "continue with --resume, start over with --restart, or train into another folder with --out"
            )
        if left and last not in left and not restart:
            raise UsageError(
                f"{self.folder} has {left[0].name}, but no {LAST_FILE} to continue from; "
                "start over with --restart, or train into another folder with --out"
            )
        if self.accelerator.is_main_process and (not left or restart):  # a log without weights is worth nothing
            _check_own(self.folder)
            for name in (LAST_FILE, BEST_FILE, LOG_FILE):  # first what the others would be taken for a run by
                (self.folder / name).unlink(missing_ok=True)
        if left and not restart:
            self._continue(last, optimizer)
        self.network.train()
        wait_for_everyone(PartialState())
        self.model, self.optimizer = self.accelerator.prepare(self.network, optimizer)
        captured = on_gpu and self.processes == 1
        self._graphs = StepGraphs(self._compute, self.device) if captured else None
        parameters = sum(p.numel() for p in self.network.parameters())
        self.progress.start(len(self.data), self.steps, self.step, parameters)

    def train(self) -> None:
        pending: list[Tensor] = []
        since = time.perf_counter()
        while self.step < self.steps:
            pending.append(self._step())
            self.step += 1
            epoch_over = self.step % self.epoch_steps == 0
            save = epoch_over or self.step % self.options.save_every == 0
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
        rows = self._rows(self.step)
        mine = rows[self.process :: self.processes]
        # Gradients are averaged over processes; so weighed, they are those of the mean over all rows. A process that
        # has no row in the last batch of an epoch takes part with weight 0.
        weight = self.processes / len(rows) if len(mine) else 0.0
        mine = mine if len(mine) else rows[:1]
        torch.manual_seed(seed_of(self.options.seed, self.step, self.process))  # dropout
        for group in self.optimizer.param_groups:
            group["lr"].fill_(group["peak"] * self._lr_factor())
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
        norm = nn.utils.clip_grad_norm_(self.named.values(), _CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return torch.stack([loss.detach() / self.processes, norm])

    def _lr_factor(self) -> float:
        """Of the peak: linear warm-up, then a cosine down to the floor."""
        warmup = _WARMUP_EPOCHS * self.epoch_steps
        if self.step < warmup:
            return (self.step + 1) / (warmup + 1)
        done = (self.step - warmup) / max(self.steps - warmup, 1)
        return _FLOOR + (1 - _FLOOR) * (1 + math.cos(math.pi * done)) / 2

    def _check(self, pending: list[Tensor], since: float) -> None:
        """Reads the losses of the steps since then, logs them, and stops where one is not finite."""
        values = torch.stack(pending)
        if self.processes > 1:
            values = torch.stack([self.accelerator.reduce(values[:, 0].contiguous(), "sum"), values[:, 1]], dim=1)
        values = values.cpu()  # here the device's work is waited for
        seconds = time.perf_counter() - since
        first = self.step - len(pending)
        for offset, (loss, norm) in enumerate(values.tolist()):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise DataError(self._not_finite(first + offset))
        loss, norm = values.mean(dim=0).tolist()
        rate = len(pending) * len(self.data) / self.epoch_steps / seconds
        lr = float(self.optimizer.param_groups[0]["lr"])
        epoch = self.step / self.epoch_steps
        self._log(epoch=round(epoch, 4), lr=lr, loss=loss, grad_norm=norm, samples_per_second=round(rate, 2))
        self.progress.trained(self.step, epoch, loss, lr, rate)

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
        best = score > self.best
        if best:
            self.best, self.best_step = score, self.step
        epoch = self.step // self.epoch_steps
        self._log(epoch=epoch, best=best, val={name: asdict(quality) for name, quality in self.quality.items()})
        self.progress.validated(self.step, epoch, self.quality, best)
        return best

    def _save_best(self) -> None:
        if self.accelerator.is_main_process:
            save_gap(self.folder / BEST_FILE, self.network, self.step)

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
                f"{self.step}; are its features sound? {self._kept()}"
            )
        return {
            dataset: map_quality(logits[rows.start : rows.stop], targets[rows.start : rows.stop])
            for dataset, rows in self.val_rows.items()
        }

    def _save(self) -> None:
        """The last checkpoint: weights, moments, step, and what they depend on."""
        if not self.accelerator.is_main_process:
            return
        tensors = {f"model.{name}": tensor for name, tensor in self.network.state_dict().items()}
        state = self.optimizer.state
        for name, parameter in self.named.items():
            for moment in ("exp_avg", "exp_avg_sq"):
                tensors[f"{moment}.{name}"] = state[parameter][moment]
        best = self.best if math.isfinite(self.best) else None
        metadata = {"step": self.step, "best": best, "best_step": self.best_step, "settings": self.settings}
        write_tensors(self.folder / LAST_FILE, tensors, metadata)

    def _continue(self, last: Path, optimizer: torch.optim.Optimizer) -> None:
        tensors, metadata = read_tensors(last, "--resume")
        try:
            changed = differences(metadata["settings"], self.settings)
            if changed:
                raise UsageError(
                    f"{self.folder} holds a run with other settings ({', '.join(changed[:4])}); "
                    "train into another folder with --out, or --restart to start over"
                )
            best = metadata["best"]
            self.step, self.best = int(metadata["step"]), -math.inf if best is None else float(best)
            self.best_step = int(metadata["best_step"])
            if not 0 <= self.step <= self.steps:
                raise ValueError(f"it is at step {self.step} of {self.steps}")
            self.network.load_state_dict(
                {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
            )
            for name, parameter in self.named.items():
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(self.step), device=self.device if self.device.type == "cuda" else None),
                    **{
                        moment: tensors[f"{moment}.{name}"].to(self.device).view_as(parameter)
                        for moment in ("exp_avg", "exp_avg_sq")
                    },
                }
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
            raise DataError(f"{last} is damaged ({str(error)[:100]}); use --restart to start over") from None
        if self.accelerator.is_main_process:
            self._cut_log()
        if self.best_step == self.step and self.step and not self._has_best():
            self._save_best()

    def _has_best(self) -> bool:
        """Whether the best weights are those that the last checkpoint tells of."""
        try:
            return TensorFile(self.folder / BEST_FILE, "").metadata.get("step") == self.best_step
        except DataError:
            return False

    def _log(self, **values: Any) -> None:
        """A line in the log, and in TensorBoard where that is wanted."""
        numbers = {name: value for name, value in values.items() if isinstance(value, float)}
        for dataset, quality in values.get("val", {}).items():
            numbers |= {f"{dataset}/kl": quality["kl"], **{f"{dataset}/f1_top{k}": f for k, f in quality["f1"].items()}}
        self.accelerator.log(numbers, step=self.step)
        if self.accelerator.is_main_process:
            with (self.folder / LOG_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": self.step, **values}) + "\n")

    def _cut_log(self) -> None:
        """Drops what was logged after the last checkpoint: those steps are made again."""
        path = self.folder / LOG_FILE
        kept = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
            try:
                if json.loads(line)["step"] <= self.step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # a line that a kill cut short
        with atomic_write(path) as file:
            file.writelines(kept)


def _check_own(folder: Path) -> None:
    """Raises `UsageError` where a file that a training writes is somebody else's; a damaged one may be ours."""
    for name, key in ((LAST_FILE, "settings"), (BEST_FILE, "step")):
        with contextlib.suppress(DataError):
            if key not in TensorFile(folder / name, "--out").metadata:
                raise UsageError(
                    f"{folder / name} was not written by `fast3d train-gap`; choose another folder with --out"
                )
    path = folder / LOG_FILE
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            first = file.readline(100_000)
        start = '{"step": '
        if not first.startswith(start[: len(first)]):  # a kill may have cut it short
            raise UsageError(f"{path} is no log of `fast3d train-gap`; choose another folder with --out")


def _new_network(config: Config, options: TrainingOptions, scenes: Scenes) -> GapNetwork:
    encoder = load_text_encoder(config.gap.text_encoder, options.dropout)
    if options.freeze_text:
        encoder.requires_grad_(False)
    hidden = encoder.config.hidden_size
    if hidden % config.gap.heads:
        raise UsageError(f"gap.heads: {config.gap.heads} heads do not divide the text encoder's width, {hidden}")
    published = GapShape()
    shape = GapShape(
        features=scenes.width_3d + scenes.width_2d,
        objects=scenes.objects,
        hidden=hidden,
        heads=config.gap.heads,
        layers=config.gap.layers,
        spatial=options.spatial,
        dropout=published.dropout if options.dropout is None else options.dropout,
        head_dropout=published.head_dropout if options.dropout is None else options.dropout,
    )
    network = GapNetwork(shape, encoder)
    # What shifts all logits of a scene alike changes nothing: the gradient is 0 but for rounding, and AdamW would make
    # steps of full size of that. The norm's bias does so, too, where no dropout stands behind it.
    idle = ["out_head_attn.4.bias", *(["out_head_attn.2.bias"] if shape.head_dropout == 0 else [])]
    for name, parameter in network.named_parameters():
        if name in idle or name.startswith("text_encoder.pooler."):  # nobody reads the pooler
            parameter.requires_grad_(False)
    return network


def _groups(named: Mapping[str, nn.Parameter], options: TrainingOptions) -> list[dict[str, Any]]:
    """AdamW's groups: the text encoder learns more slowly, and 1-d parameters do not decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        peak = options.text_lr if name.startswith("text_encoder.") else options.lr
        decay = _WEIGHT_DECAY if parameter.dim() > 1 else 0.0
        groups.setdefault((peak, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": peak, "peak": peak, "weight_decay": decay}
        for (peak, decay), parameters in sorted(groups.items(), key=lambda item: -item[0][0])
    ]
