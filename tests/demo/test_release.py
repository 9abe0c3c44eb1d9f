"""The demo in released form."""

import shutil

import pytest
import torch

from fast3d_core import demo
from fast3d_core.chat_scene.model import ChatScene
from fast3d_core.chat_scene.tokenizer import ChatSceneTokenizer
from fast3d_core.config import load_config
from fast3d_core.data.annotations import Scenes, load_samples
from fast3d_core.demo import WEIGHTS, ensure_demo
from fast3d_core.demo.release import DemoSize, write_demo
from fast3d_core.demo.small_llm import Packed, SmallShape
from fast3d_core.demo.train_llm import Recipe, Trainer, run, train_tokenizer

SHAPE = SmallShape(layers=12, width=32, heads=2, intermediate=48)
RECIPE = Recipe(rooms=2, questions=2, steps=3, warmup=1, decay_from=2)
TINY = DemoSize(rooms=3, questions=3, train_rooms=2, train_questions=3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """What a training run of three steps leaves."""
    folder = tmp_path_factory.mktemp("weights")
    train_tokenizer(folder, rooms=150)
    trainer = Trainer(SHAPE, RECIPE, ChatSceneTokenizer(folder), torch.device("cpu"))
    run(trainer, folder, folder, minutes=5, workers=0, check_every=100)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(WEIGHTS / name, folder)
    return folder


@pytest.fixture(scope="module")
def written(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "demo"
    write_demo(folder, weights, TINY)
    return folder


def test_the_released_form_is_the_trained_model(weights, written):
    """The files, read as Chat-Scene's are, give the logits of the model that was trained."""
    config = load_config(written / "fast3d.yaml")
    released = ChatScene.from_config(config)
    trainer = Trainer(SHAPE, RECIPE, ChatSceneTokenizer(weights), torch.device("cpu"))
    trainer.load(weights)
    sample = load_samples(config.data.annotations, "scanqa")[0]
    scene = Scenes(config.data.annotations)[sample.scene_id]
    prompt = released.prompt(scene, sample.prompt)
    features = [f[None] for f in (scene.features_3d, scene.features_2d)]
    with torch.no_grad():
        before = trainer.model._before(Packed(*features, torch.zeros(1, 1, 1, dtype=torch.int64), torch.empty(0)))[0]
        assert torch.allclose(prompt.embeds[: len(before)], before, atol=1e-6)
        wanted = trainer.model.llm(inputs_embeds=prompt.embeds[None]).logits
        assert torch.allclose(released.llm(inputs_embeds=prompt.embeds[None]).logits, wanted, atol=1e-4)


def test_a_demo_is_written_once_and_replaced_when_it_is_old(tmp_path, monkeypatch):
    def write(folder):
        folder.mkdir()
        (folder / "fast3d.yaml").write_text(f"{len(made)}")
        made.append(folder)

    made, said = [], []
    monkeypatch.setattr("fast3d_core.demo.release.write_demo", write)
    folder = tmp_path / "cache" / "demo"
    for _ in range(2):
        ensure_demo(folder, said.append)
    assert len(made) == len(said) == 1 and str(folder) in said[0]
    monkeypatch.setattr(demo, "_stamp", lambda: "of another release")
    ensure_demo(folder)
    assert (folder / "fast3d.yaml").read_text() == "1"
    (folder / ".demo").unlink()  # somebody's own
    monkeypatch.setattr(demo, "_stamp", lambda: "of a third")
    ensure_demo(folder)
    assert len(made) == 2
    assert [path.name for path in folder.parent.iterdir()] == ["demo"]
