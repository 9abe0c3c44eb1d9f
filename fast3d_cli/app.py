"""The `fast3d` command. Commands import torch only when they run, so that `--help` answers at once."""

import os
import sys
import time
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fast3d_cli.commands.ask import ask
from fast3d_cli.commands.bench import bench
from fast3d_cli.commands.convert import convert
from fast3d_cli.commands.demo import demo
from fast3d_cli.commands.doctor import doctor
from fast3d_cli.commands.download import download
from fast3d_cli.commands.eval import eval_command
from fast3d_cli.commands.extract import extract_command
from fast3d_cli.commands.predict import predict_command
from fast3d_cli.commands.prepare import prepare
from fast3d_cli.commands.report import report
from fast3d_cli.commands.score import score
from fast3d_cli.commands.search_alpha import search_alpha_command
from fast3d_cli.commands.train_gap import train_gap
from fast3d_cli.console import error, flush_stdout, note, prepare_streams, print_text, should_report, unwritable
from fast3d_cli.methods import BenchCommand, EvalCommand, MethodCommand
from fast3d_core import __version__
from fast3d_core.errors import Fast3DError, StoppedError
from fast3d_core.runtime import launcher


class _Commands(TyperGroup):
    """Ctrl-C ends every command with a line, also where it has nothing of its own to say about it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            note("interrupted; what is done is kept, the same command does the rest")
            raise typer.Exit(130) from None


app = typer.Typer(
    name="fast3d",
    cls=_Commands,
    help="Makes 3D multimodal LLMs cheap to run: prunes the visual tokens that do not matter, and measures it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order of use, as --help lists them.
app.command("demo")(demo)
app.command("download")(download)
app.command("prepare")(prepare)
app.command("convert")(convert)
app.command("doctor")(doctor)
app.command("extract")(extract_command)
app.command("train-gap")(train_gap)
app.command("predict")(predict_command)
app.command("search-alpha")(search_alpha_command)
app.command("eval", cls=EvalCommand)(eval_command)
app.command("score")(score)
app.command("report")(report)
app.command("ask", cls=MethodCommand)(ask)
app.command("bench", cls=BenchCommand)(bench)


def _version(wanted: bool) -> None:
    if wanted:
        print_text(__version__)
        raise typer.Exit


_SHARED = ("extract", "train-gap", "predict", "eval")
"""The commands that several processes may share, or know what to do among several; each other runs alone."""


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand not in _SHARED:
        launcher.run_alone()


def main() -> None:
    """Runs the command line. What the user can fix is one line on stderr; FAST3D_DEBUG=1 shows tracebacks."""
    prepare_streams()
    debugging = bool(os.environ.get("FAST3D_DEBUG"))
    if not debugging:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # torch would print a stack beside our one line
    try:
        _run()
    except StoppedError as stopped:  # the other process prints why
        time.sleep(10)  # its launcher ends this one before, unless it saw this one end first: then the reason is lost
        sys.exit(stopped.exit_code)
    except Fast3DError as problem:
        if debugging:
            raise
        if should_report():
            error(str(problem))
        sys.exit(problem.exit_code)
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.exit(1)
    except OSError as problem:  # a full disk, no permission, a folder where a file should be
        if debugging:
            raise
        if should_report():
            error(f"{problem.filename or 'a file'}: {problem.strerror or problem}")
        sys.exit(1)


def _run() -> None:
    """The command. Raises `DataError` where what it printed cannot be written, and `BrokenPipeError` where its
    reader has gone."""
    try:
        app()
    except (SystemExit, OSError, Fast3DError) as end:
        problem = flush_stdout() or (end if isinstance(end, OSError) and _is_of_help(end) else None)
        if problem is None:
            raise
        if isinstance(problem, BrokenPipeError):
            raise problem from None
        raise unwritable(problem) from None


def _is_of_help(problem: OSError) -> bool:
    """Whether it was raised where --help is printed, which is not by our console."""
    frame = problem.__traceback__
    while frame and frame.tb_next:
        frame = frame.tb_next
    return frame is not None and frame.tb_frame.f_globals.get("__name__", "").split(".")[0] in (
        "rich",
        "typer",
        "click",
    )
