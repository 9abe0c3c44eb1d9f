"""Free space on a disk, and sizes as people read them."""

import shutil
from pathlib import Path

from fast3d_core.errors import DataError

_RESERVE = 100 * 10**6
"""Bytes of disk that stay free: whoever fills a disk to the last byte breaks what else runs on the machine."""


class FullDiskError(DataError):
    """The disk has too little free space, or refuses what is written: another source would not help."""


def need_space(folder: Path, size: int) -> None:
    """Raises `FullDiskError` when the disk under `folder`, which need not exist, lacks `size` bytes and a reserve."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if size > 0 and free < size + _RESERVE:
        raise FullDiskError(
            f"{folder}: {in_units(size)} are needed and {in_units(free)} of the disk are free; make room"
        )


def in_units(size: int) -> str:
    """A size for people: 13.5 GB."""
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if size >= 1000**power:
            return f"{size / 1000**power:.1f} {unit}"
    return f"{size} bytes"
