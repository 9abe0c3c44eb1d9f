"""`fast3d demo`: the whole pipeline on the embedded demo, by the commands that a user would type."""

import contextlib
import io
import json as json_
import os
import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from fast3d_cli.commands.report import print_report
from fast3d_cli.console import err, note, out, print_json
from fast3d_cli.options import JsonOption

# The methods that the demo shows, by what they are given.
_UNPRUNED, _BUDGETED, _WITH_ALPHA = ("vanilla",), ("random", "fastv", "gap"), ("sap",)
_TRAINING = ("--epochs", "12", "--batch-size", "32", "--text-lr", "8e-4")  # that suit 2,000 samples and no pretraining


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
    from fast3d_core.demo import demo_folder, ensure_demo, stamp
    from fast3d_core.demo.release import config_text
    from fast3d_core.demo.workspace import workspace

    began, files = time.monotonic(), demo_folder()
    ensure_demo(files, note)
    made_by = {"samples": samples, "from_scratch": from_scratch, "demo": stamp()}
    with workspace(out_, made_by, config_text(files, own_gap=from_scratch), restart=restart):
        _run(out_, _stages(samples, all_, from_scratch), samples, time.monotonic() - began, json)


def _run(out_: Path, stages: list[tuple[str, list[str]]], samples: int, written: float, json: bool) -> None:
    """Runs the stages in the folder and shows what came out; `written`: seconds that writing the demo's files took."""
    from fast3d_cli.app import app

    note(f"$ cd {shlex.quote(str(out_))}")
    seconds: dict[str, float] = {"write the demo's files": written}
    printed = io.StringIO()
    with contextlib.chdir(out_) if hasattr(contextlib, "chdir") else _chdir(out_):
        for number, (title, arguments) in enumerate(stages, start=1):
            _announce(f"{number}/{len(stages)} {title}", f"$ fast3d {shlex.join(arguments)}")
            last = number == len(stages)
            if json and last:
                arguments = [*arguments, "--json"]
            start = time.monotonic()
            printed.seek(0)
            printed.truncate()
            with contextlib.redirect_stdout(printed) if json else contextlib.nullcontext():
                code = app(arguments, standalone_mode=False)
            if code:
                raise typer.Exit(code)
            seconds[title] = time.monotonic() - start
        bounds, exact = _bounds(samples), _exact_matches()
    if json:
        report = json_.loads(printed.getvalue())
        print_json({"report": report, "bounds": bounds, "scanqa_exact_match": exact, "measured": _measured()})
        return
    _print_bounds(bounds, exact)
    if measured := _measured():
        from fast3d_core.report.render import from_json

        out.print("\nThe same, measured on a GPU with 2,000 samples of each task of the held-out test split:\n")
        print_report(from_json(json_.dumps(measured)))
    took = Table("stage", "seconds", box=None)
    took.columns[1].justify = "right"
    for title, one in seconds.items():
        took.add_row(title, f"{one:.0f}")
    err.print(took)
    note(f"{sum(seconds.values()) / 60:.1f} minutes in all; go on in {out_} with any command of those above")


def _stages(samples: int, everything: bool, from_scratch: bool) -> list[tuple[str, list[str]]]:
    """What each stage is, and the command's arguments."""
    limited = ["--limit", str(samples), "--no-meteor"]
    presets = (35, 65, 90) if everything else (90,)
    budgets = [word for preset in presets for word in ("--preset", str(preset))]
    stages: list[tuple[str, list[str]]] = []
    if from_scratch:
        stages += [
            ("extract the LLM's attention", ["extract", "--split", "all"]),
            ("train GAP on it", ["train-gap", *_TRAINING, "--resume"]),
        ]
    stages += [
        ("predict the attention", ["predict"]),
        ("answer unpruned", ["eval", *_named(_UNPRUNED), *limited]),
        (
            f"prune {', '.join(map(str, presets))}%",
            ["eval", *_named(_BUDGETED), *budgets, *limited],
        ),
    ]
    for preset in presets:
        stages += [
            (f"find SAP's alpha for {preset}%", ["search-alpha", "--target", str(preset)]),
            (f"prune ~{preset}%, each sample as far as it bears", ["eval", *_named(_WITH_ALPHA), *limited]),
        ]
    return [*stages, ("compare", ["report"])]


def _named(methods: tuple[str, ...]) -> list[str]:
    return [word for method in methods for word in ("--method", method)]


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


def _bounds(samples: int) -> dict[str, dict[str, dict[str, float]]]:
    """What the scores are to be compared with: task -> answerer -> metric -> percent."""
    from fast3d_core.config import NAME, load_config
    from fast3d_core.demo import demo_folder
    from fast3d_core.demo.world import ceiling

    return ceiling(load_config(demo_folder() / NAME).data.annotations, samples)


def _exact_matches() -> dict[str, float | None]:
    """ScanQA's exact match of each run, in percent: its headline, BLEU-4, does not see answers of one word."""
    from fast3d_core.demo.world import MEASURES
    from fast3d_core.evaluation.result import load_result

    found = {}
    for path in sorted(Path("runs").glob("*/result.json")):
        result = load_result(path.parent)
        value = result.metrics[MEASURES["scanqa"]]
        found[result.name] = None if value is None else 100 * value
    return found


def _print_bounds(bounds: dict[str, dict[str, dict[str, float]]], exact: dict[str, float | None]) -> None:
    from fast3d_core.benchmarks import HEADLINES
    from fast3d_core.demo.world import MEASURES

    columns = [(task, HEADLINES[task].label, HEADLINES[task].key) for task in bounds]
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


def _measured() -> dict[str, Any] | None:
    """The release's own measurement, where one is there."""
    from fast3d_core.demo import MEASURED

    return json_.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else None
