"""What an examination finds, and what a check is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fast3d_core.config import Config

if TYPE_CHECKING:
    from pathlib import Path

    from fast3d_core.doctor.case import Case

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Options:
    """What shall be examined.

    Attributes:
        load: reads the config; what it raises becomes a finding.
        methods: those that `fast3d eval` shall run, by name; empty for all.
        live: whether the GAP network predicts their maps during the run.
        deep: whether all bytes of the large files are read.
        log: called with what is being read.
    """

    load: Callable[[], Config]
    methods: Sequence[str] = ()
    live: bool = False
    deep: bool = False
    log: Callable[[str], None] = field(default=lambda _: None)


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        status: "error" for what stops `fast3d eval` or makes its numbers wrong, "warning" for what may be meant.
        what: what was found; do: what to do about it, empty where there is nothing to do.
        area: the config key it is about, or what else; the check's, see `Check`.
    """

    status: Status
    what: str
    do: str = ""
    area: str = ""


@dataclass(frozen=True)
class Check:
    """Something that is looked at.

    Attributes:
        area: of its findings.
        find: yields them. What a loader refuses may be left to raise: it becomes the last finding.
        do: what to do about a file that a loader refuses; status: how bad that is.
        reads: what it reads, logged while it does, where that may take seconds.
    """

    area: str
    find: "Callable[[Case], Iterator[Finding]]"
    do: str = ""
    status: Status = "error"
    reads: str = ""


@dataclass(frozen=True)
class ModelChecks:
    """What is looked at for one kind of scene model alone; see `SceneModel.checks`.

    Attributes:
        files: checks of its own files; prompts: of the questions' prompts; features: of the scenes' features; deep:
            those that read all bytes.
        large_files: the files whose bytes `--deep` checks; default: all that answers depend on.
    """

    files: "Sequence[Check]" = ()
    prompts: "Sequence[Check]" = ()
    features: "Sequence[Check]" = ()
    deep: "Sequence[Check]" = ()
    large_files: "Callable[[Case], Sequence[Path]]" = lambda case: case.model.files(case.config)


class NotCheckedError(Exception):
    """What a check needs could not be loaded, which another check has reported."""


def ok(what: str) -> Finding:
    return Finding("ok", what)


def warning(what: str, do: str) -> Finding:
    return Finding("warning", what, do)


def error(what: str, do: str) -> Finding:
    return Finding("error", what, do)
