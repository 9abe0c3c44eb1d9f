"""Devices and processes: which device a config means, and which of several processes does what."""

import contextlib
from collections.abc import Iterator
from datetime import timedelta

import psutil
import torch
from accelerate import PartialState

from fast3d_core.errors import DataError, UsageError


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


def join_processes(device_name: str) -> PartialState:
    """This process among those that a launcher started, one alone without a launcher.

    Waiting for each other has no practical limit: a process may have hours more to do than another.
    """
    return PartialState(cpu=on_cpu(device_name), timeout=timedelta(days=7))


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


def free_memory(device: torch.device) -> int:
    """Bytes of memory that are free on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


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
