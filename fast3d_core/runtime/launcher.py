"""What a launcher, such as `accelerate launch` or torchrun, says in the environment about the processes of a command.

Such variables also stay behind: in a shell, a container, a job's script. A process whose WORLD_SIZE is missing or 1
runs alone, whatever else is set.
"""

import os
from dataclasses import dataclass

from fast3d_core.errors import UsageError
from fast3d_core.text import shown

_NUMBERS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT")
_NEEDED = (*_NUMBERS, "MASTER_ADDR")
_LOCAL_SIZE = "LOCAL_WORLD_SIZE"
# Of MPI, which accelerate takes for a launcher's where there is no WORLD_SIZE.
_MPI = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_LARGEST = 2**20
_ADVICE = "is it left over from a launcher? unset WORLD_SIZE to run this process alone"

JOIN_SECONDS = "FAST3D_JOIN_SECONDS"
"""The variable that says how long the processes of a command wait for each other at its begin."""


@dataclass(frozen=True)
class Process:
    """One of several processes.

    Attributes:
        rank: its number, from 0, of `processes`.
        local_processes: how many there are on this machine, as far as the launcher says.
        address, port: where they meet.
    """

    rank: int
    processes: int
    local_processes: int
    address: str
    port: int

    def __str__(self) -> str:
        return f"WORLD_SIZE={self.processes}, RANK={self.rank}"


def this_process() -> Process | None:
    """This process among those that a launcher started; None where it runs alone.

    Raises `UsageError` for variables that contradict each other, that are not all there, or that are no numbers.
    """
    if (processes := _number("WORLD_SIZE", 1)) == 1:
        return None
    if missing := [name for name in _NEEDED if not _text(name)]:
        raise UsageError(
            f"WORLD_SIZE={processes} says that a launcher started this process, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set; {_ADVICE}"
        )
    rank, local, port = _number("RANK"), _number("LOCAL_RANK"), _number("MASTER_PORT")
    local_processes = _number(_LOCAL_SIZE, 1)
    for name, number in (("RANK", rank), ("LOCAL_RANK", local), (_LOCAL_SIZE, local_processes - 1)):
        if number >= processes:
            raise UsageError(f"{name}={_text(name)} does not go with WORLD_SIZE={processes}; {_ADVICE}")
    if not 0 < port < 2**16:
        raise UsageError(f"MASTER_PORT={port} is no port; {_ADVICE}")
    return Process(rank, processes, local_processes, _text("MASTER_ADDR"), port)


def _text(name: str) -> str:
    return os.environ.get(name, "").strip()


def _number(name: str, least: int = 0) -> int:
    """`least` where it is not set."""
    text = _text(name) or str(least)
    if not (text.isascii() and text.isdigit()) or not least <= int(text[:10]) <= _LARGEST:
        raise UsageError(f"{name} is {shown(text)} in the environment, not a number as launchers set it; {_ADVICE}")
    return int(text)


def is_first() -> bool:
    """Whether this process prints what is to be printed once: it runs alone, or is the first of several."""
    process = _process_if_any()
    return process is None or process.rank == 0


def is_alone() -> bool:
    """Whether this process is not one of several."""
    return _process_if_any() is None


def _process_if_any() -> Process | None:
    try:
        return this_process()
    except UsageError:  # such variables stop the command, which then is none of several
        return None


def is_watched() -> bool:
    """Whether torch's launcher, which `accelerate launch` and `--processes` use, says that it started this process: the
    others are sure to be there then."""
    return bool(_text("TORCHELASTIC_RUN_ID"))


def run_alone() -> None:
    """Takes what a launcher left out of the environment, so that nothing that reads it waits for others."""
    for name in (*_NEEDED, _LOCAL_SIZE, *_MPI):
        os.environ.pop(name, None)


def join_seconds() -> float:
    """How long to wait for the other processes; `UsageError` where the variable holds no such time."""
    text = _text(JOIN_SECONDS) or "300"
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:10]) <= 10**7:
        raise UsageError(f"{JOIN_SECONDS} is {shown(text)}, not a number of seconds from 1 to 10000000")
    return float(text)
