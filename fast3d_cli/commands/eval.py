"""`fast3d eval`: run the benchmarks under a pruning method."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table

from fast3d_cli.console import note, out, print_json
from fast3d_cli.launch import is_launched, launch
from fast3d_cli.options import (
    BUDGET,
    ConfigOption,
    DatasetOption,
    JsonOption,
    KeepOption,
    LayerOption,
    MapKindOption,
    MeteorOption,
    RatioOption,
    SetOption,
    any_limit,
    check_datasets,
    check_map_key,
    check_map_kind,
    load,
)
from fast3d_cli.progress import RunProgress
from fast3d_core.errors import UsageError

if TYPE_CHECKING:
    from fast3d_core.config import Config
    from fast3d_core.evaluation.estimate import RunEstimate
    from fast3d_core.evaluation.questions import Job, Questions
    from fast3d_core.evaluation.result import Result

_DATA, _RUN = "Data", "Run"  # panels of --help


def eval_command(
    context: typer.Context,
    method: Annotated[list[str], typer.Option("--method", "-m", help="{methods}. Repeatable.")],
    preset: Annotated[
        list[int] | None,
        typer.Option(help="Published setting: 35, 65 or 90 percent pruned. Repeatable.", rich_help_panel=BUDGET),
    ] = None,
    layer: LayerOption = None,
    keep: KeepOption = None,
    ratio: RatioOption = None,
    maps: Annotated[
        Path | None, typer.Option(help="Folder of attention maps. Default: maps.predicted.", rich_help_panel=_DATA)
    ] = None,
    map_key: Annotated[
        str | None,
        typer.Option(help="Which map of an entry: a_map (default) or a_map_ori.", rich_help_panel=_DATA),
    ] = None,
    map_kind: MapKindOption = None,
    gap: Annotated[
        str,
        typer.Option(
            help="Maps from files, or live: predicted by gap.checkpoint during the run, its time counted.",
            rich_help_panel=_DATA,
        ),
    ] = "files",
    dataset: DatasetOption = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, callback=any_limit, help="Only the first N samples of each dataset.", rich_help_panel=_DATA
        ),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="fast or reference. Default: eval.engine.", rich_help_panel=_RUN)
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Samples per batch; auto: as many as the memory holds. Default: eval.batch_size.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, max=1024, help="Share the work out to N processes, one a GPU.", rich_help_panel=_RUN)
    ] = 1,
    reuse_scene: Annotated[
        bool,
        typer.Option(
            "--reuse-scene",
            help="Read a scene once for all questions about it. Not the published computation.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Run folder; a prefix where several runs are made.", rich_help_panel=_RUN)
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what an earlier run of that name left.", rich_help_panel=_RUN)
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print samples, budget, memory and time without running.", rich_help_panel=_RUN),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="List checkpoint tensors that are not used.", rich_help_panel=_RUN)
    ] = False,
    meteor: MeteorOption = True,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Run the benchmarks under one or more pruning methods; each run leaves a folder with predictions and a result.

    An interrupted run continues with the same command. `accelerate launch -m fast3d_cli eval ...` shares the samples
    out to several processes, too.
    """
    if processes > 1 and not dry_run and not is_launched(processes):
        raise typer.Exit(launch(processes))
    check_datasets(dataset)
    check_map_key(map_key)
    kind = check_map_kind(map_kind)
    if gap not in ("files", "live"):
        raise UsageError(f"--gap is files or live, not {gap[:80]!r}")
    given = [f"eval.engine={engine}"] if engine else []
    given += [f"eval.batch_size={batch}"] if batch else []
    given += ["eval.reuse_scene=true"] if reuse_scene else []
    settings = load(config, [*(set_ or []), *given])
    if settings.eval.reuse_scene and settings.eval.engine == "reference":
        raise UsageError("--reuse-scene needs the fast engine: the reference engine computes as published")
    from fast3d_core.evaluation.jobs import MapOptions, choose_jobs
    from fast3d_core.evaluation.questions import Questions
    from fast3d_core.pruning.options import MethodOptions

    own: dict[str, Any] = dict(context.obj or {})
    options = MethodOptions(preset or (), layer, keep, ratio, own.pop("alpha", []), own)
    jobs = choose_jobs(settings, method, options, MapOptions(maps, map_key, kind, gap == "live"), dataset, name, note)
    questions = Questions(settings, dataset or settings.data.datasets, limit, note)
    if dry_run:
        _dry_run(settings, jobs, questions, json)
    else:
        _evaluate(settings, jobs, questions, verbose=verbose, restart=restart, meteor=meteor, json=json)


def _evaluate(
    config: "Config",
    jobs: "list[Job]",
    questions: "Questions",
    *,
    verbose: bool,
    restart: bool,
    meteor: bool,
    json: bool,
) -> None:
    from fast3d_core.evaluation.asked import wording_notes
    from fast3d_core.evaluation.run import evaluate
    from fast3d_core.runtime.devices import destroy_process_group

    noted = wording_notes(questions.samples)
    for remark in noted:
        note(remark)
    try:
        with RunProgress(verbose) as progress:
            results = evaluate(config, jobs, questions, progress, restart=restart, meteor=meteor)
        destroy_process_group()
    except KeyboardInterrupt:
        note("interrupted; the same command continues where it stopped")
        raise typer.Exit(130) from None
    if not results:
        return  # not the first of several processes
    if json:
        plain = [result.to_dict() for result in results]
        print_json(plain[0] if len(plain) == 1 else plain)
    else:
        out.print(_results_table(results))
    for remark in dict.fromkeys(remark for result in results for remark in result.notes if remark not in noted):
        note(remark)
    note(f"written to {config.runs}; compare with `fast3d report`")


def _results_table(results: "list[Result]") -> Table:
    from fast3d_core.benchmarks import benchmark

    # Narrow headers, so that run names stay whole at 80 columns.
    labels = [benchmark(dataset).narrow_column for dataset in results[0].headline]
    table = Table("run", *labels, "pruned", "samples\nper s", box=SIMPLE, padding=(0, 1, 0, 0))
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for result in results:
        scores = ["-" if value is None else f"{value:.2f}" for value in result.headline.values()]
        pruned = f"{result.pruning.ratio:.1f}%" if result.pruning else "-"
        speed = f"{result.timing.samples_per_second:.2f}" if result.timing else "-"
        table.add_row(result.name, *scores, pruned, speed)
    return table


def _dry_run(config: "Config", jobs: "list[Job]", questions: "Questions", json: bool) -> None:
    from dataclasses import asdict

    import torch

    from fast3d_core.evaluation.estimate import estimate, measure
    from fast3d_core.runtime.devices import pick_device

    device = pick_device(config.model.device)
    rates = measure(device, getattr(torch, config.model.dtype))
    estimates = [estimate(config, job, questions, rates) for job in jobs]
    if json:
        plain = [asdict(one) for one in estimates]
        print_json(plain[0] if len(plain) == 1 else plain)
        return
    out.print(_estimates_table(estimates))
    note(f"samples: {', '.join(f'{name} {count}' for name, count in estimates[0].samples.items())}")
    note(
        f"time: arithmetic and memory traffic on {device} at the rates measured just now "
        f"({rates.flops / 1e12:.2f} TFLOP/s, {rates.bytes / 1e9:.0f} GB/s), all answers at "
        f"{config.generation.max_new_tokens} tokens; most are shorter, and loading is not counted"
    )
    if config.eval.reuse_scene:
        note("what --reuse-scene saves is not taken off")


def _estimates_table(estimates: "list[RunEstimate]") -> Table:
    table = Table("run", "K", "kept tokens\nmean (p5-p95)", "pruned", "batch", "memory", "time", box=SIMPLE)
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for one in estimates:
        kept = f"{one.kept_tokens.mean:.1f} ({one.kept_tokens.p5:.0f}-{one.kept_tokens.p95:.0f})"
        hours, seconds = divmod(round(one.seconds), 3600)
        took = f"{hours}:{seconds // 60:02}:{seconds % 60:02}"
        memory = f"{one.memory_bytes / 2**30:.2f} GiB"
        table.add_row(one.run, str(one.layer), kept, f"{one.ratio:.1f}%", str(one.batch_size), memory, took)
    return table
