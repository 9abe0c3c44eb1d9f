"""The files and folders that a config names: made sure to be there, or to be written outside of what is shipped."""

import functools
from pathlib import Path

from fast3d_core.config.schema import Config
from fast3d_core.files.checkpoints import checkpoint_file
from fast3d_core.files.files import need
from fast3d_core.files.hub_cache import check_model_folder
from fast3d_core.text import printable


def need_path(config: Config, key: str) -> Path:
    """The file or folder that `key` (such as "model.checkpoint") names.

    Raises `DataError` when it does not exist, naming the key, where it was set, and the nearest name in its folder.
    """
    path = functools.reduce(getattr, key.split("."), config)
    if not isinstance(path, Path):
        raise TypeError(f"{key} holds no path: {path!r}")
    origin = config.origins.get(key)
    what = f"{key} in {origin}" if origin else f"{key} (default; not set in {printable(str(config.source))})"
    if key == "model.llm":
        check_model_folder(path, what)
    return need(path, what)


def need_checkpoint(config: Config, key: str) -> Path:
    """The file that `key` ("model.checkpoint" or "gap.checkpoint") names, or the one file of weights in such a folder.

    Raises `DataError` as `need_path`, and where a folder holds no or several such files.
    """
    return checkpoint_file(need_path(config, key), key)


def output_path(config: Config, key: str) -> Path:
    """The file or folder that `key` (such as "maps.predicted") names, for writing: never inside the package."""
    path = functools.reduce(getattr, key.split("."), config)
    assert isinstance(path, Path)
    shipped = config.source.parent
    return Path.cwd() / path.relative_to(shipped) if config.embedded and path.is_relative_to(shipped) else path
