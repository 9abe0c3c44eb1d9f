"""Pages that commands write: their size, how to see them, and, on a screen, the browser that shows them."""

import os
import sys
import webbrowser
from pathlib import Path

from fast3d_cli.console import note, out


def note_page(path: Path, size: int, hint: str = "") -> None:
    """Notes what was written, and how it is opened."""
    note(f"written: {path} ({size / 1e6:.1f} MB{hint}); open it in a browser: {path.resolve().as_uri()}")


def open_page(path: Path) -> None:
    """Opens a page, where a person sits at a screen that a browser can be seen on."""
    if out.is_terminal and _has_screen():
        webbrowser.open(path.resolve().as_uri())


def _has_screen() -> bool:
    """Not over SSH, where a browser would open far away, or in the terminal itself."""
    if "SSH_CONNECTION" in os.environ:
        return False
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
