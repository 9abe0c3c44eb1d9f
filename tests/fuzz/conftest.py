"""A folder of everything that is read."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import RobertaTokenizer

from fast3d_core.convert import convert, plan_conversions
from fast3d_core.evaluation.questions import Job, Questions
from fast3d_core.evaluation.run import evaluate
from fast3d_core.files.files import write_json
from fast3d_core.files.fingerprints import file_hash, fingerprint
from fast3d_core.maps.ledger import PREDICTED_FILE
from fast3d_core.maps.published import map_file
from fast3d_core.maps.shards import Shard
from fast3d_core.maps.store import PartInfo, TargetStore
from fast3d_core.pruning import Vanilla
from fast3d_core.runtime.progress import Silent
from tests.conftest import MINIATURE, ROOT_DATA
from tests.fuzz.readers import GREEDY, Nobody, config


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of everything that is read, all of it sound."""
    folder = tmp_path_factory.mktemp("fuzz") / "sound"
    shutil.copytree(MINIATURE.parent, folder)
    shutil.copytree(ROOT_DATA / "metrics", folder / "metrics")
    settings = config(folder, *GREEDY)
    converted = folder / "packed"
    convert(plan_conversions(settings, to=converted), Nobody())
    shutil.copytree(folder / "annotations", converted / "annotations", ignore=shutil.ignore_patterns("*feats.pt"))
    for path in converted.glob("*feats.safetensors"):
        path.rename(converted / "annotations" / path.name)
    RobertaTokenizer.from_pretrained(folder / "gap" / "roberta_tiny").save_pretrained(folder / "fast")
    shutil.copy(folder / "gap" / "roberta_tiny" / "config.json", folder / "fast")
    _write_store(folder)
    _write_shards(folder)
    for name in ("vanilla", "other"):
        evaluate(settings, [Job(name, Vanilla())], Questions(settings, ["scanqa"]), Silent(), meteor=False)
    folder_of_maps = folder / "outputs" / "pred_attn_maps"
    kept = fingerprint(map_file(folder_of_maps, "scanqa"))
    about = {"alpha": 0.21, "map_key": "a_map", "maps": {"scanqa": kept}, "checkpoint": None}
    write_json(folder / "runs" / "alpha.json", about)
    write_json(folder_of_maps / PREDICTED_FILE, {"val/scanqa": {"heads": 4, "checkpoint": "1-ab", "map": kept}})
    return folder


def _write_store(folder: Path) -> None:
    settings = {"layers": 4, "max_objects": 100, "shard": 256, "files": {}}
    info = PartInfo(file_hash(folder / "annotations" / "scanqa_val.json"), 3, 3)
    layers = torch.rand(3, 4, 100)
    whole = {"a_map": layers.mean(1), "a_map_layers": layers}
    whole |= {"a_map_ori": layers.mean(1), "a_map_ori_layers": layers}
    store = TargetStore.create(folder / "store", settings, {"val/scanqa": info})
    store.write("val", "scanqa", 0, Shard(torch.arange(3), whole, ["Brown.", "Two.", "\u00c4."], 0.5))


def _write_shards(folder: Path) -> None:
    shards = folder / "shards"
    shards.mkdir()
    shutil.copy(folder / "llm" / "config.json", shards)
    state = load_file(folder / "llm" / "model.safetensors")
    names = {name: ("one.bin", "two.bin")[i % 2] for i, name in enumerate(sorted(state))}
    for file in ("one.bin", "two.bin"):
        torch.save({name: state[name] for name in names if names[name] == file}, shards / file)
    write_json(shards / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": names})


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil; large files are links to the sound ones until they are replaced."""
    copy = tmp_path / "files"
    shutil.copytree(sound, copy, copy_function=os.link)
    return copy
