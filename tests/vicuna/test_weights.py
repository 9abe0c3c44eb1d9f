"""The LLM's weights, opened without reading their numbers: what `load_llm` would refuse is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from fast3d_core.errors import DataError
from fast3d_core.vicuna.llm import load_llm, open_weights, read_shape, weight_files
from tests.conftest import MINIATURE

NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def llm(files):
    return files / "llm"


@pytest.fixture
def state(llm):
    return load_file(llm / "model.safetensors")


def shard(llm, state):
    """The released form: two .bin shards with an index."""
    (llm / "model.safetensors").unlink()
    names = sorted(state)
    shards = {f"pytorch_model-0000{i + 1}-of-00002.bin": names[i::2] for i in range(2)}
    for file, keys in shards.items():
        torch.save({key: state[key] for key in keys}, llm / file)
    index = {"metadata": {}, "weight_map": {key: file for file, keys in shards.items() for key in keys}}
    (llm / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return [llm / file for file in shards]


def test_both_forms(llm, state):
    opened = open_weights(llm)
    assert weight_files(llm) == [llm / "model.safetensors"]
    shards = shard(llm, state)
    again = open_weights(llm)
    assert weight_files(llm) == shards
    loaded = load_llm(llm, torch.float32).state_dict()
    assert opened.keys() == again.keys() == loaded.keys()
    assert all(
        torch.equal(opened[name], tensor) and torch.equal(again[name], tensor) for name, tensor in loaded.items()
    )


def test_a_head_that_is_tied_to_the_embedding(llm, state):
    config = json.loads((llm / "config.json").read_text())
    (llm / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    del state["lm_head.weight"]
    save_file(state, llm / "model.safetensors", {"format": "pt"})
    loaded = load_llm(llm, torch.float32)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert torch.equal(loaded.lm_head.weight, state["model.embed_tokens.weight"])


def broken(llm, state, how):
    if how == "lacks":
        del state[NAME]
    elif how == "shape":
        state[NAME] = state[NAME][:, :5].contiguous()
    elif how == "quantised":
        state[NAME] = state[NAME].to(torch.int8)
    elif how == "eight bits":
        state[NAME] = state[NAME].to(torch.float8_e4m3fn)
    save_file(state, llm / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("lacks", rf"lacks tensors .* {NAME}"),
        ("shape", rf"in another shape: {NAME}"),
        ("quantised", "torch.int8"),
        ("eight bits", "torch.float8_e4m3fn"),
    ],
)
def test_other_tensors(llm, state, how, message):
    broken(llm, state, how)
    with pytest.raises(DataError, match=message):
        open_weights(llm)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_truncated(llm, state, share):
    path = llm / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"model\.safetensors cannot be read"):
        open_weights(llm)
    path.write_bytes(whole)
    path = shard(llm, state)[1]
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=f"{path.name} cannot be read"):
        open_weights(llm)


def test_a_missing_shard(llm, state):
    path = shard(llm, state)[0]
    path.rename(path.with_suffix(".bin.part"))
    with pytest.raises(DataError, match="its download did not finish"):
        open_weights(llm)


@pytest.mark.parametrize("content", ['{"weight_map": {"a": "../x.bin"}}', '{"weight_map": {"a": 3}}', "{}", "[]"])
def test_an_index_that_is_none(llm, content):
    (llm / "model.safetensors").unlink()
    (llm / "pytorch_model.bin.index.json").write_text(content)
    with pytest.raises(DataError, match="should say under 'weight_map'"):
        weight_files(llm)


def test_no_weights(llm):
    (llm / "model.safetensors").unlink()
    with pytest.raises(DataError, match="holds no weights"):
        open_weights(llm)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, not"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0, not"),
        ({"intermediate_size": -3}, "intermediate_size is -3, not"),
    ],
)
def test_absurd_sizes(llm, sizes, message):
    config = json.loads((llm / "config.json").read_text())
    (llm / "config.json").write_text(json.dumps({**config, **sizes}))
    with pytest.raises(DataError, match=message):
        read_shape(llm)
    assert read_shape(MINIATURE.parent / "llm").layers == 4
