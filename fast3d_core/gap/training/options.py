"""How to train, and what a training reports and leaves. Imports no torch: `--help` shows the defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from fast3d_core.errors import UsageError

if TYPE_CHECKING:
    from fast3d_core.gap.quality import MapQuality


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

    Raises:
        UsageError: a value is out of range; it names the option of `fast3d train-gap`.
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
    """What a training run reports."""

    def waiting(self, what: str) -> None:
        """This process waits for the others, `what` says for which; each process that waits calls it."""

    def loading(self) -> None:
        """Files are being read."""

    def start(self, samples: int, steps: int, done: int, parameters: int) -> None:
        """Training begins: `done` of `steps` steps were made before."""

    def trained(self, step: int, epoch: float, loss: float, lr: float, samples_per_second: float) -> None:
        """Some steps further; `loss` is their mean."""

    def validated(self, step: int, epoch: int, quality: "Mapping[str, MapQuality]", best: bool) -> None:
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
    quality: "dict[str, MapQuality]"
