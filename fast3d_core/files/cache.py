"""The folder in which fast3d keeps what it makes or downloads once."""

import os
from pathlib import Path

CACHE = Path(os.path.expanduser(os.environ.get("FAST3D_CACHE") or "~/.cache/fast3d")).absolute()  # noqa: PTH111 (never raises)
"""$FAST3D_CACHE, else ~/.cache/fast3d."""
