"""GAP on a GPU: skipped with the reason where there is none."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fast3d_core.benchmarks.questions import load_samples
from fast3d_core.config import load_config
from fast3d_core.data.annotations import Scenes
from fast3d_core.gap.predictor import MapPredictor
from fast3d_core.gap.training.options import TrainingOptions
from fast3d_core.gap.training.state import LAST_FILE
from tests.conftest import MINIATURE
from tests.gap.test_training import Silent, run, same, targets, weights  # noqa: F401 (a fixture)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def exact():
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("dropout", [None, 0.0])
def test_captured_steps_are_ordinary_steps(targets, tmp_path, monkeypatch, dropout):  # noqa: F811
    """With dropout, too: a replayed step draws as an ordinary one."""
    options = TrainingOptions(epochs=12, batch_size=2, lr=1e-4, dropout=dropout)
    graphs, plain = Silent(), Silent()
    run(targets, tmp_path / "graphs", options, "model.device=cuda", progress=graphs)
    monkeypatch.setattr("fast3d_core.gap.training.loop.StepGraphs", lambda step, device: None)
    run(targets, tmp_path / "plain", options, "model.device=cuda", progress=plain)
    assert graphs.losses == pytest.approx(plain.losses, abs=1e-4)
    model = [
        {n: t for n, t in weights(tmp_path / name).items() if n.startswith("model.")} for name in ("graphs", "plain")
    ]
    assert same(*model, 1e-4)


def test_captured_maps_are_ordinary_maps():
    """Of batches that share a shape, and of such that do not; one thread captures while another predicts."""
    config = load_config(MINIATURE, ["model.device=cuda"])
    samples = [
        sample for dataset in ("scanqa", "sqa3d") for sample in load_samples(MINIATURE.parent / "annotations", dataset)
    ]
    scenes = Scenes(MINIATURE.parent / "annotations", config.data.max_objects)
    device = torch.device("cuda")
    two = [MapPredictor.from_config(config, scenes, device) for _ in range(2)]
    inputs = two[0].inputs_of_split(samples, "val", scenes)
    batches = [[0, 1], [2, 3], [0], [4, 5], [1], [5, 4], [3, 2]]

    def predict(one):
        with torch.cuda.stream(torch.cuda.Stream()):
            return [[one(inputs, [samples[row] for row in rows]).logits() for rows in batches] for _ in range(3)]

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(predict, two))
    plain = MapPredictor(two[0].network, two[0].tokenizer)
    plain._graphs = None
    for i, rows in enumerate(batches):
        want = plain(inputs, [samples[row] for row in rows]).logits()
        for maps in found:
            for turn in maps:
                torch.testing.assert_close(turn[i], want, rtol=0, atol=1e-5)
    assert two[0]._graphs._graphs


def test_a_resumed_run_on_a_gpu(targets, tmp_path):  # noqa: F811
    whole = run(targets, tmp_path / "x", TrainingOptions(epochs=3, batch_size=2), "model.device=cuda")
    again = run(targets, tmp_path / "x", TrainingOptions(epochs=3, batch_size=2), "model.device=cuda", resume=True)
    assert whole.steps == again.steps == 9
    assert (tmp_path / "x" / LAST_FILE).exists()
