"""Where modules are looked for: never in the current folder, which may hold somebody's data.

`python -m` and `python -c` put the current folder first, and an empty entry of PYTHONPATH stands for it, so that a
`yaml.py` lying there would be run in place of the real one. This module imports nothing that Python has not imported
before it runs its first line.
"""

import os
import sys
from collections.abc import Sequence


def leave_out_current_folder() -> None:
    """Takes the current folder off the paths where modules are looked for, of this process and of those it starts.

    It stays where this very program is imported from it: a checkout that is not installed. Python's own folders and
    what is installed are left alone, wherever the current folder is.
    """
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # for Python 3.11 and later
    try:
        here = os.path.realpath(os.getcwd())  # noqa: PTH109 (pathlib is not imported yet)
    except OSError:  # it was deleted
        return
    if here == os.path.realpath(os.path.dirname(os.path.dirname(__file__))):  # noqa: PTH120
        return
    library = os.path.dirname(os.__file__)  # noqa: PTH120
    given = sys.path.index(library) if library in sys.path else len(sys.path)  # what stands before is from outside
    sys.path[:given] = [entry for entry in sys.path[:given] if os.path.realpath(entry) != here]
    if named := os.environ.get("PYTHONPATH"):
        kept = [os.path.abspath(entry) for entry in named.split(os.pathsep) if os.path.realpath(entry) != here]  # noqa: PTH100
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)


def python_arguments(code: str, arguments: Sequence[str] = ()) -> list[str]:
    """Arguments for `sys.executable` that run `code` with modules from where this process has its own.

    `arguments` are `sys.argv[1:]` there.
    """
    return ["-c", f"import sys; sys.path[:] = {sys.path!a}\n{code}", *arguments]
