"""Chat-Scene on LLMs of other families than the one it was released with: LoRA merged, both engines agree."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fast3d_core.benchmarks.questions import load_samples
from fast3d_core.config import load_config
from fast3d_core.data.annotations import Scenes
from fast3d_core.errors import DataError
from fast3d_core.files.files import load_torch
from fast3d_core.llm.families import FAMILIES
from fast3d_core.llm.weights import shape_of
from fast3d_core.models.chat_scene.checkpoint import Checkpoint, check_fit, merge
from fast3d_core.models.chat_scene.lora import LLM, TARGETS, lora_names
from fast3d_core.models.chat_scene.model import ChatScene
from fast3d_core.pruning import PlanRequest, Random, Vanilla
from tests.llm.tiny import HIDDEN, LLMS, VOCAB, tiny_llm


def converted(files, family, tied=False):
    """The miniature's LLM as one of another family: the same weights, with biases or head norms drawn for it."""
    folder = files / "llm"
    config = json.loads((folder / "config.json").read_text())
    width = config["hidden_size"] // config["num_attention_heads"]
    state, generator = load_file(folder / "model.safetensors"), torch.Generator().manual_seed(0)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}.self_attn."
        for part in "qkv" if FAMILIES[family].qkv_bias else "":
            state[f"{prefix}{part}_proj.bias"] = torch.randn(config["hidden_size"], generator=generator) / 4
        for part in "qk" if FAMILIES[family].head_norms else "":
            state[f"{prefix}{part}_norm.weight"] = 0.5 + torch.rand(width, generator=generator)
    if tied:
        del state["lm_head.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    changes = {"model_type": family, "tie_word_embeddings": tied, "head_dim": width, "sliding_window": None}
    (folder / "config.json").write_text(json.dumps(config | changes))
    return load_config(files / "fast3d.yaml")


@pytest.mark.parametrize(("family", "tied"), [("mistral", False), ("qwen2", True), ("qwen2", False), ("qwen3", True)])
def test_chat_scene_runs_on_every_family(files, family, tied):
    config = converted(files, family, tied)
    model, scenes = ChatScene.from_config(config), Scenes(config.data.annotations)
    samples = load_samples(config.data.annotations, "scanqa")[:3]
    prompts = [model.prompt(scenes[sample.scene_id], sample.prompt) for sample in samples]
    for pruner in (Vanilla(), Random(layer=1, keep=30, seed=0)):
        plans = [pruner.plan(PlanRequest(sample.dataset, sample.index, model.units)) for sample in samples]
        fast, exact = (model.generate(prompts, plans, config.generation, engine) for engine in ("fast", "reference"))
        assert [one.generation.ids for one in fast] == [one.generation.ids for one in exact]


def of_llm(llm, rank=2):
    """A checkpoint with LoRA for every linear layer, its rows those of the vocabulary and two objects."""
    generator, state = torch.Generator().manual_seed(3), {}
    for layer, module in enumerate(llm.model.layers):
        for target in TARGETS:
            linear = module.get_submodule(target)
            a, b = lora_names(layer, target)
            state[a] = torch.randn(rank, linear.in_features, generator=generator) / 4
            state[b] = torch.randn(linear.out_features, rank, generator=generator) / 4
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[f"{LLM}{name}"] = torch.randn(VOCAB + 2, HIDDEN, generator=generator)
    for name in ("object_proj", "object_img_proj"):
        shapes = {"0.weight": (HIDDEN, 8), "0.bias": (HIDDEN,), "2.weight": (HIDDEN, HIDDEN), "2.bias": (HIDDEN,)}
        state |= {f"{name}.{part}": torch.zeros(shape) for part, shape in shapes.items()}
    return Checkpoint(Path("x.pth"), state)


@pytest.mark.parametrize("name", LLMS)
def test_lora_is_merged_beside_biases_and_head_norms(name):
    """Merged, the LLM computes what it computed with LoRA beside its weights; nothing but weights changes."""
    llm, unmerged = tiny_llm(name), tiny_llm(name)
    checkpoint, alpha = of_llm(llm), 3.0
    check_fit(checkpoint, shape_of(llm.config), objects=2)
    merge(checkpoint, llm, alpha)

    def beside(a, b):
        return lambda module, args, out: out + alpha / len(a) * (args[0] @ a.T @ b.T)

    for layer, module in enumerate(unmerged.model.layers):
        for target in TARGETS:
            pair = (checkpoint.state[one] for one in lora_names(layer, target))
            module.get_submodule(target).register_forward_hook(beside(*pair))
    x = torch.randn(1, 20, HIDDEN, generator=torch.Generator().manual_seed(0))
    got, want = (one.model(inputs_embeds=x).last_hidden_state for one in (llm, unmerged))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4)
    for key, tensor in unmerged.state_dict().items():
        if key.endswith(".bias") or "norm" in key:
            assert llm.state_dict()[key].equal(tensor)
    head, embedding = llm.lm_head.weight, llm.model.embed_tokens.weight
    assert head.equal(checkpoint.state[f"{LLM}lm_head.weight"]) and len(head) == len(embedding) == VOCAB + 2
    assert embedding.equal(checkpoint.state[f"{LLM}model.embed_tokens.weight"]) and head is not embedding
    llm.tie_weights()
    assert llm.lm_head.weight is not llm.model.embed_tokens.weight


def with_base(files, change=lambda name, tensor: tensor):
    """The checkpoint, beside its LoRA the base layers that it was trained on, biases and head norms among them."""
    content = load_torch(files / "ckpt_01_3446.pth", "model.checkpoint")
    for name, tensor in load_file(files / "llm" / "model.safetensors").items():
        if "self_attn" in name and "inv_freq" not in name:
            stem, kind = name.rsplit(".", 1)
            stem += ".base_layer" if stem.endswith(TARGETS) else ""
            content["model"][f"{LLM}{stem}.{kind}"] = change(name, tensor)
    torch.save(content, files / "ckpt_01_3446.pth")


@pytest.mark.parametrize(("family", "own"), [("qwen2", "k_proj.bias"), ("qwen3", "q_norm.weight")])
def test_base_layers_with_biases_and_head_norms(files, family, own):
    config = converted(files, family)
    with_base(files)
    ChatScene.from_config(config)
    with_base(files, lambda name, tensor: tensor + 0.1 if name.endswith(f"2.self_attn.{own}") else tensor)
    with pytest.raises(DataError, match=rf"another LLM than model.llm: .* model.layers.2.self_attn.{own} differs"):
        ChatScene.from_config(config)


def test_base_layers_of_an_llm_with_biases_on_one_without(files):
    with_base(files)
    content = load_torch(files / "ckpt_01_3446.pth", "model.checkpoint")
    content["model"][f"{LLM}model.layers.1.self_attn.q_proj.base_layer.bias"] = torch.zeros(64)
    torch.save(content, files / "ckpt_01_3446.pth")
    with pytest.raises(DataError, match=r"another LLM than model.llm: .*1.self_attn.q_proj.bias differs"):
        ChatScene.from_config(load_config(files / "fast3d.yaml"))


def test_lora_that_does_not_fit_grouped_queries():
    """That of an LLM whose queries do not share keys."""
    llm = tiny_llm("qwen 2")
    checkpoint = of_llm(tiny_llm("llama 1"))
    with pytest.raises(DataError, match=r"layers.0.self_attn.k_proj.lora_B.default.weight is \(32, 2\), not \(16, 2\)"):
        check_fit(checkpoint, shape_of(llm.config), objects=2)
