"""The folder in which `fast3d demo` runs the pipeline: config, how it was made, and the removal of its own files."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fast3d_core.errors import DataError, UsageError
from fast3d_core.evaluation.found_alpha import ALPHA_FILE
from fast3d_core.evaluation.run_folder import finish_removal, remove_run
from fast3d_core.files.files import atomic_write, load_json, write_json
from fast3d_core.files.locks import LOCK_FILE, sole_use
from fast3d_core.files.temporary import is_temporary
from fast3d_core.gap.training.state import BEST_FILE, LAST_FILE, LOG_FILE
from fast3d_core.maps.ledger import PREDICTED_FILE, is_ours, read_ledger
from fast3d_core.maps.store import remove_store

MADE_BY = "demo.json"
"""Written first: whatever else is there, the folder is a demo's."""

_CONFIG = "fast3d.yaml"
_REMOVED = ".demo.json.removed"
"""What demo.json becomes when the removal begins. It stays until there is a new one: if the command is killed, the next
one goes on with the removal."""

_PREDICTED, _EXTRACTED, _NETWORK, _RUNS = "outputs/pred_attn_maps", "outputs/infer_attn_maps", "outputs/gap", "runs"


@contextlib.contextmanager
def workspace(folder: Path, made_by: dict[str, Any], config: str, *, restart: bool = False) -> Iterator[None]:
    """Makes the folder, or goes on with it, and keeps other demos out while the block runs.

    Args:
        made_by: what all that is made in it depends on, as plain data.
        config: the text of its fast3d.yaml; one that is there is left as it is.
        restart: remove what an earlier demo made, and no other files.

    Raises:
        UsageError: the folder holds something else, or a demo that was made by other settings.
    """
    made, removed = folder / MADE_BY, folder / _REMOVED
    if folder.exists() and not made.exists() and not removed.exists() and not _is_free(folder):
        raise UsageError(f"{folder} is there and holds no demo; name another folder with --out")
    with sole_use(folder, other="name another folder with --out"):
        found = load_json(made, "the demo's folder") if made.exists() else made_by
        if not isinstance(found, dict) or set(found) != set(made_by):
            raise UsageError(f"{made} is not of `fast3d demo`; name another folder with --out")
        if made.exists() and restart:
            made.replace(removed)
            found = made_by
        if removed.exists():
            _remove_files(folder)
        if found != made_by:
            changed = [key for key in made_by if found.get(key) != made_by[key]]
            raise UsageError(
                f"{folder} holds a demo that was made otherwise ({', '.join(changed)}); throw it away with --restart, "
                "or keep both with --out DIR"
            )
        write_json(made, made_by)
        removed.unlink(missing_ok=True)  # now that demo.json says whose the folder is
        if not (folder / _CONFIG).exists():
            with atomic_write(folder / _CONFIG) as file:
                file.write(config)
        yield


def _is_free(folder: Path) -> bool:
    """Whether it holds nothing but what a killed demo may have left before its first file was there."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else [""]
    return all(name == LOCK_FILE or is_temporary(name) for name in names)


def _remove_files(folder: Path) -> None:
    """Removes what the demo's commands write; refused while one of them is at work there."""
    runs = [path for path in (folder / _RUNS).glob("*") if path.is_dir() and not path.is_symlink()]
    inner = [path for path in (*runs, *(folder / name for name in (_PREDICTED, _EXTRACTED, _NETWORK))) if path.is_dir()]
    with sole_use(*inner, other="name another folder with --out"):
        for run in runs:
            with contextlib.suppress(UsageError, DataError):  # not a run of ours: it stays
                finish_removal(run)
                remove_run(run)
        _remove_predicted(folder / _PREDICTED)
        if load_json(folder / _REMOVED, "the demo's folder").get("from_scratch"):  # else it made none of these
            remove_store(folder / _EXTRACTED)
            for name in (LAST_FILE, BEST_FILE, LOG_FILE):
                (folder / _NETWORK / name).unlink(missing_ok=True)
        for name in (f"{_RUNS}/{ALPHA_FILE}", _CONFIG):
            (folder / name).unlink(missing_ok=True)
        for path in inner:
            _remove_if_empty(path)
    for name in (_RUNS, "outputs"):
        _remove_if_empty(folder / name)


def _remove_predicted(folder: Path) -> None:
    for name, entry in read_ledger(folder, damaged_ok=True).items():
        path = folder / f"infer_attn_maps_{name.replace('/', '_')}.pt"
        if path.parent == folder and is_ours(entry, path):
            path.unlink()
    (folder / PREDICTED_FILE).unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    """Removes a folder in which nothing is left but its lock."""
    left = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
    if left <= {LOCK_FILE}:
        (folder / LOCK_FILE).unlink(missing_ok=True)
        folder.rmdir()
