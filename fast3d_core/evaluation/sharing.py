"""How several processes share a run's batches: by cost, each taking the next one when it is free."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from accelerate import PartialState

from fast3d_core.data.annotations import Sample
from fast3d_core.evaluation.needs import Needs
from fast3d_core.evaluation.planner import Planner
from fast3d_core.runtime.devices import next_ticket

_queues = itertools.count()


def largest_first(batches: Mapping[int, Sequence[Sample]], needs: Needs, planner: Planner) -> list[int]:
    """The numbers of the batches by what reading their prompts costs, so that no process is left with a large one at
    the end; how long answers get is not known beforehand."""

    def flops(samples: Sequence[Sample]) -> int:
        return sum(need.cost.prefill_flops for need in needs.of_batch(samples, planner(samples)))

    return sorted(batches, key=lambda number: flops(batches[number]), reverse=True)


def shared(numbers: Sequence[int], state: PartialState) -> Iterator[int]:
    """This process's part of `numbers`, which is decided as it goes: whoever asks gets the next one.

    Every process calls this, with the same numbers. All get one to begin with, if there are enough. Raises
    `StoppedError` when asked for more after the process that counts has stopped.
    """
    name = f"queue/{next(_queues)}"  # processes make their queues in the same order

    def turns() -> Iterator[int]:
        position = state.process_index
        while position < len(numbers):
            yield numbers[position]
            position = state.num_processes + next_ticket(name) if state.num_processes > 1 else position + 1

    return turns()
