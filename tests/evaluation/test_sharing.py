import json
import os
import subprocess
import sys

from accelerate import PartialState

from fast3d_core.config import load_config
from fast3d_core.evaluation.needs import Needs
from fast3d_core.evaluation.questions import Job, Questions
from fast3d_core.evaluation.sharing import largest_first, shared
from fast3d_core.pruning import Sap, Vanilla
from tests.cli.conftest import ROOT
from tests.conftest import MINIATURE

SHARERS = """
import json, sys, time
from pathlib import Path
from fast3d_core.runtime.devices import join_processes, smallest, wait_for_everyone
from fast3d_core.evaluation.sharing import shared

state = join_processes("cpu")
taken = []
for count in (3, 40, 1, 0):  # several runs, one after another
    mine = []
    for number in shared(list(range(count)), state):
        mine.append(number)
        time.sleep(0.002 + 0.1 * state.process_index)
    wait_for_everyone(state)
    taken.append(mine)
taken.append(smallest(7 - state.process_index, state))
Path(f"{state.process_index}.json").write_text(json.dumps(taken))
"""


def test_one_process_keeps_the_order():
    assert list(shared([4, 2, 9], PartialState(cpu=True))) == [4, 2, 9]


def test_a_slow_process_takes_fewer(tmp_path):
    """Two processes, the second fifty times as slow."""
    (tmp_path / "sharers.py").write_text(SHARERS)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "sharers.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    quick, slow = (json.loads((tmp_path / f"{process}.json").read_text()) for process in (0, 1))
    for count, mine, theirs in zip((3, 40, 1, 0), quick, slow, strict=False):
        assert sorted(mine + theirs) == list(range(count))  # each once
        assert mine == sorted(mine) and theirs == sorted(theirs)  # and in order
    assert (quick[2], slow[2]) == ([0], [])
    assert slow[0][0] == slow[1][0] == 1  # each has one to begin with
    assert len(slow[1]) < len(quick[1]) / 2
    assert quick[4] == slow[4] == 6


def test_what_costs_most_comes_first():
    config = load_config(MINIATURE)
    questions, needs = Questions(config, ["scanqa", "sqa3d"]), Needs.of_config(config)
    batches = dict(enumerate(questions.batches(1), start=10))

    def first(job):
        planner = questions.planner(job)
        flops = {n: needs.of_batch(batch, planner(batch))[0].cost.prefill_flops for n, batch in batches.items()}
        order = largest_first(batches, needs, planner)
        assert sorted(order) == sorted(batches) and [flops[n] for n in order] == sorted(flops.values(), reverse=True)
        return order

    def length(number):
        return len(batches[number][0].prompt)

    by_text = first(Job("vanilla", Vanilla()))
    assert by_text == first(Job("sap", Sap(0.5), live=True))  # maps not yet there: the prompt's size
    assert length(by_text[0]) > length(by_text[-1])
    by_plan = first(Job("sap", Sap(0.5), config.maps.predicted))
    assert by_plan != by_text
