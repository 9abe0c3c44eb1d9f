"""CUDA graphs: work on a GPU that is recorded once and replayed, one launch instead of hundreds from Python."""

import threading
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from fast3d_core.runtime.devices import on

Inputs = dict[str, Tensor]
_Result = TypeVar("_Result")

_WARM_STEPS = 3  # made the ordinary way before a training step of that shape is captured, as torch asks for
_CAPTURING = (
    threading.Lock()
)  # capturing begins with waiting for the device, which would break another thread's capture


def captured(
    work: Callable[[], _Result], pool: Any = None, stream: torch.cuda.Stream | None = None
) -> tuple[torch.cuda.CUDAGraph, _Result]:
    """The graph of `work`, which is recorded, not done, and what `work` returned: tensors that replays fill.

    Args:
        work: has to have run before, so that what it compiles is compiled; may not wait for the device.
        pool: of memory, shared by graphs of which one is replayed at a time.
        stream: to record on; else one of high priority, which the recorded work keeps.
    """
    graph = torch.cuda.CUDAGraph()
    stream = stream or _urgent(torch.cuda.current_device())
    # Only this thread's calls count: others prepare the next batch meanwhile, or pin memory.
    with _CAPTURING, torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        result = work()
    return graph, result


@cache
def _urgent(_device: int) -> torch.cuda.Stream:
    """For nothing else."""
    return torch.cuda.Stream(priority=-1)


class StepGraphs:
    """Makes steps, of training or prediction, from tensors and a whole number that the step's shapes depend on.

    The first steps of every shape are made the ordinary way, on a stream of their own; the next one is captured, and
    from then on steps of that shape are replayed. Steps of all shapes share one pool of memory.

    Args:
        step: inputs on the device, number -> a small tensor; may not wait for the device.
        warm_steps: how many of each shape are made the ordinary way.
    """

    def __init__(self, step: Callable[[Inputs, int], Tensor], device: torch.device, warm_steps: int = _WARM_STEPS):
        self._step, self._device, self._warm_steps = step, device, warm_steps
        self._stream = torch.cuda.Stream(device)
        self._made: dict[tuple[object, ...], int] = {}
        self._graphs: dict[tuple[object, ...], tuple[torch.cuda.CUDAGraph, Inputs, Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, inputs: Inputs, number: int = 0) -> Tensor:
        with on(self._device):  # whose streams are meant
            return self._make(inputs, number)

    def _make(self, inputs: Inputs, number: int) -> Tensor:
        shape = (number, *((name, tensor.shape) for name, tensor in inputs.items()))
        if shape in self._graphs:
            graph, given, result = self._graphs[shape]
            for name, tensor in inputs.items():
                given[name].copy_(tensor, non_blocking=True)
            graph.replay()
            return result.clone()
        self._made[shape] = self._made.get(shape, 0) + 1
        if self._made[shape] <= self._warm_steps:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                result = self._step(self._on_device(inputs), number)
            torch.cuda.current_stream().wait_stream(self._stream)
            return result
        given = {name: tensor.clone() for name, tensor in self._on_device(inputs).items()}
        graph, result = captured(lambda: self._step(given, number), self._pool, self._stream)
        graph.replay()  # capturing does not compute
        self._graphs[shape] = (graph, given, result)
        return result.clone()

    def _on_device(self, inputs: Inputs) -> Inputs:
        return {name: tensor.to(self._device, non_blocking=True) for name, tensor in inputs.items()}
