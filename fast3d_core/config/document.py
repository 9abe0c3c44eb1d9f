"""The config as plain values, and its schema as a commented YAML document."""

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any, Literal

import yaml

from fast3d_core.config.schema import Config, fields_of
from fast3d_core.config.values import bounds_of, plain


def to_dict(config: Config) -> dict[str, Any]:
    """The settings as plain nested values, paths as text, ready for JSON or YAML; a file of them loads back equal."""

    def nested(section: Any) -> dict[str, Any]:
        values = {f.name: getattr(section, f.name) for f in fields_of(type(section))}
        return {name: nested(v) if dataclasses.is_dataclass(v) else plain(v) for name, v in values.items()}

    return nested(config)


def default_yaml() -> str:
    """The whole schema as YAML: every key at its default with its meaning beside it. A file of it is a valid config."""
    return "# Relative paths are relative to the folder of this file.\n" + "\n".join(_document(Config, ""))


def _document(cls: type, indent: str) -> Iterator[str]:
    """The lines of `default_yaml` for one section, comments aligned."""
    sections = [f for f in fields_of(cls) if dataclasses.is_dataclass(f.type)]
    keys = [f for f in fields_of(cls) if not dataclasses.is_dataclass(f.type)]
    for f in sections:
        yield f"{indent}{f.name}:  # {f.type.__doc__}"
        yield from _document(typing.cast(type, f.type), indent + "  ")
    texts = [f"{indent}{f.name}: {_yaml_text(plain(f.default))}" for f in keys]
    width = max(map(len, texts), default=0)
    for f, text in zip(keys, texts, strict=True):
        yield f"{text:{width}}  # {_meaning(f)}"
    if not indent:
        yield ""


def _meaning(key: "dataclasses.Field[Any]") -> str:
    """The comment beside a key: its meaning, then its bounds or choices."""
    least, most = key.metadata["at_least"], key.metadata["at_most"]
    both = least is not None and most is not None
    notes = [f"{least} to {most}"] if both else [f"{words} {bound}" for words, bound, _ in bounds_of(key)]
    if typing.get_origin(key.type) is Literal:
        notes.append(", ".join(typing.get_args(key.type)))
    return f"{key.metadata['doc']} ({'; '.join(notes)})" if notes else key.metadata["doc"]


def _yaml_text(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")
