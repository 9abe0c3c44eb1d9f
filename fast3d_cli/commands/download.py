"""`fast3d download`: files that other commands read."""

from pathlib import Path
from typing import Annotated

import typer

from fast3d_cli.console import note, print_json
from fast3d_cli.options import JsonOption
from fast3d_core.errors import UsageError


def download(
    what: Annotated[str, typer.Argument(help="demo: the embedded demo, in the released form.")],
    to: Annotated[
        Path | None, typer.Option(help="Folder to write to. Default: where commands without a config look for it.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Get the files that other commands read, and a fast3d.yaml that names them."""
    if what != "demo":
        raise UsageError(f"there is no {what[:80]!r} to download; choose from demo")
    from fast3d_core.config import EMBEDDED
    from fast3d_core.demo import ensure_demo

    folder = (to or EMBEDDED.parent).absolute()
    if to and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--to {to} is there already; name a new folder")
    ensure_demo(folder, note)
    if json:
        print_json({"demo": str(folder)})
    else:
        print(folder)
