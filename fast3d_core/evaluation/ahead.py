"""A GPU is kept busy: while it decodes a batch, the next one's maps, plans and prompts are made, and what came of the
one before is written."""

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor

from fast3d_core.data.annotations import Sample
from fast3d_core.plan import Plan
from fast3d_core.vicuna.llm import Prompt

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


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


def prepared(
    numbers: Iterable[int], prepare: Callable[[int], Ready], device: torch.device
) -> Generator[Ready, None, None]:
    """What `prepare` makes of each batch number; on a GPU in a thread and on a stream of their own, one ahead.

    An error in preparing a batch is raised when that batch is asked for, so after the one before is answered.
    """
    if device.type != "cuda":  # a second thread would only fight for the cores
        yield from map(prepare, numbers)
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))  # the weights may still be on their way

    def on_stream(number: int) -> tuple[Ready, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            return prepare(number), stream.record_event()

    for ready, done in one_ahead(numbers, on_stream):
        reader = torch.cuda.current_stream(device)
        reader.wait_event(done)
        for prompt in ready.prompts:
            for value in vars(prompt).values():
                if isinstance(value, Tensor) and value.is_cuda:
                    value.record_stream(reader)  # else its memory would be free for `stream` while it is read here
        yield ready


def one_ahead(items: Iterable[_Item], make: Callable[[_Item], _Made]) -> Iterator[_Made]:
    """What `make` makes of each item: of the next one, in a thread, while the one before is in use."""
    left = iter(items)

    def next_one() -> list[_Made]:
        return [make(item) for item in itertools.islice(left, 1)]

    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        waiting = thread.submit(next_one)
        while made := waiting.result():
            waiting = thread.submit(next_one)
            yield made[0]


class Behind:
    """Does what is left to do of batches, in order; in a thread, while the next one is decoded, or at once.

    An error is raised at the next call, or at the end, unless another one ends it all anyway.
    """

    def __init__(self, *, threaded: bool):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="behind") if threaded else None
        self._waiting: Future[None] | None = None

    def __enter__(self) -> "Behind":
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
