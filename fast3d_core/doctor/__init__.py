"""`fast3d doctor`: would `fast3d eval` run on these files, and would its numbers be right?

One file a group of checks; `checks.py` lists them. They ask the loaders that `fast3d eval` uses, and look for what no
loader can refuse: files that are whole but do not belong together. Of the large files only headers are read, so that it
takes seconds; `deep` reads all of their bytes.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from fast3d_core.doctor import versions
from fast3d_core.doctor.findings import Check, Finding, NotCheckedError, Options
from fast3d_core.errors import DataError, Fast3DError
from fast3d_core.text import printable

if TYPE_CHECKING:
    from fast3d_core.doctor.case import Case

__all__ = ["Finding", "Options", "examine"]


def examine(options: Options) -> Iterator[Finding]:
    """All findings, as they come; whatever one check meets, the others follow.

    Raises `UsageError` for methods that there are not, or to which live maps mean nothing.
    """
    found = list(versions.installed())
    yield from (replace(finding, area="versions") for finding in found)
    try:
        from fast3d_core.doctor.case import Case
        from fast3d_core.doctor.checks import CONFIG, all_checks
    except ImportError as problem:
        yield Finding("error", f"fast3d cannot be loaded ({problem})", "fix the versions above first", "versions")
        return
    case = Case(options)
    found = list(_carry_out(CONFIG, case, {}))
    yield from found
    if any(finding.status == "error" for finding in found):
        return  # it is not known which files to look at
    lacking: dict[str, list[str]] = {}
    reported: set[Finding] = set()
    for check in all_checks(case):
        for finding in _carry_out(check, case, lacking):
            if finding not in reported:  # several checks read the same boxes
                yield finding
            reported.add(finding)
    for missing, areas in lacking.items():
        what = f"without {missing}, not all was checked of {', '.join(dict.fromkeys(areas))}"
        yield Finding("warning", what, "fix what is reported above, and run doctor again", "not checked")


def _carry_out(check: Check, case: "Case", lacking: dict[str, list[str]]) -> Iterator[Finding]:
    """The findings of one check, the last of them what it raises. `lacking` gets its area where a need is not met."""
    if check.reads:
        case.options.log(check.reads)
    try:
        for finding in check.find(case):
            yield replace(finding, area=check.area, what=_one_line(finding.what))
    except NotCheckedError as missing:
        lacking.setdefault(str(missing), []).append(check.area)
    except Fast3DError as problem:
        what, do = (problem.what, problem.do) if isinstance(problem, DataError) else (str(problem), "")
        yield Finding(check.status, _one_line(what.removeprefix(f"{check.area}: ")), do or check.do, check.area)
    except Exception as problem:
        if os.environ.get("FAST3D_DEBUG"):
            raise
        what = f"the check itself failed ({type(problem).__name__}: {_one_line(str(problem))[:160]})"
        yield Finding("error", what, "FAST3D_DEBUG=1 shows where; it may be a fault of fast3d", check.area)


def _one_line(text: str) -> str:
    """`text` without what moves a terminal's cursor: names come from files."""
    return printable(text, lambda _: " ")
