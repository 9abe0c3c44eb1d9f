"""The text of a config file or of a `--set` override to plain values: YAML of a small, safe kind."""

import functools
import re
from pathlib import Path
from typing import Any

import yaml

from fast3d_core.config.values import show
from fast3d_core.errors import DataError, UsageError
from fast3d_core.files.files import need_file
from fast3d_core.text import printable

MAX_BYTES, MAX_VALUES = 1_000_000, 10_000
"""A file with more is not a config; PyYAML would take half a minute over a crowded megabyte."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without what a config does not need and an attacker does: anchors, aliases (which grow a
    small file without bound), tags, merges, dates, base-60 numbers; duplicate keys are errors. Numbers are written as
    in JSON, 1e-05 included, which PyYAML alone takes for text."""

    nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(
                problem="anchors and aliases (& and *) are not allowed; write the value out, or in quotes",
                problem_mark=event.start_mark,
            )
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem="tags (!) are not allowed", problem_mark=event.start_mark)
        self.nodes += 1
        if self.nodes > MAX_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_VALUES} values", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"duplicate key {show(key.value)}"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return node

    def construct_scalar(self, node: Any) -> Any:
        text = super().construct_scalar(node)
        try:  # JSON writes a character beyond U+FFFF as two escapes, which PyYAML leaves apart
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            problem = "half of a surrogate pair"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in rules if tag.endswith((":null", ":bool"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# Longer numbers stay text: Python's time for reading an integer grows with the square of its digits.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:(?:[0-9]{1,18}\.[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,4})?|[0-9]{1,18}[eE][-+]?[0-9]{1,4})$"
    ),
    list("-+.0123456789"),
)


def parse_file(path: Path, where: str) -> Any:
    try:
        content = _read(path).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not a valid config: not UTF-8 text (byte {error.start})") from None
    try:
        value = _parse(content)
    except ValueError as error:
        raise DataError(f"{where}: not a valid config: {error}") from None
    if value is None:
        raise DataError(f"{where}: not a valid config: it holds no settings ({{}} is the empty config)")
    return value


def parse_override(override: str) -> Any:
    """`key.sub=value` as the mapping that a file would hold."""
    name, equals, text = override.partition("=")
    name = name.strip()
    if not equals or not name:
        raise UsageError(f"--set {show(override)}: write it as key.sub=value, such as generation.beams=1")
    try:
        value = _parse(text)
    except ValueError as error:
        raise UsageError(f"--set: the value of {printable(name[:80])} is not valid YAML: {error}") from None
    return functools.reduce(lambda inner, part: {part: inner}, reversed(name.split(".")), value)


def _parse(text: str) -> Any:
    """The one YAML document in `text`; `ValueError` with one printable line when it is none."""
    try:
        return yaml.load(text, Loader=_Loader)  # _Loader is the safe loader with less
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ValueError(printable(error.problem or error.context or "cannot be parsed") + line) from None
    except yaml.reader.ReaderError as error:
        raise ValueError(f"{error.reason} (character {error.position})") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _read(path: Path) -> bytes:
    where = printable(str(path))
    need_file(path, "--config")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror})") from None
    if len(content) > MAX_BYTES:
        raise DataError(f"{where}: larger than {MAX_BYTES // 10**6} MB, so it cannot be a config")
    return content
