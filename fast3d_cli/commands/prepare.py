"""`fast3d prepare`: the published annotation files from the raw releases."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from fast3d_cli.console import note, out, print_json
from fast3d_cli.options import ConfigOption, JsonOption, SetOption, any_seed, check_datasets, load
from fast3d_core.errors import UsageError

if TYPE_CHECKING:
    from fast3d_core.prepare import Prepared


def prepare(
    raw: Annotated[
        Path,
        typer.Argument(metavar="RAW_DIR", help="Folder of the raw releases, as they unpack or all in one place."),
    ],
    to: Annotated[
        Path, typer.Option(help="Annotations folder to write to; the published boxes are read from there, or RAW_DIR.")
    ] = Path("annotations"),
    split: Annotated[str, typer.Option(help="train, val, or all: both.")] = "all",
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="Only this dataset. Repeatable. Default: those that are there."),
    ] = None,
    seed: Annotated[int, typer.Option(callback=any_seed, help="Seed of the choice of wordings.")] = 0,
    replace: Annotated[bool, typer.Option("--replace", help="Replace files that are there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report; writes nothing.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Make the annotation files of ScanRefer, Multi3DRefer, Scan2Cap, ScanQA and SQA3D from their raw releases.

    Detected and ground-truth boxes and the features are not made: `fast3d download annotations` gets them. Of the
    config, data.max_objects is read: boxes beyond have no name.
    """
    check_datasets(dataset)
    if split not in ("train", "val", "all"):
        raise UsageError(f"--split is train, val or all, not {split[:80]!r}")
    from fast3d_core.prepare import SPLITS
    from fast3d_core.prepare import prepare as convert

    splits = SPLITS if split == "all" else (split,)
    prepared = convert(raw, to, list(dict.fromkeys(dataset or ())), splits, seed, _max_objects(config, set_))
    if not dry_run:
        prepared.write(replace)
    if json:
        _print_json(prepared, seed, not dry_run)
    else:
        out.print(_table(prepared))
    _remark(prepared, dry_run)


def _max_objects(config: Path | None, overrides: list[str] | None) -> int:
    """`data.max_objects` of the config; without any, the published number, for which no demo has to be written."""
    from fast3d_core.config import DataConfig

    if config is None and not overrides and not os.path.lexists("fast3d.yaml"):
        return DataConfig.max_objects
    return load(config, overrides).data.max_objects


def _print_json(prepared: "Prepared", seed: int, written: bool) -> None:
    from dataclasses import asdict

    print_json(
        {
            "folder": str(prepared.folder),
            "seed": seed,
            "written": written,
            "files": [path.name for path in prepared.contents],
            "parts": [asdict(part) for part in prepared.parts],
            "missing": [asdict(one) for one in prepared.missing],
            "lacking": prepared.lacking,
            "notes": prepared.notes,
        }
    )


def _table(prepared: "Prepared") -> Table:
    table = Table("dataset", "split", "raw\nrecords", "used", "records", "dropped", box=SIMPLE, padding=(0, 1, 0, 0))
    for column in table.columns[2:5]:
        column.justify = "right"
    for part in prepared.parts:
        dropped = "\n".join(f"{count} {reason}" for reason, count in part.dropped.items()) or "-"
        table.add_row(part.dataset, part.split, str(part.read), str(part.used), str(part.records), dropped)
    return table


def _remark(prepared: "Prepared", dry_run: bool) -> None:
    for part in prepared.parts:
        for remark in part.notes:
            note(f"{part.dataset} {part.split}: {remark}")
    for one in prepared.missing:
        note(f"{one.dataset} {one.split}: not made, there is no {' and no '.join(one.files)}; get it from {one.source}")
    for remark in prepared.notes:
        note(remark)
    if prepared.lacking:
        note(
            f"{prepared.folder} also needs {', '.join(prepared.lacking)}, which are not made here: "
            "`fast3d download annotations` gets them"
        )
    files = ", ".join(path.name for path in prepared.contents)
    note(f"nothing written; would be: {files}" if dry_run else f"written to {prepared.folder}: {files}")
