"""A config file and overrides to a `Config`, or to an error that names the key, the file and the nearest valid name."""

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fast3d_core.config.reading import parse_file, parse_override
from fast3d_core.config.schema import Config, build, fields_of, keys_of
from fast3d_core.config.values import checked, plain, show
from fast3d_core.errors import UsageError
from fast3d_core.text import printable


def load_config(path: Path, overrides: Sequence[str] = (), *, embedded: bool = False) -> Config:
    """The config in `path`, with `overrides` on top.

    An override is `key.sub=value`; the value is read as YAML, its relative paths are relative to the current folder,
    and the last one wins.

    Args:
        embedded: the file came with the program, so that what commands write goes to the current folder, see
            `Config.embedded`.

    Raises:
        DataError: the file is missing, unreadable, or not YAML of the plain kind (one mapping; no duplicate keys,
            anchors, aliases or tags; at most 1 MB).
        UsageError: the schema does not have such a key or value.
    """
    source, here = path.absolute(), Path.cwd()
    keys = dict(keys_of(Config))
    where = printable(str(path))

    def base(name: str, value: Any) -> Path:
        if not (embedded and keys[name].metadata["written"] and isinstance(value, str)):
            return source.parent
        shipped = (source.parent / value).exists() and not (here / value).exists()
        return source.parent if shipped else here

    found = {name: plain(key.default) for name, key in keys.items()}
    origins = {}
    for name, value in _flatten(parse_file(path, where), Config, where):
        found[name] = value
        origins[name] = where
    settings = {name: checked(name, keys[name], value, where, base(name, value)) for name, value in found.items()}
    for override in overrides:
        for name, value in _flatten(parse_override(override), Config, "--set"):
            settings[name] = checked(name, keys[name], value, "--set", here)
            origins[name] = "--set"
    return build(Config, settings, source=source, embedded=embedded, origins=origins)


def _flatten(raw: Any, cls: type, where: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys in `raw` by full dotted name; `UsageError` for one that the schema does not have."""
    if not isinstance(raw, dict):
        what = prefix.removesuffix(".") or "a config"
        raise UsageError(f"{where}: {what} must be a mapping of keys to values, not {show(raw)}")
    known = {f.name: f for f in fields_of(cls)}
    for name, value in raw.items():
        if name not in known:
            raise UsageError(_unknown(prefix + (name if isinstance(name, str) else show(name)), where, prefix, known))
        if dataclasses.is_dataclass(known[name].type):
            yield from _flatten(value, typing.cast(type, known[name].type), where, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _unknown(full: str, where: str, prefix: str, known: Mapping[str, Any]) -> str:
    """The error for an unknown key: the nearest name by leaf (a key in the wrong section), then by spelling."""
    message = f"unknown key {show(full)} in {where}"
    names = [name for name, _ in keys_of(Config)]
    if full in names:  # a dotted name used as one key
        section, leaf = full.rsplit(".", 1)
        return f"{message}; write {leaf} as a key under {section}"
    near = _nearest_key(full[:100], prefix, list(known), names)  # difflib's time grows with the square of the length
    if near:
        return f'{message}; did you mean "{near}"?'
    return f"{message}; known here: {', '.join(prefix + name for name in known)}"


def _nearest_key(word: str, prefix: str, siblings: Sequence[str], names: Sequence[str]) -> str | None:
    """Last parts are compared, as a shared section would make any two names look alike: a right name in the wrong
    section first, then the nearest in the same section, then the nearest anywhere."""

    def last(name: str) -> str:
        return name.rpartition(".")[2]

    here = [prefix + name for name in difflib.get_close_matches(last(word), siblings, n=1)]
    best = difflib.get_close_matches(last(word), [last(name) for name in names], n=1)
    there = difflib.get_close_matches(word, [name for name in names if last(name) in best], n=1, cutoff=0)
    return next(iter(there + here if last(word) in best else here + there), None)
