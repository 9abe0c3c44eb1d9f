"""model.llm and gap.text_encoder that name a model on the Hub, or a folder around the model's own."""

import shutil

import pytest

from fast3d_core.config import load_config, need_path
from fast3d_core.errors import DataError
from fast3d_core.gap.text import QuestionTokenizer


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty Hugging Face cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cached(cache, files, name, model):
    """A model in the cache, as huggingface_hub keeps it; its snapshot's folder."""
    snapshot = cache / f"models--{name.replace('/', '--')}" / "snapshots" / "3321f76e3f"
    shutil.copytree(files / model, snapshot)
    return snapshot


def test_a_hub_name_in_place_of_the_llm(files, cache):
    config = load_config(files / "fast3d.yaml", ["model.llm=lmsys/vicuna-7b-v1.5"])
    with pytest.raises(DataError, match="model.llm .*does not exist; it is to be a folder; where it is a name on the"):
        need_path(config, "model.llm")
    snapshot = cached(cache, files, "lmsys/vicuna-7b-v1.5", "llm")
    with pytest.raises(DataError, match=f"for lmsys/vicuna-7b-v1.5 of .*, name the folder in its cache, {snapshot}$"):
        need_path(config, "model.llm")


def test_a_missing_folder_beside_others_keeps_its_hint(files, cache):
    config = load_config(files / "fast3d.yaml", [f"model.llm={files / 'lm'}"])
    with pytest.raises(DataError, match=r"does not exist; did you mean llm\?"):
        need_path(config, "model.llm")


def test_a_folder_around_the_llm(files, cache):
    snapshot = cached(cache, files, "lmsys/vicuna-7b-v1.5", "llm")
    for around in (snapshot.parent, snapshot.parent.parent, cache):
        config = load_config(files / "fast3d.yaml", [f"model.llm={around}"])
        with pytest.raises(DataError, match=f"name the folder inside, {snapshot}$"):
            need_path(config, "model.llm")
    config = load_config(files / "fast3d.yaml", [f"model.llm={snapshot}"])
    assert need_path(config, "model.llm") == snapshot
    (snapshot / "config.json").unlink()
    config = load_config(files / "fast3d.yaml", [f"model.llm={snapshot.parent.parent}"])
    with pytest.raises(DataError, match="is the cache of a Hub model without a whole snapshot"):
        need_path(config, "model.llm")


def test_a_folder_around_the_text_encoder(files, cache):
    snapshot = cached(cache, files, "FacebookAI/roberta-base", "gap/roberta_tiny")
    with pytest.raises(DataError, match=f"gap.text_encoder: .*; name the folder inside, {snapshot}$"):
        QuestionTokenizer(snapshot.parent.parent)
