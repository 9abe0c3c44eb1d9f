"""Which map files fast3d left in a folder, and what they depend on: only these may it replace.

An entry is written before its file is: it names the new file and, as "replaces", the one that was there. So a kill
between the two leaves a file that is known, whichever it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from fast3d_core.errors import DataError, UsageError
from fast3d_core.files.files import atomic_path, write_json
from fast3d_core.files.fingerprints import content_fingerprint, fingerprint
from fast3d_core.files.typed import KEEPING, load_typed
from fast3d_core.maps.published import map_file

PREDICTED_FILE = "predicted.json"
EXPORTED_FILE = "exported.json"


class LedgerEntry(TypedDict, total=False):
    """What is known of a map file; what else its maps depend on is kept as it is.

    Attributes:
        map: the file's fingerprint; replaces: that of the file that was there, until this one is.
        part: "split/dataset" of an exported file; annotations: the fingerprint of its questions.
        checkpoint: the fingerprint of the network that predicted it.
    """

    __pydantic_config__ = KEEPING  # type: ignore[misc]

    map: str
    replaces: str
    part: str
    annotations: str
    checkpoint: str


Ledger = dict[str, LedgerEntry]


def read_ledger(folder: Path, *, damaged_ok: bool = False) -> Ledger:
    """What was predicted into the folder: "split/dataset" -> what it depends on and, as "map", the file's fingerprint.

    Raises `DataError` when it is damaged, unless that is `damaged_ok`: then nothing in the folder counts as ours.
    """
    path = folder / PREDICTED_FILE
    if not path.exists():
        return {}
    try:
        return load_typed(Ledger, path, "maps.predicted", "predict again with --restart")
    except DataError:
        if not damaged_ok:
            raise
        return {}


def check_folder(folder: Path, parts: Sequence[tuple[str, str]]) -> None:
    """Raises `UsageError` if the map file of a (split, dataset) is there and is not what `predict_maps` left there."""
    known = read_ledger(folder)
    for split, dataset in parts:
        path = map_file(folder, dataset, split)
        if path.exists() and not is_ours(known.get(f"{split}/{dataset}"), path):
            raise UsageError(
                f"{folder} holds maps that fast3d did not write ({path.name}); "
                "give --maps DIR, or --restart to replace them"
            )


def checkpoint_of(folder: Path, split: str, dataset: str) -> str | None:
    """The fingerprint of the network that predicted a dataset's maps; None if these are not ours."""
    entry = read_ledger(folder, damaged_ok=True).get(f"{split}/{dataset}")
    return entry.get("checkpoint") if entry and is_written(entry, map_file(folder, dataset, split)) else None


def is_ours(entry: LedgerEntry | None, path: Path) -> bool:
    """Whether the map file at `path` is the one that an entry of the ledger is about, or the one that it replaces."""
    known = [] if entry is None else [entry.get("map"), entry.get("replaces")]
    return path.is_file() and fingerprint(path, whole=True) in known


def is_written(entry: LedgerEntry | None, path: Path) -> bool:
    """Whether the map file at `path` is the one that an entry of the ledger is about, and not the one before."""
    return entry is not None and path.is_file() and entry.get("map") == fingerprint(path, whole=True)


def depends_on(entry: LedgerEntry) -> dict[str, Any]:
    """What a map file depends on, without the file itself."""
    return {key: value for key, value in entry.items() if key not in ("map", "replaces")}


def write_known(ledger: Path, known: Ledger, name: str, entry: Mapping[str, Any], path: Path, content: bytes) -> None:
    """Writes a map file, and before that what is known of it.

    Args:
        ledger: the file that keeps `known`, in which `name` becomes `entry` with the file's fingerprint.
    """
    before = {"replaces": fingerprint(path, whole=True)} if path.is_file() else {}
    known[name] = cast(LedgerEntry, {**entry, "map": content_fingerprint(content), **before})
    write_json(ledger, known)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    settle(ledger, known, name, path)


def settle(ledger: Path, known: Ledger, name: str, path: Path) -> None:
    """Forgets what a map file has replaced, now that it is there: put back by hand, that is not ours."""
    entry = known.get(name)
    if entry is not None and "replaces" in entry and is_written(entry, path):
        del entry["replaces"]
        write_json(ledger, known)


def predicted_entries(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Of each map file that was predicted into the folder: "split/dataset", its fingerprint, and its questions'."""
    for part, entry in read_ledger(folder, damaged_ok=True).items():
        if "map" in entry and "annotations" in entry:
            yield part, entry["map"], entry["annotations"]


def exported_entries(folder: Path) -> Iterator[tuple[str, str, str]]:
    """The same of those that were exported."""
    for entry in read_exported(folder).values():
        if "part" in entry and "map" in entry and "annotations" in entry:
            yield entry["part"], entry["map"], entry["annotations"]


def read_exported(folder: Path) -> Ledger:
    """What was exported into the folder: file name -> its fingerprint, its part, and the fingerprint of its questions.
    Empty where it cannot be read: then the files count as somebody else's.

    Once, an entry was the file's fingerprint alone.
    """
    try:
        found = load_typed(dict[str, LedgerEntry | str], folder / EXPORTED_FILE, "--export", "")
    except DataError:
        return {}
    return {name: LedgerEntry(map=entry) if isinstance(entry, str) else entry for name, entry in found.items()}
