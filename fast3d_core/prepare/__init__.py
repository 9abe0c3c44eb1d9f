"""The published annotation files, made from the raw releases: what Chat-Scene's preprocess/ does, deterministically.

The wording is drawn at random there and here, so the published files' prompts differ where there are several.
Boxes and features are not made here; they come from `fast3d download annotations`.
"""

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fast3d_core.benchmarks import benchmark, usable_benchmarks
from fast3d_core.benchmarks.questions import annotation_file
from fast3d_core.config import DataConfig
from fast3d_core.data.annotations import locations_file
from fast3d_core.data.features import features_files
from fast3d_core.errors import DataError, UsageError
from fast3d_core.files.files import load_json, write_json
from fast3d_core.files.locks import sole_use
from fast3d_core.prepare.boxes import Boxes, objects_file
from fast3d_core.prepare.maker import Draft, RecordMaker, Task
from fast3d_core.prepare.raw import Releases, read_records
from fast3d_core.prepare.sizes import size_note

SPLITS = ("train", "val")


@dataclass(frozen=True)
class PreparedSplit:
    """A split of a dataset: what was read, and what became of it.

    Attributes:
        sources: the raw files; file: what they become.
        read: raw records; used: those that `records` were made of; dropped: how many were not, by reason.
        notes: what else was left out.
    """

    dataset: str
    split: str
    sources: list[str]
    file: str
    read: int
    used: int
    records: int
    dropped: dict[str, int]
    notes: list[str]


@dataclass(frozen=True)
class Missing:
    """A split of a dataset whose raw files are not there, and where to get them."""

    dataset: str
    split: str
    files: list[str]
    source: str


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made.

    Attributes:
        contents: what each file holds or is to hold.
        missing: what could not be made.
        lacking: files beside these that `fast3d eval` and `fast3d train-gap` read and that are not there.
        notes: what else there is to say.
    """

    folder: Path
    parts: list[PreparedSplit]
    contents: dict[Path, Any]
    missing: list[Missing]
    lacking: list[str]
    notes: list[str]

    def write(self, replace: bool = False) -> None:
        """Writes the files, each in one step; those that hold the same already are left alone.

        Raises `UsageError`, before anything is written, if a file is there with another content, unless `replace`, or
        if another command is at work in the folder.
        """
        if all(_holds(path, content) for path, content in self.contents.items()):
            return  # also where the folder is not ours to write
        with sole_use(self.folder, other="give --to another folder"):
            changed = [path for path, content in self.contents.items() if not _holds(path, content)]
            for path in changed:
                if path.exists() and not replace:
                    raise UsageError(
                        f"{path} is there with another content, the published one perhaps; give --to DIR for another "
                        "folder, or --replace"
                    )
            for path in changed:
                write_json(path, self.contents[path])


def prepare(
    raw: Path,
    folder: Path,
    datasets: Sequence[str] = (),
    splits: Sequence[str] = SPLITS,
    seed: int = 0,
    objects: int = DataConfig.max_objects,
) -> Prepared:
    """Converts the raw releases in `raw` to the annotation files of `folder`, without writing them yet.

    Args:
        raw: where the raw releases are, as they come or all in one folder.
        folder: the annotations folder; the published boxes are looked for there and then in `raw`.
        datasets: those to make, or else those that are there.
        seed: of the choice of wordings, and of answers where one of several is learnt.
        objects: slots of a scene, `data.max_objects`; boxes beyond have no name and are left out.

    Raises:
        DataError: a file is missing or damaged, a record malformed, or nothing is left of a file.
    """
    releases = Releases(raw)
    made: list[PreparedSplit] = []
    contents: dict[Path, Any] = {}
    missing: list[Missing] = []
    notes: list[str] = []
    makers = {dataset: record_maker(dataset) for dataset in datasets or _prepared()}
    for split in splits:
        boxes = Boxes(folder, releases, split, objects)
        for dataset, maker in makers.items():
            sources, absent = _sources(releases, maker, dataset, split)
            if absent:
                missing.append(absent)
                continue
            keys = [key for _, key in maker.files]
            files = tuple(read_records(path, key) for path, key in zip(sources, keys, strict=True))
            note = size_note(dataset, split, sources[-1], files[-1])
            notes += [note] if note and note not in notes else []
            task = Task(dataset, split, seed, files, boxes)
            draft = maker.convert(task)
            path = annotation_file(folder, dataset, split)
            made.append(_part(task, draft, sources, path))
            contents[path] = draft.records
            contents |= {folder / name: content for name, content in maker.beside(task).items()}
    _complain(releases, missing, bool(datasets), bool(made))
    for dataset in dict.fromkeys(part.dataset for part in made):
        lookups, remarks = makers[dataset].lookups(folder, releases)
        contents |= lookups
        notes += remarks
    return Prepared(folder, made, contents, missing, _lacking(folder, splits), notes)


def record_maker(dataset: str) -> RecordMaker:
    """What makes the annotation files of a dataset. Raises `UsageError` where nothing does."""
    where = benchmark(dataset).maker
    if where is None:
        raise UsageError(f"{dataset} is not made from a raw release: its package says where its files are")
    return pkgutil.resolve_name(where)()


def _prepared() -> list[str]:
    """The datasets that are made here."""
    return [one.name for one in usable_benchmarks() if one.maker]


def _sources(releases: Releases, maker: RecordMaker, dataset: str, split: str) -> tuple[list[Path], Missing | None]:
    names = [name.format(split=split) for name, _ in maker.files]
    found = {name: releases.find(name) for name in names}
    absent = [name for name, path in found.items() if path is None]
    if absent:
        return [], Missing(dataset, split, absent, maker.source)
    return [path for path in found.values() if path], None


def _part(task: Task, draft: Draft, sources: list[Path], path: Path) -> PreparedSplit:
    dropped = dict(sorted(draft.dropped.items()))
    if not draft.records:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in dropped.items())
        raise DataError(f"nothing is left of {sources[-1]}: {reasons}; is it of the {task.split} split?")
    return PreparedSplit(
        dataset=task.dataset,
        split=task.split,
        sources=[str(source) for source in sources],
        file=path.name,
        read=draft.read,
        used=draft.used,
        records=len(draft.records),
        dropped=dropped,
        notes=draft.notes,
    )


def _complain(releases: Releases, missing: list[Missing], asked: bool, some: bool) -> None:
    if missing and (asked or not some):
        first = missing[0]
        raise DataError(
            f"{releases.folder} has no {first.files[0]} ({first.dataset}, {first.split}); get it from {first.source}"
            + (", or choose others with --dataset and --split" if asked else "")
        )


def _lacking(folder: Path, splits: Sequence[str]) -> list[str]:
    boxes = [path for split in splits for path in (objects_file(folder, split), locations_file(folder, split))]
    return [path.name for path in (*boxes, *features_files(folder)) if not path.exists()]


def _holds(path: Path, content: Any) -> bool:
    try:
        return path.is_file() and load_json(path, "annotations") == content
    except DataError:  # something else, or damaged
        return False
