"""The demo in released form."""

import os
import shutil
import threading

import pytest
import torch

from fast3d_core import demo
from fast3d_core.benchmarks.questions import load_samples
from fast3d_core.config import load_config
from fast3d_core.data.annotations import Scenes
from fast3d_core.demo import WEIGHTS, demo_folder, ensure_demo, release
from fast3d_core.demo.release import DemoSize, write_demo
from fast3d_core.demo.shape import SmallShape
from fast3d_core.errors import DataError
from fast3d_core.files.fingerprints import file_hash
from fast3d_core.files.temporary import temporary_folder
from fast3d_core.gap.predictor import predict_maps
from fast3d_core.models.chat_scene.model import ChatScene
from fast3d_core.models.chat_scene.tokenizer import ChatSceneTokenizer
from tools.demo.release import train_text_tokenizer
from tools.demo.small_llm import Packed
from tools.demo.train_llm import Recipe, Trainer, run, train_tokenizer

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


@pytest.fixture
def writing(tmp_path, monkeypatch):
    """(where the demo belongs, the folders that were written so far), without writing much."""
    made = []

    def write(folder):
        folder.mkdir()
        (folder / "fast3d.yaml").write_text(f"{len(made)}")
        made.append(folder)

    monkeypatch.setattr("fast3d_core.demo.release.write_demo", write)
    return tmp_path / "cache" / "demo", made


def test_a_demo_is_written_once_and_replaced_when_it_is_old(writing, monkeypatch):
    folder, made = writing
    said = []
    for _ in range(2):
        ensure_demo(folder, said.append)
    assert len(made) == len(said) == 1 and str(folder) in said[0]
    monkeypatch.setattr(demo, "stamp", lambda: "of another release")
    ensure_demo(folder)
    assert (folder / "fast3d.yaml").read_text() == "1"
    (folder / ".demo").unlink()  # somebody's own
    monkeypatch.setattr(demo, "stamp", lambda: "of a third")
    ensure_demo(folder)
    assert len(made) == 2
    assert {path.name for path in folder.parent.iterdir()} == {"demo", "demo.lock"}


def test_of_several_processes_one_writes(writing):
    folder, made = writing
    threads = [threading.Thread(target=ensure_demo, args=(folder,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_what_is_no_demo_is_left_alone(writing, tmp_path):
    folder, made = writing
    folder.mkdir(parents=True)
    (folder / "precious").touch()
    with pytest.raises(DataError, match="holds something else than the demo; move it away"):
        ensure_demo(folder)
    assert (folder / "precious").exists() and not made
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="set FAST3D_CACHE to a folder that can be written"):
        ensure_demo(tmp_path / "file" / "demo")


def test_each_release_has_a_folder_of_its_own(writing, monkeypatch):
    folder, made = writing
    monkeypatch.setattr("fast3d_core.files.cache.CACHE", folder.parent)
    places = []
    for stamp in ("0" * 16, "1" * 16, "0" * 16):
        monkeypatch.setattr(demo, "stamp", lambda stamp=stamp: stamp)
        places.append(demo_folder())
        ensure_demo(demo_folder())
    assert len(made) == 2 and places[0] == places[2] != places[1]
    folder.mkdir()
    (folder / "fast3d.yaml").touch()
    assert demo_folder() == folder  # the user's own
    (folder / ".demo").write_text("an older release's")
    assert demo_folder() == places[2]


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(writing):
    folder, made = writing
    folder.parent.mkdir()
    killed = folder.with_name(f".demo.fast3d-{2**22 + 1}-0a1b2c3d")  # beyond the largest process number of Linux
    mine = folder.with_name(".demo.20240101")
    for path in (killed, mine):
        (path / "demo").mkdir(parents=True)
    with temporary_folder(folder) as writes:
        ensure_demo(folder)
        assert writes.exists()
    assert len(made) == 1 and not killed.exists() and mine.exists()


def test_a_demo_that_is_there_is_used_where_nothing_can_be_written(writing, monkeypatch):
    folder, made = writing
    ensure_demo(folder)
    monkeypatch.setattr("filelock.FileLock", None)
    monkeypatch.setattr("pathlib.Path.mkdir", None)
    ensure_demo(folder)
    assert len(made) == 1


def test_the_demo_has_the_same_bytes_whatever_the_threads(tmp_path, monkeypatch):
    """Where several threads add up in another order, as in some builds of torch, one alone adds up in one."""
    seen = []

    def watched(*arguments, **more):
        seen.append((torch.get_num_threads(), str(arguments[4])))
        return predict_maps(*arguments, **more)

    monkeypatch.setattr(release, "predict_maps", watched)
    before, contents = torch.get_num_threads(), []
    for threads in (1, 3):
        folder = tmp_path / f"demo{threads}"
        torch.set_num_threads(threads)
        try:
            write_demo(folder, size=TINY)
            assert torch.get_num_threads() == threads  # given back
        finally:
            torch.set_num_threads(before)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        contents.append({str(path.relative_to(folder)): file_hash(path) for path in files})
    assert seen == [(1, "cpu")] * 2
    assert len(contents[0]) > 15 and contents[0] == contents[1]


def test_the_stamp_sees_what_is_in_the_weights_and_not_when_they_came(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "WEIGHTS", tmp_path)
    (tmp_path / "gap.safetensors").write_bytes(b"1234")
    (tmp_path / "text_encoder").mkdir()  # as train_gap leaves one
    before = demo.stamp()
    os.utime(tmp_path / "gap.safetensors", (1, 1))  # another installation of it
    assert demo.stamp() == before
    (tmp_path / "gap.safetensors").write_bytes(b"4321")
    assert demo.stamp() != before


def test_files_are_as_readable_as_others(written, tmp_path):
    (tmp_path / "other").touch()
    modes = {path.stat().st_mode for path in written.rglob("*") if path.is_file()}
    assert modes == {(tmp_path / "other").stat().st_mode}


def test_the_shipped_text_tokenizer_is_made_anew(tmp_path):
    train_text_tokenizer(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        assert (tmp_path / name).read_bytes() == (WEIGHTS / name).read_bytes()
