"""What a launcher left in the environment neither stops a command without a word nor makes it wait for ever."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fast3d_core.errors import UsageError
from fast3d_core.runtime import launcher, meeting
from fast3d_core.runtime.launcher import Process

ROOT = Path(__file__).parents[2]
WHOLE = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29581"}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for name in (*WHOLE, "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", launcher.JOIN_SECONDS):
        monkeypatch.delenv(name, raising=False)


def set_all(monkeypatch, values):
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize(
    "left",
    [
        {},
        {"LOCAL_RANK": "0"},
        {"RANK": "3"},
        {"RANK": "3", "WORLD_SIZE": "1"},
        {"RANK": "abc", "MASTER_ADDR": "far"},
        dict.fromkeys((*WHOLE, "LOCAL_WORLD_SIZE"), ""),
        {**WHOLE, "WORLD_SIZE": " "},
        {**WHOLE, "WORLD_SIZE": "1"},
    ],
    ids=str,
)
def test_without_a_number_of_processes_there_is_one(monkeypatch, left):
    set_all(monkeypatch, left)
    assert launcher.this_process() is None and launcher.is_first() and launcher.is_alone()


def test_one_of_several(monkeypatch):
    set_all(monkeypatch, {**WHOLE, "LOCAL_WORLD_SIZE": "2"})
    assert launcher.this_process() == Process(1, 2, 2, "127.0.0.1", 29581)
    assert not launcher.is_first() and not launcher.is_alone()
    set_all(monkeypatch, {"RANK": "0"})
    assert launcher.is_first() and not launcher.is_alone()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE is '-2'"),
        ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE is '999"),
        ({"WORLD_SIZE": "٣"}, "WORLD_SIZE is "),
        ({"RANK": "abc"}, "RANK is 'abc'"),
        ({"RANK": "2"}, "RANK=2 does not go with WORLD_SIZE=2"),
        ({"LOCAL_RANK": "7"}, "LOCAL_RANK=7 does not go with"),
        ({"LOCAL_WORLD_SIZE": "8"}, "LOCAL_WORLD_SIZE=8 does not go with"),
        ({"LOCAL_WORLD_SIZE": "x"}, "LOCAL_WORLD_SIZE is 'x'"),
        ({"MASTER_PORT": "x"}, "MASTER_PORT is 'x'"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT=0 is no port"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT=70000 is no port"),
        ({"RANK": ""}, "but RANK is not set"),
        ({"LOCAL_RANK": "", "MASTER_ADDR": ""}, "but LOCAL_RANK, MASTER_ADDR are not set"),
    ],
)
def test_what_does_not_go_together_is_one_line(fast3d, monkeypatch, changed, message):
    set_all(monkeypatch, {**WHOLE, **changed})
    with pytest.raises(UsageError, match=message):
        launcher.this_process()
    for command in (["eval", "-m", "vanilla"], ["extract"], ["predict"], ["train-gap"]):
        done = fast3d(*command, "--dataset", "scanqa", check=False)
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 2 and last.startswith("error: ") and message in last and "unset WORLD_SIZE" in last


def test_a_process_that_runs_alone_tells_its_results_and_its_errors(fast3d, monkeypatch):
    set_all(monkeypatch, {"RANK": "3", "LOCAL_RANK": "3"})
    done = fast3d("predict", "--dataset", "scanqa", "--maps", "maps")
    assert "val scanqa" in done.stdout and "written to maps" in done.stderr
    assert "there is no 'nowhere'" in fast3d("predict", "--dataset", "nowhere", check=False).stderr
    assert "there is no 'nowhere'" in fast3d("eval", "-m", "vanilla", "--dataset", "nowhere", check=False).stderr


def test_commands_that_are_never_several_do_not_care(fast3d, monkeypatch):
    for left in (WHOLE, {"WORLD_SIZE": "abc", "RANK": "1"}):
        set_all(monkeypatch, left)
        done = fast3d("report", check=False)
        assert "there is no complete run" in done.stderr
        set_all(monkeypatch, left)
        done = fast3d("ask", "how many?", "--scene", "scene0015_00", "-m", "vanilla")
        assert "kept 87" in done.stdout and "scene0015_00: how many?" in done.stderr


def test_whole_but_started_by_hand_tells_its_errors(fast3d, monkeypatch):
    set_all(monkeypatch, WHOLE)
    done = fast3d("eval", "-m", "vanilla", "--dataset", "nowhere", check=False)
    assert done.returncode == 2 and "there is no 'nowhere'" in done.stderr
    done = fast3d("predict")
    assert "WORLD_SIZE=2, RANK=1 are set, and the process of RANK=0 predicts" in done.stderr
    set_all(monkeypatch, {"TORCHELASTIC_RUN_ID": "x"})  # the launcher's process 0 tells it
    assert fast3d("eval", "-m", "vanilla", "--dataset", "nowhere", check=False).stderr == ""
    assert fast3d("predict").stderr == ""


@pytest.mark.parametrize("rank", [0, 1])
def test_waiting_is_told_and_ends(monkeypatch, rank):
    monkeypatch.setattr(meeting, "LOG_AFTER", 0.2)
    monkeypatch.setenv(launcher.JOIN_SECONDS, "1")
    port, said = free_port(), []
    with pytest.raises(UsageError) as caught:
        meeting.meet(Process(rank, 3, 1, "127.0.0.1", port), said.append)
    waited = "waiting for 2 other processes at " if rank == 0 else "waiting for 2 other"
    assert len(said) == 1 and said[0].startswith(f"{waited}") and f"127.0.0.1:{port}" in said[0]
    assert f"WORLD_SIZE=3, RANK={rank} are set" in said[0] and "unset them" in said[0]
    assert "not all came in 1 s" in str(caught.value) and launcher.JOIN_SECONDS in str(caught.value)


def test_a_port_that_is_taken_is_said_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot be met at 127.0.0.1:{port} .*in use"):
            meeting.meet(Process(0, 2, 1, "127.0.0.1", port), lambda _: None)


@pytest.mark.parametrize("text", ["x", "0", "-1", "1e400"])
def test_the_time_to_wait_is_a_number(monkeypatch, text):
    monkeypatch.setenv(launcher.JOIN_SECONDS, text)
    with pytest.raises(UsageError, match="not a number of seconds"):
        launcher.join_seconds()


def test_two_started_by_hand_meet(tmp_path):
    """As a job's script starts them, without torch's launcher; the second one comes late."""
    code = (
        "import os, sys, time; time.sleep(2 * int(os.environ['RANK']));"
        "from fast3d_core.runtime.devices import join_processes, smallest; state = join_processes('cpu');"
        "print(smallest(7 - state.process_index, state), state.num_processes)"
    )
    port = str(free_port())
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **WHOLE, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port, "PYTHONPATH": str(ROOT),
                 "OMP_NUM_THREADS": "1"},
        )
        for rank in "01"
    ]  # fmt: skip
    for one in started:
        stdout, stderr = one.communicate(timeout=120)
        assert stdout.strip() == "6 2", stderr


def test_eval_alone_with_a_rank_that_was_left(tmp_path):
    """The whole way, torch's included, which reads the variables too."""
    command = [sys.executable, "-m", "fast3d_cli", "eval", "-m", "vanilla", "--dataset", "scanqa", "--no-meteor"]
    command += ["--set", "generation.max_new_tokens=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment |= {"LOCAL_RANK": "3", "RANK": "3", "LOCAL_WORLD_SIZE": "", "PMI_SIZE": "4", "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "vanilla" in done.stdout and "written to" in done.stderr, done.stderr
