"""Several processes of one command on this machine, as `accelerate launch` starts them."""

import logging
import os
import sys
import tempfile

from fast3d_cli.console import error
from fast3d_cli.search_path import python_arguments
from fast3d_core.errors import StoppedError, UsageError
from fast3d_core.runtime import launcher

# Not `-m fast3d_cli`: that looks for modules in the current folder first.
_WORKER = "sys.argv[0] = 'fast3d'; from fast3d_cli.app import main; main()"


def is_launched(processes: int) -> bool:
    """Whether `launch`, or another launcher, started this process; `UsageError` where that started other numbers."""
    process = launcher.this_process()
    if process and process.processes != processes:
        raise UsageError(
            f"--processes is {processes}, but a launcher started {process.processes} ({process} are set); "
            "leave --processes out, or unset them"
        )
    return process is not None


def launch(processes: int) -> int:
    """Runs this very command line in that many processes and returns their exit code.

    Ends them when it receives a signal to end, and all of them when one fails. They run in sessions of their own, with
    what `accelerate launch` sets in the environment; stdout and stderr are this process's.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    launcher.run_alone()  # what is left of an earlier launch is none of theirs
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    if not os.environ.get("FAST3D_DEBUG"):
        logging.disable(logging.ERROR)  # torch logs each process that it ends
    with tempfile.TemporaryDirectory(prefix="fast3d-") as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id="fast3d",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",  # a free port
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )
        try:
            elastic_launch(config, sys.executable)(*python_arguments(_WORKER, sys.argv[1:]))
        except SignalException as received:
            return 128 + received.sigval
        except ChildFailedError as failed:
            return _exit_code({rank: failure.exitcode for rank, failure in failed.failures.items()})
    return 0


def _exit_code(codes: dict[int, int]) -> int:
    """That of the process that failed by itself; the others were ended, or saw that it was gone."""
    of_ended = (-15, StoppedError.exit_code)
    rank, code = next(((r, c) for r, c in sorted(codes.items()) if c not in of_ended), next(iter(codes.items())))
    if code >= 0:
        return code  # it has said why
    hint = " (is the machine out of memory?)" if code == -9 else ""
    error(f"process {rank} was ended by signal {-code}{hint}; what is there is kept, the same command goes on")
    return 128 - code
