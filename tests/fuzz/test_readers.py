"""Every reader against damaged and hostile files: it reads them, or raises one line of ours; it never hangs, never asks
for all memory, and never writes a thing. Each case changes one file of a sound folder; all are fixed by their seeds."""

import os
import random
import resource
import sys
from pathlib import Path
from typing import Any

import pytest

from fast3d_core.files.files import load_json
from fast3d_core.files.locks import LOCK_FILE
from fast3d_core.files.tensors import TensorFile
from tests.fuzz.mutations import mutate
from tests.fuzz.readers import READERS, WRITERS, Reader, outcome, replace

TIMES = int(os.environ.get("FUZZTIMES", "1"))  # more makes more cases, for a longer run by hand
_MOST = 1 << 30  # bytes that all cases together may add to the memory in use

_watched: list[str] = []
_watching = False
_WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod")
_RUNS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.getaddrinfo")


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event in _RUNS or event in _WRITES:
        _watched.append(f"{event} {arguments}")
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        _watched.append(f"open {arguments}")


sys.addaudithook(_hook)  # there is no way to take it away again; it listens while `_watching`


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_hostile_files(reader: Reader, folder: Path) -> None:
    global _watching
    whole = {name: (folder / name).read_bytes() for name in reader.files}
    assert outcome(reader, folder) is None  # as long as it is sound
    outcomes = {True: 0, False: 0}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(TIMES * reader.cases):
        rng = random.Random(f"{reader.name} {case}")
        name = rng.choice(reader.files)
        replace(folder / name, mutate(rng, name, whole[name]))
        _watching = True
        try:
            line = outcome(reader, folder)
        finally:
            _watching = False
        assert line is None or ("\n" not in line and len(line) < 600 + len(str(folder)) * 3), line[:2000]
        assert not _watched, (case, _watched)
        outcomes[line is None] += 1
        replace(folder / name, whole[name])
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory)
    assert grown < _MOST, grown
    assert outcomes[False] > reader.cases / 10, outcomes  # the cases do hurt


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_hostile_files_of_what_writes(writer: Reader, folder: Path) -> None:
    """Whatever is wrong with them, nothing outside its folder changes, and nothing in it is half-written."""
    own = folder / writer.name

    def others() -> dict[Path, int]:
        spoilt = [folder / name for name in writer.files]
        found = [path for path in folder.rglob("*") if not path.is_relative_to(own) and path not in spoilt]
        return {path: path.stat().st_mtime_ns for path in found if path.is_file()}

    kept = others()
    whole = {name: (folder / name).read_bytes() for name in writer.files}
    outcomes = {True: 0, False: 0}
    for case in range(TIMES * writer.cases):
        rng = random.Random(f"{writer.name} {case}")
        name = rng.choice(writer.files)
        replace(folder / name, mutate(rng, name, whole[name]))
        outcomes[outcome(writer, folder) is None] += 1
        for path in own.rglob("*"):
            if path.suffix == ".json" and path != folder / name:
                load_json(path, "x")
            if path.suffix == ".safetensors":
                dict(TensorFile(path, "x"))
        assert {path.name for path in folder.rglob(".*")} <= {LOCK_FILE}
        for name in writer.files:
            replace(folder / name, whole[name])
    assert others() == kept
    assert min(outcomes.values()) > writer.cases / 10, outcomes
