"""`fast3d bench`: how fast pruning methods are on this machine, beside stock transformers."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from fast3d_cli.console import note, print_json, print_whole
from fast3d_cli.options import MOST_SAMPLES, JsonOption, any_seed, load, note_text_encoder
from fast3d_cli.progress import RunProgress
from fast3d_core.errors import Fast3DError, UsageError

if TYPE_CHECKING:
    from fast3d_core.bench.result import BenchResult, RooflineTime, Times
    from fast3d_core.bench.run import BenchOptions
    from fast3d_core.bench.subject import Subject
    from fast3d_core.config import GenerationConfig

_MODEL, _WORK, _RUN = "Model", "Work", "Run"  # panels of --help
_DTYPES = ("float32", "bfloat16", "float16")
_BATCHES = (1, 32)
_TEXT_TOKENS = 80


def bench(
    context: typer.Context,
    llm: Annotated[
        str,
        typer.Option(
            metavar="7b|13b|tiny|demo|PATH",
            help="7b, 13b, tiny: random weights of that shape, generated scenes. demo, or a fast3d.yaml (or its "
            "folder): real files.",
            rich_help_panel=_MODEL,
        ),
    ] = "demo",
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Of the LLM: float32, bfloat16 or float16. Default: the config's; of random weights bfloat16, on a "
            "CPU float32.",
            show_default=False,
            rich_help_panel=_MODEL,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="auto, cpu, cuda or cuda:N. Default: the config's, or auto.",
            show_default=False,
            rich_help_panel=_MODEL,
        ),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--methods",
            "--method",
            "-m",
            help="{methods}. Repeatable. Default: {baseline} and {default}.",
            show_default=False,
            rich_help_panel=_WORK,
        ),
    ] = None,
    ratio: Annotated[
        float,
        typer.Option(
            help="Layer-averaged percentage that each method prunes; an alpha is searched for it.",
            rich_help_panel=_WORK,
        ),
    ] = 90,
    batch: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=MOST_SAMPLES,
            help="Samples at a time. Repeatable. Default: 1 and 32.",
            show_default=False,
            rich_help_panel=_WORK,
        ),
    ] = None,
    beams: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Default: the config's, or 5.", show_default=False, rich_help_panel=_WORK),
    ] = None,
    new_tokens: Annotated[
        int, typer.Option(min=1, max=4096, help="Tokens of every answer; none ends before.", rich_help_panel=_WORK)
    ] = 16,
    text_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            help=f"Tokens of a generated prompt that are not visual. Default: {_TEXT_TOKENS}.",
            show_default=False,
            rich_help_panel=_WORK,
        ),
    ] = None,
    reuse_scene: Annotated[
        bool,
        typer.Option(
            "--reuse-scene",
            help="Each method once more, with a scene computed once for all questions on it in a batch.",
            rich_help_panel=_WORK,
        ),
    ] = False,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="Stock transformers, too, on the same weights: as published, batched, pruned.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    repeats: Annotated[int, typer.Option(min=1, max=10_000, help="Batches that are timed.", rich_help_panel=_RUN)] = 5,
    warmup: Annotated[
        int, typer.Option(min=0, max=10_000, help="How often they are answered before.", rich_help_panel=_RUN)
    ] = 2,
    seed: Annotated[
        int,
        typer.Option(
            callback=any_seed,
            help="Of weights, scenes, questions, and methods that draw at random.",
            rich_help_panel=_RUN,
        ),
    ] = 0,
    at_least: Annotated[
        float | None,
        typer.Option(
            metavar="RATIO",
            help="Fail unless {default} makes this many times the samples per second of {baseline}, at every batch "
            "size.",
            show_default=False,
            rich_help_panel=_RUN,
        ),
    ] = None,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="File for the JSON result, rewritten after every row.",
            show_default=False,
            rich_help_panel=_RUN,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Time pruning methods, from question to answer, GAP included, and how far they are from what the device allows.

    Every answer is forced to the same length, and every method to the same ratio. Times are medians, after warm-up.
    """
    from fast3d_core.bench.run import Bench, BenchOptions
    from fast3d_core.files.files import write_json
    from fast3d_core.pruning import BASELINE, DEFAULT

    options = BenchOptions(
        methods=list(dict.fromkeys(methods or (BASELINE, DEFAULT))),
        batches=list(dict.fromkeys(batch or _BATCHES)),
        ratio=ratio,
        repeats=repeats,
        warmup=warmup,
        baselines=baselines,
        reuse_scene=reuse_scene,
        seed=seed,
        method_settings=dict(context.obj or {}),
    )
    _check(options, dtype, device, at_least, out_file)
    subject, generation = _subject(llm, dtype, device, text_tokens, options)
    generation = replace(generation, beams=beams or generation.beams, max_new_tokens=new_tokens)

    def saved(result: "BenchResult") -> None:
        if out_file is not None:
            write_json(out_file, result.to_dict())

    try:
        result = Bench(subject, generation, options, note, saved).run()
    except KeyboardInterrupt:
        note("interrupted" + (f"; what was measured is in {out_file}" if out_file else ""))
        raise typer.Exit(130) from None
    if json:
        print_json(result.to_dict())
    else:
        _print(result)
    if at_least is not None:
        _judge(result, at_least)


def _check(
    options: "BenchOptions", dtype: str | None, device: str | None, at_least: float | None, out_file: Path | None
) -> None:
    """Raises `UsageError` for what can be refused before a model is loaded."""
    import torch

    from fast3d_core.pruning import BASELINE, DEFAULT
    from fast3d_core.pruning.options import MethodOptions, check_options

    check_options(options.methods, MethodOptions(settings=options.method_settings))
    if not 0 <= options.ratio < 100:
        raise UsageError(f"--ratio is a percentage from 0 to below 100, not {options.ratio:g}")
    if dtype not in (None, *_DTYPES):
        raise UsageError(f"--dtype is one of {', '.join(_DTYPES)}, not {dtype!r}")
    if device is not None and not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", device):
        raise UsageError(f"--device is auto, cpu, cuda or cuda:N, not {device[:80]!r}")
    if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {device}: torch finds no CUDA device; leave it out, or use --device cpu")
    if at_least is not None and not {BASELINE, DEFAULT} <= set(options.methods):
        raise UsageError(f"--at-least compares {DEFAULT} with {BASELINE}; --methods has to name both")
    if out_file is not None and os.path.lexists(out_file):
        raise UsageError(f"--out: {out_file} is there already; name another file, or move it away")


def _subject(
    llm: str, dtype: str | None, device: str | None, text_tokens: int | None, options: "BenchOptions"
) -> "tuple[Subject, GenerationConfig]":
    """What is benchmarked, and its beam search."""
    import torch

    from fast3d_core.bench.run import build_methods
    from fast3d_core.bench.shapes import SHAPES, random_subject, units
    from fast3d_core.bench.subject import real_subject
    from fast3d_core.config import GenerationConfig
    from fast3d_core.models.registry import scene_model
    from fast3d_core.pruning.options import settings_taken
    from fast3d_core.runtime.devices import pick_device

    if llm in SHAPES:
        build_methods(options, SHAPES[llm].layers, units())
        chosen = pick_device(device or "auto")
        default = "float32" if chosen.type == "cpu" else "bfloat16"
        note(f"making a {llm} model with random weights on {chosen}")
        made = random_subject(llm, chosen, getattr(torch, dtype or default), text_tokens or _TEXT_TOKENS, options.seed)
        return made, GenerationConfig()
    overrides = [f"model.{key}={value}" for key, value in (("dtype", dtype), ("device", device)) if value]
    config = load(_config_file(llm), overrides)
    if text_tokens is not None:
        raise UsageError(f"--text-tokens means nothing to {llm}, whose questions are there already")
    model = scene_model(config)
    built = build_methods(options, model.shape_of(config).layers, model.units_of(config))
    needs_map = any(method.needs_map for method in built) or "alpha" in settings_taken(options.methods)
    if needs_map:
        note_text_encoder(config)
    subject = real_subject(config, pick_device(config.model.device), RunProgress(), gap=needs_map)
    return replace(subject, name=llm), config.generation


def _config_file(llm: str) -> Path:
    """The config that --llm names; writes the embedded demo if it is the demo's and not there."""
    from fast3d_core.config import NAME
    from fast3d_core.demo import demo_folder, ensure_demo

    if llm == "demo":
        folder = demo_folder()
        ensure_demo(folder, note)
        return folder / NAME
    path = Path(llm)
    if path.is_dir():
        path /= NAME
    if not path.exists():
        raise UsageError(
            f"--llm: there is no {path}; choose 7b, 13b, tiny or demo, or name a fast3d.yaml or a folder that has one"
        )
    return path


def _judge(result: "BenchResult", at_least: float) -> None:
    """Raises `Fast3DError` unless SAP is that much faster than the baseline at every batch size."""
    from fast3d_core.pruning import BASELINE, DEFAULT

    found = {one.batch: one.end_to_end for one in result.ratios if (one.row, one.against) == (DEFAULT, BASELINE)}
    for size in result.settings["batches"]:
        if size not in found:
            raise Fast3DError(
                f"batch {size}: {DEFAULT} or {BASELINE} was not measured, so it is not known which is faster"
            )
        if not found[size] >= at_least:
            raise Fast3DError(
                f"batch {size}: {DEFAULT} makes {found[size]:.2f}x the samples per second of {BASELINE}, "
                f"not {at_least:g}x"
            )
    note(f"{DEFAULT} makes at least {at_least:g}x the samples per second of {BASELINE}")


def _print(result: "BenchResult") -> None:
    """Times, costs and ratios, each in a table of its own, whole on any terminal: 100 characters wide at most."""
    from fast3d_core.bench.result import BASELINES

    rates, where = result.rates, result.environment
    for table in (_times(result), _costs(result), _ratios(result)):
        if table.row_count:
            print_whole(table)
    note(f"on {where.device}, {result.dtype}; attention {where.attention}")
    matmul = f"{rates.matmul_flops / 1e12:.3g} TFLOP/s in {result.dtype}"
    if result.dtype != "float32":
        matmul += f", {rates.matmul_flops_float32 / 1e12:.3g} in float32 (GAP)"
    note(f"floors are at the rates measured in this run: {matmul}, copies {rates.copy_bytes / 1e9:.0f} GB/s")
    note(f"questions: {result.settings['questions']}")
    for row in result.rows:
        if "alpha" in row.settings and not (row.baseline or row.reuse_scene):
            note(f"{row.name}, batch {row.batch}: alpha {row.settings['alpha']}")
    for name in dict.fromkeys(row.name for row in result.rows if row.baseline):
        note(f"{name}: {BASELINES[name]}")


def _times(result: "BenchResult") -> Table:
    table = _table(
        "", "batch", "pruned", "objects\nkept", "GAP\nms", "prefill\nms", "a token\nms", "alone\nms",
        "in a\nrow ms", "samples\nper s",
    )  # fmt: skip
    for row in result.rows:
        objects = row.kept.objects
        table.add_row(
            row.name,
            str(row.batch),
            f"{row.kept.ratio:.1f}%",
            f"{_number(objects.mean)} ({objects.p5:.0f}-{objects.p95:.0f})",
            *map(_ms, (row.gap_seconds, row.prefill_seconds, row.step_seconds, row.end_to_end_seconds)),
            _ms(row.in_a_row_seconds),
            _number(row.samples_per_second),
        )
    return table


def _costs(result: "BenchResult") -> Table:
    table = _table(
        "", "batch", "in a row\nms, range", "peak\nGiB", "GFLOP a\nsample", "GAP\n/ floor", "prefill\n/ floor",
        "token\n/ floor", "all\n/ floor", "warm-up\ns",
    )  # fmt: skip
    for row in result.rows:
        roofline, flops, total = row.roofline, row.flops, row.in_a_row_seconds or row.end_to_end_seconds
        table.add_row(
            row.name,
            str(row.batch),
            f"{_number(1000 * total.low)}-{_number(1000 * total.high)}",
            "-" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 2**30:.1f}",
            _number(((flops.gap or 0) + flops.prefill + flops.decode) / 1e9) if flops else "-",
            *map(
                _times_of_roofline,
                (roofline.gap, roofline.prefill, roofline.step, roofline.end_to_end) if roofline else [None] * 4,
            ),
            f"{row.warmup_seconds:.1f}",
        )
    return table


def _ratios(result: "BenchResult") -> Table:
    """One line for each of our rows, one column for what it is compared with."""
    from fast3d_core.bench.result import BASELINES, REUSE
    from fast3d_core.pruning import BASELINE

    # Title, row to compare with, and whether end to end or in prefill alone.
    columns = [(name.replace(" ", "\n"), name, "end_to_end") for name in BASELINES]
    columns += [(BASELINE, BASELINE, "end_to_end"), (f"{BASELINE},\nprefill", BASELINE, "prefill")]
    columns += [("without\nreuse", REUSE, "end_to_end")]
    lines = []
    for row in result.rows:
        found = {one.against: one for one in result.ratios if (one.row, one.batch) == (row.name, row.batch)}
        if row.reuse_scene and row.name.removesuffix(REUSE) in found:
            found[REUSE] = found[row.name.removesuffix(REUSE)]
        if found:
            lines.append((row, [getattr(found[n], what) if n in found else None for _, n, what in columns]))
    shown = [i for i in range(len(columns)) if any(values[i] is not None for _, values in lines)]
    table = _table("times as\nfast as", "batch", *(columns[i][0] for i in shown))
    for row, values in lines:
        table.add_row(row.name, str(row.batch), *("-" if (v := values[i]) is None else f"{v:.2f}x" for i in shown))
    return table


def _table(*titles: str) -> Table:
    table = Table(*titles, box=SIMPLE, padding=(0, 1, 0, 0))
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    return table


def _ms(times: "Times | None") -> str:
    return "-" if times is None else _number(1000 * times.median)


def _times_of_roofline(roofline: "RooflineTime | None") -> str:
    return "-" if roofline is None else f"{_number(roofline.times)}x"


def _number(value: float) -> str:
    """Three digits, or as many as there are before the point."""
    return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f}"
