"""A shard of the store of extracted maps, see `store.py`: what it holds, and reading it."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fast3d_core.errors import DataError
from fast3d_core.files.files import need_file
from fast3d_core.files.typed import parse_typed
from fast3d_core.text import first_line

_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64"}  # as safetensors spells them


@dataclass(frozen=True)
class Shard:
    """The maps of consecutive samples, in the shapes above, and how they came about.

    Attributes:
        answers: the texts that were appended; seconds: computing time.
    """

    index: Tensor
    maps: dict[str, Tensor]
    answers: list[str]
    seconds: float


def load_shard(path: Path, start: int, shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]]) -> Shard:
    """A shard whose samples begin at `start`, with the maps in `shapes`: types and sizes are checked before reading."""
    need_file(path, "maps.targets")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            answers, seconds = parse_typed(list[str], metadata["answers"]), float(metadata["seconds"])
            if not 0 <= seconds < math.inf:
                raise ValueError(f"it took {seconds} seconds")
            samples = len(answers)
            for name, (dtype, shape) in {"index": (torch.int64, ()), **shapes}.items():
                found = file.get_slice(name)
                if found.get_dtype() != _DTYPES[dtype] or tuple(found.get_shape()) != (samples, *shape):
                    raise ValueError(f"{name} has another type or shape than store.json says")
            index = file.get_tensor("index")
            maps = {name: file.get_tensor(name) for name in shapes}
        if not torch.equal(index, torch.arange(start, start + samples)):
            raise ValueError(f"its samples do not begin at {start}")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({first_line(error)}); delete it and run `fast3d extract` again") from None
    return Shard(index, maps, answers, seconds)
