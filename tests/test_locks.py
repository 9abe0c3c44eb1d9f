"""Locks of folders, and temporary files of writers that live or are gone."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fast3d_core.data.files import atomic_path, write_json
from fast3d_core.data.locks import LOCK_FILE, sole_use
from fast3d_core.data.temporary import remove_left, temporary_file, temporary_folder
from fast3d_core.errors import DataError, UsageError

HOLD = """
import sys, time
from pathlib import Path
from fast3d_core.data.locks import sole_use
from fast3d_core.data.temporary import temporary_file
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
    old = tmp_path / ".store.json.0a1b2c3d"  # as fast3d 0.1 named them
    gone = tmp_path / f".store.json.{2**22 + 1}-0a1b2c3d"  # beyond the largest process number of Linux
    others = [tmp_path / name for name in (".store.json.mine", ".other.json.0a1b2c3d", "store.json.0a1b2c3d")]
    for path in (old, gone, *others):
        path.write_text("half")
    (tmp_path / ".store.json.ffffffff").symlink_to(others[0])
    with atomic_path(tmp_path / "store.json") as temporary:
        temporary.write_text("{}")
    assert not old.exists() and not gone.exists()
    assert all(path.read_text() == "half" for path in others) and (tmp_path / ".store.json.ffffffff").is_symlink()
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
    gone = tmp_path / f".demo.{2**22 + 1}-0a1b2c3d"  # beyond the largest process number of Linux
    living = tmp_path / f".demo.{os.getpid()}-0a1b2c3d"
    others = [tmp_path / name for name in (".demo.0a1b2c3d", f".other.{2**22 + 1}-0a1b2c3d", ".demo.mine")]
    for path in (gone, living, *others):
        path.mkdir()
        (path / "file").touch()
    (tmp_path / f".demo.{2**22 + 1}-0a1b2c3e").symlink_to(others[0])
    with temporary_folder(tmp_path / "demo") as temporary:
        (temporary / "file").touch()
        assert not gone.exists() and temporary.parent == tmp_path
    assert not temporary.exists()
    assert all((path / "file").exists() for path in (living, *others))
