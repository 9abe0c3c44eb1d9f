"""The settings of a pruning method: its dataclass fields, read as what the command line and the registry need."""

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fast3d_core.errors import UsageError
from fast3d_core.text import printable

if TYPE_CHECKING:
    from fast3d_core.pruning.base import Pruner

BUDGET = ("layer", "keep")
"""The settings that `--preset`, `--ratio`, or `--layer` with `--keep` set together."""

RESERVED = frozenset(
    (
        # Options of `fast3d eval`, `ask` and `bench`, by the names that fields would need for them.
        "all", "at_least", "baselines", "batch", "beams", "compare", "config", "dataset", "device", "dry_run",
        "dtype", "engine", "gap", "help", "html", "interactive", "json", "limit", "llm", "map_key",
        "map_kind", "maps", "meteor", "method", "methods", "name", "new_tokens", "no_meteor", "out", "preset",
        "processes", "question", "ratio", "repeats", "restart", "reuse_scene", "scene", "set", "task",
        "text_tokens", "verbose", "warmup",
        # What else a run's settings hold beside those of its method.
        "batch_size", "datasets", "fast3d_version", "files", "generation", "lora_alpha", "max_objects", "model",
        "method_package", "units",
    )
)  # fmt: skip
"""Names that no setting may have; tests hold them against the commands and the settings of runs."""

LARGEST = 2**63 - 1
"""The largest integer of a setting: the files of a run, which hold it, are read with 64 bits."""

_LONGEST = 200  # characters of a text: it becomes part of run names, tables and error messages of one line
_KNOWN: Mapping[str, type] = {"layer": int, "keep": int, "alpha": float, "seed": int}
"""Fields with a meaning of their own, which need no `setting(...)`, and their types."""

_KNOWN_DOCS = {
    "layer": "K: tokens are dropped from this layer on",
    "keep": "visual tokens kept",
    "alpha": "share of predicted attention to keep",
    "seed": "seed of the draw",
}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class SettingsError(UsageError):
    """A class whose fields cannot become options: a fault of the method, which the registry refuses."""


@dataclass(frozen=True)
class Setting:
    """A setting of one method.

    Attributes:
        name: of the field; the option is `--` and the name, with hyphens.
        kind: bool, int, float or str; choices: of a `Literal`, else empty.
        default: `dataclasses.MISSING` where the setting has to be given.
        doc: meaning and unit in one line.
        at_least, above, at_most: bounds of a number; form: of a text, see `fast3d_core.fields.setting`.
        by_dataset: whether there may be one value for each dataset, as a mapping.
    """

    name: str
    kind: type
    choices: tuple[Any, ...]
    default: Any
    doc: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    form: tuple[str, str] | None = None
    by_dataset: bool = False

    @property
    def option(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def flags(self) -> tuple[str, ...]:
        """The options as they are typed: `--name`, and `--no-name` of a bool."""
        return (self.option, f"--no-{self.option[2:]}") if self.kind is bool else (self.option,)

    @property
    def required(self) -> bool:
        """Whether the setting has to be given. A seed without a default is 0."""
        return self.default is dataclasses.MISSING and self.name != "seed"

    @property
    def type_name(self) -> str:
        return " or ".join(map(repr, self.choices)) if self.choices else self.kind.__name__

    def described(self) -> str:
        """The meaning, bounds and default in one line, for help texts."""
        notes = [self._bounds()] if self._bounds() else []
        notes += [self.form[1]] if self.form else []
        notes += [", ".join(map(str, self.choices))] if self.choices else []
        if self.default is not dataclasses.MISSING and self.default is not None:
            notes.append(f"default {_shown(self.default)}")
        return f"{self.doc} ({'; '.join(notes)})" if notes else self.doc

    def check(self, value: Any) -> Any:
        """`value` in the setting's type. Raises `UsageError` with one line where it is none, or out of bounds."""
        if isinstance(value, Mapping) and self.by_dataset:
            return {dataset: self.check(own) for dataset, own in value.items()}
        if self.choices:
            return self._chosen(value)
        if self.kind is bool:
            return value if isinstance(value, bool) else self._refuse("true or false", value)
        return self._checked_text(value) if self.kind is str else self._checked_number(value)

    def _chosen(self, value: Any) -> Any:
        found = [choice for choice in self.choices if choice == value or str(choice) == value]
        if found:
            return found[0]
        near = difflib.get_close_matches(str(value)[:100], map(str, self.choices), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"{self.option} must be one of {', '.join(map(str, self.choices))}, not {_shown(value)}{hint}")

    def _checked_text(self, value: Any) -> str:
        if not isinstance(value, str) or not value.isprintable() or len(value) > _LONGEST:
            self._refuse(f"a text of at most {_LONGEST} printable characters", value)
        if self.form and not re.fullmatch(self.form[0], value):
            self._refuse(self.form[1], value)
        return str(value)

    def _checked_number(self, value: Any) -> int | float:
        wanted, what = ((int, float), "a finite number") if self.kind is float else ((int,), "a 64-bit integer")
        if isinstance(value, bool) or not isinstance(value, wanted):
            self._refuse(what, value)
        if not math.isfinite(value) or (self.kind is int and abs(value) > LARGEST):
            self._refuse(what, value)
        low = self.at_least is None or value >= self.at_least
        if not (low and (self.above is None or value > self.above) and (self.at_most is None or value <= self.at_most)):
            verb = "lie" if self._bounds().startswith("in") else "be"
            raise UsageError(f"{self.option} must {verb} {self._bounds()}, not {value:g}")
        return self.kind(value)  # type: ignore[no-any-return]

    def _bounds(self) -> str:
        """As "in (0, 1]", or "at least 0"; empty without bounds."""
        low = self.above if self.at_least is None else self.at_least
        if low is not None and self.at_most is not None:
            return f"in {'(' if self.at_least is None else '['}{low:g}, {self.at_most:g}]"
        if low is not None:
            return f"{'above' if self.at_least is None else 'at least'} {low:g}"
        return "" if self.at_most is None else f"at most {self.at_most:g}"

    def _refuse(self, wanted: str, value: Any) -> typing.NoReturn:
        raise UsageError(f"{self.option} must be {wanted}, not {_shown(value)}")


def settings_of(method: "type[Pruner]") -> list[Setting]:
    """The settings of a method, in the order of its fields.

    Raises `SettingsError`, in one line, for a field that no option could set: it would keep its default, whatever a
    user says.
    """
    fields = dataclasses.fields(method) if dataclasses.is_dataclass(method) else ()
    try:
        hints = typing.get_type_hints(method)
    except Exception as error:
        raise SettingsError(f"the types of its fields cannot be read ({error})") from None
    settings = [_setting(field, hints[field.name]) for field in fields]
    if [name in hints for name in BUDGET].count(True) == 1:
        raise SettingsError("it has one of the settings layer and keep; a budget is both of them")
    return settings


def _setting(field: "dataclasses.Field[Any]", hint: Any) -> Setting:
    name, meta = field.name, field.metadata
    if not _NAME.fullmatch(name) or name in RESERVED:
        raise SettingsError(f"its setting {name!r} needs another name: that one is taken, or is no name of an option")
    if "doc" not in meta and name not in _KNOWN:
        raise SettingsError(f"its field {name!r} is no option; make it by fast3d_core.fields.setting(default, doc)")
    by_dataset = name == "alpha" and any(typing.get_origin(one) is _MAPPING for one in typing.get_args(hint))
    kind, choices = _kind(name, hint)
    if name in _KNOWN and (kind is not _KNOWN[name] or choices):
        raise SettingsError(f"its setting {name!r} is of type {_type_text(hint)}, but must be {_KNOWN[name].__name__}")
    if field.default_factory is not dataclasses.MISSING or not field.init:
        raise SettingsError(f"its setting {name!r} needs a plain default, by setting(default, doc)")
    bounds = {key: meta.get(key) for key in ("at_least", "above", "at_most", "form")}
    doc = meta.get("doc") or _KNOWN_DOCS.get(name, "")
    made = Setting(name, kind, choices, field.default, printable(doc), by_dataset=by_dataset, **bounds)
    if field.default is dataclasses.MISSING or (field.default is None and type(None) in typing.get_args(hint)):
        return made
    try:
        made.check(field.default)
    except UsageError as problem:
        raise SettingsError(f"the default of its setting {name!r} is not one: {problem}") from None
    return made


_MAPPING = typing.get_origin(Mapping[str, float])


def _kind(name: str, hint: Any) -> tuple[type, tuple[Any, ...]]:
    """The type of a value and, of a `Literal`, the choices; None and mappings aside."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    parts = tuple(one for one in parts if one is not type(None) and typing.get_origin(one) is not _MAPPING)
    if len(parts) == 1:
        if parts[0] in (bool, int, float, str):
            return parts[0], ()
        choices = typing.get_args(parts[0])
        types_ = {type(one) for one in choices} if typing.get_origin(parts[0]) is Literal else set()
        if types_ in ({int}, {str}):
            return types_.pop(), choices
    raise SettingsError(
        f"its setting {name!r} is of type {_type_text(hint)}, for which there is no option; take bool, int, float, "
        "str, or a Literal of texts or of integers"
    )


def _type_text(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def _shown(value: Any) -> str:
    """A value in a message: one line, short."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return printable(text if len(text) <= 80 else text[:77] + "...")
