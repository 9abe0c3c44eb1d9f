"""From a command's options to pruning methods: one for each method and each budget asked for."""

import dataclasses
import difflib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fast3d_core.errors import UsageError
from fast3d_core.pruning.base import Pruner
from fast3d_core.pruning.registry import METHODS
from fast3d_core.pruning.settings import BUDGET, Setting
from fast3d_core.text import first_line, printable

if TYPE_CHECKING:
    from fast3d_core.plan import Units
    from fast3d_core.pruning.budget import Budget
    from fast3d_core.pruning.sap import Alpha

_LONGEST_NAME = 150  # characters: a file system's 255 bytes, less what eval puts before and behind it
_PLAIN = re.compile(r"[A-Za-z0-9_.+][A-Za-z0-9_.+-]{0,39}")  # texts that a folder's name may have as they are


@dataclass(frozen=True)
class MethodOptions:
    """What a user may say about methods; None or empty where a user does not.

    Attributes:
        presets: published settings (35, 65, 90), each a run of its own.
        layer, keep: K and the visual tokens kept; ratio: layer-averaged percentage pruned.
        alphas: shares of predicted attention, each a run of its own; one share, or one for each dataset by name.
        settings: all others of the methods' settings that were given, by name.
        found_alpha: what `fast3d search-alpha` found, for methods that have no default where `alphas` is empty.
    """

    presets: Sequence[int] = ()
    layer: int | None = None
    keep: int | None = None
    ratio: float | None = None
    alphas: "Sequence[Alpha]" = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    found_alpha: "Alpha | None" = None

    def taken_by(self, methods: Sequence[str]) -> "MethodOptions":
        """What these methods take of it."""
        taken = settings_taken(methods)
        budget = "keep" in taken
        return MethodOptions(
            self.presets if budget else (),
            self.layer if budget else None,
            self.keep if budget else None,
            self.ratio if budget else None,
            self.alphas if "alpha" in taken else (),
            {name: value for name, value in self.settings.items() if name in taken},
            self.found_alpha,
        )


def build_pruners(methods: Sequence[str], options: MethodOptions, layers: int, units: "Units") -> list[Pruner]:
    """The methods, in the order given, for an LLM of `layers` layers and prompts of these units.

    A method takes the options that its fields name. Raises `UsageError` for an unknown method, a setting or a budget
    that is missing, contradictory or out of range, and for an option that none of the methods takes.
    """
    classes = [_method(name) for name in dict.fromkeys(methods)]
    check_options(methods, options)
    return [pruner for cls in classes for pruner in _variants(cls, options, layers, units)]


def check_options(methods: Sequence[str], options: MethodOptions) -> None:
    """Raises `UsageError` for an option that none of the methods takes, and for an unknown method."""
    taken = settings_taken(methods)
    named = ", ".join(dict.fromkeys(methods))
    for option, name, given in (
        ("--preset", "keep", options.presets),
        ("--layer", "layer", options.layer is not None),
        ("--keep", "keep", options.keep is not None),
        ("--ratio", "keep", options.ratio is not None),
        ("--alpha", "alpha", options.alphas),
        *((f"--{name.replace('_', '-')}", name, True) for name in options.settings),
    ):
        if given and name not in taken:
            raise UsageError(f"{option} means nothing to {named}")


def settings_taken(methods: Sequence[str]) -> set[str]:
    """The settings that any of the methods takes, such as "alpha". Raises `UsageError` for an unknown method."""
    return {setting.name for name in methods for setting in METHODS.settings[_method(name).name]}


def methods_with(name: str) -> list[str]:
    """The methods that have this setting."""
    return [method for method, settings in METHODS.settings.items() if name in {one.name for one in settings}]


def wants_alpha(methods: Sequence[str]) -> bool:
    """Whether any of the methods has to be given an alpha. Raises `UsageError` for an unknown method."""
    settings = [one for name in methods for one in METHODS.settings[_method(name).name]]
    return any(one.name == "alpha" and one.required for one in settings)


def run_name(pruner: Pruner) -> str:
    """The run folder's name for a method and its settings, e.g. `gap-K2-keep15`; a bool is named or `no-` and named."""
    parts = [pruner.name]
    for one in dataclasses.fields(pruner):
        label = {"layer": "K", "keep": "keep"}.get(one.name, one.name)
        value = getattr(pruner, one.name)
        if isinstance(value, Mapping):
            parts.append("per-dataset")
        elif isinstance(value, bool):
            parts.append(label if value else f"no-{label}")
        else:
            parts.append(f"{label}{_safe(value) if isinstance(value, str) else value}")
    name = "-".join(parts)
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}-{_digest(name)}"


def _safe(text: str) -> str:
    """A text as part of a folder's name; of one that may not stand there what may, and a digest."""
    return text if _PLAIN.fullmatch(text) else f"{re.sub(r'[^A-Za-z0-9_.+]', '_', text)[:24]}-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]


def _method(name: str) -> type[Pruner]:
    try:
        return METHODS[name]
    except KeyError:
        near = difflib.get_close_matches(name[:80], METHODS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"there is no method {name[:80]!r}; choose from {', '.join(METHODS)}{hint}") from None


def _variants(cls: type[Pruner], options: MethodOptions, layers: int, units: "Units") -> list[Pruner]:
    """The method with every budget and every alpha that were asked for."""
    settings = {setting.name: setting for setting in METHODS.settings[cls.name]}
    variants: list[dict[str, Any]] = [{}]
    if "keep" in settings:
        variants = [dataclasses.asdict(budget) for budget in _budgets(cls.name, options, layers, units)]
    if alphas := _alphas(cls.name, settings.get("alpha"), options):
        variants = [{**one, "alpha": alpha} for one in variants for alpha in alphas]
    for name, setting in settings.items():
        if name in (*BUDGET, "alpha"):
            continue
        if name in options.settings:
            variants = [{**one, name: setting.check(options.settings[name])} for one in variants]
        elif setting.required:
            raise UsageError(f"{cls.name} needs {setting.option}: {setting.described()}")
        elif setting.default is dataclasses.MISSING:  # a seed
            variants = [{**one, name: 0} for one in variants]
    pruners = [_made(cls, one) for one in variants]
    return [pruner for i, pruner in enumerate(pruners) if pruner not in pruners[:i]]


def _made(cls: type[Pruner], values: Mapping[str, Any]) -> Pruner:
    """The method with these settings, of which each alone is one."""
    try:
        return cls(**values)
    except (ValueError, TypeError, ArithmeticError) as error:  # of a class that checks them together
        raise UsageError(printable(f"{cls.name} cannot be made with these settings: {first_line(error)}")) from error


def _alphas(method: str, setting: Setting | None, options: MethodOptions) -> "list[Alpha]":
    """Those to make variants with; none where the method has none, or a default."""
    if setting is None:
        return []
    alphas = options.alphas
    if not alphas and setting.required and options.found_alpha is not None:
        alphas = [options.found_alpha]
    if not alphas and setting.required:
        raise UsageError(
            f"{method} needs --alpha, the share of predicted attention to keep (published: 0.21); give it, or "
            "find one with `fast3d search-alpha --target 90`, which eval then takes"
        )
    if not setting.by_dataset and any(isinstance(alpha, Mapping) for alpha in alphas):
        raise UsageError(f"{method} takes one alpha for all datasets, and that is one for each; give --alpha")
    return [setting.check(alpha) for alpha in alphas]


def _budgets(method: str, options: MethodOptions, layers: int, units: "Units") -> "list[Budget]":
    from fast3d_core.pruning.budget import Budget, check_keep, check_layer, from_preset, from_ratio

    by_count = options.keep is not None
    ways = [bool(options.presets), by_count, options.ratio is not None]
    if sum(ways) != 1:
        problem = "needs a budget" if not any(ways) else "takes one kind of budget"
        raise UsageError(
            f"{method} {problem}: --preset 35|65|90, or --layer K --keep N, or --ratio R (with or without --layer)"
        )
    if options.presets:
        if options.layer is not None:
            raise UsageError("--preset brings its own K; leave --layer out, or use --ratio with it")
        return [from_preset(preset, layers, units) for preset in dict.fromkeys(options.presets)]
    if options.ratio is not None:
        return [from_ratio(options.ratio, layers, units, layer=options.layer)]
    if options.layer is None:
        raise UsageError("--keep needs --layer K, the layer from which on only the kept tokens are seen")
    assert options.keep is not None
    check_layer(options.layer, layers)
    check_keep(options.keep, units)
    return [Budget(options.layer, options.keep)]
