"""Locks of folders, and temporary files of writers that live or are gone."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fast3d_core.errors import DataError, UsageError
from fast3d_core.files.files import atomic_path, write_json
from fast3d_core.files.locks import LOCK_FILE, sole_use
from fast3d_core.files.temporary import remove_left, temporary_file, temporary_folder

HOLD = """
import sys, time
from pathlib import Path
from fast3d_core.files.locks import sole_use
from fast3d_core.files.temporary import temporary_file
folder = Path(sys.argv[1])
with sole_use(folder), temporary_file(folder / "maps.pt") as temporary:
    print(temporary, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds tmp_path/run and writes a file in it, and that file's temporary name."""
    root = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root})
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.wait()


def test_a_second_command_is_refused_until_the_first_is_gone(tmp_path, holder):
    process, _ = holder
    folders = (tmp_path / "other", tmp_path / "run")
    told = rf"run is in use by another fast3d command.*process {process.pid} on .*--name"
    with pytest.raises(UsageError, match=told), sole_use(*folders, other="choose another --name"):
        pass
    with sole_use(tmp_path / "other"):  # what was locked before the refusal is free again
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with sole_use(tmp_path / "run"):
        pass


def test_what_a_living_writer_writes_stays_and_what_a_killed_one_left_goes(tmp_path, holder):
    process, temporary = holder
    remove_left(tmp_path / "run")
    assert temporary.exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    write_json(tmp_path / "run" / "other.json", {})  # another file: not its to remove
    assert temporary.exists()
    with sole_use(tmp_path / "run"):
        assert not temporary.exists()


def test_a_file_replaced_by_a_library_is_its_living_writers_still(tmp_path):
    """safetensors writes another file and moves it over the one that is locked."""
    with temporary_file(tmp_path / "x.safetensors") as temporary:
        (tmp_path / "new").write_text("1")
        (tmp_path / "new").replace(temporary)
        remove_left(tmp_path)
        assert temporary.read_text() == "1"
    assert not temporary.exists()


def test_writing_a_file_removes_what_killed_writers_of_it_left(tmp_path):
    gone = tmp_path / f".store.json.fast3d-{2**22 + 1}-0a1b2c3d"  # beyond the largest process number of Linux
    others = [
        tmp_path / name for name in (".store.json.0a1b2c3d", ".other.json.fast3d-4194305-0a1b2c3d", "store.json.1")
    ]
    for path in (gone, *others):
        path.write_text("half")
    link = tmp_path / ".store.json.fast3d-4194305-ffffffff"
    link.symlink_to(others[0])
    with atomic_path(tmp_path / "store.json") as temporary:
        temporary.write_text("{}")
    assert not gone.exists() and link.is_symlink() and all(path.read_text() == "half" for path in others)
    assert (tmp_path / "store.json").read_text() == "{}"


def test_a_folder_named_in_two_ways_is_locked_once(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with sole_use(tmp_path / "run", tmp_path / "link", tmp_path / "run" / ".." / "run"):
        about = json.loads((tmp_path / "run" / LOCK_FILE).read_text())
        assert about["process"] == os.getpid()
        with pytest.raises(UsageError, match="in use"), sole_use(tmp_path / "link"):
            pass


def test_a_lock_that_tells_nothing(tmp_path, holder):
    """What the file says is for people only; a stranger's may be anything."""
    (tmp_path / "run" / LOCK_FILE).write_bytes(b"\x1b[2J\xff" * 9)
    with pytest.raises(UsageError, match="in use by another fast3d command; wait"), sole_use(tmp_path / "run"):
        pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    told = r"file/run cannot be written \(Not a directory\); name another folder"
    with pytest.raises(DataError, match=told), sole_use(tmp_path / "file" / "run"):
        pass


def test_a_temporary_folder_removes_what_killed_writers_of_the_same_left(tmp_path):
    gone = tmp_path / f".demo.fast3d-{2**22 + 1}-0a1b2c3d"  # beyond the largest process number of Linux
    living = tmp_path / f".demo.{os.getpid()}-0a1b2c3d"
    others = [tmp_path / name for name in (".demo.0a1b2c3d", f".other.fast3d-{2**22 + 1}-0a1b2c3d", ".demo.mine")]
    for path in (gone, living, *others):
        path.mkdir()
        (path / "file").touch()
    (tmp_path / f".demo.fast3d-{2**22 + 1}-0a1b2c3e").symlink_to(others[0])
    with temporary_folder(tmp_path / "demo") as temporary:
        (temporary / "file").touch()
        assert not gone.exists() and temporary.parent == tmp_path
    assert not temporary.exists()
    assert all((path / "file").exists() for path in (living, *others))


def test_files_that_only_look_like_ours_stay(tmp_path):
    """Backups with a date behind them, say, in a folder that a command works in."""
    names = [".bashrc.20240131", ".env.20231224", ".fast3d.yaml.20240101", ".a.fast3d-1-2", "x.fast3d-9-0a1b2c3d"]
    for name in names:
        (tmp_path / name).write_text("mine")
    with sole_use(tmp_path):
        write_json(tmp_path / "fast3d.yaml", {})
    assert all((tmp_path / name).read_text() == "mine" for name in names)


@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_refuses_nobody(tmp_path, monkeypatch, reason):
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*_):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for _ in range(2):
        with sole_use(tmp_path / "run"):
            (tmp_path / "run" / "result").write_text("")
    (tmp_path / "run" / LOCK_FILE).write_text('{"process": 1}')  # of a process that was killed
    with sole_use(tmp_path / "run"):
        pass
