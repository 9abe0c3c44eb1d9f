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
from fast3d_cli.commands.search_alpha import search_alpha
from fast3d_cli.commands.train_gap import train_gap
from fast3d_cli.console import error, may_tell, note
from fast3d_core import __version__
from fast3d_core.errors import Fast3DError, StoppedError


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
app.command("search-alpha")(search_alpha)
app.command("eval")(eval_command)
app.command("score")(score)
app.command("report")(report)
app.command("ask")(ask)
app.command("bench")(bench)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command line. What the user can mend is one line on stderr; FAST3D_DEBUG=1 shows tracebacks."""
    try:
        app()
    except StoppedError as stopped:  # the other process tells why
        time.sleep(10)  # its launcher ends this one before, unless it saw this one end first: then the reason is lost
        sys.exit(stopped.exit_code)
    except Fast3DError as problem:
        if os.environ.get("FAST3D_DEBUG"):
            raise
        if may_tell():
            error(str(problem))
        sys.exit(problem.exit_code)
    except OSError as problem:  # a full disk, no permission, a folder where a file should be
        if os.environ.get("FAST3D_DEBUG"):
            raise
        if may_tell():
            error(f"{problem.filename or 'a file'}: {problem.strerror or problem}")
        sys.exit(1)
