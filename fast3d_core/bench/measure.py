"""Peak memory and rooflines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from fast3d_core.evaluation.estimate import Rates, measure
from fast3d_core.llm.cost import Cost, LlmShape


class PeakMemory:
    """The most that is allocated on a device from here on."""

    def __init__(self, device: torch.device):
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def bytes(self) -> int | None:
        """None on a CPU."""
        return torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else None


@dataclass(frozen=True)
class Work:
    """What a batch costs.

    Attributes:
        costs: costs[n] are the samples' where n + 1 tokens are generated.
        scene_flops: of scenes that are read apart from the questions.
        llm_bytes, gap_bytes: of weights, that a pass reads.
    """

    costs: Sequence[Sequence[Cost]]
    scene_flops: float
    gap_flops: float
    llm_bytes: float
    gap_bytes: float


class Machine:
    """The rates of a device, measured when this is made, and the seconds that work takes at these rates.

    Args:
        dtype: of the LLM; GAP runs in float32.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype):
        self.llm = measure(device, dtype)
        self.gap = self.llm if dtype == torch.float32 else measure(device, torch.float32)

    def gap_roofline(self, work: Work) -> float:
        """Of predicting the batch's maps."""
        return _roofline_seconds(self.gap, work.gap_flops, work.gap_bytes if work.gap_flops else 0)

    def prefill_roofline(self, work: Work) -> float:
        """Of reading the prompts."""
        return _roofline_seconds(
            self.llm, work.scene_flops + _sum(work.costs[0], lambda cost: cost.prefill_flops), work.llm_bytes
        )

    def decode_roofline(self, work: Work) -> float:
        """Of all decode steps, each of which reads weights and caches once."""
        seconds = 0.0
        for before, after in zip(work.costs, work.costs[1:], strict=False):
            flops = _sum(after, lambda cost: cost.decode_flops) - _sum(before, lambda cost: cost.decode_flops)
            seconds += _roofline_seconds(self.llm, flops, work.llm_bytes + _sum(after, lambda cost: cost.kv_bytes))
        return seconds


def _sum(costs: Sequence[Cost], part: Callable[[Cost], float]) -> float:
    return sum(map(part, costs))


def _roofline_seconds(rates: Rates, flops: float, bytes_read: float) -> float:
    return max(flops / rates.flops, bytes_read / rates.bytes)


def read_bytes(shape: LlmShape, element_bytes: int) -> int:
    """Bytes of the weights that a pass of the LLM reads: layers and lm_head; of the embedding it looks up rows."""
    return (shape.parameters - shape.vocab * shape.hidden) * element_bytes
