"""The LLM's weights, opened without reading their numbers: what `load_llm` would refuse is refused."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from fast3d_core.config import GenerationConfig
from fast3d_core.errors import DataError
from fast3d_core.llm import reference
from fast3d_core.llm.engine.fast import FastEngine
from fast3d_core.llm.generation import Prompt
from fast3d_core.llm.weights import load_llm, open_weights, read_shape, weight_files
from fast3d_core.plan import Plan
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


ROPES = {
    "linear": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "llama3": {"rope_parameters": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 1e4,
        "original_max_position_embeddings": 16,
    }},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    "theta": {"rope_theta": 5e5},
}  # fmt: skip


@torch.inference_mode()
@pytest.mark.parametrize("name", ROPES)
def test_ropes_that_are_accepted_are_computed_right(llm, name):
    """By both engines, as stock transformers does, over more tokens than the LLM was trained on."""
    path, plan = llm / "config.json", Plan(9)
    plain = load_llm(llm, torch.float32)
    content = {key: value for key, value in json.loads(path.read_text()).items() if key != "rope_scaling"}
    path.write_text(json.dumps(content | {"max_position_embeddings": 64} | ROPES[name]))
    model = load_llm(llm, torch.float32)
    prompt = Prompt(torch.randn(90, 64, generator=torch.Generator().manual_seed(0)), visual_start=4, visual=9)
    want = model(inputs_embeds=prompt.embeds[None]).logits[0, -1]
    assert not torch.allclose(reference.first_logits(plain, prompt, plan), want, atol=1e-4)
    torch.testing.assert_close(reference.first_logits(model, prompt, plan), want, rtol=0, atol=1e-5)
    settings = GenerationConfig(beams=2, max_new_tokens=6, min_length=7)
    exact = reference.generate(model, prompt, plan, settings, 1, 2)
    engine = FastEngine(model)
    torch.testing.assert_close(engine.prefill([prompt], [plan], settings).logits[0], want, rtol=0, atol=1e-5)
    assert engine.generate([prompt], [plan], settings, 1, 2)[0].ids == exact.ids


@pytest.mark.parametrize(("found", "problem"), [
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling.type is 'dynamic'"),
    ({"rope_scaling": {"rope_type": "longrope", "type": "linear", "factor": 2.0}}, "rope_scaling.rope_type is 'longr"),
    ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_parameters.rope_type is 'dynamic'"),
    ({"rope_parameters": {"rope_type": ["linear"]}}, "rope_parameters.rope_type is this list"),
    ({"rope_parameters": {"full_attention": {"rope_type": "dynamic"}}}, "rope_parameters.full_attention is this dict"),
    ({"rope_scaling": {"type": "linear", "factor": "2"}}, "rope_scaling.factor is '2', not a number"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}}, "partial_rotary_factor is not"),
    ({"rope_scaling": "dynamic"}, "rope_scaling is 'dynamic', not a mapping"),
])  # fmt: skip
def test_ropes_that_are_refused(llm, found, problem):
    """Those whose tables depend on the length of the text, above all: the engines would not agree on them."""
    path = llm / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | found))
    for load in (lambda: read_shape(llm), lambda: open_weights(llm), lambda: load_llm(llm, torch.float32)):
        with pytest.raises(DataError, match=re.escape(f"{path}: {problem}" if "." in problem else problem)):
            load()
