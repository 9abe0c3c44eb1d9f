"""The demo model's training: packing is exact, runs continue, and a few steps learn something."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from fast3d_core.demo.shape import SmallShape
from fast3d_core.models.chat_scene.tokenizer import ChatSceneTokenizer
from tools.demo import train_llm
from tools.demo.small_llm import Packed, SmallChatScene
from tools.demo.train_llm import IGNORED, Recipe, Trainer, draw_step, train_tokenizer

SHAPE = SmallShape(layers=3, width=64, heads=2, intermediate=96, read_layer=2)
RECIPE = replace(Recipe(), rooms=2, questions=3, steps=8, warmup=2, decay_from=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(folder, rooms=150)
    return folder


def test_packed_questions_are_what_they_are_alone():
    """Against transformers' LLaMA, one question at a time."""
    torch.manual_seed(0)
    shape = replace(SHAPE, objects=7, features=8)
    model = SmallChatScene(shape, 50, [1, 5, 6], [7, 8]).eval()
    ids = torch.randint(3, 50, (2, 3, 6))
    wanted = ids.roll(-1, -1)
    wanted[:, :, :2] = wanted[:, :, -1] = IGNORED
    batch = Packed(torch.randn(2, 7, 8), torch.randn(2, 7, 8), ids, wanted)
    model.llm.set_attn_implementation("eager")  # which gives the attention
    with torch.no_grad():
        loss, seen, looks = model(batch, model.mask(3, 6))
        assert seen.shape == (2, 7, 64)
        alone, shares = [], []
        for i in range(2):
            before = model._before(batch)[i]
            for j in range(3):
                embeds = torch.cat([before, model.llm.model.embed_tokens(ids[i, j])])[None]
                output = model.llm(inputs_embeds=embeds, output_attentions=True)
                logits = output.logits[0, len(before) :]
                if j == 0:  # the first question's attention to the 21 tokens of the objects, behind a prefix of 3
                    shares.append(torch.stack(output.attentions)[:, 0, :, -6:, 3:24].sum(-1).mean())
                alone.append(torch.nn.functional.cross_entropy(logits, wanted[i, j], reduction="none")[2:5])
                assert torch.equal(logits.argmax(-1), model.best_tokens(batch, model.mask(3, 6))[i, j])
    assert loss.item() == pytest.approx(torch.cat(alone).mean().item(), abs=1e-5)
    assert looks.item() == pytest.approx(torch.stack(shares).mean().item(), abs=1e-6)


def test_steps_are_drawn_by_number(folder):
    tokenizer = ChatSceneTokenizer(folder)
    first, again, other = (draw_step(tokenizer, RECIPE, "train", step) for step in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["ids"], other["ids"])
    for row, target in zip(first["ids"].flatten(0, 1), first["wanted"].flatten(0, 1), strict=True):
        (places,) = torch.where(target != IGNORED)
        assert target[places[-1]] == tokenizer.eos_id
        answer = tokenizer.decode(target[places].tolist())
        assert answer.endswith("</s>") and (target[places[:-1]] == row[places[1:]]).all()


def test_the_tokenizer_knows_the_words(folder):
    tokenizer = ChatSceneTokenizer(folder)
    for text in ("What color is the large wooden table?", "Yes. <OBJ003> and <OBJ010>."):
        ids = tokenizer.encode(text)
        assert len(ids) < 14
        assert all(i > 2 and not tokenizer.sentencepiece.is_byte(i) for i in ids if i < tokenizer.vocab_size)


def test_a_run_continues(folder, tmp_path):
    """Nearly: weights and moments are rounded to bf16, and the first moments forgotten."""
    tokenizer = ChatSceneTokenizer(folder)

    def steps(trainer, count):
        return [trainer.train_step(draw_step(tokenizer, RECIPE, "train", trainer.step))[0].item() for _ in range(count)]

    whole = Trainer(SHAPE, RECIPE, tokenizer, torch.device("cpu"))
    losses = steps(whole, 4)
    whole.save(tmp_path)
    assert all(path.stat().st_size < 15_000_000 for path in tmp_path.glob("training-*.safetensors"))
    losses += steps(whole, 2)
    assert losses[-1] < losses[0]
    other = Trainer(SHAPE, replace(RECIPE, seed=5), tokenizer, torch.device("cpu"))
    other.recipe = RECIPE
    other.load(tmp_path)
    assert steps(other, 2) == pytest.approx(losses[4:], abs=0.12)


def test_the_script(folder, tmp_path):
    command = [sys.executable, "-m", "tools.demo.train_llm", tmp_path, "--small", "--workers", "0"]
    command += ["--tokenizer", folder, "--steps", "2", "--check-every", "1"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert set(lines[0]["right"]) == set(train_llm.DATASETS)
