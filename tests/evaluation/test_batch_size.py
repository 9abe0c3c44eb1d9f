import json

import pytest
import torch

from fast3d_core.config import load_config
from fast3d_core.evaluation import batch_size as batch_sizes
from fast3d_core.evaluation.batch_size import MOST, batch_size
from fast3d_core.evaluation.journal import Journal
from fast3d_core.evaluation.needs import Needs
from fast3d_core.evaluation.questions import Job, Questions
from fast3d_core.pruning import Sap, Vanilla
from tests.conftest import MINIATURE

JOB = Job("run", Vanilla())
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def setting(tmp_path, monkeypatch):
    """The miniature with `eval.batch_size: auto`, and a way to say how much memory there is, beyond the weights."""
    config = load_config(MINIATURE, ["eval.batch_size=auto", f"runs={tmp_path}/runs"])
    weights = Needs.of_config(config).weights

    def memory(more):
        monkeypatch.setattr(batch_sizes, "available_memory", lambda device: (weights + more) / 0.85)

    memory(1e12)
    return config, Questions(config, ["scanqa", "scanrefer"]), memory


def test_a_number_is_that_number(setting):
    _, questions, memory = setting
    memory(0)
    assert batch_size(load_config(MINIATURE, ["eval.batch_size=7"]), JOB, questions, CPU) == 7


def test_auto_grows_with_memory_up_to_a_cap(setting):
    config, questions, memory = setting
    sizes = []
    for more in (0, 5e6, 2e7, 1e8, 1e12):
        memory(more)
        sizes.append(batch_size(config, JOB, questions, CUDA))
    assert sizes == sorted(set(sizes)) and (sizes[0], sizes[-1]) == (1, MOST["cuda"])
    assert batch_size(config, JOB, questions, CPU) == MOST["cpu"]


def test_processes_share_a_cpu_s_memory(setting):
    config, questions, memory = setting
    memory(2e7)
    assert batch_size(config, JOB, questions, CPU, processes=9) < batch_size(config, JOB, questions, CPU)
    assert batch_size(config, JOB, questions, CUDA, processes=9) == batch_size(config, JOB, questions, CUDA)


def test_maps_to_be_predicted_are_not_waited_for(setting):
    """Even maps stand in for them, under which SAP keeps most."""
    config, questions, memory = setting
    memory(2e7)
    sizes = [batch_size(config, Job("sap", Sap(alpha), live=True), questions, CUDA) for alpha in (0.1, 1.0)]
    assert sizes[0] > sizes[1] == batch_size(config, JOB, questions, CUDA)


def test_a_run_keeps_its_number(setting):
    config, questions, memory = setting
    about = {"method": "vanilla", "datasets": ["scanqa"], "files": {}}
    journal = Journal(config.runs / "run", about | {"batch_size": 24})
    journal.open()
    assert batch_size(config, JOB, questions, CUDA) == MOST["cuda"]  # nothing is answered yet
    journal.append(0, 0, 0, 1.0, [])
    memory(0)
    assert batch_size(config, JOB, questions, CUDA) == 24
    assert batch_size(config, JOB, questions, CUDA, restart=True) == 1
    (journal.folder / "settings.json").write_text(json.dumps(about | {"batch_size": "many"}))
    assert batch_size(config, JOB, questions, CUDA) == 1
