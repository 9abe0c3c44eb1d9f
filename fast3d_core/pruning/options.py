"""From a command's options to pruning methods: one for each method and each budget asked for."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fast3d_core.errors import UsageError
from fast3d_core.plan import Units
from fast3d_core.pruning import METHODS, Pruner
from fast3d_core.pruning.budget import Budget, check_keep, check_layer, from_preset, from_ratio
from fast3d_core.pruning.sap import Alpha

OPTIONS = ("layer", "keep", "alpha", "seed")
"""The settings of methods for which there are options; `layer` and `keep` are a budget."""


@dataclass(frozen=True)
class MethodOptions:
    """What a user may say about a budget; None or empty where nothing was said.

    Attributes:
        presets: published settings (35, 65, 90), each a run of its own.
        layer, keep: K and the visual tokens kept; ratio: layer-averaged percentage pruned.
        alphas: shares of predicted attention, each a run of its own; one share, or one for each dataset by name.
        seed: of random draws.
    """

    presets: Sequence[int] = ()
    layer: int | None = None
    keep: int | None = None
    ratio: float | None = None
    alphas: Sequence[Alpha] = ()
    seed: int | None = None


def build_pruners(methods: Sequence[str], options: MethodOptions, layers: int, units: Units) -> list[Pruner]:
    """The methods, in the order given, for an LLM of `layers` layers and prompts of these units.

    A method takes the options that its fields name. Raises `UsageError` for an unknown method, one with a setting for
    which there is no option, a budget that is missing, contradictory or out of range, and for an option that none of
    the methods takes.
    """
    classes = [_method(name) for name in dict.fromkeys(methods)]
    taken = settings_taken(methods)
    named = ", ".join(cls.name for cls in classes)
    for option, field, given in (
        ("--preset", "keep", options.presets),
        ("--layer", "layer", options.layer is not None),
        ("--keep", "keep", options.keep is not None),
        ("--ratio", "keep", options.ratio is not None),
        ("--alpha", "alpha", options.alphas),
        ("--seed", "seed", options.seed is not None),
    ):
        if given and field not in taken:
            raise UsageError(f"{option} means nothing to {named}")
    return [pruner for cls in classes for pruner in _variants(cls, options, layers, units)]


def settings_taken(methods: Sequence[str]) -> set[str]:
    """The settings that any of the methods takes, such as "alpha". Raises `UsageError` for an unknown method."""
    return {field.name for name in methods for field in dataclasses.fields(_method(name))}


def run_name(pruner: Pruner) -> str:
    """The run folder's name for a method and its settings, e.g. `gap-K2-keep15`."""
    parts = [pruner.name]
    for field in dataclasses.fields(pruner):
        label = {"layer": "K", "keep": "keep"}.get(field.name, field.name)
        value = getattr(pruner, field.name)
        parts.append("per-dataset" if isinstance(value, Mapping) else f"{label}{value}")
    return "-".join(parts)


def _method(name: str) -> type[Pruner]:
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"there is no method {name!r}; choose from {', '.join(METHODS)}{hint}")
    method = METHODS[name]
    _check_fields(method)
    return method


def _check_fields(cls: type[Pruner]) -> None:
    """Raises `UsageError` for settings that no option sets: they would keep their defaults, whatever a user says."""
    fields = [field.name for field in dataclasses.fields(cls)]
    if strange := [field for field in fields if field not in OPTIONS]:
        raise UsageError(
            f"the method {cls.name} has a setting {strange[0]!r}, for which there is no option; "
            f"options exist for {', '.join(OPTIONS)}"
        )
    if ("layer" in fields) != ("keep" in fields):
        raise UsageError(f"the method {cls.name} has one of the settings layer and keep; a budget is both of them")


def _variants(cls: type[Pruner], options: MethodOptions, layers: int, units: Units) -> list[Pruner]:
    """The method with every budget and every alpha that were asked for."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    settings: list[dict[str, Any]] = [{}]
    if "keep" in fields:
        settings = [dataclasses.asdict(budget) for budget in _budgets(cls.name, options, layers, units)]
    if "alpha" in fields:
        if not options.alphas:
            raise UsageError(
                f"{cls.name} needs --alpha, the share of predicted attention to keep (published: 0.21); give it, or "
                "find one with `fast3d search-alpha --target 90`, which eval then takes"
            )
        settings = [{**one, "alpha": alpha} for one in settings for alpha in options.alphas]
    if "seed" in fields and (options.seed is not None or fields["seed"].default is dataclasses.MISSING):
        settings = [{**one, "seed": options.seed or 0} for one in settings]
    pruners = [cls(**one) for one in settings]
    return [pruner for i, pruner in enumerate(pruners) if pruner not in pruners[:i]]


def _budgets(method: str, options: MethodOptions, layers: int, units: Units) -> list[Budget]:
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
