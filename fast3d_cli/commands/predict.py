"""`fast3d predict`: attention maps for all samples, by the GAP network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from fast3d_cli.console import note, out, print_json
from fast3d_cli.options import (
    MOST_SAMPLES,
    ConfigOption,
    DatasetOption,
    JsonOption,
    SetOption,
    check_datasets,
    check_map_key,
    load,
    path_override,
)
from fast3d_cli.progress import RunProgress
from fast3d_core.errors import UsageError
from fast3d_core.runtime import launcher

if TYPE_CHECKING:
    from fast3d_core.gap.predictions import Compared


def predict_command(
    split: Annotated[str, typer.Option(help="train, val, or all: both.")] = "val",
    dataset: DatasetOption = None,
    maps: Annotated[
        Path | None, typer.Option(help="Folder to write to. Default: maps.predicted.", rich_help_panel="Data")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="The network's weights, .safetensors or .pth. Default: gap.checkpoint."),
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option(help="Extracted maps to compare with. Default: maps.targets.", rich_help_panel="Data"),
    ] = None,
    map_key: Annotated[
        str, typer.Option(help="Which extracted map to compare with: a_map or a_map_ori.", rich_help_panel="Data")
    ] = "a_map",
    layers: Annotated[
        str,
        typer.Option(help="LLM layers that map averages: all, from:N, or 3,5,8-11.", rich_help_panel="Data"),
    ] = "all",
    batch_size: Annotated[int, typer.Option(min=1, max=MOST_SAMPLES, help="Samples per batch.")] = 64,
    restart: Annotated[
        bool, typer.Option("--restart", help="Predict all again, and replace maps that fast3d did not write.")
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Predict attention maps with the GAP network `gap.checkpoint` (published .pth or ours), in the published form.

    Where extracted maps are there, tells how well they are predicted. Datasets that are done are not predicted again.
    """
    check_datasets(dataset)
    check_map_key(map_key)
    if split not in ("train", "val", "all"):
        raise UsageError(f"--split is train, val or all, not {split[:80]!r}")
    settings = load(config, [*(set_ or []), *path_override("gap.checkpoint", checkpoint)])
    process = launcher.this_process()
    if process and process.rank:  # it takes one process a few minutes
        if not launcher.is_watched():
            note(f"{process} are set, and the process of RANK=0 predicts; to run this one, unset them", everyone=True)
        return
    from fast3d_core.config import output_path
    from fast3d_core.gap.predictions import Targets, compare, predict
    from fast3d_core.pruning import METHODS
    from fast3d_core.runtime.devices import pick_device

    folder = maps or output_path(settings, "maps.predicted")
    splits = ("train", "val") if split == "all" else (split,)
    datasets = list(dict.fromkeys(dataset or settings.data.datasets))
    device = pick_device(settings.model.device)
    try:
        with RunProgress() as progress:
            predictions = predict(
                settings, splits, datasets, folder, device, progress, batch_size=batch_size, restart=restart
            )
    except KeyboardInterrupt:
        note("interrupted; the same command continues with the dataset where it stopped")
        raise typer.Exit(130) from None
    compared = compare(settings, predictions, Targets(targets or settings.maps.targets, map_key, layers), note)
    if json:
        print_json([one.to_dict() for one in compared])
        return
    out.print(_table(compared))
    if any(prediction.seconds is None for prediction in predictions):
        note("- samples/s: predicted before by the same network, read back")
    followers = "|".join(name for name, method in METHODS.items() if method.needs_map)
    note(f"written to {folder}; prune with `fast3d eval --method {followers}`, choose alpha with `fast3d search-alpha`")


def _table(compared: "list[Compared]") -> Table:
    # Narrow headers, so that all stays whole at 80 columns.
    columns = (
        "KL",
        "F1 of\nthe top\n5/10/20",
        "rank\ncorr.",
        "mass\nkept, %\n5/10/20",
        "at\nbest, %",
        "samples\nper s",
    )
    table = Table("maps", *columns, box=SIMPLE, padding=(0, 1, 0, 0))
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for one in compared:
        prediction, quality = one.prediction, one.quality
        speed = f"{len(prediction.logits) / prediction.seconds:.1f}" if prediction.seconds else "-"
        cells = ["-"] * 5
        if quality:
            cells = [
                f"{quality.kl:.3f}",
                "/".join(f"{100 * value:.0f}" for value in quality.f1.values()),
                f"{quality.rank_correlation:.2f}",
                "/".join(f"{100 * value:.0f}" for value in quality.mass.values()),
                "/".join(f"{100 * value:.0f}" for value in quality.best_mass.values()),
            ]
        table.add_row(one.name, *cells, speed)
    return table
