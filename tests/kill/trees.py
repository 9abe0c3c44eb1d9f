"""What commands left in a folder, so that two such folders can be compared: all but what differs from run to run."""

import contextlib
import io
import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from fast3d_core.files.locks import LOCK_FILE

_TIMES = {"seconds", "gap_seconds", "samples_per_second", "timing", "when", "written"}
_BEFORE = "replaces"
"""In a ledger: the file that was there before. After a kill that may be the very file that is written again."""


def tree(folder: Path) -> dict[str, Any]:
    """Path -> content of every file and folder, hidden ones and leftovers too, but for locks.

    The parts of a journal become one: which session answered a batch depends on when it was interrupted.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name == LOCK_FILE:
            continue
        if path.is_symlink() or not path.is_file():
            found[name] = "a folder" if path.is_dir() and not path.is_symlink() else f"a link to {path.readlink()}"
        elif path.name.startswith("part-") and path.suffix == ".jsonl":
            found.setdefault(f"{path.parent.relative_to(folder)}/part-*", []).extend(_batches(path))
        else:
            found[name] = _content(path)
    for name, value in found.items():
        if name.endswith("part-*"):
            value.sort(key=lambda line: line["batch"])
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What is not the same in both, by path."""
    found = [f"{name} is missing" for name in one if name not in other]
    found += [f"{name} is left over" for name in other if name not in one]
    return found + [f"{name} differs" for name in one if name in other and not same(one[name], other[name])]


def same(one: Any, other: Any) -> bool:
    """Whether plain data and tensors are equal, to the last bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def timeless(value: Any) -> Any:
    """Plain data without times."""
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if key not in _TIMES and key != _BEFORE}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def _content(path: Path) -> Any:
    content = path.read_bytes()
    if path.suffix == ".json":
        return timeless(json.loads(content))
    if path.suffix == ".jsonl":
        return [timeless(json.loads(line)) for line in content.splitlines()]
    if path.suffix in (".pt", ".pth"):  # torch.save puts the name of a temporary file into what it writes
        with contextlib.suppress(pickle.UnpicklingError):  # of a release, which nothing changes
            return torch.load(io.BytesIO(content), weights_only=True)
    if path.suffix == ".safetensors":
        with contextlib.suppress(SafetensorError), safe_open(path, "pt") as file:
            about = {key: _plain(value) for key, value in (file.metadata() or {}).items() if key not in _TIMES}
            return about, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    return content


def _plain(text: str) -> Any:
    try:
        return timeless(json.loads(text))
    except ValueError:
        return text


def _batches(path: Path) -> list[dict[str, Any]]:
    """The whole lines: one that a kill cut short stays where it is, and counts as not done."""
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(timeless(json.loads(line)))
        except ValueError:
            continue
    return lines
