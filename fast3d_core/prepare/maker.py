"""What a raw release becomes, and what of it is left out: a `RecordMaker` for each benchmark."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fast3d_core.benchmarks.wording import Wording
from fast3d_core.runtime.draws import seed_of

if TYPE_CHECKING:
    from fast3d_core.prepare.boxes import Boxes
    from fast3d_core.prepare.raw import RawRecord, Releases

EMPTY = "empty description"


class DroppedError(Exception):
    """A raw record that gives no record; the message is the reason, the same for all such records."""


@dataclass
class Draft:
    """The records that a split of a dataset gives.

    Attributes:
        records: in the published format and order.
        read: raw records; used: those of them that went into `records`; dropped: how many did not, by reason.
        notes: what else was left out.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    read: int = 0
    used: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def add(self, raw: "Sequence[RawRecord]", convert: Callable[..., list[dict[str, Any]]], *args: Any) -> None:
        """Adds `convert(*args)`, which becomes of raw records that are used, or dropped, together."""
        self.read += len(raw)
        try:
            self.records += convert(*args)
        except DroppedError as reason:
            self.dropped.update({str(reason): len(raw)} if raw else {})
        else:
            self.used += len(raw)


@dataclass(frozen=True)
class Task:
    """One split of one dataset, to be converted.

    Attributes:
        files: the raw records of each of the dataset's files.
        boxes: those of the split.
    """

    dataset: str
    split: str
    seed: int
    files: "tuple[list[RawRecord], ...]"
    boxes: "Boxes"

    def choose(self, among: Sequence[str], *what: object) -> str:
        """One of several texts, drawn by the seed for `what`, independently of all other draws."""
        return among[seed_of("prepare", self.seed, self.dataset, self.split, *what) % len(among)]

    def prompt(self, wording: Wording, about: str, *what: object) -> str:
        """The prompt about something, in one of the benchmark's wordings, drawn as `choose` does."""
        return wording.prompt(about, self.choose(wording.templates, *what))


class RecordMaker(ABC):
    """Makes a benchmark's annotation files; `Benchmark.maker` names it.

    Attributes:
        files: the raw files of a split, as "name_{split}.json", each with the key that its records are under, or None.
        source: where to get them.
    """

    files: ClassVar[tuple[tuple[str, str | None], ...]]
    source: ClassVar[str]

    @abstractmethod
    def convert(self, task: Task) -> Draft:
        """The records of a split."""

    def beside(self, task: Task) -> dict[str, Any]:
        """What else is made of the same raw records: contents by file name."""
        return {}

    def lookups(self, folder: Path, releases: "Releases") -> tuple[dict[Path, Any], list[str]]:
        """What is made once of all splits that are there, for the annotations `folder`, and notes for the user."""
        return {}, []
