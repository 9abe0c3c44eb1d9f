"""The journal of a run: what was answered so far, appended batch by batch, so that a killed run continues.

A run folder holds `settings.json`, which says what the journal's answers depend on, and one `part-SSS-RR.jsonl` for
each session and process. A line is one batch; a batch counts once its line is whole.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from fast3d_core.errors import DataError, UsageError
from fast3d_core.evaluation.run_folder import (
    PART,
    PREDICTIONS,
    SETTINGS_FILE,
    check_free,
    finish_removal,
    parts,
    read_settings,
    remove_run,
)
from fast3d_core.files.files import need_file, parse_json, write_json
from fast3d_core.files.fingerprints import differences
from fast3d_core.files.temporary import remove_left
from fast3d_core.files.typed import STRICT, FieldError, parse_typed, to_json
from fast3d_core.plan import layer_counts

VERSION: Literal[2] = 2
"""Of the lines. Those of version 1 had one layer and one set of kept tokens, and did not name their version."""

_Index = Annotated[int, Field(ge=0, lt=2**63)]  # as all integers in files
_Count = Annotated[int, Field(ge=0, lt=10**6)]  # more tokens than any LLM reads
_Seconds = Annotated[float, Field(ge=0)]

Stages = tuple[tuple[_Count, tuple[_Count, ...] | None], ...]
"""The stages of pruning that were carried out, in order: the layer from which on a stage holds, and the visual tokens
that are kept, as ascending offsets into all visual tokens of the sample; None where all are kept."""


@dataclass(frozen=True)
class Entry:
    """A sample that was answered: all that predictions, costs and reports are made from.

    Attributes:
        dataset, index: the sample, by its position in the dataset's annotations.
        pred: the answer.
        tokens: length of the prompt before pruning; steps: tokens generated until the sample was done.
        stages: what was pruned.
        cached: prompt tokens of the scene's prefix that were computed apart from the question; 0 without scene reuse.
        gap_flops: of predicting the map; None where no map was predicted for this answer.
        kept: offsets of the visual tokens that the last layer saw; None for all. It follows from the stages, whatever
            is given, and stands in the lines for whoever reads these without knowing of stages.
    """

    __pydantic_config__ = STRICT

    dataset: str
    index: _Index
    pred: str
    tokens: _Count
    steps: _Count
    stages: Stages
    cached: _Count = 0
    gap_flops: float | None = None
    kept: tuple[_Count, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kept", self.stages[-1][1] if self.stages else None)

    def counts(self, layers: int, visual: int) -> list[int]:
        """How many of `visual` visual tokens each of `layers` layers saw."""
        return layer_counts(
            layers, visual, [(layer, visual if kept is None else len(kept)) for layer, kept in self.stages]
        )


@dataclass(frozen=True)
class _Line:
    """A batch that is done.

    Attributes:
        seconds: since the batch before; gap_seconds: of predicting maps.
    """

    __pydantic_config__ = STRICT

    version: Literal[2]
    batch: _Index
    seconds: _Seconds
    gap_seconds: _Seconds
    samples: tuple[Entry, ...]


class VersionError(UsageError):
    """A run folder holds answers of another version of fast3d."""


def begun_with(folder: Path) -> dict[str, Any] | None:
    """The settings of the run in a folder; None where there is none, or none that has answered anything."""
    return read_settings(folder) if Journal(folder, {}).batches() else None


def check_version(folder: Path) -> None:
    """Raises `VersionError` where another version of fast3d wrote the answers in a run folder, `DataError` where they
    are damaged, as far as the first whole line of each part shows."""
    for path in parts(folder):
        next(_lines(path), None)


class Journal:
    """The parts in one run folder.

    Args:
        folder: the run folder.
        settings: plain data; everything that the answers depend on.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self.folder = folder
        self.settings = dict(settings)

    def open(self, *, restart: bool = False) -> None:
        """Makes the folder, or checks that it holds the same run. One process calls this, which has the folder to
        itself (`sole_use`).

        Args:
            restart: remove the run that is there, and no other files.

        Raises:
            UsageError: the folder holds a run with other settings and `restart` is not set, or something else.
            DataError: the folder cannot be written.
        """
        if (self.folder / PREDICTIONS).is_symlink():
            raise DataError(f"{self.folder / PREDICTIONS} is a link, and what it leads to is not written; remove it")
        try:
            remove_left(self.folder / PREDICTIONS)
            finish_removal(self.folder)
            if restart:
                remove_run(self.folder)
            if not self._is_there():
                self.folder.mkdir(parents=True, exist_ok=True)
                write_json(self.folder / SETTINGS_FILE, self.settings)
        except OSError as error:
            raise _unwritable(self.folder, error) from None

    def _is_there(self) -> bool:
        """Whether the folder holds this run; `UsageError` where it holds answers of another one, or others' files."""
        old = read_settings(self.folder)
        if old is None:
            check_free(self.folder)
            return False
        changed, answered = differences(old, self.settings), bool(self.batches())
        if changed and answered:
            raise UsageError(
                f"{self.folder} holds a run with other settings ({', '.join(changed[:4])}); choose another --name, or "
                "--restart to start over"
            )
        return not changed

    def batches(self) -> dict[int, tuple[Entry, ...]]:
        """The samples of each batch that is done, by its number.

        Raises:
            VersionError: they were written by another version of fast3d.
            DataError: a part cannot be read, or an entry is damaged.
        """
        return {line.batch: line.samples for lines in self._parts().values() for line in lines}

    def seconds(self) -> tuple[float, float]:
        """Time spent answering, and time in which GAP predicted maps: for each session those of its slowest process,
        added up."""
        sessions: dict[int, list[tuple[float, float]]] = {}
        for (session, _), lines in self._parts().items():
            times = sum(line.seconds for line in lines), sum(line.gap_seconds for line in lines)
            sessions.setdefault(session, []).append(times)
        slowest = [max(processes) for processes in sessions.values()]
        return sum(t for t, _ in slowest), sum(g for _, g in slowest)

    def next_session(self) -> int:
        """The number of the session that starts now; every process asks before any of them appends."""
        return max((session for session, _ in self._parts()), default=-1) + 1

    def append(
        self,
        session: int,
        process: int,
        batch: int,
        seconds: float,
        samples: Sequence[Entry],
        gap_seconds: float = 0.0,
    ) -> None:
        """Adds one batch, on disk when this returns: `seconds` since the one before, `gap_seconds` of predicting."""
        path = self.folder / f"part-{session:03}-{process:02}.jsonl"
        line = to_json(_Line(VERSION, batch, round(seconds, 6), round(gap_seconds, 6), tuple(samples)))
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(self.folder, error) from None

    def _parts(self) -> dict[tuple[int, int], list[_Line]]:
        """(session, process) -> its lines."""
        found = {}
        for path in parts(self.folder):
            if name := PART.fullmatch(path.name):
                found[int(name[1]), int(name[2])] = list(_lines(path))
        return found


def _lines(path: Path) -> Iterator[_Line]:
    """The lines of a part; one that is no line of a journal counts as not done, like what a kill cut short."""
    need_file(path, "run")  # to open a pipe is to wait for it
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    for number, line in enumerate(text.split("\n"), 1):  # not at U+2028 and the like
        try:
            yield parse_typed(_Line, line)
        except FieldError as error:
            _check_line(path, number, line, error)


def _check_line(path: Path, number: int, line: str, error: FieldError) -> None:
    """Raises `VersionError` for a line of another version, and `DataError` for one with a damaged entry."""
    try:
        found = parse_json(line)
    except ValueError:
        return
    if not isinstance(found, dict) or not {"batch", "seconds", "samples"} <= found.keys():
        return
    if found.get("version") != VERSION:
        raise VersionError(
            f"{path.parent} holds a run of another version of fast3d, which this one does not continue; start over "
            "with --restart, or choose another --name"
        )
    if len(error.location) > 2:  # samples, the position of an entry, its field
        raise DataError(
            f"the journal {path} is damaged: line {number}: {error}",
            "run `fast3d eval` again with --restart, or under another --name",
        )


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"{folder} cannot be written ({error.strerror or error}); what is there is kept: "
        "make room or give permission and run the same command again, or choose another folder with --set runs=DIR"
    )
