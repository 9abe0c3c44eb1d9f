"""The processes of a command find each other, or say for whom they wait."""

import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta

import torch

from fast3d_core.errors import UsageError
from fast3d_core.runtime import launcher
from fast3d_core.text import first_line

LOG_AFTER = 5.0
"""Seconds of waiting after which a process logs for whom."""

_SLICE = timedelta(seconds=2)  # of waiting inside torch, which Ctrl-C does not reach

_UNLIMITED = timedelta(days=7)  # once they have met, a process may have hours more to do than another

_met: list[torch.distributed.Store] = []  # the first process serves the others as long as it lives


def meet(process: launcher.Process, log: Callable[[str], None]) -> None:
    """Returns when all processes are here; at once where they have met before.

    Args:
        log: called once with what this process waits for, if it takes long.

    Raises:
        UsageError: they do not come in `launcher.join_seconds()`, or cannot.
    """
    if _met:
        return
    waiting = _Waiting(process, log, launcher.join_seconds())
    try:
        server = _store(process, waiting)
        # One launch after another may use the same store, where a launcher keeps it.
        store = torch.distributed.PrefixStore(f"fast3d/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '')}", server)
        if store.add("here", 1) >= process.processes:
            store.set("all", "1")
        while not store.check(["all"]):
            waiting.log_if_long(store.add("here", 0))
            time.sleep(0.05)
    except (RuntimeError, OSError) as error:  # torch's errors of networks are RuntimeErrors
        waiting.give_up(first_line(error))
    server.set_timeout(_UNLIMITED)
    _met.append(store)


def tickets() -> torch.distributed.Store:
    """The store by which the processes met, for counters that they share. Call `meet` before."""
    return torch.distributed.PrefixStore("tickets", _met[0])


class _Waiting:
    """Measures how long the processes take to come, logs it once, and gives up."""

    def __init__(self, process: launcher.Process, log: Callable[[str], None], seconds: float):
        self._process, self._log, self._seconds = process, log, seconds
        self._began = time.monotonic()
        self._logged = False

    def log_if_long(self, here: int = 1, why: str = "") -> None:
        """Logs, once, that this process waits; `here` processes are here, `why` says what is in the way.

        Raises `UsageError` where it has waited long enough."""
        took = time.monotonic() - self._began
        if took >= self._seconds:
            self.give_up(f"not all came in {self._seconds:.0f} s" + (f": {why}" if why else ""))
        if took >= LOG_AFTER and not self._logged:
            self._logged = True
            missing = self._process.processes - here
            others = f"{missing} other process{'es' if missing > 1 else ''}"
            self._log(f"waiting for {others} at {self._where()}; {self._advice()}")

    def give_up(self, why: str) -> None:
        """Raises the error."""
        raise UsageError(
            f"the other processes cannot be met at {self._where()} ({why}); {self._advice()}, or wait longer with "
            f"{launcher.JOIN_SECONDS}=SECONDS"
        ) from None

    def _where(self) -> str:
        return f"{self._process.address}:{self._process.port}"

    def _advice(self) -> str:
        return f"{self._process} are set: if you started this by hand, unset them"


def _store(process: launcher.Process, waiting: _Waiting) -> torch.distributed.TCPStore:
    """The store that the processes meet at, as torch will open it: in the first process, or in their launcher."""
    serves = process.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    while True:
        try:
            if not serves:  # torch fills the screen where nobody answers
                socket.create_connection((process.address, process.port), _SLICE.total_seconds()).close()
            return torch.distributed.TCPStore(
                process.address,
                process.port,
                process.processes,
                serves,
                _SLICE,
                wait_for_workers=False,
                multi_tenant=True,
            )
        except (RuntimeError, OSError) as error:
            if "EADDRINUSE" in str(error):
                raise
            waiting.log_if_long(why=first_line(error))
            time.sleep(0.1)
