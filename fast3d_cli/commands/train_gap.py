"""`fast3d train-gap`: train the network that predicts attention maps."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fast3d_cli.console import note, out, print_json
from fast3d_cli.options import (
    ConfigOption,
    DatasetOption,
    JsonOption,
    SetOption,
    any_seed,
    check_datasets,
    check_map_key,
    load,
    note_text_encoder,
)
from fast3d_cli.training_view import TrainingView, quality_table
from fast3d_core.errors import UsageError
from fast3d_core.gap.training.options import TrainingOptions

_DATA, _NETWORK, _RUN = "Data", "Network", "Run"  # panels of --help
_PUBLISHED = TrainingOptions()


def train_gap(
    epochs: Annotated[int, typer.Option(help="Passes over the training samples.")] = _PUBLISHED.epochs,
    batch_size: Annotated[
        int, typer.Option(help="Samples per step and process (published: 64 on 4 GPUs).")
    ] = _PUBLISHED.batch_size,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = _PUBLISHED.lr,
    text_lr: Annotated[float, typer.Option(help="Peak learning rate of the text encoder.")] = _PUBLISHED.text_lr,
    precision: Annotated[str, typer.Option(help="fp32, or bf16: faster on GPUs.")] = _PUBLISHED.precision,
    seed: Annotated[
        int, typer.Option(callback=any_seed, help="Of initial weights, order and dropout.")
    ] = _PUBLISHED.seed,
    targets: Annotated[
        Path | None,
        typer.Option(help="Folder of extracted maps. Default: maps.targets.", rich_help_panel=_DATA),
    ] = None,
    map_key: Annotated[
        str,
        typer.Option(help="a_map: mean over question and answer; a_map_ori: question only.", rich_help_panel=_DATA),
    ] = _PUBLISHED.map_key,
    layers: Annotated[
        str,
        typer.Option(help="LLM layers the target averages: all, from:N, or 3,5,8-11.", rich_help_panel=_DATA),
    ] = _PUBLISHED.layers,
    dataset: DatasetOption = None,
    val_dataset: Annotated[
        list[str] | None,
        typer.Option(help="Validate on this dataset. Repeatable. Default: those trained on.", rich_help_panel=_DATA),
    ] = None,
    no_spatial: Annotated[
        bool,
        typer.Option("--no-spatial", help="Ordinary self-attention, blind to positions.", rich_help_panel=_NETWORK),
    ] = False,
    freeze_text: Annotated[
        bool, typer.Option("--freeze-text", help="Leave the text encoder as it is.", rich_help_panel=_NETWORK)
    ] = False,
    text_encoder: Annotated[
        str | None,
        typer.Option(help="RoBERTa folder or name. Default: gap.text_encoder.", rich_help_panel=_NETWORK),
    ] = None,
    dropout: Annotated[
        float | None,
        typer.Option(help="Everywhere. Default: as published (0.1; 0.3 in the head).", rich_help_panel=_NETWORK),
    ] = None,
    out_: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to write to. Default: that of gap.checkpoint.", rich_help_panel=_RUN),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint, if there is one.", rich_help_panel=_RUN)
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what an earlier run left.", rich_help_panel=_RUN)
    ] = False,
    save_every: Annotated[
        int, typer.Option(help="Steps between checkpoints, beside one an epoch.", rich_help_panel=_RUN)
    ] = _PUBLISHED.save_every,
    export: Annotated[
        Path | None,
        typer.Option(help="Also write the best weights in the published form (.pth).", rich_help_panel=_RUN),
    ] = None,
    tensorboard: Annotated[
        bool,
        typer.Option("--tensorboard", help="Also log for TensorBoard; needs the extra of that name.",
                     rich_help_panel=_RUN),
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Train the GAP network on extracted attention maps; the published recipe by default.

    Leaves checkpoint_best.safetensors, checkpoint_last.safetensors and log.jsonl. Under
    `accelerate launch -m fast3d_cli train-gap ...` the samples are shared out to several processes.
    """
    check_datasets(dataset)
    check_map_key(map_key)
    check_datasets(val_dataset, "--val-dataset")
    settings = load(config, [*(set_ or []), *([f"gap.text_encoder={text_encoder}"] if text_encoder else [])])
    if export and export.suffix != ".pth":
        raise UsageError(f"--export writes the published form, a .pth file, not {export.name!r}")
    if tensorboard:
        _need_tensorboard()
    from fast3d_core.config import output_path
    from fast3d_core.gap.training.loop import export_best, train
    from fast3d_core.gap.training.state import LAST_FILE

    options = TrainingOptions(
        epochs, batch_size, lr, text_lr, precision, map_key, layers,  # type: ignore[arg-type]  # it checks precision
        spatial=not no_spatial, freeze_text=freeze_text, dropout=dropout, seed=seed, save_every=save_every,
    )  # fmt: skip
    folder = out_ or output_path(settings, "gap.checkpoint").parent
    datasets = list(dict.fromkeys(dataset or settings.data.datasets))
    validated = list(dict.fromkeys(val_dataset or datasets))
    note_text_encoder(settings)
    try:
        with TrainingView() as view:
            trained = train(
                settings, options, targets or settings.maps.targets, folder, datasets, validated, view,
                resume=resume, restart=restart, tensorboard=tensorboard,
            )  # fmt: skip
    except KeyboardInterrupt:
        kept = (folder / LAST_FILE).exists()
        how = "--resume continues from the last checkpoint" if kept else "no checkpoint was written yet"
        note(f"interrupted; {how} (there is one an epoch, and one every {save_every} steps)")
        raise typer.Exit(130) from None
    if trained is None:
        return  # not the first of several processes
    if export:
        export_best(trained.best, export)
    if json:
        quality = {dataset: asdict(quality) for dataset, quality in trained.quality.items()}
        best = {"best": str(trained.best), "best_epoch": trained.best_epoch, "score": trained.score}
        print_json({**best, "epochs": trained.epochs, "steps": trained.steps, "quality": quality})
        return
    out.print(quality_table(trained.quality, f"after epoch {trained.epochs}, the last"))
    subject = "ScanRefer" if "scanrefer" in trained.quality else "mean"
    note(f"best weights, of epoch {trained.best_epoch} ({subject} top-5 F1 {100 * trained.score:.1f}): {trained.best}")
    if trained.best != settings.gap.checkpoint:
        note(f"`fast3d predict` takes them with --checkpoint {trained.best}")


def _need_tensorboard() -> None:
    import importlib.util

    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError('--tensorboard needs a package: pip install "fast3d[tensorboard]"')
