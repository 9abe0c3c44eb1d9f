"""Training steps as CUDA graphs: one launch a step instead of some two thousand, which Python is too slow for."""

from collections.abc import Callable

import torch
from torch import Tensor

_WARM_STEPS = 3  # made the ordinary way before a step of that shape is captured, as torch asks for


class StepGraphs:
    """Makes a training step from rows (samples,) on the CPU and a text width.

    The first steps of every shape are made the ordinary way, on a stream of their own; the next one is captured, and
    from then on steps of that shape are replayed. Steps of all shapes share one pool of memory.

    Args:
        step: rows on the device, width -> a small tensor; may not wait for the device.
    """

    def __init__(self, step: Callable[[Tensor, int], Tensor], device: torch.device):
        self._step, self._device = step, device
        self._stream = torch.cuda.Stream(device)
        self._made: dict[tuple[int, int], int] = {}
        self._graphs: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, rows: Tensor, width: int) -> Tensor:
        shape = (len(rows), width)
        if shape in self._graphs:
            graph, given, result = self._graphs[shape]
            given.copy_(rows, non_blocking=True)
            graph.replay()
            return result.clone()
        self._made[shape] = self._made.get(shape, 0) + 1
        if self._made[shape] <= _WARM_STEPS:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                result = self._step(rows.to(self._device, non_blocking=True), width)
            torch.cuda.current_stream().wait_stream(self._stream)
            return result
        given = rows.to(self._device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            result = self._step(given, width)
        graph.replay()  # capturing does not compute
        self._graphs[shape] = (graph, given, result)
        return result.clone()
