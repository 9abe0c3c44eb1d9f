"""Checkpoints as others save them: a folder with one file in it, names that wrappers put around a model's own.

Nothing here knows which model a checkpoint is of: its reader gives a name that it must have, the anchor.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fast3d_core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

_WEIGHTS = (".pth", ".pt", ".bin", ".safetensors")
# What trainers save beside the weights.
_NO_WEIGHTS = re.compile(r"(optimizer|scheduler|scaler|rng_state|random_states|training_args).*|.*optim_states\.pt")
# What DDP, torch.compile, FSDP and activation checkpointing put into the names of a model's tensors.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_STATES = ("model", "model_state_dict", "state_dict", "module")  # where trainers keep a state dict
_LISTED = 5


def checkpoint_file(path: Path, what: str) -> Path:
    """The file of a checkpoint: `path`, or the one file of weights in the folder `path` or in its folders.

    Raises `DataError` where a folder holds none or several, listing them; `what` is what errors call it.
    """
    if not path.is_dir():
        return path
    try:
        found = _weights_in(path) or [
            file for one in sorted(path.iterdir()) if one.is_dir() for file in _weights_in(one)
        ]
    except OSError as error:
        raise DataError(f"{what}: {path} cannot be read ({error.strerror})") from None
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(f"{what}: {path} is a folder without a file of weights ({', '.join(_WEIGHTS)}); name the file")
    names = ", ".join(str(file.relative_to(path))[:80] for file in found[:_LISTED])
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    raise DataError(
        f"{what}: {path} is a folder that holds {names}{more}; name the one to read (parts of one are to be joined "
        "into a single file)"
    )


def _weights_in(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in _WEIGHTS and not path.name.startswith(".") and path.is_file()
        if not _NO_WEIGHTS.fullmatch(path.name)
    ]


def state_dict(content: Any, first: str) -> dict[Any, Any] | None:
    """The state dict in what a trainer saved: under the key `first`, or another usual one, or all of it; else None."""
    if not isinstance(content, dict):
        return None
    for key in (first, *_STATES):
        if isinstance(content.get(key), dict):
            found: dict[Any, Any] = content[key]
            return found
    from torch import Tensor  # not at the top: config.py finds checkpoints, and must not wait for torch

    return content if content and all(isinstance(value, Tensor) for value in content.values()) else None


class Renamed(Mapping[str, T]):
    """A mapping under other names, its values still read when they are asked for.

    Args:
        names: new -> old; what it leaves out is left out.
    """

    def __init__(self, values: Mapping[str, T], names: Mapping[str, str]):
        self._values, self._names = values, names

    def __getitem__(self, name: str) -> T:
        return self._values[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def renamed(state: Mapping[str, T], new: Mapping[str, str], where: str) -> Mapping[str, T]:
    """`state` with every name replaced by `new[name]`. Raises `DataError` where two tensors would get one name."""
    old: dict[str, str] = {}
    for name in state:
        if (other := old.setdefault(new[name], name)) != name:
            raise DataError(f"{where} holds {other[:100]} and {name[:100]}, which are one tensor; keep one of them")
    return state if all(one == other for one, other in old.items()) else Renamed(state, old)


def unwrapped(state: "Mapping[str, Tensor]", anchor: str, where: str) -> "Mapping[str, Tensor]":
    """The tensors of a state dict by the names that the model itself gives them.

    Args:
        anchor: a name that the model has; what stands before it in all names is a wrapper's, too.
        where: what errors call the file.

    Raises `DataError` where two tensors would get one name.
    """
    plain = {name: ".".join(part for part in name.split(".") if part not in _WRAPPERS) or name for name in state}
    ends = [name.removesuffix(anchor) for name in plain.values() if name.endswith(f".{anchor}")]
    if len(ends) == 1 and anchor not in plain.values():
        plain = {name: one.removeprefix(ends[0]) for name, one in plain.items()}
    return renamed(state, plain, where)
