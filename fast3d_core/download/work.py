"""From the catalogue to files in place: what is missing is fetched to a hidden folder beside its place, checked there,
and moved when all of it is whole. A file that is there already is never overwritten."""

import filecmp
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fast3d_core.download.catalogue import ITEMS, Item
from fast3d_core.download.hub import HubFolder
from fast3d_core.download.settings import check_settings, set_keys
from fast3d_core.download.source import Log, RemoteFile, Source, UnavailableError, check_file, staged_bytes
from fast3d_core.errors import DataError, UsageError
from fast3d_core.files.disk import need_space
from fast3d_core.files.locks import sole_use


@dataclass(frozen=True)
class Planned:
    """What a download of an item would do.

    Attributes:
        to: the folder of the download.
        files: as its first source lists them; None where it does not before the download, or cannot be asked.
        missing: those of them that are not there with the right size.
        found: whether something of it is there, where there is no list.
        problem: why the first source could not be asked; the others are tried only when it comes to it.
    """

    item: Item
    to: Path
    files: tuple[RemoteFile, ...] | None
    missing: tuple[RemoteFile, ...]
    found: bool
    problem: str | None

    @property
    def folder(self) -> Path:
        """Where its files go."""
        return self.to / self.item.folder

    @property
    def size(self) -> int | None:
        """Bytes of all files; None where not known."""
        sizes = [file.size for file in self.files or ()]
        return sum(size or 0 for size in sizes) if sizes and None not in sizes else None

    @property
    def there(self) -> str:
        """What is already there, for people."""
        if self.files is None:
            return "something, not checked" if self.found else "no"
        done = len(self.files) - len(self.missing)
        return "no" if not done else "all" if not self.missing else f"{done} of {len(self.files)} files"


@dataclass(frozen=True)
class Outcome:
    """What became of an item: "downloaded", "there" (it was there before), or "failed" with the problem."""

    item: Item
    state: str
    path: Path
    problem: str | None = None


def plan_downloads(items: Sequence[Item], to: Path, revision: str | None, log: Log) -> list[Planned]:
    """What `download` with these arguments would do; Hugging Face is asked for sizes, Google Drive is not."""
    _check_revision(items, revision)
    return [_planned(item, to, revision, log) for item in items]


def download(items: Sequence[Item], to: Path, revision: str | None, log: Log, bars: bool = False) -> Iterator[Outcome]:
    """Downloads `items` to the folder `to` and makes its fast3d.yaml name them, one after the other.

    What was interrupted goes on where it stopped. One that fails is reported as such, and the next one follows.

    Args:
        to: an absolute path.
        revision: of the one repository at Hugging Face that is among `items`; None: its main branch.
        log: called with what people may want to know.
        bars: whether the libraries may draw progress bars on stderr.

    Raises `DataError` or `UsageError`, before anything is fetched, for a fast3d.yaml that is not valid, a revision that
    fits no item, a disk without the room, or another command at work in the folder.
    """
    with sole_use(to, other="say --to DIR"):
        planned = plan_downloads(items, to, revision, log)
        check_settings(to)
        need_space(to, sum(file.size or 0 for one in planned for file in one.missing) - _staged(planned))
        for one in planned:
            yield _outcome(one, revision, log, bars)


def _check_revision(items: Sequence[Item], revision: str | None) -> None:
    if revision is not None and (len(items) != 1 or not _sources(items[0], revision)):
        names = ", ".join(item.name for item in ITEMS.values() if _sources(item, "any"))
        raise UsageError(f"--revision is one of a repository at Hugging Face: name one of {names}")


def _sources(item: Item, revision: str | None) -> list[Source]:
    """Those that may be tried: only a repository has revisions."""
    return [source for source in item.sources if revision is None or isinstance(source, HubFolder)]


def _planned(item: Item, to: Path, revision: str | None, log: Log) -> Planned:
    folder = to / item.folder
    files, problem = None, None
    first = item.sources[0]
    if isinstance(first, HubFolder):
        try:
            files = tuple(first.listing(revision, log))
        except DataError as error:
            problem = str(error)
    missing = tuple(file for file in files or () if not _has_size(folder / file.name, file))
    return Planned(item, to, files, missing, _found(item, folder), problem)


def _has_size(path: Path, file: RemoteFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size


def _found(item: Item, folder: Path) -> bool:
    return any(path.stat().st_size for path in folder.glob(item.proof) if path.is_file())


def _stage(one: Planned) -> Path:
    """Inside the folder it is for, so that moving is renaming even where that folder is a disk of its own."""
    return one.folder / f".download-{one.item.name}"


def _staged(planned: Sequence[Planned]) -> int:
    return sum(staged_bytes(_stage(one)) for one in planned)


def _outcome(one: Planned, revision: str | None, log: Log, bars: bool) -> Outcome:
    item, path = one.item, one.to / one.item.value
    try:
        state = _get(one, revision, log, bars)
        kept = set_keys(one.to, {item.key: item.value})
    except DataError as problem:
        return Outcome(item, "failed", path, f"{item.name}: {problem}")
    if kept:
        log(f"fast3d.yaml: {item.key} is now {item.value}; the file as it was is {kept}")
    return Outcome(item, state, path)


def _get(one: Planned, revision: str | None, log: Log, bars: bool) -> str:
    """Brings one item into its place, from the first of its sources that gives it."""
    problems: list[str] = []
    sources = _sources(one.item, revision)
    for source in sources:
        try:
            files = one.files if one.files is not None and source is sources[0] else source.listing(revision, log)
            return _deliver(one, source, files, log, bars)
        except UnavailableError as problem:
            problems.append(str(problem))
            if source is not sources[-1]:
                log(f"{one.item.name}: {problem}; trying the next source")
        except DataError as problem:  # the same source may give it next time
            raise DataError("; ".join([*problems, str(problem)])) from None
    if _found(one.item, one.folder):
        log(f"{one.item.name}: {problems[0]}; what is in {one.folder} is taken as it is, not checked")
        return "there"
    links = " or ".join(dict.fromkeys(source.link for source in sources))
    raise DataError(
        f"{'; '.join(dict.fromkeys(problems))}. By hand: get it from {links}, put it at"
        f" {one.folder / one.item.proof}, and run the same command again"
    )


def _deliver(one: Planned, source: Source, files: Sequence[RemoteFile] | None, log: Log, bars: bool) -> str:
    """Fetches what is missing from one source and moves it into its place."""
    if files is not None:
        files = _missing(one.folder, files)
        if not files:
            shutil.rmtree(_stage(one), ignore_errors=True)  # of a download that was killed when all was in place
            return "there"
    stage = _stage(one) / str(one.item.sources.index(source))
    need_space(one.folder, sum(file.size or 0 for file in files or ()) - staged_bytes(stage))
    log(f"{one.item.name}: fetching from {source.title} to {one.folder}")
    stage.mkdir(parents=True, exist_ok=True)
    fetched = source.fetch(files, stage, log, bars)
    found = [path.relative_to(fetched) for path in sorted(fetched.rglob("*")) if path.is_file()]
    _move(fetched, one.folder, found if files is None else [Path(file.name) for file in files])
    shutil.rmtree(_stage(one))
    return "downloaded"


def _missing(folder: Path, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Those of `files` that are not in `folder`; `DataError` for one of another content under the same name."""
    missing = []
    for file in files:
        path = folder / file.name
        if not os.path.lexists(path):
            missing.append(file)
        elif not path.is_file() or (file.size is None and not path.stat().st_size):
            raise _in_the_way(path, "it is empty or no file")
        elif problem := check_file(path, file):
            raise _in_the_way(path, problem)
    return missing


def _move(fetched: Path, folder: Path, names: Sequence[Path]) -> None:
    """Moves files from one folder into another; nothing is moved where a file of another content is in the way."""
    pairs = [(fetched / name, folder / name) for name in names]
    new = [(path, target) for path, target in pairs if not os.path.lexists(target)]
    for path, target in pairs:
        if (path, target) not in new and not (target.is_file() and filecmp.cmp(path, target, shallow=False)):
            raise _in_the_way(target, "it has another content")
    for path, target in new:
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


def _in_the_way(path: Path, problem: str) -> DataError:
    return DataError(f"{path} is there already and is not the released file: {problem}; move it away, or say --to")
