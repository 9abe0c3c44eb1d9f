"""Commands whose options the pruning methods bring: `cls=MethodCommand` for `app.command`.

Help texts of such a command may say {methods}, {baseline}, {default} and {logits}, for which the registry's names are
put. The options are made when the command is looked at, so that `fast3d --help` loads no method.
"""

import inspect
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any

import typer
import typer.main
from rich.markup import escape
from typer.core import TyperCommand

from fast3d_cli.console import note_once
from fast3d_cli.options import BUDGET, any_seed
from fast3d_core.pruning.settings import BUDGET as BUDGET_SETTINGS
from fast3d_core.pruning.settings import Setting
from fast3d_core.text import printable

SETTINGS = "Settings of methods"  # panel of --help
_PREFIX = "setting_"  # of the parameters' names, which no other of the command's has


class MethodCommand(TyperCommand):
    """A command with an option for each setting of a method. What was given is the context's `obj`, by setting.

    Attributes:
        left_out: settings that have no option here, or one of the command's own; several: those that may be given
            several times, whose values are a list.
    """

    left_out: tuple[str, ...] = ()
    several: tuple[str, ...] = ()

    def get_params(self, ctx: Any) -> list[Any]:
        """The command's own options, --help last, with the settings' before it."""
        *own, help_ = super().get_params(ctx)
        for parameter in own:
            if "{" in (text := getattr(parameter, "help", None) or ""):
                setattr(parameter, "help", text.format(**_words()))  # noqa: B010 (arguments have none)
        return [*own, *self._options, help_]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """What each method does stands behind the options."""
        self.epilog = _methods_text()
        super().format_help(ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        names = [name for name in ctx.params if name.startswith(_PREFIX)]
        given = {name.removeprefix(_PREFIX): ctx.params.pop(name) for name in names}
        ctx.obj = {name: value for name, value in given.items() if value not in (None, [], ())}
        return super().invoke(ctx)

    @cached_property
    def _options(self) -> list[Any]:
        """The settings' options, made by Typer from a signature that has them."""
        from fast3d_core.pruning import METHODS

        for problem in METHODS.problems:
            note_once(problem)

        def settings(**values: Any) -> None:
            """The options of this command are those of another."""

        left_out = (*BUDGET_SETTINGS, *self.left_out)
        grouped = {name: who for name, who in _by_setting(METHODS.settings).items() if name not in left_out}
        parameters = [_parameter(who, several=name in self.several) for name, who in grouped.items()]
        settings.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        settings.__annotations__ = {one.name: one.annotation for one in parameters}
        app = typer.Typer(add_completion=False)
        app.command(add_help_option=False)(settings)
        return [one for one in typer.main.get_command(app).params if one.name.startswith(_PREFIX)]


class EvalCommand(MethodCommand):
    """One run for each alpha."""

    several = ("alpha",)


class BenchCommand(MethodCommand):
    """The alpha is searched for; the seed is also that of weights and questions."""

    left_out = ("alpha", "seed")


def _by_setting(settings: Mapping[str, Iterable[Setting]]) -> dict[str, list[tuple[str, Setting]]]:
    """Each setting's methods."""
    found: dict[str, list[tuple[str, Setting]]] = {}
    for method, own in settings.items():
        for one in own:
            found.setdefault(one.name, []).append((method, one))
    return found


def _parameter(methods: list[tuple[str, Setting]], several: bool) -> inspect.Parameter:
    """The parameter of a setting that these methods share, for Typer."""
    first = methods[0][1]
    help_ = _help(methods)
    more = "Repeatable." if several else ""
    if first.name == "alpha":
        more += " Default: as search-alpha found."
    option = typer.Option(
        "/".join(first.flags),
        help=f"{help_} {more}".strip(),
        callback=any_seed if first.name == "seed" else None,
        metavar="|".join(map(str, first.choices)) or None,
        rich_help_panel=BUDGET if first.name in ("alpha", "seed") else SETTINGS,
        show_default=False,
    )
    kind: Any = str if first.choices else first.kind
    kind = list[kind] if several else kind
    annotation: Any = Annotated[kind | None, option]
    return inspect.Parameter(_PREFIX + first.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _help(methods: list[tuple[str, Setting]]) -> str:
    """Which methods take the setting and what it means to them: "random: seed of the draw (default 0).\""""
    meanings: dict[str, list[str]] = {}
    for name, setting in methods:
        meanings.setdefault(setting.described(), []).append(name)
    return " ".join(f"{', '.join(names)}: {escape(meaning).rstrip('.')}." for meaning, names in meanings.items())


def _words() -> dict[str, str]:
    """What help texts may name."""
    from fast3d_core.pruning import BASELINE, DEFAULT, METHODS

    logits = [name for name, method in METHODS.items() if method.needs_logits]
    return {"methods": _listed(METHODS), "baseline": BASELINE, "default": DEFAULT, "logits": ", ".join(logits)}


def _listed(names: Iterable[str]) -> str:
    """As in a sentence: "vanilla, random or sap"."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _methods_text() -> str:
    """A paragraph for each method: what it does, by its docstring's first line, and its paper."""
    from fast3d_core.pruning import METHODS

    texts = []
    for name, method in METHODS.items():
        does = (inspect.getdoc(method) or "").split("\n")[0]
        texts.append(escape(printable(f"{name}: {does}" + (f" {method.source}." if method.source else ""))))
    return "\n\n".join(texts)
