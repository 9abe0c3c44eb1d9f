"""`fast3d score`: the metrics of predictions that already exist."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fast3d_cli.console import note, out, print_json
from fast3d_cli.options import (
    ConfigOption,
    DatasetOption,
    JsonOption,
    MeteorOption,
    SetOption,
    check_datasets,
    load,
)

if TYPE_CHECKING:
    from fast3d_core.evaluation.result import Result


def score(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of <dataset>.json or preds_*<dataset>.json files.")
    ],
    dataset: DatasetOption = None,
    name: Annotated[
        str | None, typer.Option(help="Also write the result to a run folder of this name, for `fast3d report`.")
    ] = None,
    meteor: MeteorOption = True,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Score prediction files in the published record format, ours or anybody's, without a model."""
    check_datasets(dataset)
    settings = load(config, set_)
    from fast3d_core.config import need_path
    from fast3d_core.evaluation.scoring import score_to_run

    annotations = need_path(settings, "data.annotations")
    result, scores = score_to_run(folder, annotations, settings.runs, name, dataset, meteor=meteor)
    if json:
        print_json(result.to_dict())
    else:
        out.print(_table(result))
    for remark in result.notes:
        note(remark)
    for error in scores.errors.values():
        raise error


def _table(result: "Result") -> Table:
    table = Table("metric", "score")
    table.columns[1].justify = "right"
    for key, value in result.metrics.items():
        table.add_row(key, "-" if value is None else f"{100 * value:.2f}")
    return table
