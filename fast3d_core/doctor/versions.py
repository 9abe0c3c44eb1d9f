"""Is what fast3d needs installed, in versions that it knows? Asked without importing any of it."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from fast3d_core.doctor.findings import Finding, error, ok, warning

_SHOWN = ("torch", "transformers")


def installed() -> Iterator[Finding]:
    """Every requirement of the installed fast3d."""
    try:
        needed = [Requirement(text) for text in requires("fast3d") or ()]
        pythons = SpecifierSet(metadata("fast3d")["Requires-Python"] or "")
    except PackageNotFoundError:
        yield warning("fast3d is not installed as a package, so what it needs is not known", "pip install .")
        return
    wrong = 0
    if not pythons.contains(platform.python_version(), prereleases=True):
        wrong += 1
        yield error(f"Python is {platform.python_version()}, fast3d needs {pythons}", "make an environment with that")
    for one in needed:
        if one.marker and not one.marker.evaluate({"extra": ""}):
            continue  # of an extra
        found = _version(one.name)
        if found is None:
            wrong += 1
            yield error(f"{one.name} is not installed", f'pip install "{one.name}{one.specifier}"')
        elif not one.specifier.contains(found, prereleases=True):
            wrong += 1
            yield error(
                f"{one.name} is {found}, fast3d needs {one.specifier}", f'pip install "{one.name}{one.specifier}"'
            )
    if not wrong:
        shown = ", ".join(f"{name} {_version(name)}" for name in _SHOWN)
        yield ok(f"Python {platform.python_version()}, {shown}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
