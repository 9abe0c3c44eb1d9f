"""`fast3d demo`: the whole pipeline on the embedded demo, by the commands that a user would type."""

import contextlib
import io
import json as json_
import os
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from fast3d_cli.commands.report import print_report
from fast3d_cli.console import err, note, out, print_json
from fast3d_cli.options import JsonOption

if TYPE_CHECKING:
    from fast3d_core.demo.stages import DemoOptions, DemoStage


def demo(
    samples: Annotated[int, typer.Option(min=1, max=400, help="Samples of each of the five tasks.")] = 100,
    all_: Annotated[bool, typer.Option("--all", help="Prune 35 and 65 percent, too, not only 90.")] = False,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Also extract the LLM's attention and train a GAP network on it.")
    ] = False,
    out_: Annotated[Path, typer.Option("--out", help="Folder for all that is made.")] = Path("fast3d-demo"),
    restart: Annotated[bool, typer.Option("--restart", help="Throw away an earlier demo in that folder.")] = False,
    json: JsonOption = False,
) -> None:
    """Run the whole pipeline on the embedded demo: a small Chat-Scene that was trained on generated rooms.

    Each stage is a command, printed as you could type it in the demo's folder. An interrupted demo continues with the
    same command.
    """
    from fast3d_core.demo.stages import DemoOptions, demo_workspace

    began = time.monotonic()
    options = DemoOptions(samples, all_, from_scratch)
    with demo_workspace(out_, options, restart=restart, log=note):
        _run(out_, options, time.monotonic() - began, json)


def _run(out_: Path, options: "DemoOptions", written: float, json: bool) -> None:
    """Runs the stages in the folder and shows what came out; `written`: seconds that writing the demo's files took."""
    from fast3d_core.demo.stages import demo_bounds, demo_stages, exact_matches, measured

    note(f"$ cd {shlex.quote(str(out_))}")
    seconds: dict[str, float] = {"write the demo's files": written}
    with contextlib.chdir(out_) if hasattr(contextlib, "chdir") else _chdir(out_):
        printed = _run_stages(demo_stages(options), seconds, json)
        bounds, exact = demo_bounds(options.samples), exact_matches(Path("runs"))
    if json:
        report = json_.loads(printed)
        print_json({"report": report, "bounds": bounds, "scanqa_exact_match": exact, "measured": measured()})
        return
    _print_bounds(bounds, exact)
    if release := measured():
        from fast3d_core.report.render import from_json

        out.print("\nThe same, measured on a GPU with 2,000 samples of each task of the held-out test split:\n")
        print_report(from_json(json_.dumps(release)))
    took = Table("stage", "seconds", box=None)
    took.columns[1].justify = "right"
    for title, one in seconds.items():
        took.add_row(title, f"{one:.0f}")
    err.print(took)
    note(f"{sum(seconds.values()) / 60:.1f} minutes in all; go on in {out_} with any command of those above")


def _run_stages(stages: "list[DemoStage]", seconds: dict[str, float], json: bool) -> str:
    """Runs the commands in the current folder, and fills `seconds` by title. Where `json` is set, what they print is
    kept back; returns what the last one printed then."""
    from fast3d_cli.app import app

    printed = io.StringIO()
    for number, stage in enumerate(stages, start=1):
        _announce(f"{number}/{len(stages)} {stage.title}", f"$ fast3d {shlex.join(stage.arguments)}")
        arguments = [*stage.arguments, "--json"] if json and number == len(stages) else stage.arguments
        start = time.monotonic()
        printed.seek(0)
        printed.truncate()
        with contextlib.redirect_stdout(printed) if json else contextlib.nullcontext():
            code = app(arguments, standalone_mode=False)
        if code:
            raise typer.Exit(code)
        seconds[stage.title] = time.monotonic() - start
    return printed.getvalue()


def _announce(title: str, command: str) -> None:
    if err.is_terminal:
        err.rule(Text(title, "bold"), align="left")
    else:
        note(f"--- {title}")
    note(command)


@contextlib.contextmanager
def _chdir(folder: Path) -> Any:
    """`contextlib.chdir` of Python 3.11."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _print_bounds(bounds: dict[str, dict[str, dict[str, float]]], exact: dict[str, float | None]) -> None:
    from fast3d_core.benchmarks import benchmark
    from fast3d_core.demo.world import MEASURES

    columns = [(task, benchmark(task).column, benchmark(task).headline.key) for task in bounds]
    columns.append(("scanqa", "ScanQA EM", MEASURES["scanqa"]))
    table = Table("answers", *(label.replace(" ", "\n") for _, label, _ in columns), box=SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for who, what in (("perfect", "all right"), ("majority", "the most common"), ("chance", "at random")):
        table.add_row(what, *(f"{bounds[task][who][key]:.1f}" for task, _, key in columns))
    out.print("\nWhat other answers to these samples would score (the detected boxes hold back even right ones):")
    out.print(table)
    shown = ", ".join(f"{name} {value:.1f}" for name, value in exact.items() if value is not None)
    out.print(f"ScanQA's BLEU-4 does not see answers of one word; exact match, in percent: {shown}")
