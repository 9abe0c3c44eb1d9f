"""Unpacking a zip archive from a stranger."""

import contextlib
import shutil
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fast3d_core.download.source import safe_name
from fast3d_core.errors import DataError, Fast3DError
from fast3d_core.files.disk import FullDiskError, need_space

MAX_BYTES = 40 * 10**9
"""Unpacked, an archive with more is none of ours: the whole data set of Chat-Scene has about 7 GB."""

MAX_FILES = 20_000


def unpack(archive: Path, folder: Path) -> Path:
    """Unpacks a zip archive to `folder`, which is emptied first, and returns the folder that holds its files: `folder`,
    or the one in it that everything lies in.

    Everything is checked before the first byte is written. Raises `DataError` for an archive with a path out of the
    folder, a link, a device, a password, two files of one name, more than `MAX_FILES` files or `MAX_BYTES` bytes, more
    than the disk has room for, or that is damaged or no zip archive.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with _reading(), zipfile.ZipFile(archive) as opened:
            entries = _checked(opened)
            need_space(folder, sum(entry.file_size for entry in entries.values()))
            for name, entry in entries.items():
                _write(opened, entry, folder / name)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    tops = {PurePosixPath(name).parts[0] for name in entries}
    return folder / tops.pop() if len(tops) == 1 and not any("/" not in name for name in entries) else folder


def _write(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    """One file: at most `entry.file_size` bytes, and zipfile checks their CRC."""
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.open("xb")
    with opened.open(entry) as source, target:
        while block := source.read(1 << 20):
            with _writing(path):
                target.write(block)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What goes wrong with our disk is not to be taken for a damaged archive."""
    try:
        yield
    except OSError as error:
        raise FullDiskError(f"{path}: cannot be written ({error.strerror})") from None


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """A damaged archive makes zipfile and the decompressors raise almost anything."""
    try:
        yield
    except Fast3DError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:100] or type(error).__name__
        raise DataError(f"the archive is damaged or no zip archive ({text})") from None


def _checked(opened: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by their safe names."""
    infos = opened.infolist()
    if len(infos) > MAX_FILES:
        raise DataError(f"the archive holds {len(infos)} files, more than {MAX_FILES}")
    entries: dict[str, zipfile.ZipInfo] = {}
    seen: set[str] = set()
    for info in infos:
        name = safe_name(info.orig_filename.removesuffix("/"))  # filename is cut at a NUL
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DataError(f"the archive holds {name[:80]!r}, which is a link or a device")
        if info.flag_bits & 1:
            raise DataError("the archive has a password")
        if info.is_dir() or PurePosixPath(name).parts[0] == "__MACOSX":  # what macOS adds about its own file system
            continue
        if name.lower() in seen:
            raise DataError(f"the archive holds {name[:80]!r} twice")
        seen.add(name.lower())
        entries[name] = info
    for name in seen:
        if any(str(parent) in seen for parent in PurePosixPath(name).parents):
            raise DataError(f"the archive holds something that is both a file and a folder of {name[:80]!r}")
    size = sum(entry.file_size for entry in entries.values())
    if size > MAX_BYTES:
        raise DataError(f"the archive unpacks to {size} bytes, more than {MAX_BYTES}")
    if not entries:
        raise DataError("the archive is empty")
    return entries
