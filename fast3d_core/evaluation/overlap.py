"""Keeps a GPU busy: while it decodes a batch, the maps, plans and prompts of the next one are prefetched, and what came
of the one before is postprocessed."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor

from fast3d_core.data.annotations import Sample
from fast3d_core.llm.generation import Prompt
from fast3d_core.plan import Plan

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
_Answered = TypeVar("_Answered")


@dataclass(frozen=True)
class Ready:
    """A batch that only has to be answered.

    Attributes:
        number: of the batch; samples, plans, prompts: one each.
        gap_seconds: what predicting the maps took; 0 where they were not predicted.
    """

    number: int
    samples: list[Sample]
    plans: list[Plan]
    prompts: list[Prompt]
    gap_seconds: float


def answer_all(
    numbers: Iterable[int],
    prepare: Callable[[int], Ready],
    answer: Callable[[Ready, Callable[[], None]], _Answered],
    finish: Callable[[Ready, _Answered], None],
    device: torch.device,
) -> None:
    """Prepares, answers and finishes batches, one after another. On a GPU, one thread prepares the next batch and
    another finishes the batch before, while one is answered.

    An error in preparing a batch is raised after the one before is answered and finished.

    Args:
        answer: is given the batch, and what to call when the GPU has work enough: then the next one is prefetched.
    """
    on_gpu = device.type == "cuda"  # else a second thread would only fight for the cores
    batches = _StreamPrefetch(numbers, prepare, device) if on_gpu else Prefetch(numbers, prepare, threaded=False)
    with Postprocess(threaded=on_gpu) as postprocess, closing(batches):
        for ready in batches:
            postprocess(partial(finish, ready, answer(ready, batches.begin)))


class Prefetch(Iterator[_Made]):
    """What `make` makes of each item, in order.

    Args:
        threaded: in a thread; the next one, if `begin` is called, while the one before is in use.
    """

    def __init__(self, items: Iterable[_Item], make: Callable[[_Item], _Made], *, threaded: bool):
        self._made = map(make, items)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch") if threaded else None
        self._waiting: Future[list[_Made]] | None = None

    def begin(self) -> None:
        """Begins the next item, unless that has been done, or there is no thread for it."""
        if self._thread and not self._waiting:
            self._waiting = self._thread.submit(lambda: list(itertools.islice(self._made, 1)))

    def __next__(self) -> _Made:
        if not self._thread:
            return next(self._made)
        self.begin()
        assert self._waiting
        waiting, self._waiting = self._waiting, None
        for made in waiting.result():
            return made
        raise StopIteration

    def close(self) -> None:
        """Waits for what was begun."""
        if self._thread:
            self._thread.shutdown()


class _StreamPrefetch(Prefetch[Ready]):
    """Prepares batches in a thread and on a CUDA stream of its own. The stream waits for what was launched before
    `begin`, so preparing shares the GPU with decoding, which does not keep it busy, and not with prefill."""

    def __init__(self, numbers: Iterable[int], prepare: Callable[[int], Ready], device: torch.device):
        self._device, self._stream = device, torch.cuda.Stream(device)

        def on_stream(number: int) -> Ready:
            with torch.cuda.stream(self._stream):
                return prepare(number)

        super().__init__(numbers, on_stream, threaded=True)

    def begin(self) -> None:
        if not self._waiting:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        super().begin()

    def __next__(self) -> Ready:
        ready = super().__next__()
        reader = torch.cuda.current_stream(self._device)
        reader.wait_stream(self._stream)  # where the next one has not begun yet
        for prompt in ready.prompts:
            for value in vars(prompt).values():
                if isinstance(value, Tensor) and value.is_cuda:
                    value.record_stream(reader)  # else its memory would be free for the stream while it is read here
        return ready


class Postprocess:
    """Does what is left to do of batches, in order: in a thread, while the next one is decoded, or at once.

    An error is raised at the next call, or at the end, unless another error ends the loop anyway.
    """

    def __init__(self, *, threaded: bool):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="postprocess") if threaded else None
        self._waiting: Future[None] | None = None

    def __enter__(self) -> "Postprocess":
        return self

    def __call__(self, work: Callable[[], None]) -> None:
        if self._thread is None:
            work()
            return
        self._finish()
        self._waiting = self._thread.submit(work)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread:
            self._thread.shutdown()  # waits
        if error is None:
            self._finish()

    def _finish(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, None
            waiting.result()
