"""How the page shows methods: what they are called, their colours and markers, and the rules that its slider offers."""

from collections.abc import Iterable
from dataclasses import dataclass

from fast3d_core.pruning import METHODS
from fast3d_core.report.colours import shades

# matplotlib's markers, as methods name them, in Chart.js's words.
_MARKERS = {"o": "circle", "X": "crossRot", "^": "triangle", "s": "rect", "D": "rectRot", "P": "cross", "_": "dash"}


@dataclass(frozen=True)
class MethodView:
    """A method on the page.

    Attributes:
        light, dark: colours, "#rrggbb"; marker: one of Chart.js's.
        rule: of the slider, see `Pruner.rule`.
    """

    name: str
    title: str
    light: str
    dark: str
    marker: str
    rule: str | None


def in_order(names: Iterable[str | None]) -> list[str | None]:
    """These names once each: the registry's in its order, then those that are not there any more, then None."""
    known = list(METHODS)
    return sorted(set(names), key=lambda name: (name is None, known.index(name) if name in known else len(known), name))


def method_views(others: Iterable[str | None] = ()) -> list[MethodView]:
    """Those of the registry, and of `others`, whose runs may be of methods that are not installed any more."""
    views = []
    for name in in_order([*METHODS, *others]):
        if name is not None:
            style = METHODS.style(name)
            own, marker = shades(style.colour), _MARKERS.get(style.marker, "star")
            rule = METHODS[name].rule if name in METHODS else None
            views.append(MethodView(name, style.title, own.light, own.dark, marker, rule))
    return views
