"""GAP on a stream: the attention it learns is what `fast3d extract` records, and its weights are a GAP checkpoint."""

import json
import subprocess
import sys

import torch
from safetensors.torch import load_file

from fast3d_core.benchmarks.questions import load_samples
from fast3d_core.config import DATASETS, load_config
from fast3d_core.data.annotations import Scenes
from fast3d_core.demo.release import DemoSize, write_demo, write_text_encoder
from fast3d_core.extraction.extract import answer, record
from fast3d_core.gap.checkpoint import load_gap
from fast3d_core.models.chat_scene.model import ChatScene
from fast3d_core.models.chat_scene.prompt import QUESTION
from fast3d_core.models.chat_scene.tokenizer import ChatSceneTokenizer
from tests.demo.test_release import RECIPE, weights, written  # noqa: F401 (fixtures)
from tests.demo.test_release import SHAPE as LLM
from tools.demo.small_llm import Packed
from tools.demo.train_gap import GAP, SHAPE, GapRecipe, GapTrainer
from tools.demo.train_llm import Trainer

# ruff: noqa: F811


def test_the_attention_is_what_extract_records(weights, written):
    """Of a room's questions packed behind it, and one at a time from the files."""
    config = load_config(written / "fast3d.yaml")
    scenes = Scenes(config.data.annotations)
    samples = [load_samples(config.data.annotations, dataset, "train")[0] for dataset in DATASETS]
    assert len({sample.scene_id for sample in samples}) == 1
    answers = [answer(sample, "train", 0) for sample in samples]
    wanted = record(ChatScene.from_config(config), scenes, samples, answers)["a_map"]
    words = ChatSceneTokenizer(weights)
    ids = torch.zeros(1, len(samples), 64, dtype=torch.int64)
    for i, (sample, appended) in enumerate(zip(samples, answers, strict=True)):
        row = words.encode(QUESTION.format(prompt=sample.prompt) + appended)
        ids[0, i, : len(row)] = torch.tensor(row)
    trainer = Trainer(LLM, RECIPE, words, torch.device("cpu"))
    trainer.load(weights)
    scene = scenes[samples[0].scene_id]
    batch = Packed(scene.features_3d[None], scene.features_2d[None], ids, ids)
    with torch.no_grad():
        maps = trainer.model.attention_maps(batch, trainer.model.mask(len(samples), 64))[0]
    assert torch.allclose(maps, wanted, atol=1e-7)


def test_a_drawn_step_fits_together(weights, tmp_path):
    write_text_encoder(tmp_path / "text", weights)
    recipe = GapRecipe(rooms=2, questions=3)
    trainer = GapTrainer(weights, tmp_path / "text", recipe, SHAPE, torch.device("cpu"))
    drawn = trainer.draw("train", 5)
    again, other = trainer.draw("train", 5), trainer.draw("train", 6)
    assert all(torch.equal(drawn[name], again[name]) for name in drawn)
    assert not torch.equal(drawn["question"], other["question"])
    assert drawn["question"].shape == (6, 48) and drawn["boxes"].shape == (2, 100, 6)
    present = drawn["codes"].any(-1)
    assert torch.equal(present, drawn["boxes"].any(-1))
    # A question of the LLM's and the network's tokens is the same one, in order.
    for row, question in zip(drawn["ids"].flatten(0, 1), drawn["question"], strict=True):
        text = trainer.words.decode(row[row != 0].tolist())
        asked = trainer.text._tokenizer.decode(question.tolist(), skip_special_tokens=True)
        assert asked in text


def test_a_run_learns_continues_and_is_a_checkpoint(weights, tmp_path):
    def train(out, *more):
        done = subprocess.run(
            [*(sys.executable, "-m", "tools.demo.train_gap", out, "--weights", weights), "--rooms", "2",
             "--questions", "2", "--workers", "0", "--check-every", "4", "--decay-from", "3", *more],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in (out / "gap.jsonl").read_text().splitlines()]

    first = train(tmp_path / "first", "--steps", "4")
    second = train(tmp_path / "second", "--steps", "6", "--from", tmp_path / "first")
    assert [line["step"] for line in first + second] == [4, 6]
    write_text_encoder(tmp_path / "text", weights)
    trainers = [GapTrainer(weights, tmp_path / "text", GapRecipe(), SHAPE, torch.device("cpu")) for _ in range(2)]
    trainers[0].load(tmp_path / "first")
    saved = load_file(tmp_path / "first" / GAP)
    loaded, fresh = (trainer.network.state_dict() for trainer in trainers)
    assert all(torch.equal(loaded[name], saved[name].float()) for name in loaded)
    assert not all(torch.equal(loaded[name], fresh[name]) for name in loaded)
    assert (trainers[0].step, trainers[0].began) == (4, 4)
    # Beside the LLM's weights, it is the demo's network.
    for path in weights.iterdir():
        if path.is_file():
            (tmp_path / "second" / path.name).write_bytes(path.read_bytes())
    write_demo(tmp_path / "demo", tmp_path / "second", DemoSize(rooms=2, questions=2, train_rooms=0))
    network = load_gap(load_config(tmp_path / "demo" / "fast3d.yaml"), torch.device("cpu"))
    assert (network.shape.hidden, network.shape.heads, network.shape.layers) == (192, 8, 4)
    assert (tmp_path / "second" / GAP).stat().st_size < 7_000_000
