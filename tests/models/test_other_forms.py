"""Checkpoints as DDP, PEFT and other trainers save them are read where their content is plain, else explained."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from fast3d_core.config import load_config, need_checkpoint
from fast3d_core.errors import DataError
from fast3d_core.files.files import load_torch
from fast3d_core.models.chat_scene.checkpoint import load_checkpoint
from fast3d_core.models.chat_scene.lora import LLM, TARGETS
from fast3d_core.models.chat_scene.model import ChatScene
from tests.conftest import MINIATURE

RELEASED = MINIATURE.parent / "ckpt_01_3446.pth"
BASE = MINIATURE.parent / "llm" / "model.safetensors"


def released():
    return dict(load_torch(RELEASED, "a test")["model"])


def another_adapter(name):
    name = name.replace(".default.", ".scan.")
    return re.sub(r"(embed_tokens|lm_head)\.weight", r"\1.modules_to_save.scan.weight", name)


FORMS = {
    "DDP": lambda name: f"module.{name}",
    "torch.compile": lambda name: name.replace("llama_model.", "llama_model._orig_mod."),
    "both": lambda name: f"_orig_mod.module.{name}",
    "a trainer's module": lambda name: f"net.{name}",
    "PEFT's files": lambda name: name.replace(".default.", "."),
    "another adapter": another_adapter,
    "an adapter under DDP": lambda name: f"module.{name.replace('.default.', '.')}",
}


def assert_released(checkpoint):
    wanted = load_checkpoint(RELEASED, layers=4).state
    assert checkpoint.state.keys() == wanted.keys()
    assert all(checkpoint.state[name].equal(tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_names_of_others(tmp_path, form, suffix):
    state = {FORMS[form](name): tensor for name, tensor in released().items()}
    assert state.keys() != released().keys()
    path = tmp_path / f"x{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"model": state}, path)
    assert_released(load_checkpoint(path, layers=4))


@pytest.mark.parametrize("keep", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"module": s, "epoch": 1}])
def test_where_trainers_keep_the_state_dict(tmp_path, keep):
    torch.save(keep(released()), tmp_path / "x.pth")
    assert_released(load_checkpoint(tmp_path / "x.pth", layers=4))


def test_names_that_would_be_one(tmp_path):
    state = released()
    torch.save({"model": {**state, "module.object_proj.0.bias": torch.zeros(64)}}, tmp_path / "x.pth")
    with pytest.raises(DataError, match=r"holds object_proj.0.bias and module.object_proj.0.bias, which are one"):
        load_checkpoint(tmp_path / "x.pth", layers=4)


def test_several_adapters(tmp_path):
    state = {}
    for name, tensor in released().items():
        for adapter in ("one", "two"):
            state[name.replace(".default.", f".{adapter}.")] = tensor
    torch.save({"model": state}, tmp_path / "x.pth")
    with pytest.raises(DataError, match=r"holds several adapters \(one, two\)"):
        load_checkpoint(tmp_path / "x.pth", layers=4)


def test_other_names_that_are_not_known_are_told(tmp_path):
    state = {name.replace("object_proj.", "objects."): tensor for name, tensor in released().items()}
    torch.save({"model": state}, tmp_path / "x.pth")
    with pytest.raises(DataError, match=r"lacks .*under other names\? It has tensors objects\.0\.bias"):
        load_checkpoint(tmp_path / "x.pth", layers=4)


def peft_folder(folder, **settings):
    """LoRA alone, as `save_pretrained` of PEFT writes it."""
    folder.mkdir()
    lora = {name: tensor for name, tensor in released().items() if ".lora_" in name}
    lora = {name.removeprefix("llama_model.").replace(".default.", "."): tensor for name, tensor in lora.items()}
    save_file(lora, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 32, **settings}))
    return lora


def test_a_peft_folder_holds_lora_alone(tmp_path, files):
    peft_folder(tmp_path / "adapter")
    config = load_config(files / "fast3d.yaml", [f"model.checkpoint={tmp_path / 'adapter'}"])
    with pytest.raises(DataError, match=r"lacks tensors .*; it is LoRA alone, as PEFT saves it"):
        ChatScene.from_config(config)


def test_a_peft_folder_that_holds_all(tmp_path):
    lora = peft_folder(tmp_path / "adapter")
    rest = {name: tensor for name, tensor in released().items() if ".lora_" not in name}
    everything = {**{name.removeprefix("llama_model."): tensor for name, tensor in rest.items()}, **lora}
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file(everything, path)
    checkpoint = load_checkpoint(path, layers=4)
    assert_released(checkpoint)
    assert checkpoint.settings == {"lora": {"lora_alpha": 32}}


@pytest.mark.parametrize("setting", ["use_rslora", "use_dora", "fan_in_fan_out", "alpha_pattern"])
def test_adapters_that_are_applied_otherwise(tmp_path, setting):
    peft_folder(tmp_path / "adapter", **{setting: {"q": 1} if setting == "alpha_pattern" else True})
    with pytest.raises(DataError, match=f"says {setting} .*, which fast3d does not compute"):
        load_checkpoint(tmp_path / "adapter" / "adapter_model.safetensors", layers=4)


def test_a_folder_with_one_file_of_weights(files):
    folder = files / "saved"
    (folder / "global_step3446").mkdir(parents=True)
    (folder / "latest").write_text("global_step3446")
    (files / "ckpt_01_3446.pth").rename(folder / "global_step3446" / "mp_rank_00_model_states.pt")
    torch.save({}, folder / "global_step3446" / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    config = load_config(files / "fast3d.yaml", [f"model.checkpoint={folder}"])
    assert need_checkpoint(config, "model.checkpoint").name == "mp_rank_00_model_states.pt"
    assert ChatScene.from_config(config).units.count == 100
    (folder / "other.pth").touch()  # beside the folder, so that one is meant
    assert need_checkpoint(config, "model.checkpoint").name == "other.pth"
    (folder / "more.safetensors").touch()
    with pytest.raises(DataError, match=r"is a folder that holds more.safetensors, other.pth; name the one to read"):
        need_checkpoint(config, "model.checkpoint")


def test_a_folder_without_weights(files):
    (files / "saved").mkdir()
    (files / "saved" / "optimizer.pt").touch()
    config = load_config(files / "fast3d.yaml", [f"gap.checkpoint={files / 'saved'}"])
    with pytest.raises(DataError, match="is a folder without a file of weights"):
        need_checkpoint(config, "gap.checkpoint")


def with_base(path, change=lambda name, tensor: tensor):
    """The checkpoint with the base layers that it was trained on, as a state dict of all parameters holds them."""
    state = released()
    for name, tensor in load_file(BASE).items():
        if "inv_freq" in name:
            continue
        stem = name.removesuffix(".weight")
        if "embed_tokens" in name or "lm_head" in name:
            stem += ".original_module"
        elif stem.endswith(TARGETS):
            stem += ".base_layer"
        state[f"{LLM}{stem}.weight"] = change(name, tensor)
    torch.save({"model": state}, path)
    return load_config(MINIATURE, [f"model.checkpoint={path}"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_base_layers_that_are_model_llm_s(tmp_path, dtype, fixture):
    model = ChatScene.from_config(with_base(tmp_path / "x.pth", lambda _, tensor: tensor.to(dtype)))
    assert model.llm.lm_head.weight.equal(fixture.model.llm.lm_head.weight)
    for a, b in zip(model.llm.parameters(), fixture.model.llm.parameters(), strict=True):
        assert a.equal(b)


@pytest.mark.parametrize("name", ["model.layers.2.mlp.up_proj", "model.norm", "model.embed_tokens"])
@pytest.mark.parametrize("allow", [False, True])
def test_base_layers_of_another_llm(tmp_path, name, allow):
    """Left out, the answers would be those of a model that nobody trained."""
    with_base(tmp_path / "x.pth", lambda one, tensor: tensor * 1.02 if one == f"{name}.weight" else tensor)
    overrides = [f"model.checkpoint={tmp_path / 'x.pth'}", f"model.allow_unexpected={str(allow).lower()}"]
    with pytest.raises(DataError, match=rf"another LLM than model.llm: .* {name}.weight differs; set model.llm"):
        ChatScene.from_config(load_config(MINIATURE, overrides))
