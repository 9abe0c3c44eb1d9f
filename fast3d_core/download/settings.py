"""fast3d.yaml beside what was downloaded: written, or edited in place, so that the user's keys and comments stay."""

import filecmp
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from fast3d_core.config import load_config
from fast3d_core.errors import DataError, Fast3DError
from fast3d_core.files.files import atomic_path, atomic_write

NAME = "fast3d.yaml"
_HEADER = "# Written by `fast3d download`; every other key has its default. Paths are relative to this file's folder.\n"


def check_settings(folder: Path) -> None:
    """Raises what `load_config` raises where `folder` has a fast3d.yaml that is none, before hours of download."""
    path = folder / NAME
    if path.exists():
        load_config(path)


def set_keys(folder: Path, values: Mapping[str, str]) -> Path | None:
    """Makes the fast3d.yaml of `folder` name these paths, by config key, relative to the folder.

    Returns the copy that was kept of the file before, where a value of the user's was replaced. Raises `DataError`
    where the file is written in a form that cannot be edited safely; it is left as it is then.
    """
    path = folder / NAME
    if not path.exists():
        with atomic_write(path) as file:
            file.write(_HEADER + _block(values))
        return None
    path = path.resolve()  # a link stays one
    config = load_config(folder / NAME)
    new = {
        key: value for key, value in values.items() if _get(config, key) != folder / value or key not in config.origins
    }
    if not new:
        return None
    text = path.read_bytes().decode()
    for key, value in new.items():
        text = _edited(text, key, value)
    kept = _keep(path) if any(key in config.origins for key in new) else None
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode())
        try:
            edited = load_config(temporary)
            right = all(_get(edited, key) == path.parent / value for key, value in new.items())
            right = right and edited.origins.keys() == config.origins.keys() | new.keys()
        except Fast3DError:
            right = False
        if not right:
            wanted = ", ".join(f"{key}: {value}" for key, value in new.items())
            raise DataError(f"{path}: cannot be edited safely and was left as it is; set in it {wanted}")
    return kept


def _get(config: object, key: str) -> Path:
    value: object = config
    for part in key.split("."):
        value = getattr(value, part)
    return Path(str(value))


def _keep(path: Path) -> Path:
    """A copy under a name that is free, or the one that a killed download left."""
    numbered = (path.with_name(f"{path.name}.old{number}") for number in range(1, 10_000))
    kept = next(one for one in numbered if not one.exists() or filecmp.cmp(one, path, shallow=False))
    if not kept.exists():
        with atomic_path(kept) as temporary:
            shutil.copyfile(path, temporary)
    return kept


def _block(values: Mapping[str, str]) -> str:
    sections: dict[str, dict[str, str]] = {}
    for key, value in values.items():
        section, leaf = key.split(".")
        sections.setdefault(section, {})[leaf] = value
    return yaml.safe_dump(sections, sort_keys=False)


def _edited(text: str, key: str, value: str) -> str:
    """`text`, a valid config, with one key set. Its form is known only where the parser says so: the caller checks."""
    section, leaf = key.split(".")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)  # as load_config has seen
    inner = _child(root, section)
    if inner is None:
        if root.flow_style:
            return _insert(text, root.start_mark.index + 1, f"{section}: {{{leaf}: {value}}}, ")
        return text.rstrip("\n") + f"\n{section}:\n  {leaf}: {value}\n"
    assert isinstance(inner, yaml.MappingNode)
    old = _child(inner, leaf)
    if old is not None:
        replaced = text[old.start_mark.index : old.end_mark.index]
        newline = "\n" if replaced.endswith("\n") else ""  # a block of text ends after its line
        return text[: old.start_mark.index] + value + newline + text[old.end_mark.index :]
    if inner.flow_style:
        return _insert(text, inner.start_mark.index + 1, f"{leaf}: {value}, ")
    first = inner.start_mark  # of the first key
    return _insert(text, first.index, f"{leaf}: {value}\n" + " " * first.column)


def _insert(text: str, index: int, new: str) -> str:
    return text[:index] + new + text[index:]


def _child(node: yaml.MappingNode, name: str) -> yaml.Node | None:
    return next((value for key, value in node.value if key.value == name), None)
