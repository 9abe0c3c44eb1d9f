"""The live view of a training run on stderr: a bar, the loss, and each dataset's agreement after every epoch."""

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fast3d_cli.console import err, note
from fast3d_core.runtime.launcher import is_first

if TYPE_CHECKING:
    from fast3d_core.gap.quality import MapQuality


class TrainingView:
    """Where stderr is no terminal, a line when training begins and one an epoch. The first process prints."""

    def __init__(self) -> None:
        self._shown = err.is_terminal and is_first()
        self._bar = Progress(
            TextColumn("step"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err,
            speed_estimate_period=600,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._now = Text()
        self._quality: Table | None = None
        self._loss = float("nan")
        self._live = Live(console=err, get_renderable=self._render, refresh_per_second=4)

    def __enter__(self) -> "TrainingView":
        if self._shown:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._live.stop()

    def _render(self) -> Group:
        return Group(*([self._quality] if self._quality else []), self._now, self._bar)

    def waiting(self, what: str) -> None:
        note(what, everyone=True)

    def loading(self) -> None:
        note("loading maps, scenes and the text encoder")

    def start(self, samples: int, steps: int, done: int, parameters: int) -> None:
        before = f", {done} of them done before" if done else ""
        note(f"{samples} samples, {parameters / 1e6:.1f} M parameters, {steps} steps{before}")
        self._task = self._bar.add_task("step", total=steps, completed=done)

    def trained(self, step: int, epoch: float, loss: float, lr: float, samples_per_second: float) -> None:
        self._loss = loss
        if self._task is not None:
            self._bar.update(self._task, completed=step)
        self._now = Text(
            f"epoch {epoch:.2f}  loss {loss:.4f}  learning rate {lr:.2g}  {samples_per_second:.0f} samples/s"
        )

    def validated(self, step: int, epoch: int, quality: "Mapping[str, MapQuality]", best: bool) -> None:
        self._quality = quality_table(quality, f"after epoch {epoch}" + (", the best so far" if best else ""))
        if not self._shown:
            scores = ", ".join(f"{dataset} {100 * one.f1[min(one.f1)]:.0f}" for dataset, one in quality.items())
            note(f"epoch {epoch}: loss {self._loss:.4f}, top-5 F1 {scores}{'; best so far' if best else ''}")


def quality_table(quality: "Mapping[str, MapQuality]", title: str | None = None) -> Table:
    """Agreement with the extracted validation maps, a row a dataset."""
    tops = list(next(iter(quality.values())).f1)
    table = Table("validation", "KL", *(f"top-{k}\nF1" for k in tops), box=SIMPLE, title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for dataset, one in quality.items():
        table.add_row(dataset, f"{one.kl:.4f}", *(f"{100 * value:.1f}" for value in one.f1.values()))
    return table
