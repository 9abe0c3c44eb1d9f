"""Folders of models in Hugging Face's layout: what was probably meant where a config names one that is none."""

import itertools
import os
from pathlib import Path

from fast3d_core.errors import DataError

# Where the folder of a model lies in one that was named in its place: a cache's root for it, that of all models.
_INSIDE = ("*/config.json", "snapshots/*/config.json", "models--*/snapshots/*/config.json")
_LISTED = 3


def check_model_folder(path: Path, what: str) -> None:
    """Raises `DataError` where `path` is a name on the Hugging Face Hub, or a folder around a model's own.

    Any other path passes, a missing one too. `what` is what errors call it.
    """
    try:
        if not path.exists():
            _check_hub_name(path, what)
        elif path.is_dir() and not (path / "config.json").exists():
            _check_inside(path, what)
    except OSError:  # no permission to look: whoever reads it will say so
        return


def _check_hub_name(path: Path, what: str) -> None:
    if path.parent.is_dir() or len(path.parts) < 2:
        return
    owner, name = path.parts[-2:]
    snapshots = sorted((_cache() / f"models--{owner}--{name}" / "snapshots").glob("*/config.json"))
    if snapshots:
        do = f"for {owner}/{name} of the Hugging Face Hub, name the folder in its cache, {snapshots[-1].parent}"
    else:
        do = (
            "it is to be a folder; where it is a name on the Hugging Face Hub, name the folder that the model was "
            "downloaded to (`fast3d download` makes one)"
        )
    raise DataError(f"{what}: {path} does not exist", do)


def _check_inside(path: Path, what: str) -> None:
    found = [file.parent for pattern in _INSIDE for file in itertools.islice(path.glob(pattern), _LISTED)]
    if found:
        listed = " or ".join(str(folder) for folder in sorted(found)[:_LISTED])
        raise DataError(f"{what}: {path} holds no model but around one", f"name the folder inside, {listed}")
    if (path / "snapshots").is_dir():
        raise DataError(f"{what}: {path} is the cache of a Hub model without a whole snapshot", "download it again")


def _cache() -> Path:
    """Hugging Face's, without importing its library."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
