"""The embedded demo: generated rooms, questions about them, and a small Chat-Scene and GAP network that were trained on
such rooms. `README.md` beside this file tells how."""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
MEASURED = Path(__file__).parent / "measured.json"
"""The report of the release's measurement on the held-out test split."""

_WRITTEN_BY = ".demo"  # what the folder was written from


def ensure_demo(folder: Path, said: Callable[[str], None] = lambda _: None) -> None:
    """Writes the demo to `folder` unless it is there; one that an older fast3d wrote is replaced.

    Args:
        said: told when there is something to wait for.
    """
    stamp, written_by = _stamp(), folder / _WRITTEN_BY
    if (folder / "fast3d.yaml").exists() and (not written_by.exists() or written_by.read_text() == stamp):
        return
    said(f"writing the embedded demo to {folder}, once")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as temporary:
        made = Path(temporary) / folder.name
        from fast3d_core.demo.release import write_demo

        write_demo(made)
        (made / _WRITTEN_BY).write_text(stamp)
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        try:
            made.rename(folder)
        except OSError:  # another process was faster
            if not (folder / "fast3d.yaml").exists():
                raise


def _stamp() -> str:
    """Of the sources and weights that the demo is made from."""
    digest = hashlib.sha256()
    for path in sorted([*WEIGHTS.parent.glob("*.py"), *WEIGHTS.iterdir()]):
        large = path.suffix == ".safetensors"
        digest.update(path.name.encode() + (str(path.stat().st_size).encode() if large else path.read_bytes()))
    digest.update((WEIGHTS / "training.json").read_bytes())
    return digest.hexdigest()[:16]
