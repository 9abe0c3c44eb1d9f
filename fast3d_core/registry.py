"""What is defined one file each, here or in another package, by name: listed without being imported.

A package adds its own with an entry point. In its pyproject.toml, for a benchmark:

    [project.entry-points."fast3d.benchmarks"]
    mine = "my_package.mine:Mine"
"""

import difflib
import functools
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fast3d_core.errors import DataError, UsageError
from fast3d_core.text import first_line, printable

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.ASCII)  # names stand in file names, options and keys of settings


@dataclass(frozen=True)
class Registry:
    """Names and where the object of each is.

    What another package adds under a name that is taken, or cannot stand in a file's name, is left out: `refused` says
    so, and all others are there. What cannot be imported raises its error when it is asked for.

    Attributes:
        what: one of them, in a word, for errors.
        group: of the entry points by which other packages add theirs.
        builtin: name -> "module:object" of this package, in their order.
    """

    what: str
    group: str
    builtin: Mapping[str, str]

    def names(self) -> tuple[str, ...]:
        """All names: this package's in their order, then those of other packages, sorted."""
        return (*self.builtin, *self._found()[0])

    @property
    def refused(self) -> Mapping[str, str]:
        """By name why objects of other packages are left out, a line each that names the package."""
        return self._found()[1]

    def package(self, name: str) -> str | None:
        """The package that another one's object is from, and its version, such as "my-package 1.0"; else None."""
        point = self._found()[0].get(name)
        return None if point is None else _package(point)

    def check(self, name: object) -> str:
        """The name. Raises `UsageError` where there is no such one, with the nearest that there is."""
        names, refused = self.names(), self.refused
        if isinstance(name, str) and name in names:
            return name
        if isinstance(name, str) and name in refused:
            raise UsageError(refused[name])
        near = difflib.get_close_matches(str(name)[:100], names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"there is no {self.what} {printable(str(name)[:100])}; choose from {', '.join(names)}{hint}")

    def load(self, name: str) -> Any:
        """The object of that name, imported now.

        Raises `UsageError` as `check` does, and `DataError` where another package's cannot be imported.
        """
        self.check(name)
        if name in self.builtin:
            return pkgutil.resolve_name(self.builtin[name])
        point = self._found()[0][name]
        try:
            return point.load()
        except (Exception, SystemExit) as error:  # whatever a stranger's module does
            why = f"{point.value} cannot be imported ({type(error).__name__}: {first_line(error)})"
            raise self.broken(name, why) from error

    def broken(self, name: str, why: str) -> DataError:
        """The error for an object of another package that is not what it should be."""
        what = self._left_out(name, self.package(name) or "fast3d", why)
        return DataError(what, "repair that package, or uninstall it")

    def _found(self) -> "tuple[dict[str, EntryPoint], dict[str, str]]":
        """What other packages add, and why some of it is left out, both by name."""
        added: dict[str, EntryPoint] = {}
        refused: dict[str, str] = {}
        for point in _points(self.group):
            if point.name in self.builtin or point.name in added:
                other = _package(added[point.name]) if point.name in added else "fast3d"
                why = f"{other} has a {self.what} of that name; one of them has to be renamed or uninstalled"
            elif not _NAME.fullmatch(point.name):
                why = "its name is not of small letters, digits, - and _"
            else:
                added[point.name] = point
                continue
            refused[point.name] = self._left_out(point.name, _package(point), why)
        return added, refused

    def _left_out(self, name: str, package: str, why: str) -> str:
        return f"the {self.what} {printable(name[:40])!r} of the package {package} is left out: {printable(why)}"


@functools.cache
def _points(group: str) -> "tuple[EntryPoint, ...]":
    """The installed packages' entry points by name; looking for them reads the metadata of every package."""
    from importlib.metadata import entry_points  # takes 20 ms, which `fast3d --help` need not wait for

    return tuple(sorted(entry_points(group=group), key=lambda point: (point.name, _package(point))))


def refresh() -> None:
    """Looks for entry points again: packages may have come or gone since."""
    _points.cache_clear()


def _package(point: "EntryPoint") -> str:
    """The package that an entry point is of, and its version."""
    if point.dist is None:
        return printable(point.module.partition(".")[0])
    return printable(f"{point.dist.metadata['Name']} {point.dist.version}")


MODELS = Registry(
    "scene model",
    "fast3d.models",
    {"chat-scene": "fast3d_core.models.chat_scene.model:ChatScene"},
)
"""The scene models (`fast3d_core.models`): what `model.kind` may be."""

BENCHMARKS = Registry(
    "benchmark",
    "fast3d.benchmarks",
    {
        "scanrefer": "fast3d_core.benchmarks.scanrefer:ScanRefer",
        "multi3dref": "fast3d_core.benchmarks.multi3dref:Multi3DRefer",
        "scan2cap": "fast3d_core.benchmarks.scan2cap:Scan2Cap",
        "scanqa": "fast3d_core.benchmarks.scanqa:ScanQA",
        "sqa3d": "fast3d_core.benchmarks.sqa3d:SQA3D",
    },
)
"""The benchmarks (`fast3d_core.benchmarks`), in the order in which they are reported."""

PUBLISHED = ("scanrefer", "multi3dref", "scan2cap", "scanqa", "sqa3d")
"""Those of the paper's table, in its order: what a config runs that names none. A further benchmark in `BENCHMARKS` is
run where it is named, so that nobody needs its files who does not ask for it."""
