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
from fast3d_core.text import printable

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}", re.ASCII)  # names stand in file names, options and keys of settings


@dataclass(frozen=True)
class Registry:
    """Names and where the object of each is.

    Attributes:
        what: one of them, in a word, for errors.
        group: of the entry points by which other packages add theirs.
        builtin: name -> "module:object" of this package, in their order.
    """

    what: str
    group: str
    builtin: Mapping[str, str]

    def names(self) -> tuple[str, ...]:
        """All names: this package's in their order, then those of other packages, sorted.

        Raises `DataError` where another package takes a name that is taken, or one that cannot stand in a file's name.
        """
        return (*self.builtin, *self._added())

    def check(self, name: object) -> str:
        """The name. Raises `UsageError` where there is no such one, with the nearest that there is."""
        names = self.names()
        if isinstance(name, str) and name in names:
            return name
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
        point = self._added()[name]
        try:
            return point.load()
        except Exception as error:  # whatever a stranger's module does
            raise self.broken(name, f"{type(error).__name__}: {error}") from None

    def broken(self, name: str, why: str) -> DataError:
        """The error for an object of another package that is not what it should be."""
        return DataError(
            f"the {self.what} {name} of {_package(self._added()[name])} cannot be used ({printable(why[:200])})",
            "repair that package, or uninstall it",
        )

    def _added(self) -> "dict[str, EntryPoint]":
        added: dict[str, EntryPoint] = {}
        for point in sorted(_points(self.group), key=lambda point: point.name):
            known = "fast3d" if point.name in self.builtin else _package(added.get(point.name))
            if known or not _NAME.fullmatch(point.name):
                why = f"which {known} has, too" if known else "but names are of a-z, 0-9, - and _"
                name = printable(point.name[:80])
                raise DataError(f"{_package(point)} adds the {self.what} {name}, {why}", "uninstall it")
            added[point.name] = point
        return added


@functools.cache
def _points(group: str) -> "tuple[EntryPoint, ...]":
    """The installed packages' entry points; looking for them reads the metadata of every package."""
    from importlib.metadata import entry_points  # takes 20 ms, which `fast3d --help` need not wait for

    return tuple(entry_points(group=group))


def _package(point: "EntryPoint | None") -> str:
    """The package that an entry point is of; empty for none."""
    if point is None:
        return ""
    return point.dist.name if point.dist else "a package"


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
"""The benchmarks (`fast3d_core.benchmarks`), in the order in which they are run and reported."""
