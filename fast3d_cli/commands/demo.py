"""`fast3d demo`: the whole pipeline on the embedded demo, by the commands that a user would type."""

import contextlib
import io
import os
import shlex
import time
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fast3d_cli.commands.report import print_report
from fast3d_cli.console import err, note, out
from fast3d_cli.options import JsonOption

_TRAINING = ("--epochs", "12", "--batch-size", "32", "--text-lr", "8e-4")  # that suit 2,000 samples and no pretraining


def demo(
    samples: Annotated[int, typer.Option(min=1, help="Samples of each of the five tasks; there are 400.")] = 100,
    all_: Annotated[bool, typer.Option("--all", help="Prune 35 and 65 percent, too, not only 90.")] = False,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Also extract the LLM's attention and train a GAP network on it.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what an earlier demo left in this folder.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Run the whole pipeline on the embedded demo: a small Chat-Scene that was trained on generated rooms.

    Each stage is a command, printed as you could type it; what they make lies in ./runs and ./outputs. An interrupted
    demo continues with the same command.
    """
    from fast3d_cli.app import app

    stages = _stages(samples, all_, from_scratch, restart, json)
    seconds: list[float] = []
    for number, (title, arguments) in enumerate(stages, start=1):
        _announce(f"{number}/{len(stages)} {title}", f"$ fast3d {shlex.join(arguments)}")
        began = time.monotonic()
        with contextlib.redirect_stdout(io.StringIO()) if json and number < len(stages) else contextlib.nullcontext():
            interrupted = app(arguments, standalone_mode=False)  # the exit code
        if interrupted:
            raise typer.Exit(130)
        seconds.append(time.monotonic() - began)
    if json:
        return
    _print_bounds(samples)
    _print_measured()
    took = Table("stage", "seconds", box=None)
    took.columns[1].justify = "right"
    for (title, _), one in zip(stages, seconds, strict=True):
        took.add_row(title, f"{one:.0f}")
    err.print(took)
    note(
        f"{sum(seconds) / 60:.1f} minutes in all; now try `fast3d report --published`, or any command as printed above"
    )


def _stages(
    samples: int, everything: bool, from_scratch: bool, restart: bool, json: bool
) -> list[tuple[str, list[str]]]:
    """What each stage is, and the command's arguments."""
    from fast3d_core.config import EMBEDDED

    own = ["--config", str(EMBEDDED)] if os.path.lexists("fast3d.yaml") else []  # not the one of this folder
    again = ["--restart"] if restart else []
    limited = ["--limit", str(samples), "--no-meteor", *again]
    presets = (35, 65, 90) if everything else (90,)
    budgets = [word for preset in presets for word in ("--preset", str(preset))]
    stages = [("write the demo's files", ["download", "demo"])]
    if from_scratch:
        stages += [
            ("extract the LLM's attention", ["extract", "--split", "all", *again, *own]),
            ("train GAP on it", ["train-gap", *_TRAINING, "--restart" if restart else "--resume", *own]),
        ]
    stages += [
        ("predict the attention", ["predict", *again, *own]),
        ("answer unpruned", ["eval", "--method", "vanilla", *limited, *own]),
        (
            f"prune {', '.join(map(str, presets))}%",
            ["eval", "--method", "random", "--method", "fastv", "--method", "gap", *budgets, *limited, *own],
        ),
    ]
    for preset in presets:
        stages += [
            (f"find SAP's alpha for {preset}%", ["search-alpha", "--target", str(preset), *own]),
            (f"prune ~{preset}%, each sample as far as it bears", ["eval", "--method", "sap", *limited, *own]),
        ]
    return [*stages, ("compare", ["report", *(["--json"] if json else []), *own])]


def _announce(title: str, command: str) -> None:
    if err.is_terminal:
        err.rule(f"[bold]{title}", align="left")
    else:
        note(f"--- {title}")
    note(command)


def _print_bounds(samples: int) -> None:
    """What the scores are to be compared with."""
    from fast3d_core.config import EMBEDDED, load_config
    from fast3d_core.demo.world import ceiling
    from fast3d_core.metrics import HEADLINES

    bounds = ceiling(load_config(EMBEDDED).data.annotations, samples)
    table = Table("answers", *(HEADLINES[task].label.replace(" ", "\n") for task in bounds), box=SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for who, what in (("perfect", "all right"), ("majority", "the most common"), ("chance", "at random")):
        table.add_row(what, *(f"{bounds[task][who][HEADLINES[task].key]:.1f}" for task in bounds))
    out.print("\nWhat other answers to these samples would score (the detected boxes hold back even right ones):")
    out.print(table)


def _print_measured() -> None:
    """The release's own measurement, where one is there."""
    from fast3d_core.demo import MEASURED
    from fast3d_core.report.render import from_json

    if MEASURED.exists():
        out.print("\nThe same, measured on a GPU with 2,000 samples of each task of the held-out test split:\n")
        print_report(from_json(MEASURED.read_text(encoding="utf-8")))
