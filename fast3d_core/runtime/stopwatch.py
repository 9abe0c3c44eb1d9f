"""How long the parts of a piece of work take."""

import time
from typing import Any

import torch


class Stopwatch:
    """Durations between marks: CUDA events on a GPU, where marking does not wait; else the performance counter.

    An event is stamped when the device gets to it. Where the device waits for the host, that is when the host marks it;
    so the durations add up to what a user waits.
    """

    def __init__(self, device: torch.device):
        self._device, self._cuda = device, device.type == "cuda"
        if self._cuda:
            torch.cuda.synchronize(device)
        self._marks: list[tuple[str, Any]] = []
        self.mark("start")

    def mark(self, name: str) -> None:
        """Ends the part `name`, which began with the mark before."""
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            self._marks.append((name, event))
        else:
            self._marks.append((name, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """Seconds of each part, and of all of them as "end_to_end"; waits for the device."""
        parts: dict[str, float] = {}
        for (_, start), (name, end) in zip(self._marks, self._marks[1:], strict=False):
            parts[name] = self._between(start, end)
        parts["end_to_end"] = self._between(self._marks[0][1], self._marks[-1][1])
        return parts

    def _between(self, start: Any, end: Any) -> float:
        if not self._cuda:
            return end - start
        end.synchronize()
        return start.elapsed_time(end) / 1000
