import os
import pickle
import zipfile

import pytest
import torch

from fast3d_core.config import load_config
from fast3d_core.errors import DataError
from fast3d_core.files.files import load_torch
from fast3d_core.models.chat_scene.checkpoint import load_checkpoint
from fast3d_core.models.chat_scene.model import ChatScene
from tests.conftest import MINIATURE

RELEASED = MINIATURE.parent / "ckpt_01_3446.pth"


def test_pickled_easydict_becomes_plain_data():
    content = load_torch(RELEASED, "model.checkpoint")
    assert content["epoch"] == 1
    assert isinstance(content["config"], dict)
    assert isinstance(content["config"]["model"], dict)


def test_unused_tensors_are_listed():
    ignored = load_checkpoint(RELEASED, layers=4).ignored
    assert "pos_proj.0.weight" in ignored
    assert "pos_embedding.gauss_B" in ignored
    assert sum("inv_freq" in name for name in ignored) == 4


class _Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {}, "config": _Malicious()}, "bad.pth")
    with pytest.raises(DataError, match="was not loaded: it is damaged, or holds more than tensors"):
        load_checkpoint(tmp_path / "bad.pth", layers=4)
    with (tmp_path / "old.pth").open("wb") as file:
        pickle.dump(_Malicious(), file)
    with pytest.raises(DataError, match="was not loaded"):
        load_checkpoint(tmp_path / "old.pth", layers=4)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
def test_truncated(tmp_path, share):
    path = tmp_path / "cut.pth"
    path.write_bytes(RELEASED.read_bytes()[: int(share * RELEASED.stat().st_size)])
    with pytest.raises(DataError, match="cut.pth"):
        load_checkpoint(path, layers=4)


def test_flipped_pickle_bytes_never_give_a_traceback(tmp_path):
    """Any damage to the pickle is an error of ours or leaves a checkpoint with the right names."""
    with zipfile.ZipFile(RELEASED) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(name for name in parts if name.endswith("data.pkl"))
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        damaged = bytearray(parts[name])
        for place in torch.randint(len(damaged), (3,), generator=generator).tolist():
            damaged[place] ^= 1 << int(torch.randint(8, (1,), generator=generator))
        with zipfile.ZipFile(tmp_path / "flipped.pth", "w") as archive:
            for part, content in parts.items():
                archive.writestr(part, bytes(damaged) if part == name else content)
        try:
            checkpoint = load_checkpoint(tmp_path / "flipped.pth", layers=4, allow_unexpected=True)
        except DataError as error:
            assert "\n" not in str(error)
        else:
            assert checkpoint.state


def _saved(path, change):
    loaded = load_torch(RELEASED, "model.checkpoint")
    change(loaded["model"])
    torch.save({"model": loaded["model"]}, path)
    return load_config(MINIATURE, [f"model.checkpoint={path}"])


LORA_B = "llama_model.base_model.model.model.layers.2.mlp.up_proj.lora_B.default.weight"


def test_missing_tensors_are_listed(tmp_path):
    def change(state):
        del state[LORA_B], state["object_proj.2.bias"]

    config = _saved(tmp_path / "x.pth", change)
    with pytest.raises(DataError, match=rf"lacks tensors {LORA_B}, object_proj\.2\.bias"):
        ChatScene.from_config(config)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (LORA_B, (64, 16)),
        ("object_proj.2.weight", (64, 63)),
        ("llama_model.base_model.model.lm_head.weight", (659, 64)),
        ("llama_model.base_model.model.model.embed_tokens.weight", (500, 64)),
    ],
)
def test_misshaped_tensors_are_listed(tmp_path, name, shape):
    config = _saved(tmp_path / "x.pth", lambda state: state.update({name: torch.zeros(shape)}))
    with pytest.raises(DataError, match=r"x\.pth"):
        ChatScene.from_config(config)


def test_unexpected_tensors(tmp_path):
    config = _saved(tmp_path / "x.pth", lambda state: state.update({"extra.weight": torch.zeros(1)}))
    with pytest.raises(DataError, match=r"unexpected tensor extra\.weight; set model\.allow_unexpected"):
        ChatScene.from_config(config)
    allowed = load_config(MINIATURE, [f"model.checkpoint={tmp_path / 'x.pth'}", "model.allow_unexpected=true"])
    assert "extra.weight" in ChatScene.from_config(allowed).ignored


def test_llm_that_lacks_a_tensor(files):
    """transformers alone would go on with random numbers in its place."""
    from safetensors.torch import load_file, save_file

    state = load_file(files / "llm" / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, files / "llm" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"lacks tensors .*model\.layers\.1\.mlp\.up_proj\.weight"):
        ChatScene.from_config(load_config(files / "fast3d.yaml"))


def test_llm_in_bin_shards(files, fixture):
    """Vicuna is released as two .bin shards."""
    import json

    from safetensors.torch import load_file

    llm = files / "llm"
    state = load_file(llm / "model.safetensors")
    (llm / "model.safetensors").unlink()
    names = sorted(state)
    shards = {f"pytorch_model-0000{i + 1}-of-00002.bin": names[i::2] for i in range(2)}
    for shard, keys in shards.items():
        torch.save({key: state[key] for key in keys}, llm / shard)
    index = {"metadata": {}, "weight_map": {key: shard for shard, keys in shards.items() for key in keys}}
    (llm / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    model = ChatScene.from_config(load_config(files / "fast3d.yaml"))
    for a, b in zip(model.llm.parameters(), fixture.model.llm.parameters(), strict=True):
        assert torch.equal(a, b)
    shard = llm / "pytorch_model-00002-of-00002.bin"
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot be read"):
        ChatScene.from_config(load_config(files / "fast3d.yaml"))


def test_merged_lora_is_the_unmerged_product(fixture):
    """W + (alpha / r) B A, applied to a vector, against the two paths added up."""
    from safetensors.torch import load_file

    base = load_file(MINIATURE.parent / "llm" / "model.safetensors")["model.layers.3.mlp.down_proj.weight"]
    state = load_checkpoint(RELEASED, layers=4).state
    stem = "llama_model.base_model.model.model.layers.3.mlp.down_proj"
    a, b = state[f"{stem}.lora_A.default.weight"], state[f"{stem}.lora_B.default.weight"]
    x = torch.randn(128, generator=torch.Generator().manual_seed(0))
    merged = fixture.model.llm.model.layers[3].mlp.down_proj(x)
    torch.testing.assert_close(merged, base.float() @ x + 16 / 16 * (b @ (a @ x)), rtol=1e-4, atol=1e-4)


EMBED = "llama_model.base_model.model.model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        (EMBED, torch.zeros(())),
        (EMBED, torch.zeros(0, 64)),
        (EMBED, torch.zeros(660, 64, dtype=torch.int64)),
        ("object_proj.0.bias", torch.zeros(1, 64)),
        ("object_img_proj.0.weight", torch.zeros(64)),
        (LORA_B, torch.zeros(128, 0)),
        (LORA_B.replace("lora_B", "lora_A"), torch.zeros(())),
    ],
)
def test_tensors_that_are_no_weights(tmp_path, name, tensor):
    _saved(tmp_path / "x.pth", lambda state: state.update({name: tensor}))
    with pytest.raises(DataError, match=rf"x\.pth: {name} has the shape .*; it should be [12]-d floats"):
        load_checkpoint(tmp_path / "x.pth", layers=4)


@pytest.mark.parametrize("name", [3, ("a",), None, "\ud800", "__metadata__", "\u00e4"])
def test_names_that_are_none(tmp_path, name):
    _saved(tmp_path / "x.pth", lambda state: state.update({name: torch.zeros(1)}))
    with pytest.raises(DataError, match="should hold a state dict under 'model'"):
        load_checkpoint(tmp_path / "x.pth", layers=4, allow_unexpected=True)


def test_more_objects_than_have_names(tmp_path):
    rows = {name: torch.zeros(2000, 64) for name in (EMBED, "llama_model.base_model.model.lm_head.weight")}
    config = _saved(tmp_path / "x.pth", lambda state: state.update(rows))
    with pytest.raises(DataError, match="it has 1440 object tokens, but their names have three digits"):
        ChatScene.from_config(config)
