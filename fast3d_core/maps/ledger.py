"""Which map files fast3d left in a folder, and what they depend on: only these may it replace.

An entry is written before its file is: it names the new file and, as "replaces", the one that was there. So a kill
between the two leaves a file that is known, whichever it is.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fast3d_core.errors import DataError, UsageError
from fast3d_core.files.files import atomic_path, load_json, write_json
from fast3d_core.files.fingerprints import content_fingerprint, fingerprint
from fast3d_core.maps.published import map_file

PREDICTED_FILE = "predicted.json"
EXPORTED_FILE = "exported.json"


def read_ledger(folder: Path, *, damaged_ok: bool = False) -> dict[str, Any]:
    """What was predicted into the folder: "split/dataset" -> what it depends on and, as "map", the file's fingerprint.

    Raises `DataError` when it is damaged, unless that is `damaged_ok`: then nothing in the folder counts as ours.
    """
    path = folder / PREDICTED_FILE
    if not path.exists():
        return {}
    try:
        content = load_json(path, "maps.predicted")
        if not isinstance(content, dict):
            raise DataError(f"{path} is damaged; predict again with --restart")
    except DataError:
        if not damaged_ok:
            raise
        return {}
    return content


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
    found = entry.get("checkpoint") if isinstance(entry, dict) else None
    return found if isinstance(found, str) and is_written(entry, map_file(folder, dataset, split)) else None


def is_ours(entry: Any, path: Path) -> bool:
    """Whether the map file at `path` is the one that an entry of the ledger is about, or the one that it replaces.

    Once, the entries of exported files were their fingerprints.
    """
    known = [entry.get("map"), entry.get("replaces")] if isinstance(entry, dict) else [entry]
    return path.is_file() and fingerprint(path, whole=True) in known


def is_written(entry: Any, path: Path) -> bool:
    """Whether the map file at `path` is the one that an entry of the ledger is about, and not the one before."""
    return isinstance(entry, dict) and path.is_file() and entry.get("map") == fingerprint(path, whole=True)


def write_known(
    ledger: Path, known: dict[str, Any], name: str, entry: dict[str, Any], path: Path, content: bytes
) -> None:
    """Writes a map file, and before that what is known of it.

    Args:
        ledger: the file that keeps `known`, in which `name` becomes `entry` with the file's fingerprint.
    """
    before = {"replaces": fingerprint(path, whole=True)} if path.is_file() else {}
    known[name] = {**entry, "map": content_fingerprint(content), **before}
    write_json(ledger, known)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    settle(ledger, known, name, path)


def settle(ledger: Path, known: dict[str, Any], name: str, path: Path) -> None:
    """Forgets what a map file has replaced, now that it is there: put back by hand, that is not ours."""
    entry = known.get(name)
    if isinstance(entry, dict) and "replaces" in entry and is_written(entry, path):
        known[name] = {key: value for key, value in entry.items() if key != "replaces"}
        write_json(ledger, known)


def predicted_entries(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Of each map file that was predicted into the folder: "split/dataset", its fingerprint, and its questions'."""
    for part, entry in read_ledger(folder, damaged_ok=True).items():
        if isinstance(entry, dict):
            yield from _texts(part, entry.get("map"), entry.get("annotations"))


def exported_entries(folder: Path) -> Iterator[tuple[str, str, str]]:
    """The same of those that were exported."""
    for entry in read_exported(folder).values():
        if isinstance(entry, dict):
            yield from _texts(entry.get("part"), entry.get("map"), entry.get("annotations"))


def _texts(*values: Any) -> Iterator[tuple[str, str, str]]:
    part, written, annotations = values
    if isinstance(part, str) and isinstance(written, str) and isinstance(annotations, str):
        yield part, written, annotations


def read_exported(folder: Path) -> dict[str, Any]:
    """What was exported into the folder: file name -> "map", its fingerprint, "part", "split/dataset", and
    "annotations", the fingerprint of its questions. Empty where it cannot be read: then the files count as somebody
    else's."""
    try:
        content = load_json(folder / EXPORTED_FILE, "--export")
    except DataError:
        return {}
    return content if isinstance(content, dict) else {}
