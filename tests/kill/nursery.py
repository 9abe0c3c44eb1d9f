"""A process that has imported everything once, and forks a child for each command that it is told: 0.3 s, not 5.

`Nursery` starts it and talks to it; `python -m tests.kill.nursery` is it. Its children are processes of their own, as a
command is when a user types it: they may be killed, and the system takes their locks from them.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ALIKE = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "100", "PYTHONHASHSEED": "0"}
STOPPED = -1000
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code, negative for a signal, what it said, and what it did to files."""

    code: int
    stdout: str
    stderr: str
    operations: list[str]


class Nursery:
    """Runs commands in `folder`/work, one at a time."""

    def __init__(self, folder: Path):
        self.work, self._told = folder / "work", folder / "told"
        self._told.mkdir()
        environment = {**os.environ, **_ALIKE, "PYTHONPATH": str(_ROOT), "FAST3D_CACHE": str(folder / "work" / "cache")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kill.nursery"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip

    def run(
        self,
        command: Sequence[str],
        inside: str = "",
        given: Mapping[str, Any] | None = None,
        *,
        at: int | None = None,
        number: int = signal.SIGKILL,
    ) -> Ended:
        """Runs `fast3d *command`.

        Args:
            inside: a function "module:name" that the process calls with `given` before.
            at, number: see `Operations`. With SIGSTOP the command stays as it is, its code is that of `STOPPED`, and
                others may be run until `go_on`.
        """
        told = self._told / str(len(list(self._told.iterdir())) if number == signal.SIGSTOP else 0)
        told.mkdir(exist_ok=True)
        job = {"command": list(command), "inside": inside, "given": dict(given or {}), "at": at, "number": number}
        return self._ended(told, {**job, "work": str(self.work), "told": str(told)})

    def go_on(self, number: int = signal.SIGCONT) -> Ended:
        """Sends the signal to the command that was stopped last, and waits for its end."""
        return self._ended(max(self._told.iterdir(), key=lambda path: int(path.name)), {"go_on": number})

    def _ended(self, told: Path, job: dict[str, Any]) -> Ended:
        assert self._process.stdin and self._process.stdout
        print(json.dumps(job), file=self._process.stdin, flush=True)
        code = int(self._process.stdout.readline())
        stdout, stderr, seen = ((told / name).read_text() for name in ("stdout", "stderr", "operations"))
        return Ended(code, stdout, stderr, json.loads(seen or "[]"))

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)


def main() -> None:
    _preload()
    stopped = 0
    for line in sys.stdin:
        job = json.loads(line)
        if "go_on" in job:
            child, stopped = stopped, 0
            assert child, "nothing is stopped"  # a signal to process 0 goes to all of ours
            os.kill(child, job["go_on"])
        else:
            child = os.fork()
        if child == 0:
            _live(job)
        _, status = os.waitpid(child, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            stopped = child
        print(STOPPED if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status), flush=True)


def _preload() -> None:
    import torch
    import transformers.models.llama.modeling_llama
    import transformers.models.roberta.modeling_roberta
    import typer._adapters

    import fast3d_cli.app
    import fast3d_core

    for module in pkgutil.walk_packages(fast3d_core.__path__, "fast3d_core."):
        if not module.name.endswith(("kernels", "muon")):
            importlib.import_module(module.name)
    torch.set_num_threads(1)  # a process with threads cannot be forked
    assert threading.active_count() == 1 and fast3d_cli.app and transformers and typer
    gc.collect()
    gc.freeze()  # so that a child's collection does not copy all of it


def _live(job: dict[str, Any]) -> None:
    """The child: does the job and ends as an interpreter does, but for the freeing of memory."""
    told = Path(job["told"])
    for number, name in ((0, None), (1, "stdout"), (2, "stderr")):
        path = told / name if name else os.devnull
        os.dup2(os.open(path, os.O_RDONLY if name is None else os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    (told / "operations").write_text("")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(job["work"])
    sys.argv = ["fast3d", *job["command"]]
    if job["inside"]:
        module, _, name = job["inside"].partition(":")
        getattr(importlib.import_module(module), name)(**job["given"])
    from fast3d_cli.app import main as command
    from tests.kill.operations import Operations

    operations = Operations(Path(job["work"]), job["at"], job["number"])
    sys.addaudithook(operations)
    code: Any = 0
    try:
        command()
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    (told / "operations").write_text(json.dumps(operations.seen))
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main()
