"""Training steps as CUDA graphs: one launch a step instead of some two thousand, which Python is too slow for."""

from collections.abc import Callable

import torch
from torch import Tensor

_WARM_STEPS = 3  # made the ordinary way before a step of that shape is captured, as torch asks for

Inputs = dict[str, Tensor]


class StepGraphs:
    """Makes training steps from tensors on the CPU and a whole number that the step's shapes depend on.

    The first steps of every shape are made the ordinary way, on a stream of their own; the next one is captured, and
    from then on steps of that shape are replayed. Steps of all shapes share one pool of memory.

    Args:
        step: inputs on the device, number -> a small tensor; may not wait for the device.
    """

    def __init__(self, step: Callable[[Inputs, int], Tensor], device: torch.device):
        self._step, self._device = step, device
        self._stream = torch.cuda.Stream(device)
        self._made: dict[tuple[object, ...], int] = {}
        self._graphs: dict[tuple[object, ...], tuple[torch.cuda.CUDAGraph, Inputs, Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, inputs: Inputs, number: int = 0) -> Tensor:
        shape = (number, *((name, tensor.shape) for name, tensor in inputs.items()))
        if shape in self._graphs:
            graph, given, result = self._graphs[shape]
            for name, tensor in inputs.items():
                given[name].copy_(tensor, non_blocking=True)
            graph.replay()
            return result.clone()
        self._made[shape] = self._made.get(shape, 0) + 1
        if self._made[shape] <= _WARM_STEPS:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                result = self._step(self._on_device(inputs), number)
            torch.cuda.current_stream().wait_stream(self._stream)
            return result
        given = self._on_device(inputs)
        graph = torch.cuda.CUDAGraph()
        # Only this thread's calls count: a data loader may pin memory meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            result = self._step(given, number)
        graph.replay()  # capturing does not compute
        self._graphs[shape] = (graph, given, result)
        return result.clone()

    def _on_device(self, inputs: Inputs) -> Inputs:
        return {name: tensor.to(self._device, non_blocking=True) for name, tensor in inputs.items()}
