"""Training: the recipe, continuing to the very same weights, several processes, and what goes wrong."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from fast3d_core.config import load_config
from fast3d_core.errors import DataError, UsageError
from fast3d_core.files.tensors import TensorFile, write_tensors
from fast3d_core.gap.checkpoint import load_gap, read_tensors
from fast3d_core.gap.text import QuestionTokenizer, load_text_encoder
from fast3d_core.gap.training import loop
from fast3d_core.gap.training.data import new_network
from fast3d_core.gap.training.loop import TrainingRun, train
from fast3d_core.gap.training.options import TrainingOptions
from fast3d_core.gap.training.schedule import lr_factor, parameter_groups
from fast3d_core.gap.training.state import BEST_FILE, LAST_FILE, LOG_FILE
from fast3d_core.maps.targets import load_targets
from fast3d_core.runtime.draws import seed_of
from tests.cli.conftest import ROOT
from tests.conftest import MINIATURE

DATASETS = ["scanqa", "sqa3d"]
SMALL = ["gap.heads=4", "gap.layers=2", "model.device=cpu"]


class Silent:
    def __init__(self):
        self.losses = []

    def waiting(self, text): ...

    def loading(self): ...

    def start(self, samples, steps, done, parameters):
        self.began = (samples, steps, done)

    def trained(self, step, epoch, loss, lr, samples_per_second):
        self.losses.append(loss)

    def validated(self, step, epoch, quality, best): ...


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    """Published files: sharp maps that a question tells apart, so that there is something to learn."""
    folder = tmp_path_factory.mktemp("targets")
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "val"):
        for dataset in DATASETS:
            maps = (4 * torch.randn(3, 100, generator=generator)).softmax(-1)
            entries = [{"index": i, "a_map": m, "a_map_ori": m.flip(0)} for i, m in enumerate(maps)]
            torch.save(entries, folder / f"infer_attn_maps_{split}_{dataset}.pt")
    return folder


def config(*overrides):
    return load_config(MINIATURE, [*SMALL, *overrides])


def run(targets, folder, options, *overrides, progress=None, **arguments):
    return train(config(*overrides), options, targets, folder, DATASETS, DATASETS, progress or Silent(), **arguments)


def weights(folder, file=LAST_FILE):
    return read_tensors(folder / file)[0]


def same(a, b, tolerance=0.0):
    assert set(a) == set(b)
    return all((a[name] - b[name]).abs().max() <= tolerance for name in a)


def test_it_learns(targets, tmp_path):
    progress = Silent()
    options = TrainingOptions(epochs=60, batch_size=6, lr=2e-3, dropout=0.0)
    trained = run(targets, tmp_path / "x", options, progress=progress)
    assert progress.began == (6, 60, 0)
    assert progress.losses[-1] < 0.5 * progress.losses[0]
    lines = [json.loads(line) for line in (tmp_path / "x" / LOG_FILE).read_text().splitlines()]
    assert [line["step"] for line in lines if "val" in line] == list(range(1, 61))
    assert {"kl", "f1", "mass"} <= set(lines[-1]["val"]["scanqa"])
    best = max(line["val"]["scanqa"]["f1"]["5"] + line["val"]["sqa3d"]["f1"]["5"] for line in lines if "val" in line)
    assert trained.score == pytest.approx(best / 2)
    network = load_gap(config(f"gap.checkpoint={trained.best}"), torch.device("cpu"))
    assert network.shape.layers == 2 and network.shape.spatial


def test_the_loss_logged_is_the_mean_over_the_samples(targets, tmp_path):
    """And the first step's is that of the initial weights, computed by hand."""
    from fast3d_core.benchmarks.questions import load_samples
    from fast3d_core.data.annotations import Scenes
    from fast3d_core.gap.inputs import gap_inputs
    from fast3d_core.gap.network import kl_loss

    progress = Silent()
    options = TrainingOptions(epochs=1, batch_size=64, dropout=0.0)
    run(targets, tmp_path / "x", options, progress=progress)
    settings = config()
    scenes = Scenes(settings.data.annotations)
    torch.manual_seed(seed_of(0))
    network = new_network(settings, options, scenes)
    losses = []
    for dataset in DATASETS:
        samples = load_samples(settings.data.annotations, dataset, "train")
        tokenizer = QuestionTokenizer(settings.gap.text_encoder)
        inputs = gap_inputs(settings, samples, "train", scenes, tokenizer, network, torch.device("cpu"))
        maps = load_targets(settings, targets, "train", dataset, 3)
        losses += [kl_loss(network(*inputs.batch(torch.tensor([i]))), maps[i : i + 1]).item() for i in range(3)]
    assert progress.losses == [pytest.approx(sum(losses) / 6, abs=1e-5)]


def test_the_schedule():
    factors = [lr_factor(step, 100, 5000) for step in range(5000)]
    assert all(a < b for a, b in itertools.pairwise(factors[:10]))  # warm-up: 0.1 epoch
    assert factors[10] == pytest.approx(1)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))
    assert factors[10 + (5000 - 10) // 2] == pytest.approx((1 + 0.001) / 2, abs=1e-3)
    assert factors[-1] == pytest.approx(0.001, rel=1e-2)


def test_groups_of_the_optimizer():
    """As in the published checkpoint: four kinds of parameters."""
    encoder = torch.nn.Linear(2, 2)
    named = {f"text_encoder.{n}": p for n, p in encoder.named_parameters()} | {"w": encoder.weight, "b": encoder.bias}
    groups = parameter_groups(named, TrainingOptions())
    assert sorted((g["peak"], g["weight_decay"]) for g in groups) == [(8e-5, 0), (8e-5, 0.01), (8e-4, 0), (8e-4, 0.01)]


@pytest.mark.parametrize("dropout", [None, 0.0])
def test_a_resumed_run_ends_with_the_same_weights(targets, tmp_path, dropout, monkeypatch):
    """Stopped in the middle of an epoch, between two checkpoints."""
    options = TrainingOptions(epochs=3, batch_size=2, dropout=dropout, save_every=2)
    run(targets, tmp_path / "whole", options)
    step = TrainingRun._step

    def stopping(self):
        if self.state.step == 5:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(TrainingRun, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(targets, tmp_path / "cut", options)
    monkeypatch.undo()
    progress = Silent()
    run(targets, tmp_path / "cut", options, resume=True, progress=progress)
    assert progress.began == (6, 9, 4)
    for file in (LAST_FILE, BEST_FILE):
        assert same(weights(tmp_path / "whole", file), weights(tmp_path / "cut", file))
    val = [
        [json.loads(line) for line in (tmp_path / name / LOG_FILE).read_text().splitlines()]
        for name in ("whole", "cut")
    ]
    assert [line for line in val[0] if "val" in line] == [line for line in val[1] if "val" in line]


def launch(targets, folder, *arguments, processes=0):
    command = ["-m", "fast3d_cli", "train-gap", "--targets", targets, "--out", folder, "--dataset", "scanqa",
               "--dataset", "sqa3d", *arguments]  # fmt: skip
    for override in SMALL:
        command += ["--set", override]
    launcher = (
        ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)] if processes else []
    )
    return subprocess.Popen(
        [sys.executable, *launcher, *map(str, command)], cwd=folder.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def test_a_killed_run_ends_with_the_same_weights(targets, tmp_path):
    arguments = ["--epochs", "14", "--batch-size", "2", "--save-every", "1"]
    whole = launch(targets, tmp_path / "whole", *arguments)
    assert whole.wait() == 0, whole.stderr.read()
    killed = launch(targets, tmp_path / "killed", *arguments)
    while killed.poll() is None and not (tmp_path / "killed" / LAST_FILE).exists():
        time.sleep(0.01)
    time.sleep(0.3)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    step = read_tensors(tmp_path / "killed" / LAST_FILE)[1]["step"]
    assert 0 < step < 42
    again = launch(targets, tmp_path / "killed", *arguments, "--resume")
    assert again.wait() == 0, again.stderr.read()
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


def test_two_processes_with_half_the_batch_match_one(targets, tmp_path):
    """20 steps; the last batch of an epoch is odd, so the two do not have the same number of samples."""
    common = ["--epochs", "10", "--dropout", "0"]
    one = launch(targets, tmp_path / "one", *common, "--batch-size", "4")
    assert one.wait() == 0, one.stderr.read()
    two = launch(targets, tmp_path / "two", *common, "--batch-size", "2", processes=2)
    assert two.wait() == 0, two.stderr.read()
    metadata = [read_tensors(tmp_path / name / LAST_FILE)[1] for name in ("one", "two")]
    assert metadata[0]["step"] == metadata[1]["step"] == 20
    model = [{n: t for n, t in weights(tmp_path / name).items() if n.startswith("model.")} for name in ("one", "two")]
    assert same(*model, 1e-5)
    log = [json.loads((tmp_path / name / LOG_FILE).read_text().splitlines()[0])["loss"] for name in ("one", "two")]
    assert log[0] == pytest.approx(log[1], abs=1e-5)


def test_options_change_what_is_trained(targets, tmp_path):
    base = TrainingOptions(epochs=1, batch_size=6)
    run(targets, tmp_path / "base", base)
    encoder = "text_encoder.encoder.layer.0.output.dense.weight"
    for name, options in {
        "ori": TrainingOptions(epochs=1, batch_size=6, map_key="a_map_ori"),
        "seed": TrainingOptions(epochs=1, batch_size=6, seed=1),
        "text": TrainingOptions(epochs=1, batch_size=6, text_lr=1e-3),
        "bf16": TrainingOptions(epochs=1, batch_size=6, precision="bf16"),
    }.items():
        run(targets, tmp_path / name, options)
        assert not same(weights(tmp_path / name, BEST_FILE), weights(tmp_path / "base", BEST_FILE)), name
    run(targets, tmp_path / "frozen", TrainingOptions(epochs=2, batch_size=6, freeze_text=True))
    pretrained = load_text_encoder(config().gap.text_encoder).state_dict()
    frozen = weights(tmp_path / "frozen", BEST_FILE)
    assert torch.equal(frozen[encoder], pretrained[encoder.removeprefix("text_encoder.")])
    run(targets, tmp_path / "flat", TrainingOptions(epochs=1, batch_size=6, spatial=False))
    assert "mm_encoder.layers.0.self_attn.in_proj_weight" in weights(tmp_path / "flat", BEST_FILE)


def test_tensorboard(targets, tmp_path):
    pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
    run(targets, tmp_path / "x", TrainingOptions(epochs=1, batch_size=6), tensorboard=True)
    (events,) = (tmp_path / "x").rglob("events.out.tfevents.*")
    assert b"scanqa/f1_top5" in events.read_bytes()


def test_a_folder_in_use(targets, tmp_path):
    run(targets, tmp_path / "x", TrainingOptions(epochs=1, batch_size=6))
    with pytest.raises(UsageError, match="holds a training run .* --resume"):
        run(targets, tmp_path / "x", TrainingOptions(epochs=1, batch_size=6))
    with pytest.raises(UsageError, match="epochs: 1 -> 2"):
        run(targets, tmp_path / "x", TrainingOptions(epochs=2, batch_size=6), resume=True)
    run(targets, tmp_path / "x", TrainingOptions(epochs=2, batch_size=6), restart=True)
    finished = run(targets, tmp_path / "x", TrainingOptions(epochs=2, batch_size=6), resume=True)
    # A log alone is no run to protect: a start that failed before the first checkpoint leaves one.
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / LOG_FILE).write_text('{"ste')
    run(targets, tmp_path / "y", TrainingOptions(epochs=1, batch_size=6))
    assert all(json.loads(line) for line in (tmp_path / "y" / LOG_FILE).read_text().splitlines())
    # Finished weights are never thrown away by --resume.
    (tmp_path / "x" / LAST_FILE).unlink()
    with pytest.raises(UsageError, match="no checkpoint_last.safetensors to continue from"):
        run(targets, tmp_path / "x", TrainingOptions(epochs=2, batch_size=6), resume=True)
    assert (tmp_path / "x" / BEST_FILE).exists()
    assert finished.steps == 2 and set(finished.quality) == set(DATASETS)


def test_nan_stops_and_keeps_the_last_good_checkpoint(targets, tmp_path, monkeypatch):
    options = TrainingOptions(epochs=3, batch_size=2)
    loss = loop.kl_loss
    calls = []

    def poisoned(logits, wanted):
        calls.append(1)
        return loss(logits, wanted) * (math.nan if len(calls) == 5 else 1)

    monkeypatch.setattr(loop, "kl_loss", poisoned)
    with pytest.raises(
        DataError, match=r"in batch 2 of epoch 2 \(step 5; samples \w+/\d, \w+/\d\); the last good"
    ) as error:
        run(targets, tmp_path / "x", options)
    assert "\n" not in str(error.value)
    kept, metadata = read_tensors(tmp_path / "x" / LAST_FILE)
    assert metadata["step"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())


def test_damaged_checkpoints_are_refused(targets, tmp_path):
    options = TrainingOptions(epochs=1, batch_size=6)
    run(targets, tmp_path / "x", options)
    last = tmp_path / "x" / LAST_FILE
    tensors, metadata = read_tensors(last)
    moment = next(name for name in tensors if name.startswith("exp_avg."))
    for change, values in (
        ({moment: torch.zeros(3)}, {}),
        ({}, {"step": -5}),
        ({}, {"step": 10**9}),
        ({}, {"step": 1e999}),
    ):
        write_tensors(last, tensors | change, metadata | values)
        with pytest.raises(DataError, match="is damaged .*--restart|--resume: .* cannot be read"):
            run(targets, tmp_path / "x", options, resume=True)
    last.write_bytes(b"nonsense")
    with pytest.raises(DataError, match="--resume: .* cannot be read"):
        run(targets, tmp_path / "x", options, resume=True)


def test_a_launchers_precision_and_accumulation_do_not_count(targets, tmp_path, monkeypatch):
    options = TrainingOptions(epochs=1, batch_size=6)
    run(targets, tmp_path / "plain", options)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    run(targets, tmp_path / "launched", options)
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "launched"))


def test_targets_that_cannot_be_used(targets, tmp_path):
    options = TrainingOptions(epochs=1)
    with pytest.raises(UsageError, match="needs the maps of single layers"):
        run(targets, tmp_path / "x", TrainingOptions(layers="from:2"))
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in targets.iterdir():
        content = torch.load(path, weights_only=True)
        if "train_sqa3d" in path.name:
            content[1]["a_map"] = torch.zeros(100)
        torch.save(content, broken / path.name)
    with pytest.raises(DataError, match=r"sample 1 .*adds up to 0|map of sample 1 adds up to 0"):
        run(broken, tmp_path / "x", options)
    torch.save(content[:2], broken / "infer_attn_maps_train_sqa3d.pt")
    with pytest.raises(DataError, match="lacks 1 of 3 samples"):
        run(broken, tmp_path / "x", options)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"lr": 0.0}, "--lr must lie in"),
        ({"text_lr": math.nan}, "--text-lr must lie in"),
        ({"precision": "fp8"}, "--precision must be fp32 or bf16"),
        ({"dropout": 1.0}, "--dropout must lie in"),
    ],
)
def test_options_that_cannot_be_meant(options, message):
    with pytest.raises(UsageError, match=message):
        TrainingOptions(**options)


@pytest.mark.parametrize("restart", [False, True])
def test_files_of_others_stay(targets, tmp_path, restart):
    """A log of another program, and weights that no training of ours wrote."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "log.jsonl").write_text("mine\n")
    with pytest.raises(
        UsageError, match=r"log.jsonl is no log of `fast3d train-gap`; choose another folder with --out"
    ):
        run(targets, tmp_path / "x", TrainingOptions(epochs=1), restart=restart)
    assert (tmp_path / "x" / "log.jsonl").read_text() == "mine\n"
    if restart:
        (tmp_path / "x" / "log.jsonl").unlink()
        write_tensors(tmp_path / "x" / BEST_FILE, {"weight": torch.ones(1)}, {})
        with pytest.raises(UsageError, match=r"checkpoint_best.safetensors is not of|was not written by"):
            run(targets, tmp_path / "x", TrainingOptions(epochs=1), restart=True)
        assert TensorFile(tmp_path / "x" / BEST_FILE, "").keys() == {"weight"}


def test_weights_killed_before_the_best_are_written_again(targets, tmp_path):
    """The last checkpoint is written first and tells of the best, whose file may still be the one before, or none."""
    options = TrainingOptions(epochs=1, batch_size=6)
    run(targets, tmp_path / "x", options)
    best = (tmp_path / "x" / BEST_FILE).read_bytes()
    (tmp_path / "x" / BEST_FILE).unlink()
    run(targets, tmp_path / "x", options, resume=True)
    assert (tmp_path / "x" / BEST_FILE).read_bytes() == best
