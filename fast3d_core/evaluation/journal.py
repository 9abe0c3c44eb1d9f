"""The journal of a run: what was answered so far, appended batch by batch, so that a killed run continues.

A run folder holds `settings.json`, which says what the journal's answers depend on, and one `part-SSS-RR.jsonl` for
each session and process. A line is one batch; a batch counts once its line is whole.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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


def begun_with(folder: Path) -> dict[str, Any] | None:
    """The settings of the run in a folder; None where there is none, or none that has answered anything."""
    return read_settings(folder) if Journal(folder, {}).batches() else None


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
        changed = differences(old, self.settings)
        if changed and self.batches():
            raise UsageError(
                f"{self.folder} holds a run with other settings ({', '.join(changed[:4])}); choose another --name, or "
                "--restart to start over"
            )
        return not changed

    def batches(self) -> dict[int, list[dict[str, Any]]]:
        """The samples of each batch that is done: batch number -> one dict a sample."""
        return {line["batch"]: line["samples"] for lines in self._parts().values() for line in lines}

    def seconds(self) -> tuple[float, float]:
        """Time spent answering, and time in which GAP predicted maps: for each session those of its slowest process,
        added up."""
        sessions: dict[int, list[tuple[float, float]]] = {}
        for (session, _), lines in self._parts().items():
            times = [(line["seconds"], line.get("gap_seconds", 0.0)) for line in lines]
            sessions.setdefault(session, []).append((sum(t for t, _ in times), sum(g for _, g in times)))
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
        samples: list[dict[str, Any]],
        gap_seconds: float = 0.0,
    ) -> None:
        """Adds one batch, on disk when this returns: `seconds` since the one before, `gap_seconds` of predicting."""
        path = self.folder / f"part-{session:03}-{process:02}.jsonl"
        times = {"seconds": round(seconds, 6), "gap_seconds": round(gap_seconds, 6)}
        line = json.dumps({"batch": batch, **times, "samples": samples}, ensure_ascii=False)
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(self.folder, error) from None

    def _parts(self) -> dict[tuple[int, int], list[dict[str, Any]]]:
        """(session, process) -> its lines."""
        found = {}
        for path in parts(self.folder):
            if name := PART.fullmatch(path.name):
                found[int(name[1]), int(name[2])] = list(_lines(path))
        return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a part: what is damaged counts as not done, like what a kill cut short."""
    need_file(path, "run")  # to open a pipe is to wait for it
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    for line in text.split("\n"):  # not at U+2028 and the like
        try:
            value = parse_json(line)
        except ValueError:
            continue
        if isinstance(value, dict) and _is_batch(value):
            yield value


def _is_batch(line: dict[str, Any]) -> bool:
    """Whether it is what `append` writes, as far as the journal knows."""
    number, samples = line.get("batch"), line.get("samples")
    times = (line.get("seconds"), line.get("gap_seconds", 0.0))
    return (
        isinstance(number, int)
        and number >= 0
        and all(isinstance(seconds, (int, float)) and seconds >= 0 for seconds in times)
        and isinstance(samples, list)
        and all(isinstance(sample, dict) for sample in samples)
    )


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"{folder} cannot be written ({error.strerror or error}); what is there is kept: "
        "make room or give permission and run the same command again, or choose another folder with --set runs=DIR"
    )
