"""`fast3d search-alpha`: the SAP alpha that prunes a wanted share, and the file by which `fast3d eval` takes it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from fast3d_cli.console import note, out, print_json
from fast3d_cli.options import (
    ConfigOption,
    DatasetOption,
    JsonOption,
    MapKindOption,
    SetOption,
    check_datasets,
    check_map_key,
    check_map_kind,
    load,
)
from fast3d_core.errors import DataError, UsageError

if TYPE_CHECKING:
    from fast3d_core.config import Config
    from fast3d_core.maps.kind import AttentionMap, MapKind
    from fast3d_core.pruning.alpha_search import Outcome
    from fast3d_core.pruning.sap import Alpha


def search_alpha(
    target: Annotated[float, typer.Option(help="Percentage of objects to prune, in [0, 100).")] = 90,
    tolerance: Annotated[float, typer.Option(help="How far off the target may be, in percent of the target.")] = 2,
    alpha: Annotated[
        float | None, typer.Option(help="Only show what this alpha prunes, in (0, 1]; writes nothing.")
    ] = None,
    per_dataset: Annotated[
        bool, typer.Option("--per-dataset", help="An alpha for each dataset, that meets the target on it.")
    ] = False,
    maps: Annotated[
        Path | None, typer.Option(help="Folder of attention maps. Default: maps.predicted.", rich_help_panel="Data")
    ] = None,
    map_key: Annotated[
        str | None,
        typer.Option(help="Which map of an entry: a_map (default) or a_map_ori.", rich_help_panel="Data"),
    ] = None,
    map_kind: MapKindOption = None,
    dataset: DatasetOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Find the alpha of sap that prunes a wanted share of the objects, exactly, from the attention maps alone.

    Of the alphas whose average over the datasets is the nearest to the target, the one with the fewest decimals. It is
    written to alpha.json in the runs folder, where `fast3d eval --method sap` takes it.
    """
    if not 0 <= target < 100:
        raise UsageError(f"--target must lie in [0, 100), not {target:g}")
    if not 0 <= tolerance < math.inf:
        raise UsageError(f"--tolerance is a percentage of the target, at least 0, not {tolerance:g}")
    if alpha is not None and not 0 < alpha <= 1:
        raise UsageError(f"--alpha must lie in (0, 1], not {alpha:g}")
    if alpha is not None and per_dataset:
        raise UsageError("--alpha only checks one alpha, --per-dataset searches several; give one of them")
    check_datasets(dataset)
    check_map_key(map_key)
    kind = check_map_kind(map_kind)
    settings = load(config, set_)
    from fast3d_core.config import need_path
    from fast3d_core.evaluation.found_alpha import write_alpha
    from fast3d_core.files.watched import WatchedFiles
    from fast3d_core.maps.origin import is_shipped, tell_unknown
    from fast3d_core.maps.published import MAP_KEYS, map_file
    from fast3d_core.pruning.alpha_search import outcome, within

    folder, key = maps or need_path(settings, "maps.predicted"), map_key or MAP_KEYS[0]
    names = list(dict.fromkeys(dataset or settings.data.datasets))
    files = WatchedFiles()
    files.watch(map_file(folder, name) for name in names)
    loaded, unknown = {}, []
    for name in names:
        loaded[name], known = _load(settings, folder, name, key, kind)
        unknown += [] if known else [name]
    if not is_shipped(settings, folder):
        tell_unknown(folder, unknown, settings.data.annotations, note)
    chosen: Alpha
    if alpha is not None:
        chosen = alpha
    elif per_dataset:
        chosen = {name: _search({name: loaded[name]}, target, tolerance, f" of {name}") for name in names}
    else:
        chosen = _search(loaded, target, tolerance)
    found = outcome(loaded, chosen)
    valid = within(found.ratio, target, tolerance)
    if alpha is None:
        path = write_alpha(settings, files, folder, key, chosen, found, target, tolerance, kind)
        from fast3d_core.pruning import DEFAULT

        note(f"written to {path}; `fast3d eval --method {DEFAULT}` takes it from there")
    if json:
        from dataclasses import asdict

        about = {"alpha": chosen, "target": target, "tolerance": tolerance, "valid": valid, "map_key": key}
        about |= {} if kind is None else {"map_kind": kind}
        print_json({**about, **asdict(found)})
        return
    out.print(_table(found, per_dataset))
    subject = "these alphas prune" if per_dataset else f"alpha {chosen} prunes"
    verdict = "within" if valid else "NOT within"
    out.print(f"{subject} {found.ratio:.2f}% on average, {verdict} {tolerance:g}% of the target of {target:g}%")


def _load(
    config: "Config", folder: Path, dataset: str, key: str, kind: "MapKind | None"
) -> "tuple[AttentionMap, bool]":
    """The maps of a dataset by index, as logits, and whether it is known of which questions.

    The annotations, which would tell how many there are, need not be there: maps are enough to choose an alpha.
    """

    from fast3d_core.benchmarks.questions import annotation_file
    from fast3d_core.maps.origin import load_known_maps

    questions = annotation_file(config.data.annotations, dataset)
    loaded, known = load_known_maps(folder, dataset, questions, key=key, objects=config.data.max_objects)
    return loaded.as_logits(kind).all(), known


def _search(maps: "dict[str, AttentionMap]", target: float, tolerance: float, of: str = "") -> float:
    """The alpha of the ratio nearest to the target. Raises `DataError` if that is not within the tolerance."""
    from fast3d_core.pruning.alpha_search import nearest, within

    around = nearest(maps, target)
    best = min(around, key=lambda one: abs(one.ratio - target))
    if not within(best.ratio, target, tolerance):
        shown = " and ".join(f"{one.ratio:.6g}% at alpha {one.alpha}" for one in around)
        raise DataError(f"no alpha prunes {target:g}%{of} to within {tolerance:g}% of that; nearest: {shown}")
    return best.alpha


def _table(found: "Outcome", per_dataset: bool) -> Table:
    objects = found.bin_edges[-1] - 1
    scale = f"1{objects:>{len(found.bin_edges) - 2}}"  # over the ends of the histogram
    titles = ["dataset", "samples", *(["alpha"] if per_dataset else []), "pruned", "kept\np5", "\np50", "\np95"]
    table = Table(*titles, box=SIMPLE, padding=(0, 1, 0, 0))
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    table.add_column(f"by objects kept\n{scale}", no_wrap=True)
    for name, one in found.datasets.items():
        alpha = [str(one.alpha)] if per_dataset else []
        kept = [f"{value:.0f}" for value in (one.kept_p5, one.kept_p50, one.kept_p95)]
        table.add_row(name, str(one.samples), *alpha, f"{one.ratio:.2f}%", *kept, _bars(one.histogram))
    return table


def _bars(counts: Sequence[int]) -> str:
    """A column for each count, the largest the highest; a count above 0 is never empty."""
    heights = "12345678" if out.options.ascii_only else "▁▂▃▄▅▆▇█"
    most = max(counts)
    return "".join(heights[math.ceil(8 * count / most) - 1] if count else " " for count in counts)
