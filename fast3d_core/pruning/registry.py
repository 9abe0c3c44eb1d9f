"""The pruning methods by name: those of this package, and those of others, which register them by an entry point.

A package that has methods says so in its pyproject.toml:

    [project.entry-points."fast3d.pruners"]
    mymethod = "my_package.my_module:MyMethod"

Methods are imported when one is first asked for. Whichever cannot be used, because its module does not import, its name
is taken or its fields cannot become options, is left out: `Methods.problems` says why, in a line that names the
package, and so does the error for that method; all others work.
"""

import importlib.metadata
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint

from fast3d_core.errors import UsageError
from fast3d_core.pruning.base import OTHER_COLOUR, OTHER_MARKER, Pruner
from fast3d_core.pruning.settings import Setting, SettingsError, settings_of
from fast3d_core.text import first_line, printable

GROUP = "fast3d.pruners"

# In the order of help texts and reports.
_HERE = tuple(
    EntryPoint(name, f"fast3d_core.pruning.{name}:{title}", GROUP)
    for name, title in (
        ("vanilla", "Vanilla"),
        ("random", "Random"),
        ("fastv", "FastV"),
        ("gap", "Gap"),
        ("sap", "Sap"),
    )
)
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class Style:
    """How figures show a method: what it is called, "#rrggbb", and matplotlib's letter of a marker."""

    title: str
    colour: str = OTHER_COLOUR
    marker: str = OTHER_MARKER


@dataclass(frozen=True)
class _Found:
    """What entry points give: methods and their settings by name; `packages`, "name version", of those from elsewhere;
    `problems` by the name of the entry point."""

    methods: dict[str, type[Pruner]]
    settings: dict[str, list[Setting]]
    packages: dict[str, str]
    problems: dict[str, str]


class Methods(Mapping[str, type[Pruner]]):
    """The methods that can be used, by name: first those of this package, then those of others by name.

    Args:
        here: entry points of this package's methods, which come first: nobody else can take their names.
    """

    def __init__(self, here: Sequence[EntryPoint] = _HERE):
        self._here = tuple(here)

    def __getitem__(self, name: str) -> type[Pruner]:
        """Raises `UsageError` for one that is registered and cannot be used, `KeyError` where there is none."""
        if name in self._found.methods:
            return self._found.methods[name]
        if name in self._found.problems:
            raise UsageError(self._found.problems[name])
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return name in self._found.methods

    def __iter__(self) -> Iterator[str]:
        return iter(self._found.methods)

    def __len__(self) -> int:
        return len(self._found.methods)

    @property
    def problems(self) -> list[str]:
        """Why methods are left out, a line each that names the package."""
        return list(self._found.problems.values())

    @property
    def settings(self) -> Mapping[str, list[Setting]]:
        """The settings of each method."""
        return self._found.settings

    def package(self, name: str) -> str | None:
        """The package that a method is from and its version, such as "my-package 1.0"; None for those of this one."""
        return self._found.packages.get(name)

    def style(self, name: str | None) -> Style:
        """How figures show a method; one that is not there any more, and predictions of no method, look alike."""
        method = self._found.methods.get(name or "")
        return Style(method.title or method.name, method.colour, method.marker) if method else Style(name or "scored")

    def refresh(self) -> None:
        """Looks for entry points again: packages may have come or gone since."""
        self.__dict__.pop("_found", None)

    @cached_property
    def _found(self) -> _Found:
        found = _Found({}, {}, {}, {})
        elsewhere = sorted(importlib.metadata.entry_points(group=GROUP), key=lambda one: (one.name, _package(one)))
        for entry in (*self._here, *elsewhere):
            try:
                method = _load(entry)
                settings = _checked(entry, method, found)
            except UsageError as problem:
                found.problems.setdefault(entry.name, str(problem))
                continue
            found.methods[method.name], found.settings[method.name] = method, settings
            if entry not in self._here:
                found.packages[method.name] = _package(entry)
        return found


def _package(entry: EntryPoint) -> str:
    if entry.dist is None:
        return entry.module.partition(".")[0]
    return printable(f"{entry.dist.metadata['Name']} {entry.dist.version}")


def _refused(entry: EntryPoint, why: str) -> UsageError:
    name = printable(entry.name[:40])
    return UsageError(f"the method {name!r} of the package {_package(entry)} is left out: {printable(why)}")


def _load(entry: EntryPoint) -> type[Pruner]:
    try:
        method = entry.load()
    except (Exception, SystemExit) as error:
        why = f"{entry.value} cannot be imported ({type(error).__name__}: {first_line(error)})"
        raise _refused(entry, why) from error
    if not (isinstance(method, type) and issubclass(method, Pruner)):
        raise _refused(entry, f"{entry.value} is no subclass of fast3d_core.pruning.Pruner")
    if inspect.isabstract(method):
        raise _refused(entry, f"{entry.value} has no plan(self, request)")
    return method


def _checked(entry: EntryPoint, method: type[Pruner], found: _Found) -> list[Setting]:
    """The settings of a method. Raises `UsageError` where its name or settings cannot stand beside the others'."""
    name = getattr(method, "name", None)
    if name != entry.name or not _NAME.fullmatch(entry.name):
        raise _refused(
            entry, f"its class is named {str(name)[:40]!r}; both names must be one, of small letters, digits, - and _"
        )
    if name in found.methods:
        other = found.packages.get(name, "fast3d")
        raise _refused(entry, f"{other} has a method of that name; one of them has to be renamed or uninstalled")
    if not _COLOUR.fullmatch(method.colour):
        raise _refused(entry, f"its colour is {method.colour[:20]!r}, not one such as #0072b2")
    try:
        settings = settings_of(method)
    except SettingsError as problem:
        raise _refused(entry, str(problem)) from None
    for own in settings:
        for other, theirs in found.settings.items():
            for setting in theirs:
                if disagreement := _disagreement(own, setting, other):
                    raise _refused(entry, disagreement)
    return settings


def _disagreement(own: Setting, setting: Setting, other: str) -> str | None:
    """Why two methods cannot have both settings."""
    if own.name == setting.name and own.type_name != setting.type_name:
        return f"its setting {own.name} is of type {own.type_name}, that of {other} of {setting.type_name}; rename it"
    if own.name != setting.name and set(own.flags) & set(setting.flags):
        return f"its setting {own.name} needs an option that {setting.name} of {other} has; rename it"
    return None


METHODS = Methods()
