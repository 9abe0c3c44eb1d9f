"""The one place that prints: data on stdout, everything else on stderr. All of it is text: nothing that a file or a
name holds is read as markup, moves the cursor, or fails to be encoded."""

import contextlib
import functools
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from fast3d_core.errors import DataError
from fast3d_core.runtime import launcher
from fast3d_core.text import printable, printable_lines

_WIDEST = 200


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Raises `DataError` where stdout cannot be written; a reader that has left is another matter."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as problem:
        raise unwritable(problem) from None


def unwritable(problem: OSError) -> DataError:
    """The error of a stdout that cannot be written."""
    return DataError(f"stdout cannot be written ({problem.strerror or problem}); send it where there is room")


class _Terminal(Console):
    """Shows text as text; styles are given as styles."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, **settings)

    def print(self, *objects: Any, **settings: Any) -> None:
        with contextlib.suppress(OSError) if self.stderr else _writing():  # a broken stderr cannot be reported
            super().print(*objects, **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable_lines(segment.text), segment.style)

    def render_str(self, text: str, **settings: Any) -> Text:  # type: ignore[override]  # it has more names for these
        return super().render_str(printable_lines(text), **settings)  # before a table measures it


out = _Terminal(soft_wrap=True)
err = _Terminal(stderr=True)


def print_json(value: Any) -> None:
    """Machine-readable data, uncoloured; in ASCII where stdout cannot hold all of it."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=1, allow_nan=False)
    print_data(text + "\n")


def print_data(text: str) -> None:
    """Data as it is, on stdout."""
    with _writing():
        print(text, end="")


def print_json_line(value: Any) -> None:
    """The same on one line, in ASCII, at once: whoever asks one question after another waits for it."""
    with _writing():
        print(json.dumps(value, allow_nan=False), flush=True)


def print_text(text: object) -> None:
    """A path, or another line of data, as it is but for what a terminal would take for orders."""
    print_data(printable(str(text)) + "\n")


def print_whole(table: Table) -> None:
    """A table as wide as it has to be, on however narrow a terminal."""
    table.width = Measurement.get(out, out.options.update_width(_WIDEST), table).maximum
    out.print(table)


def error(message: str) -> None:
    """One line that says what to do."""
    line = printable(" ".join(message.split()))
    err.print(Text.assemble(("error:", "bold red"), " ", line), soft_wrap=True)


def should_report() -> bool:
    """Whether this process is the one that reports its error: several mostly fail alike."""
    if launcher.is_alone():
        return True
    from fast3d_core.runtime.devices import is_error_reporter

    return is_error_reporter()


def note(message: str, everyone: bool = False) -> None:
    """A remark beside the data, once for all processes, or by `everyone`."""
    if everyone or launcher.is_first():
        err.print(Text(printable_lines(message), "dim"), soft_wrap=True)


@functools.cache
def note_once(message: str) -> None:
    """A remark that a command which runs others, as `fast3d demo` does, would repeat."""
    note(message)


def prepare_streams() -> None:
    """What a stream's encoding lacks is written as an escape, rather than ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_stdout() -> OSError | None:
    """Why what was printed cannot be written, if that is so; stdout is given up then."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as problem:
        with contextlib.suppress(OSError, ValueError):  # Python's own attempt at the end would fail, too
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
        return problem
    return None
