import threading

import pytest
import torch

from fast3d_core.evaluation.ahead import Ready, one_ahead, prepared
from fast3d_core.vicuna.llm import Prompt


def test_the_next_item_is_made_while_this_one_is_in_use():
    started = [threading.Event() for _ in range(3)]

    def make(number):
        started[number].set()
        return number, threading.current_thread()

    threads = set()
    for number, thread in one_ahead(range(3), make):
        threads.add(thread)
        if number < 2:
            assert started[number + 1].wait(10)
        if number == 0:
            assert not started[2].is_set()  # one ahead, not two
    assert len(threads) == 1 and threading.current_thread() not in threads


def test_an_error_comes_when_its_item_is_asked_for():
    failed = threading.Event()

    def make(number):
        if number == 2:
            failed.set()
            raise ValueError("two")
        return number

    used = []
    with pytest.raises(ValueError, match="two"):
        for number in one_ahead(range(9), make):
            if number == 1:
                assert failed.wait(10)  # it has happened, and does not hurt yet
            used.append(number)
    assert used == [0, 1]


def test_items_are_asked_for_one_ahead():
    """So that a process does not hold batches which another one could take."""
    asked = []

    def numbers():
        for number in range(5):
            asked.append(number)
            yield number

    ahead = one_ahead(numbers(), str)
    assert next(ahead) == "0"
    ahead.close()
    assert asked in ([0], [0, 1])
    assert list(one_ahead([], str)) == []


def test_nothing_is_made_ahead_on_a_cpu():
    made = []

    def prepare(number):
        made.append((number, threading.current_thread()))
        return Ready(number, [], [], [], 0.0)

    for ready in prepared(range(3), prepare, torch.device("cpu")):
        assert made[-1] == (ready.number, threading.current_thread())
    assert len(made) == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_what_a_stream_prepared_is_whole_on_another():
    """Slow kernels write what is handed over, and memory is given back at once, to be written over by the next."""
    device = torch.device("cuda")
    weight = torch.eye(4096, device=device)

    def prepare(number):
        rows = torch.full((4096, 4096), float(number), device=device)
        for _ in range(20):
            rows = rows @ weight
        return Ready(number, [], [], [Prompt(rows, 0, 0)], 0.0)

    sums = []
    for ready in prepared(range(12), prepare, device):
        assert torch.cuda.current_stream(device) == torch.cuda.default_stream(device)
        (prompt,) = ready.prompts
        slow = prompt.embeds
        del ready, prompt
        for _ in range(20):
            slow = slow @ weight
        sums.append(slow.double().mean())
    assert [float(one) for one in sums] == list(range(12))
