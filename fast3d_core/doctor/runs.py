"""The runs folder: can results be written, and would earlier runs be continued?"""

import dataclasses
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fast3d_core.benchmarks import benchmark_names
from fast3d_core.doctor.case import Case
from fast3d_core.doctor.findings import Finding, error, ok, warning
from fast3d_core.errors import DataError, Fast3DError
from fast3d_core.evaluation.journal import VersionError, check_version
from fast3d_core.evaluation.questions import Job
from fast3d_core.evaluation.run import settings
from fast3d_core.evaluation.run_folder import SETTINGS_FILE
from fast3d_core.files.disk import in_units, need_space
from fast3d_core.files.files import load_json
from fast3d_core.files.fingerprints import differences
from fast3d_core.maps.kind import MAP_KINDS
from fast3d_core.pruning import METHODS, Pruner

_SAMPLE_BYTES = 4096  # of journal, prediction and statistics; kept tokens are the most of it


def folder(case: Case) -> Iterator[Finding]:
    """Whether files can be made there, and whether there is room for a run of each method."""
    runs = case.config.runs
    there = next(path for path in (runs, *runs.parents) if os.path.lexists(path))
    elsewhere = "name a folder of yours with --set runs=DIR"
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as problem:
        yield error(f"nothing can be written to {there} ({problem.strerror})", elsewhere)
        return
    samples = sum(len(case.samples(dataset)) for dataset in case.datasets)
    size = samples * _SAMPLE_BYTES * len(case.methods)
    need_space(runs, size)
    yield ok(f"{runs} can be written, and has room for some {in_units(size)} of results")


def earlier(case: Case) -> Iterator[Finding]:
    """Runs of the methods that are meant: `fast3d eval` continues one only with the settings and files it had."""
    runs, same = case.config.runs, 0
    for path in sorted(runs.glob(f"*/{SETTINGS_FILE}")):
        try:
            old = load_json(path, "runs")
            job = _job(case, path.parent, old)
            if job is None:
                continue
            size = case.config.eval.batch_size
            size = old.get("batch_size", 1) if size == "auto" else size  # auto takes what the run has
            now = settings(case.config, job, old["datasets"], old["limit"], case.device, size)
        except (Fast3DError, OSError):
            continue  # no run of ours, or a file is missing, which is reported elsewhere
        problem = _problem(path.parent, old, now)
        same += problem is None
        if problem is not None:
            # A method without settings has one name only, so the next run would be this one.
            certain = not dataclasses.fields(job.pruner) and job.name == job.pruner.name and _has_answers(path.parent)
            yield (error if certain else warning)(
                f"{job.name} {problem}",
                "`fast3d eval` will not continue it: give --name, or --restart to throw it away",
            )
    if same:
        yield ok(f"{same} earlier runs have the settings and files that the config names")


def _problem(folder: Path, old: Any, now: Any) -> str | None:
    """Why a run that has the settings `old` would not be continued with those of `now`; None where it would."""
    try:
        check_version(folder)
    except VersionError:
        return "was made by another version of fast3d"
    except DataError as damaged:
        return f"cannot be read: {damaged.what}"
    changed = differences(old, now)
    return f"was made with other settings or files: {', '.join(changed[:3])}" if changed else None


def _has_answers(folder: Path) -> bool:
    return any(part.stat().st_size for part in folder.glob("part-*.jsonl"))


def _job(case: Case, folder: Path, old: Any) -> Job | None:
    """The run that left these settings, on the config's maps; None where it is of no method that is meant."""
    method = METHODS.get(str(old.get("method"))) if isinstance(old, dict) else None
    if method is None or method.name not in case.methods:
        return None
    datasets = old.get("datasets")
    if not isinstance(datasets, list) or not all(name in benchmark_names() for name in datasets) or "limit" not in old:
        return None
    try:
        pruner: Pruner = method(**{field.name: old[field.name] for field in dataclasses.fields(method)})
    except (KeyError, TypeError, ValueError, ArithmeticError, Fast3DError):  # settings of a stranger's method
        return None
    live = "gap" in old
    maps = case.config.maps.predicted if pruner.needs_map and not live else None
    kind = next((kind for kind in MAP_KINDS if kind == old.get("map_kind")), None)
    return Job(folder.name, pruner, maps, str(old.get("map_key", "a_map")), live, kind)
