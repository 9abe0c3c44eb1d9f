import threading

import pytest
import torch

from fast3d_core.evaluation.overlap import Postprocess, Prefetch, Ready, answer_all
from fast3d_core.llm.generation import Prompt

CPU = torch.device("cpu")


def test_the_next_item_is_made_while_this_one_is_in_use():
    started = [threading.Event() for _ in range(3)]

    def make(number):
        started[number].set()
        return number, threading.current_thread()

    threads, prefetch = set(), Prefetch(range(3), make, threaded=True)
    for number, thread in prefetch:
        threads.add(thread)
        if number < 2:
            assert not started[number + 1].is_set()  # only when it is asked for
            prefetch.begin()
            assert started[number + 1].wait(10)
            prefetch.begin()
        if number == 0:
            assert not started[2].is_set()  # one ahead, not two
    assert len(threads) == 1 and threading.current_thread() not in threads
    assert list(Prefetch([], make, threaded=True)) == []


def test_an_error_comes_when_its_item_is_asked_for():
    failed = threading.Event()

    def make(number):
        if number == 2:
            failed.set()
            raise ValueError("two")
        return number

    used, prefetch = [], Prefetch(range(9), make, threaded=True)
    with pytest.raises(ValueError, match="two"):
        for number in prefetch:
            prefetch.begin()
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

    prefetch = Prefetch(numbers(), str, threaded=True)
    assert next(prefetch) == "0"
    assert asked == [0]
    prefetch.begin()
    prefetch.close()
    assert asked == [0, 1]


def test_nothing_is_made_ahead_on_a_cpu():
    made, finished = [], []

    def prepare(number):
        made.append((number, threading.current_thread()))
        return Ready(number, [], [], [], 0.0)

    def answer(ready, meanwhile):
        meanwhile()
        assert made[-1] == (ready.number, threading.current_thread())
        return -ready.number

    answer_all(range(3), prepare, answer, lambda ready, answered: finished.append((ready.number, answered)), CPU)
    assert len(made) == 3 and finished == [(0, 0), (1, -1), (2, -2)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("begins", [False, True])
def test_what_a_stream_prepared_is_whole_on_another(begins):
    """Slow kernels write what is handed over, and memory is given back at once, to be written over by the next."""
    device = torch.device("cuda")
    weight = torch.eye(4096, device=device)

    def prepare(number):
        rows = torch.full((4096, 4096), float(number), device=device)
        for _ in range(20):
            rows = rows @ weight
        return Ready(number, [], [], [Prompt(rows, 0, 0)], 0.0)

    def answer(ready, meanwhile):
        assert torch.cuda.current_stream(device) == torch.cuda.default_stream(device)
        slow = ready.prompts.pop().embeds
        if begins:
            meanwhile()
        for _ in range(20):
            slow = slow @ weight
        return slow.double().mean()

    sums = []
    answer_all(range(12), prepare, answer, lambda ready, answered: sums.append(float(answered)), device)
    assert sums == list(range(12))


def test_what_is_left_is_done_behind_in_order():
    go, done = threading.Event(), []

    def work(number):
        assert go.wait(10)
        done.append((number, threading.current_thread()))

    with Postprocess(threaded=True) as postprocess:
        postprocess(lambda: work(0))
        assert not done  # it has not been waited for
        go.set()
        for number in (1, 2):
            postprocess(lambda number=number: work(number))
    assert [number for number, _ in done] == [0, 1, 2]
    assert len({thread for _, thread in done}) == 1 and threading.current_thread() is not done[0][1]


def test_without_a_thread_it_is_done_at_once():
    done = []
    with Postprocess(threaded=False) as postprocess:
        postprocess(lambda: done.append(threading.current_thread()))
        assert done == [threading.current_thread()]


def _fails(name):
    raise ValueError(name)


def test_an_error_behind_comes_with_the_next_call():
    done = []
    with pytest.raises(ValueError, match="first"), Postprocess(threaded=True) as postprocess:
        postprocess(lambda: _fails("first"))
        postprocess(lambda: done.append(1))
    assert not done


def test_an_error_behind_comes_at_the_end():
    with pytest.raises(ValueError, match="last"), Postprocess(threaded=True) as postprocess:
        postprocess(lambda: _fails("last"))


def test_the_error_that_ends_it_all_is_the_one_that_is_told():
    done = []
    with pytest.raises(KeyError), Postprocess(threaded=True) as postprocess:
        postprocess(lambda: (done.append(1), _fails("behind")))
        raise KeyError("the next batch")
    assert done  # what was left to do of the batch before was done all the same
