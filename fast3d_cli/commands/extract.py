"""`fast3d extract`: record the LLM's attention over the objects."""

from pathlib import Path
from typing import Annotated

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
    any_limit,
    any_seed,
    check_datasets,
    load,
    path_override,
)
from fast3d_cli.progress import RunProgress
from fast3d_core.errors import UsageError


def extract_command(
    split: Annotated[str, typer.Option(help="train, val, or all: both.")] = "all",
    dataset: DatasetOption = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, callback=any_limit, help="Only the first N samples of each dataset.", rich_help_panel="Data"
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            help="Also write infer_attn_maps_{split}_{dataset}.pt files, as published, to this folder.",
            rich_help_panel="Data",
        ),
    ] = None,
    targets: Annotated[
        Path | None, typer.Option(help="Folder of the store. Default: maps.targets.", rich_help_panel="Data")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=MOST_SAMPLES, help="Samples per batch.")] = 32,
    seed: Annotated[
        int, typer.Option(callback=any_seed, help="Draws one of a validation sample's reference answers.")
    ] = 0,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart",
            help="Throw away earlier maps of these datasets, and all maps in the folder made with other settings; "
            "replace whatever is in the way of --export.",
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="List checkpoint tensors that are not used.")
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Record the LLM's attention over the objects, with the right answer appended: what GAP learns to predict.

    The maps go to the folder `maps.targets`. An interrupted extraction continues with the same command. Under
    `accelerate launch -m fast3d_cli extract ...` the samples are shared out to several processes.
    """
    check_datasets(dataset)
    if split not in ("train", "val", "all"):
        raise UsageError(f"--split is train, val or all, not {split[:80]!r}")
    settings = load(config, [*(set_ or []), *path_override("maps.targets", targets)])
    from fast3d_core.config import need_path, output_path
    from fast3d_core.extraction import extract as extraction
    from fast3d_core.maps.store import TargetStore

    folder, annotations = output_path(settings, "maps.targets"), need_path(settings, "data.annotations")
    try:
        parts = [
            extraction.load_part(annotations, one, name, limit, seed)
            for one in (extraction.SPLITS if split == "all" else [split])
            for name in dict.fromkeys(dataset or settings.data.datasets)
        ]
        if export and not restart:
            extraction.check_export(parts, export)
        with RunProgress(verbose) as progress:
            summaries = extraction.extract(settings, parts, progress, batch_size=batch_size, seed=seed, restart=restart)
        if not summaries:
            return  # not the first of several processes
        exported = extraction.export(TargetStore.open(folder), parts, export, restart=restart) if export else []
    except KeyboardInterrupt:
        note("interrupted; the same command continues where it stopped")
        raise typer.Exit(130) from None
    if json:
        plain = {summary.part: summary.to_dict() for summary in summaries}
        print_json({"folder": str(folder), "parts": plain, "exported": [str(path) for path in exported]})
        return
    table = Table("", "samples", "samples/s", "on objects", box=SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for summary in summaries:
        speed = "-" if summary.samples_per_second is None else f"{summary.samples_per_second:.1f}"
        table.add_row(summary.part, str(summary.samples), speed, f"{100 * summary.mass:.1f}%")
    out.print(table)
    samples = sum(summary.samples for summary in summaries)
    if before := samples - sum(summary.computed for summary in summaries):
        note(f"{before} of {samples} samples were extracted before, their time is not counted")
    note(f"written to {folder}" + (f", exported to {export}" if export else ""))
