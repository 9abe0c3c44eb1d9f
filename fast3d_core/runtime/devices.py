"""Devices and processes: which device a config means, and which of several processes does what."""

import atexit
import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta

import psutil
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from fast3d_core.errors import DataError, StoppedError, UsageError
from fast3d_core.runtime import launcher
from fast3d_core.runtime.meeting import meet, tickets


def pick_device(name: str) -> torch.device:
    """The device a config names; `auto` is CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"model.device is {name}, but torch finds no CUDA device; use --set model.device=cpu")
    device = torch.device(name)
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise UsageError(f"model.device is {name}, but there are {torch.cuda.device_count()} CUDA devices")
    return device


def on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Makes a GPU the current one: graphs, streams and kernels go to that, wherever their tensors are."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def join_processes(device_name: str, log: Callable[[str], None] = lambda _: None) -> PartialState:
    """This process among those that a launcher started, one alone without a launcher.

    Once all are here, waiting for each other has no practical limit: a process may have hours more to do than another.

    Args:
        log: called with what this process waits for, if it takes long; how long at most, see `launcher.join_seconds`.

    Raises:
        UsageError: there are more processes than GPUs, a launcher's variables contradict each other, or processes do
            not come.
    """
    process = launcher.this_process()
    if process is None:
        launcher.run_alone()  # accelerate would make something of what is left
    elif not on_cpu(device_name) and process.local_processes > (gpus := torch.cuda.device_count()):
        raise UsageError(
            f"{process.local_processes} processes need as many GPUs, and there are {gpus}; start at most {gpus}"
        )
    else:
        meet(process, log)
    state = PartialState(cpu=on_cpu(device_name), timeout=timedelta(days=7))
    if state.backend == "gloo":  # its threads abort the process if they outlive it, whatever the exit code was to be
        atexit.register(destroy_process_group)
    return state


def destroy_process_group() -> None:
    """Destroys the process group, if there is one. Collective: on GPUs every rank must call it, or it may wait for
    ever, so a process that failed must not."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def on_cpu(device_name: str) -> bool:
    """Whether processes talk to each other on the CPU: where the config says so, or there is no CUDA."""
    return device_name == "cpu" or not torch.cuda.is_available()


def own_device(device_name: str, state: PartialState) -> torch.device:
    """The device of this process: the one the config names, or, of several processes, each its own GPU."""
    device = pick_device(device_name)
    if state.num_processes > 1 and device.type == "cuda":
        if device.index is not None:
            raise UsageError(f"several processes cannot share {device}; set model.device to cuda or auto")
        return state.device
    return device


def wait_for_everyone(state: PartialState) -> None:
    """Waits until all processes are here. Raises `StoppedError` where one never will be."""
    with _others_may_stop():
        state.wait_for_everyone()


def smallest(number: int, state: PartialState) -> int:
    """The smallest of the numbers that the processes come with. Raises `StoppedError` where one never comes."""
    if state.num_processes == 1:
        return number
    with _others_may_stop():
        return min(gather_object([number]))


def next_ticket(name: str) -> int:
    """The next number of a counter that all processes share: 0, 1, 2, ... for each name.

    Raises:
        StoppedError: the process that keeps the counters is gone.
    """
    with _others_may_stop():
        return tickets().add(name, 1) - 1


def is_error_reporter() -> bool:
    """Whether this process is the one that reports an error, of several which mostly fail alike: the first to fail.

    Before they have met, it is the process of rank 0; where no launcher is sure to have started others, each is.
    """
    if not torch.distributed.is_initialized():
        return launcher.is_first() or not launcher.is_watched()
    try:
        return next_ticket("errors") == 0
    except StoppedError:
        return False


@contextlib.contextmanager
def _others_may_stop() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo has no class of its own
        if isinstance(error, torch.distributed.DistNetworkError) or "onnection" in str(error):
            raise StoppedError("another process of this run has stopped") from None
        raise


def available_memory(device: torch.device) -> int:
    """Bytes on the device that are free or this process's own, since the model may be loaded already."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return psutil.virtual_memory().available + psutil.Process().memory_info().rss


@contextlib.contextmanager
def out_of_memory_says(message: str) -> Iterator[None]:
    """Raises `DataError` with this message where torch runs out of memory."""
    try:
        yield
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        raise DataError(message) from None


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or any(
        sign in str(error) for sign in ("out of memory", "ALLOC_FAILED", "allocate memory")
    )
