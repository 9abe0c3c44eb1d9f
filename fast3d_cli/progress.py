"""Progress of an evaluation run on stderr: samples done, samples/s, time left, per dataset."""

from collections.abc import Sequence
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fast3d_cli.console import err, note
from fast3d_core.runtime.launcher import is_first


class _Rate(ProgressColumn):
    """Samples per second, as rich measures it over the last moments."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} samples/s")


class RunProgress:
    """One bar per dataset and run. Where stderr is no terminal, a line when a dataset begins.

    Of several processes the first one prints.
    """

    def __init__(self, verbose: bool = False) -> None:
        self.verbose = verbose
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=err,
            speed_estimate_period=1800,  # a batch may take minutes
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def __enter__(self) -> "RunProgress":
        if err.is_terminal and is_first():
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if err.is_terminal and is_first():
            self._bars.stop()

    def waiting(self, what: str) -> None:
        note(what, everyone=True)

    def loading(self) -> None:
        note("loading the model")

    def loaded(self, ignored: Sequence[str]) -> None:
        if self.verbose:
            note(f"not used from the checkpoint: {', '.join(ignored) or 'nothing'}")

    def sized(self, run: str, batch_size: int) -> None:
        note(f"{run}: {batch_size} samples a batch (eval.batch_size is auto)")

    def start(self, run: str, dataset: str, total: int, done: int) -> None:
        if err.is_terminal:
            self._tasks[run, dataset] = self._bars.add_task(f"{run} {dataset}", total=total, completed=done)
        else:
            note(f"{run} {dataset}: {total} samples" + (f", {done} of them done before" if done else ""))

    def advance(self, run: str, dataset: str, samples: int) -> None:
        if err.is_terminal:
            self._bars.advance(self._tasks[run, dataset], samples)
