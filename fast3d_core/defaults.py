"""Which config is taken where none is named: the current folder's, else the embedded demo's."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from fast3d_core import config
from fast3d_core.config import NAME, Config
from fast3d_core.demo import FOLDER, demo_folder, ensure_demo
from fast3d_core.files import cache


def load_config(
    path: Path | None = None, overrides: Sequence[str] = (), log: Callable[[str], None] = lambda _: None
) -> Config:
    """The config in `path`, else in `./fast3d.yaml` if it exists, else the embedded demo's, with `overrides` on top.

    The demo's files are written when they are asked for the first time; `log` is called before, as that takes some
    seconds. For overrides and errors see `fast3d_core.config.load_config`.
    """
    if path is None:
        path = Path(NAME)
        if not os.path.lexists(path):
            path = demo_config(log)
    return config.load_config(path, overrides, embedded=is_of_the_demo(path))


def demo_config(log: Callable[[str], None] = lambda _: None) -> Path:
    """The embedded demo's config, written with all that it names if it is not there; see `load_config`."""
    folder = demo_folder()
    ensure_demo(folder, log)
    return folder / NAME


def is_of_the_demo(path: Path) -> bool:
    """Whether a config is the embedded demo's, of whatever release, or that of the user's own demo in the cache."""
    real, kept = Path(os.path.realpath(path)), Path(os.path.realpath(cache.CACHE))  # Path.resolve raises for loops
    if real == Path(os.path.realpath(kept / FOLDER / NAME)):
        return True
    folder = real.parent
    return real.name == NAME and folder.parent == kept and bool(re.fullmatch(f"{FOLDER}-[0-9a-f]{{16}}", folder.name))
