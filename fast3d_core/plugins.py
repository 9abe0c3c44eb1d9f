"""What other packages add to fast3d: classes that they register by entry point, found by name and imported when used.

A package declares them in its pyproject.toml:

    [project.entry-points."fast3d.models"]
    patches = "my_package.patches:PatchModel"
"""

import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from fast3d_core.errors import UsageError
from fast3d_core.text import printable


def names(group: str, built_in: Mapping[str, str]) -> list[str]:
    """The names of a group: the built-in ones in their order, then those of other packages, sorted."""
    return [*built_in, *sorted({point.name for point in entry_points(group=group)} - set(built_in))]


def load(group: str, name: str, built_in: Mapping[str, str], base: type, what: str) -> Any:
    """The class of that name.

    Args:
        built_in: name -> "module:class"; another package cannot take these names.
        base: what the class has to be a subclass of.
        what: where the name was given, such as "model.kind".

    Raises:
        UsageError: no package or several have such a name, or what it names cannot be imported or is no such class.
    """
    if name in built_in:
        module, _, attribute = built_in[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    points = list(dict.fromkeys(entry_points(group=group, name=name)))
    if not points:
        listed = ", ".join(names(group, built_in))
        raise UsageError(
            f"{what}: there is no {_shown(name)}; choose from {listed}, or install the package that has it"
        )
    if len(points) > 1:
        owners = " and ".join(sorted(map(_owner, points)))
        raise UsageError(f"{what}: {_shown(name)} is in {owners}; uninstall all but one")
    return _imported(points[0], base, what)


def _imported(point: EntryPoint, base: type, what: str) -> Any:
    where = f"{what}: {_shown(point.name)} of {_owner(point)}"
    try:
        found = point.load()
    except Exception as error:  # whatever a stranger's module raises while it is imported
        reason = printable(f"{type(error).__name__}: {error}".splitlines()[0])[:200]
        raise UsageError(f"{where} cannot be imported ({reason}); repair or uninstall that package") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UsageError(f"{where}: {point.value} is no subclass of {base.__module__}.{base.__qualname__}")
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise UsageError(f"{where}: {point.value} does not define {', '.join(missing)}")
    return found


def _owner(point: EntryPoint) -> str:
    """The package that registers an entry point."""
    return printable(point.dist.name) if point.dist is not None else printable(point.value)


def _shown(name: str) -> str:
    return repr(name[:80])
