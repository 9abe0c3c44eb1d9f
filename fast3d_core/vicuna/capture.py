"""Work on a GPU, recorded once as a CUDA graph and replayed: one launch instead of hundreds from Python."""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch

_Result = TypeVar("_Result")


def captured(work: Callable[[], _Result], pool: Any = None) -> tuple[torch.cuda.CUDAGraph, _Result]:
    """The graph of `work`, which is recorded, not done, and what `work` returned: tensors that replays fill.

    Args:
        work: has to have run before, so that what it compiles is compiled; may not wait for the device.
        pool: of memory, shared by graphs of which one is replayed at a time.
    """
    graph = torch.cuda.CUDAGraph()
    # What another thread prepares for the next batch meanwhile gives way, and does not break the capture.
    stream = _stream(torch.cuda.current_device())
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        result = work()
    return graph, result


@cache
def _stream(_device: int) -> torch.cuda.Stream:
    """For nothing else, and of high priority, which the recorded work keeps."""
    return torch.cuda.Stream(priority=-1)
