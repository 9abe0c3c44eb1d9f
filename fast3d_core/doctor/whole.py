"""Files as wholes: what interrupted downloads left, and, with `deep`, every byte of the large ones."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

from fast3d_core.data.features import FEATURES_2D, FEATURES_3D
from fast3d_core.doctor.case import Case
from fast3d_core.doctor.findings import Finding, error, ok, warning
from fast3d_core.files.digests import check_digest
from fast3d_core.files.disk import in_units
from fast3d_core.files.files import unfinished

_AGAIN = "download it again"


def leftovers(case: Case) -> Iterator[Finding]:
    """Parts of files beside those that the config names."""
    config = case.config
    folders = [config.model.llm, config.model.checkpoint.parent, config.data.annotations]
    folders += [config.maps.predicted, config.maps.targets, config.gap.checkpoint.parent]
    folders += [config.gap.text_encoder] if isinstance(config.gap.text_encoder, Path) else []
    parts = [part for folder in dict.fromkeys(folders) if folder.is_dir() for part in unfinished(folder)]
    for part in parts:
        yield warning(f"{part} is what a download left that did not finish", "run the download again, or delete it")
    if not parts:
        yield ok("no downloads that did not finish")


def checksums(case: Case) -> Iterator[Finding]:
    """Weights, checkpoint and features against what Hugging Face said of them, and their own checksums."""
    files = [*case.model_checks.large_files(case)]
    files += [case.annotations / name for name in (FEATURES_3D, FEATURES_2D)]
    known = 0
    for path in files:
        if not path.is_file():
            continue  # reported by the check that needs it
        case.options.log(f"reading {path.name} ({in_units(path.stat().st_size)})")
        digest = _digest_of(path)
        known += digest is not None
        if digest and (problem := check_digest(path, digest)):
            yield error(f"{path.name} is not the file that Hugging Face has: {problem}", _AGAIN)
        elif problem := _damaged(path):
            yield error(f"{path.name} is damaged: {problem}", _AGAIN)
    yield ok(f"read {len(files)} files, {known} of them with a checksum of Hugging Face's")


def _digest_of(path: Path) -> str | None:
    """What Hugging Face said the file is, as huggingface_hub keeps it: by the cache's file name, or beside a folder."""
    blob = path.resolve()
    if blob.parent.name == "blobs":
        return _digest(blob.name)
    metadata = path.parent / ".cache" / "huggingface" / "download" / f"{path.name}.metadata"
    if not metadata.is_file():
        return None
    try:
        lines = metadata.read_text().splitlines()  # commit, etag, time
    except (OSError, ValueError):
        return None
    return _digest(lines[1]) if len(lines) > 1 else None


def _digest(etag: str) -> str | None:
    kind = {64: "sha256", 40: "git"}.get(len(etag))
    return f"{kind}:{etag}" if kind else None


def _damaged(path: Path) -> str | None:
    """Which part of a zip archive, as torch writes them, does not have its checksum."""
    if path.suffix not in (".bin", ".pth", ".pt") or not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as problem:
        return str(problem)
    return None if part is None else f"{part} does not have its checksum"
