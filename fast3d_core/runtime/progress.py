"""How work reports its progress: the command line shows it, a library user may pass something else."""

from collections.abc import Sequence
from typing import Protocol


class Progress(Protocol):
    """What a run reports while it goes on."""

    def waiting(self, what: str) -> None:
        """This process waits for the others, `what` says for which; called by each process that waits."""

    def loading(self) -> None:
        """The model is being loaded."""

    def loaded(self, ignored: Sequence[str]) -> None:
        """It is; `ignored` are tensors of the checkpoint that are not used."""

    def sized(self, run: str, batch_size: int) -> None:
        """How many samples a batch of the run holds, where that was left to fast3d."""

    def start(self, run: str, dataset: str, total: int, done: int) -> None:
        """A dataset of a run begins, `done` of its `total` samples answered before."""

    def advance(self, run: str, dataset: str, samples: int) -> None:
        """More samples are answered."""


class Silent(Progress):
    """Tells nobody."""

    def waiting(self, what: str) -> None:
        return

    def loading(self) -> None:
        return

    def loaded(self, ignored: Sequence[str]) -> None:
        return

    def sized(self, run: str, batch_size: int) -> None:
        return

    def start(self, run: str, dataset: str, total: int, done: int) -> None:
        return

    def advance(self, run: str, dataset: str, samples: int) -> None:
        return
