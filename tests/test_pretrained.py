"""Of a stranger's config.json transformers gets what describes the network, and no room is made that weights do not
fill."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, RobertaConfig

from fast3d_core.errors import DataError
from fast3d_core.gap.text import QuestionTokenizer, load_text_config, load_text_encoder
from fast3d_core.llm.weights import load_llm, read_config, read_shape


def edit(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def described(config):
    about = config.to_dict()
    return {
        key: about[key] for key in about if key not in ("architectures", "transformers_version", "dtype", "use_cache")
    }


def test_the_network_is_the_one_that_transformers_reads(files):
    edit(files / "llm", rope_theta=5000.0, num_key_value_heads=2, tie_word_embeddings=False, rms_norm_eps=1e-6)
    assert described(read_config(files / "llm")) == described(LlamaConfig.from_pretrained(files / "llm"))
    roberta = files / "gap" / "roberta_tiny"
    edit(roberta, hidden_dropout_prob=0.2)
    ours, theirs = described(load_text_config(roberta)), described(RobertaConfig.from_pretrained(roberta))
    assert {key: value for key, value in theirs.items() if key not in ours} == {"position_embedding_type": "absolute"}
    assert {key: theirs[key] for key in ours} == ours


def test_what_would_fetch_code_is_left_out(files):
    """transformers gets attention from the hub where a config names a repository of kernels; and quantisers."""
    hostile = {
        "attn_implementation": "kernels-community/flash-attn",
        "_attn_implementation": "someone/kernel",
        "experts_implementation": "someone/kernel",
        "auto_map": {"AutoModel": "modeling.Evil"},
        "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True},
        "per_layer_config": {"0": {}},
    }
    for folder in (files / "llm", files / "gap" / "roberta_tiny"):
        edit(folder, **hostile)
    config = read_config(files / "llm")
    assert not any(hasattr(config, name) for name in ("auto_map", "quantization_config"))
    assert config._attn_implementation is None
    assert load_text_config(files / "gap" / "roberta_tiny")._attn_implementation is None
    assert load_llm(files / "llm", torch.float32).config._attn_implementation in ("sdpa", "eager")
    load_text_encoder(files / "gap" / "roberta_tiny")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, not a number from 1 to 1000"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"hidden_size": -64}, "hidden_size is -64"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"vocab_size": 560.0}, "vocab_size is 560.0"),
        ({"vocab_size": True}, "vocab_size is True"),
        ({"intermediate_size": [1] * 100}, "intermediate_size is this list"),
    ],
)
def test_sizes_that_no_network_has(files, values, message):
    for folder, read in ((files / "llm", read_shape), (files / "gap" / "roberta_tiny", load_text_config)):
        edit(folder, **values)
        with pytest.raises(DataError, match=f"config.json: {message}"):
            read(folder)


def test_sizes_that_the_weights_do_not_have(files):
    edit(files / "llm", vocab_size=10**7)
    with pytest.raises(DataError, match=r"in another shape: model\.embed_tokens\.weight"):
        load_llm(files / "llm", torch.float32)
    edit(files / "gap" / "roberta_tiny", vocab_size=10**7)
    with pytest.raises(DataError, match="config.json tells of 480.* numbers, the weights have 265544 bytes"):
        load_text_encoder(files / "gap" / "roberta_tiny")


@pytest.mark.parametrize("act", ["../x", "nonsense", 3])
def test_settings_that_describe_no_network(files, act):
    edit(files / "llm", hidden_act=act)
    with pytest.raises(DataError, match="model.llm"):
        load_llm(files / "llm", torch.float32)
    edit(files / "gap" / "roberta_tiny", hidden_act=act)
    with pytest.raises(DataError, match="gap.text_encoder"):
        load_text_encoder(files / "gap" / "roberta_tiny")


def test_shards_that_run_code(files, tmp_path):
    """transformers reads .bin shards itself; they are looked through before."""

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    for folder, load in ((files / "llm", lambda path: load_llm(path, torch.float32)),
                         (files / "gap" / "roberta_tiny", load_text_encoder)):  # fmt: skip
        state = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(state | {"x": Evil()}, folder / "pytorch_model.bin")
        with pytest.raises(DataError, match=r"pytorch_model\.bin was not loaded"):
            load(folder)
        names = dict.fromkeys(state, "../elsewhere.bin")
        (folder / "pytorch_model.bin").rename(folder.parent / "elsewhere.bin")
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
        with pytest.raises(DataError, match="should say under 'weight_map' which file holds which tensor"):
            load(folder)
    assert not (tmp_path / "made").exists()


def test_a_pad_token_beyond_the_vocabulary(files):
    folder = files / "gap" / "roberta_tiny"
    edit(folder, pad_token_id=10**6)
    with pytest.raises(DataError, match="gap.text_encoder"):
        load_text_encoder(folder)


def test_an_encoder_without_a_pooler_is_whole(files):
    folder = files / "gap" / "roberta_tiny"
    state = {
        f"roberta.{name}": t for name, t in load_file(folder / "model.safetensors").items() if "pooler" not in name
    }
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    load_text_encoder(folder)
    assert QuestionTokenizer(folder)(["Where?"])[1][0] > 2


@pytest.mark.parametrize("number", [390, 2**31 + 5])
def test_tokens_beyond_the_vocabulary(files, number):
    folder = files / "gap" / "roberta_tiny"
    vocabulary = json.loads((folder / "vocab.json").read_text())
    token = QuestionTokenizer(folder)(["Where?"])[0][0, 1].item()
    name = next(name for name, i in vocabulary.items() if i == token)
    (folder / "vocab.json").write_text(json.dumps(vocabulary | {name: number}))
    with pytest.raises(DataError, match=f"gives token {number}, config.json says that there are 390"):
        QuestionTokenizer(folder)(["Where?"])
