"""Token budgets: the published presets, and how to reach a given layer-averaged ratio on any depth."""

from dataclasses import dataclass

from fast3d_core.errors import UsageError
from fast3d_core.plan import Units, pruning_ratio

# arXiv 2507.09334, table 1: (K, visual tokens kept) on 32 layers and 300 tokens; 35, 65 and 89.0625% pruned.
PRESETS = {35: (16, 90), 65: (6, 60), 90: (2, 15)}
_PRESET_LAYERS = 32
_PRESET_VISUAL = 300


@dataclass(frozen=True)
class Budget:
    """From layer `layer` on, `keep` visual tokens are kept."""

    layer: int
    keep: int


class _UnreachableError(UsageError):
    """A ratio that the LLM is too shallow for: what is so, and what to do where the ratio was given."""

    def __init__(self, what: str, advice: str):
        super().__init__(f"{what} ({advice})")
        self.what = what


def from_preset(preset: int, layers: int, units: Units) -> Budget:
    """A published setting carried over to `layers` layers: K the same fraction of the depth, the ratio the same."""
    if preset not in PRESETS:
        raise UsageError(f"--preset must be one of {', '.join(map(str, PRESETS))}, not {preset}")
    layer, keep = PRESETS[preset]
    if layers == _PRESET_LAYERS and units.visual == _PRESET_VISUAL:
        return Budget(layer, keep)
    ratio = 100 * pruning_ratio(_PRESET_LAYERS, _PRESET_VISUAL, [(layer, keep)])
    try:
        return from_ratio(ratio, layers, units)
    except _UnreachableError as problem:
        lower = [str(other) for other in PRESETS if other < preset]
        others = f"a lower --preset ({', '.join(lower)}), or in its place" if lower else "in its place"
        raise UsageError(f"--preset {preset}: {problem.what}; give {others} --ratio, or --layer and --keep") from None


def from_ratio(ratio: float, layers: int, units: Units, *, layer: int | None = None) -> Budget:
    """The budget whose layer-averaged ratio is nearest to `ratio` percent, whole units kept.

    Without `layer`, K is the nearest preset's fraction of the depth. Raises `UsageError` with the largest reachable
    ratio when fewer than one unit would be kept.
    """
    if not 0 <= ratio < 100:
        raise UsageError(f"--ratio is a percentage from 0 to below 100, not {ratio:g}")
    chosen = layer is not None
    if layer is None:
        if layers < 2:
            raise _UnreachableError(f"an LLM of {layers} layer has no layer K >= 1 to prune from", "use --layer 0")
        layer = _preset_layer(ratio, layers)
    check_layer(layer, layers)
    keep = units.tokens * round(units.count * (1 - ratio / 100 * layers / (layers - layer)))
    if keep < units.tokens:
        largest = 100 * pruning_ratio(layers, units.visual, [(layer, units.tokens)])
        raise _UnreachableError(
            f"{ratio:.4g}% cannot be pruned from layer {layer} of {layers} on: "
            f"the largest reachable ratio is {largest:.2f}%",
            "use a lower --ratio" if layer == 0 or not chosen else "use a lower --ratio or --layer",
        )
    return Budget(layer, keep)


def check_layer(layer: int, layers: int) -> None:
    """Raises `UsageError` unless 0 <= `layer` < `layers`."""
    if not 0 <= layer < layers:
        raise UsageError(f"--layer must lie in 0..{layers - 1} for this LLM of {layers} layers, not {layer}")


def check_keep(keep: int, units: Units) -> None:
    """Raises `UsageError` unless 1 <= `keep` <= visual tokens."""
    if not 1 <= keep <= units.visual:
        raise UsageError(f"--keep must lie in 1..{units.visual} visual tokens, not {keep}")


def _preset_layer(ratio: float, layers: int) -> int:
    ratios = {p: 100 * pruning_ratio(_PRESET_LAYERS, _PRESET_VISUAL, [stage]) for p, stage in PRESETS.items()}
    nearest = min(ratios, key=lambda preset: abs(ratios[preset] - ratio))
    return max(1, round(layers * PRESETS[nearest][0] / _PRESET_LAYERS))
