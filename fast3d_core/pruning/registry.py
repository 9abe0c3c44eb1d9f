"""The pruning methods by name: those of this package, and those of others, which register them by an entry point.

A package that has methods says so in its pyproject.toml:

    [project.entry-points."fast3d.pruners"]
    mymethod = "my_package.my_module:MyMethod"

Methods are imported when one is first asked for. Whichever cannot be used, because its module does not import, its name
is taken or its fields cannot become options, is left out: `Methods.problems` says why, in a line that names the
package, and so does the error for that method; all others work.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from fast3d_core import registry
from fast3d_core.errors import DataError, UsageError
from fast3d_core.pruning.base import OTHER_COLOUR, OTHER_MARKER, Pruner
from fast3d_core.pruning.settings import Setting, SettingsError, settings_of
from fast3d_core.registry import Registry

REGISTRY = Registry(
    "method",
    "fast3d.pruners",
    {
        # In the order of help texts and reports.
        "vanilla": "fast3d_core.pruning.vanilla:Vanilla",
        "random": "fast3d_core.pruning.random:Random",
        "fastv": "fast3d_core.pruning.fastv:FastV",
        "gap": "fast3d_core.pruning.gap:Gap",
        "sap": "fast3d_core.pruning.sap:Sap",
    },
)
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class Style:
    """How figures show a method: what it is called, "#rrggbb", and matplotlib's letter of a marker."""

    title: str
    colour: str = OTHER_COLOUR
    marker: str = OTHER_MARKER


@dataclass(frozen=True)
class _Found:
    """The methods that can be used and their settings by name; `problems` by the name of what cannot."""

    methods: dict[str, type[Pruner]]
    settings: dict[str, list[Setting]]
    problems: dict[str, str]


class Methods(Mapping[str, type[Pruner]]):
    """The methods that can be used, by name: first those of this package, then those of others by name."""

    def __getitem__(self, name: str) -> type[Pruner]:
        """Raises `UsageError` for one that is registered and cannot be used, `KeyError` where there is none."""
        if name in self._found.methods:
            return self._found.methods[name]
        if problem := self._found.problems.get(name) or REGISTRY.refused.get(name):
            raise UsageError(problem)
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
        return [*REGISTRY.refused.values(), *self._found.problems.values()]

    @property
    def settings(self) -> Mapping[str, list[Setting]]:
        """The settings of each method."""
        return self._found.settings

    def package(self, name: str) -> str | None:
        """The package that a method is from, and its version; None for those of this one."""
        return REGISTRY.package(name)

    def style(self, name: str | None) -> Style:
        """How figures show a method; one that is not there any more, and predictions of no method, look alike."""
        method = self._found.methods.get(name or "")
        return Style(method.title or method.name, method.colour, method.marker) if method else Style(name or "scored")

    def refresh(self) -> None:
        """Looks for entry points again: packages may have come or gone since."""
        registry.refresh()
        self.__dict__.pop("_found", None)

    @cached_property
    def _found(self) -> _Found:
        found = _Found({}, {}, {})
        for name in REGISTRY.names():
            try:
                method = _load(name)
                settings = _checked(name, method, found)
            except DataError as problem:
                found.problems[name] = problem.what
                continue
            found.methods[name], found.settings[name] = method, settings
        return found


def _load(name: str) -> type[Pruner]:
    method = REGISTRY.load(name)
    if not (isinstance(method, type) and issubclass(method, Pruner)):
        raise REGISTRY.broken(name, "it is no subclass of fast3d_core.pruning.Pruner")
    if inspect.isabstract(method):
        raise REGISTRY.broken(name, "it has no plan(self, request)")
    return method


def _checked(name: str, method: type[Pruner], found: _Found) -> list[Setting]:
    """The settings of a method. Raises `DataError` where its name or settings cannot stand beside the others'."""
    own_name = getattr(method, "name", None)
    if own_name != name:
        raise REGISTRY.broken(name, f"its class is named {str(own_name)[:40]!r}; both names must be one")
    if not _COLOUR.fullmatch(method.colour):
        raise REGISTRY.broken(name, f"its colour is {method.colour[:20]!r}, not one such as #0072b2")
    try:
        settings = settings_of(method)
    except SettingsError as problem:
        raise REGISTRY.broken(name, str(problem)) from None
    for own in settings:
        for other, theirs in found.settings.items():
            for setting in theirs:
                if disagreement := _disagreement(own, setting, other):
                    raise REGISTRY.broken(name, disagreement)
    return settings


def _disagreement(own: Setting, setting: Setting, other: str) -> str | None:
    """Why two methods cannot have both settings."""
    if own.name == setting.name and own.type_name != setting.type_name:
        return f"its setting {own.name} is of type {own.type_name}, that of {other} of {setting.type_name}; rename it"
    if own.name != setting.name and set(own.flags) & set(setting.flags):
        return f"its setting {own.name} needs an option that {setting.name} of {other} has; rename it"
    return None


METHODS = Methods()
