"""The one place that prints: data on stdout, everything else on stderr."""

import functools
import json
import os
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

out = Console(soft_wrap=True)
err = Console(stderr=True)
_WIDEST = 200


def print_json(value: Any) -> None:
    """Machine-readable data, uncoloured."""
    print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


def print_whole(table: Table) -> None:
    """A table as wide as it has to be, on however narrow a terminal."""
    table.width = Measurement.get(out, out.options.update_width(_WIDEST), table).maximum
    out.print(table)


def error(message: str) -> None:
    """One line that says what to do."""
    err.print(f"[bold red]error:[/] {_escape(' '.join(message.split()))}", soft_wrap=True, highlight=False)


def is_first_process() -> bool:
    """Whether this is the process that speaks, of those that a launcher such as accelerate started."""
    return os.environ.get("RANK", "0") == "0"


def may_tell() -> bool:
    """Whether this process is the one to tell about its error: several mostly fail alike."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return True
    from fast3d_core.devices import speaks

    return speaks()


def note(message: str) -> None:
    """A remark beside the data, once for all processes."""
    if not is_first_process():
        return
    err.print(_escape(message), soft_wrap=True, highlight=False, style="dim")


@functools.cache
def note_once(message: str) -> None:
    """A remark that a command which runs others, as `fast3d demo` does, would repeat."""
    note(message)


def _escape(text: str) -> str:
    """`text` for rich, without what moves a terminal's cursor: a name in a file may be anything."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text).replace("[", r"\[")
