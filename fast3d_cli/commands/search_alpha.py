"""`fast3d search-alpha`: the SAP alpha that prunes a wanted share, and the file by which `fast3d eval` takes it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from fast3d_core.pruning.alpha_search import Outcome


def search_alpha_command(
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
    check_datasets(dataset)
    check_map_key(map_key)
    kind = check_map_kind(map_kind)
    from dataclasses import asdict

    from fast3d_core.evaluation.jobs import MapOptions
    from fast3d_core.evaluation.search_alpha import AlphaOptions, search_alpha
    from fast3d_core.pruning import DEFAULT

    options = AlphaOptions(target, tolerance, alpha, per_dataset)
    choice = MapOptions(maps, map_key, kind)
    found = search_alpha(load(config, set_), options, choice, dataset, note)
    if found.path:
        note(f"written to {found.path}; `fast3d eval --method {DEFAULT}` takes it from there")
    if json:
        about: dict[str, Any] = {"alpha": found.alpha, "target": target, "tolerance": tolerance, "valid": found.valid}
        about |= {"map_key": choice.key_or_default, **({} if kind is None else {"map_kind": kind})}
        print_json({**about, **asdict(found.outcome)})
        return
    out.print(_table(found.outcome, per_dataset))
    subject = "these alphas prune" if per_dataset else f"alpha {found.alpha} prunes"
    verdict = "within" if found.valid else "NOT within"
    ratio = f"{found.outcome.ratio:.2f}%"
    out.print(f"{subject} {ratio} on average, {verdict} {tolerance:g}% of the target of {target:g}%")


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
