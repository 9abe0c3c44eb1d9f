"""Every family in both engines against stock transformers; and what a loader refuses of it."""

import json
import re
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from fast3d_core.bench.baselines import stock_generate
from fast3d_core.errors import DataError
from fast3d_core.llm import reference
from fast3d_core.llm.engine import attention
from fast3d_core.llm.engine.backend import TritonBackend
from fast3d_core.llm.engine.fast import FastEngine
from fast3d_core.llm.families import FAMILIES, family_of, window_of
from fast3d_core.llm.generation import GenerationConfig
from fast3d_core.llm.record_attention import text_attention
from fast3d_core.llm.weights import load_llm, open_weights, read_config, read_shape
from fast3d_core.plan import Plan, Stage
from tests.llm.test_record_attention import batch, plain
from tests.llm.tiny import LAYERS, LLMS, START, VISUAL, ragged_prompts, tiny_llm

BOS, EOS = 1, 2
KEPT = ([0, 4], [1, 2, 5], [3])  # of each prompt
SETTINGS = GenerationConfig(beams=3, max_new_tokens=6)


def plan(layer, kept):
    """From `layer` on these visual tokens stay."""
    return Plan(VISUAL, [Stage(layer, len(kept), torch.tensor(kept))])


def plans(layer):
    """Of the three prompts; None for nothing pruned."""
    return [plan(0, range(VISUAL)) if layer is None else plan(layer, kept) for kept in KEPT]


@torch.inference_mode()
def stock_logits(llm, prompt, layer, kept):
    """Next-token logits of stock transformers, the pruned tokens masked in its layers from `layer` on."""
    n = len(prompt)
    visible = torch.ones(n, n, dtype=torch.bool).tril()
    dropped = [START + i for i in range(VISUAL) if i not in kept]
    visible[:, dropped] = False
    mask = torch.zeros(n, n).masked_fill(~visible, torch.finfo(torch.float32).min)[None, None]

    def masked(module, args, kwargs):
        return args, {**kwargs, "attention_mask": mask}

    later = llm.model.layers[layer:] if layer is not None else []
    hooks = [one.register_forward_pre_hook(masked, with_kwargs=True) for one in later]
    try:
        return llm(inputs_embeds=prompt.embeds[None]).logits[0, -1]
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("layer", [None, 0, 1, LAYERS - 1])
@pytest.mark.parametrize("name", LLMS)
def test_both_engines_give_the_logits_of_stock_transformers(name, layer):
    llm, prompts = tiny_llm(name), ragged_prompts()
    want = torch.stack([stock_logits(llm, p, layer, kept) for p, kept in zip(prompts, KEPT, strict=True)])
    assert want.std() > 0.5
    exact = [reference.first_logits(llm, *pair) for pair in zip(prompts, plans(layer), strict=True)]
    torch.testing.assert_close(torch.stack(exact), want, rtol=0, atol=1e-5)
    fast = FastEngine(llm).prefill(prompts, plans(layer), SETTINGS).logits
    torch.testing.assert_close(fast, want, rtol=0, atol=1e-5)
    if layer is not None:
        unpruned = torch.stack([stock_logits(llm, p, None, ()) for p in prompts])
        assert (unpruned - want).abs().max() > 1e-2  # what is pruned matters


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("layer", [0, 1, LAYERS - 1])
@pytest.mark.parametrize("name", LLMS)
def test_both_engines_give_the_same_answers(name, layer, beams):
    llm, prompts, settings = tiny_llm(name), ragged_prompts(), replace(SETTINGS, beams=beams)
    want = [reference.generate(llm, *pair, settings, BOS, EOS) for pair in zip(prompts, plans(layer), strict=True)]
    got = FastEngine(llm).generate(prompts, plans(layer), settings, BOS, EOS)
    assert [one.ids for one in got] == [one.ids for one in want]
    assert len({tuple(one.ids) for one in want}) > 1


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", LLMS)
def test_answers_are_those_of_stock_transformers(name, beams):
    llm, prompts = tiny_llm(name), ragged_prompts()
    settings = replace(SETTINGS, beams=beams, min_length=SETTINGS.max_new_tokens + 1)
    want = [stock_generate(llm, [prompt.embeds], settings, BOS, EOS)[0] for prompt in prompts]
    got = FastEngine(llm).generate(prompts, plans(None), settings, BOS, EOS)
    assert [one.ids[1:] for one in got] == want


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="needs Triton's interpreter")
@pytest.mark.parametrize("name", ["llama 3", "qwen 2.5, yarn", "qwen 3"])
def test_the_kernels_compute_every_family(name):
    """The engine on the Triton backend, whose kernels the interpreter runs here: the plain ones, biases, head norms."""
    llm, prompts = tiny_llm(name), ragged_prompts()
    plain, kernels = FastEngine(llm), FastEngine(llm, TritonBackend(captures=False))
    settings = replace(SETTINGS, max_new_tokens=4)
    want, got = (engine.prefill(prompts, plans(1), settings) for engine in (plain, kernels))
    torch.testing.assert_close(got.logits, want.logits, rtol=0, atol=1e-5)
    a, b = (engine.decode(state, BOS, EOS) for engine, state in ((plain, want), (kernels, got)))
    assert [one.ids for one in b] == [one.ids for one in a]


@pytest.mark.parametrize("name", LLMS)
def test_recorded_attention_is_that_of_stock_transformers(name):
    llm = tiny_llm(name).double()  # so that what is left to differ is computed in float32 by both
    prefixes, texts = batch([12, 9, 20], [5, 1, 8, 8, 2, 11, 3], dtype=torch.float64)
    want = plain(llm, prefixes, texts)
    assert want.std() > 0.01
    torch.testing.assert_close(text_attention(llm, prefixes, texts), want, atol=1e-6, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("layer", [None, 0, 1, LAYERS - 1])
@pytest.mark.parametrize("name", LLMS)
def test_every_family_on_a_gpu(monkeypatch, name, layer):
    """Float32 without TF32 gives the CPU's logits and answers; half precision, whose prompts are packed, about the
    logits, also where torch's attention over packed rows does not know queries that share keys."""
    torch.backends.cuda.matmul.allow_tf32 = False
    prompts, chosen = ragged_prompts(), plans(layer)
    on_cpu = FastEngine(tiny_llm(name))
    want = on_cpu.prefill(prompts, chosen, SETTINGS).logits
    ids = [one.ids for one in on_cpu.generate(prompts, chosen, SETTINGS, BOS, EOS)]
    moved = [replace(prompt, embeds=prompt.embeds.cuda()) for prompt in prompts]
    engine = FastEngine(tiny_llm(name).cuda())
    assert isinstance(engine._backend, TritonBackend)
    torch.testing.assert_close(engine.prefill(moved, chosen, SETTINGS).logits.cpu(), want, rtol=0, atol=1e-4)
    for _ in range(3):  # the second time steps are captured, the third time replayed
        assert [one.ids for one in engine.generate(moved, chosen, SETTINGS, BOS, EOS)] == ids
    llm = tiny_llm(name).to("cuda", torch.float16)
    halves = [replace(prompt, embeds=prompt.embeds.to("cuda", torch.float16)) for prompt in prompts]
    packed = FastEngine(llm)
    assert not packed._padded
    for groups in (attention._varlen_groups_queries(), False):
        monkeypatch.setattr(attention, "_varlen_groups_queries", lambda known=groups: known)
        for _ in range(3):  # prefill is captured, too
            got = packed.prefill(halves, chosen, SETTINGS).logits
            torch.testing.assert_close(got.cpu(), want, rtol=0, atol=0.05)  # on a CPU it is 0.013
        packed.release()
    answers = [[one.ids for one in packed.generate(halves, chosen, SETTINGS, BOS, EOS)] for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("name", LLMS)
def test_recorded_attention_on_a_gpu(name):
    """Half precision reads prefixes packed."""
    llm, (prefixes, texts) = tiny_llm(name), batch([12, 9, 20], [5, 1, 8, 8, 2, 11, 3])
    want = text_attention(llm, prefixes, texts)
    prefixes = [replace(prefix, embeds=prefix.embeds.to("cuda", torch.float16)) for prefix in prefixes]
    texts = [replace(text, embeds=text.embeds.to("cuda", torch.float16)) for text in texts]
    got = text_attention(llm.to("cuda", torch.float16), prefixes, texts)
    torch.testing.assert_close(got.cpu(), want, rtol=0, atol=0.01)


def test_windows():
    found = {name: window_of(tiny_llm(name).config) for name in LLMS}
    windows = {"mistral 0.1": 40, "qwen 2, windows": 40, "qwen 3, windows": 40}
    assert found == dict.fromkeys(LLMS) | windows


@pytest.mark.parametrize("name", ["mistral 0.1", "qwen 2, windows", "qwen 3, windows"])
def test_nothing_looks_beyond_a_window(name):
    """What is computed is exact up to the last token; one more is refused by everything that reads prompts."""
    llm = tiny_llm(name, sliding_window=27)
    (prompt,), (few,) = ragged_prompts([22]), [plan(1, [0, 4])]
    engine = FastEngine(llm)
    fits, beyond = (GenerationConfig(max_new_tokens=n, min_length=n + 1) for n in (6, 7))
    want = stock_generate(llm, [prompt.embeds], replace(fits, repetition_penalty=1.0), BOS, EOS)
    whole = plan(0, range(VISUAL))
    for answer in (
        lambda settings: engine.generate([prompt], [whole], settings, BOS, EOS)[0],
        lambda settings: reference.generate(llm, prompt, whole, settings, BOS, EOS),
    ):
        assert [answer(replace(fits, repetition_penalty=1.0)).ids[1:]] == want
        with pytest.raises(DataError, match=r"last 27 tokens .* take up to 28; lower generation.max_new_tokens"):
            answer(beyond)
    (longer,) = ragged_prompts([28])
    with pytest.raises(DataError, match="take up to 28"):
        reference.first_logits(llm, longer, few)
    reference.first_logits(llm, ragged_prompts([27])[0], few)
    prefixes, texts = batch([20], [7])
    text_attention(llm, prefixes, texts)
    with pytest.raises(DataError, match="take up to 28"):
        text_attention(llm, *batch([20], [8]))
    without = tiny_llm("llama 1")
    FastEngine(without).prefill([longer], [few], beyond)


@pytest.fixture(params=LLMS)
def saved(request, tmp_path):
    """The LLM and its folder, as transformers writes it."""
    llm = tiny_llm(request.param)
    llm.save_pretrained(tmp_path)
    return llm, tmp_path


def test_a_folder_is_read_as_it_was_written(saved):
    llm, folder = saved
    loaded, prompt = load_llm(folder, torch.float32), ragged_prompts()[0]
    assert type(loaded) is type(llm) and family_of(loaded.config) is FAMILIES[llm.config.model_type]
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == llm.config.tie_word_embeddings
    want = stock_logits(llm, prompt, 1, KEPT[0])
    torch.testing.assert_close(reference.first_logits(loaded, prompt, plan(1, KEPT[0])), want, rtol=0, atol=1e-5)
    shape = read_shape(folder)
    assert (shape.kv_heads, shape.head_dim) == (llm.config.num_key_value_heads, llm.model.layers[0].self_attn.head_dim)
    shards = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(shards)
    files = {f"pytorch_model-0000{i + 1}-of-00002.bin": names[i::2] for i in range(2)}
    for file, keys in files.items():
        torch.save({key: shards[key] for key in keys}, folder / file)
    index = {"weight_map": {key: file for file, keys in files.items() for key in keys}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    again = load_llm(folder, torch.float32).state_dict()
    assert all(torch.equal(tensor, again[key]) for key, tensor in loaded.state_dict().items())


def folder_of(name, path, config=None, state=None):
    """The folder of an LLM, with another config.json, and with other tensors; None takes one out."""
    tiny_llm(name).save_pretrained(path)
    content = json.loads((path / "config.json").read_text()) | (config or {})
    (path / "config.json").write_text(json.dumps(content))
    tensors = load_file(path / "model.safetensors") | (state or {})
    tensors = {key: tensor for key, tensor in tensors.items() if tensor is not None}
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    return path


_ATTENTION = "model.layers.1.self_attn."


@pytest.mark.parametrize(("name", "state", "problem"), [
    ("qwen 2", {_ATTENTION + "k_proj.bias": None}, "lacks tensors .* shape: {}k_proj.bias"),
    ("qwen 2", {_ATTENTION + "q_proj.bias": torch.zeros(31)}, "in another shape: {}q_proj.bias"),
    ("qwen 2", {_ATTENTION + "o_proj.bias": torch.zeros(32)}, "Qwen2 has not: {}o_proj.bias"),
    ("llama 1", {_ATTENTION + "q_proj.bias": torch.zeros(32)}, "LLaMA has not: {}q_proj.bias"),
    ("mistral 0.3", {_ATTENTION + "v_proj.bias": torch.zeros(32)}, "Mistral has not: {}v_proj.bias"),
    ("llama 1", {"lm_head.bias": torch.zeros(90)}, "LLaMA has not: lm_head.bias"),
    ("qwen 3", {_ATTENTION + "q_norm.weight": None}, "lacks tensors .* shape: {}q_norm.weight"),
    ("qwen 3", {_ATTENTION + "k_norm.weight": torch.ones(32)}, "in another shape: {}k_norm.weight"),
    ("qwen 2", {_ATTENTION + "q_norm.weight": torch.ones(8)}, "Qwen2 has not: {}q_norm.weight"),
    ("llama 1", {"model.layers.3.mlp.up_proj.weight": torch.ones(48, 32)}, "LLaMA has not: model.layers.3.mlp"),
    ("qwen 2", {_ATTENTION + "k_proj.weight": torch.ones(16, 32, dtype=torch.int8)}, "k_proj.weight as torch.int8"),
])  # fmt: skip
def test_tensors_that_are_refused(tmp_path, name, state, problem):
    folder = folder_of(name, tmp_path, state=state)
    for load in (lambda: open_weights(folder), lambda: load_llm(folder, torch.float32)):
        with pytest.raises(DataError, match=problem.format(re.escape(_ATTENTION))) as caught:
            load()
        assert "\n" not in str(caught.value)


def test_older_files_hold_their_rotary_tables(tmp_path):
    folder = folder_of("llama 1", tmp_path, state={_ATTENTION + "rotary_emb.inv_freq": torch.ones(4)})
    assert _ATTENTION + "rotary_emb.inv_freq" not in open_weights(folder)


@pytest.mark.parametrize(("name", "config", "problem"), [
    *((name, {"rope_parameters": None, "rope_scaling": {"rope_type": rope, "factor": 2.0}},
       f"rope_scaling.rope_type is '{rope}', which fast3d does not compute")
      for name in LLMS for rope in ("dynamic", "longrope")),
    ("qwen 3", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e6}}, "rope_parameters.rope_type is 'dyn"),
    ("llama 1", {"model_type": "gemma2"}, "its model_type is 'gemma2', an LLM that fast3d does not run; it runs llama"),
    ("llama 1", {"model_type": "mixtral"}, "its model_type is 'mixtral'"),
    ("llama 1", {"model_type": ["llama"]}, "its model_type is this list"),
    ("llama 1", {"model_type": None}, "its model_type is None"),
    ("llama 1", {"attention_bias": True}, "LLaMA with attention_bias"),
    ("llama 1", {"mlp_bias": True}, "LLaMA with attention_bias, mlp_bias"),
    ("qwen 3", {"attention_bias": True}, "Qwen3 with attention_bias"),
    ("qwen 2", {"hidden_act": "gelu"}, "another hidden_act"),
    *(("mistral 0.1", {"sliding_window": window}, "sliding_window is .*, not a number of tokens from 1")
      for window in (0, -1, "40", 40.0, True, [40], 10**9)),
    ("qwen 2, windows", {"sliding_window": 0}, "sliding_window is 0, not a number"),
    ("qwen 2, windows", {"layer_types": ["full_attention"] * 2 + ["chunked_attention"]}, "layer_types has other"),
    ("qwen 3, windows", {"layer_types": "full_attention"}, "layer_types has other"),
    ("qwen 2", {"use_sliding_window": "yes"}, "not a usable Qwen2 config"),
    ("qwen 3", {"head_dim": 0}, "head_dim is 0, not"),
])  # fmt: skip
def test_configs_that_are_refused(tmp_path, name, config, problem):
    folder = folder_of(name, tmp_path, config)
    for load in (lambda: read_config(folder), lambda: open_weights(folder), lambda: load_llm(folder, torch.float32)):
        with pytest.raises(DataError, match=problem) as caught:
            load()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["qwen 2, windows", "qwen 3"])
def test_layers_that_are_not_told_of(tmp_path, name):
    folder = folder_of(name, tmp_path, {"layer_types": ["full_attention"]})
    with pytest.raises(DataError, match="model.llm"):
        load_llm(folder, torch.float32)


def test_one_family_is_not_taken_for_another(tmp_path):
    for name, model_type, problem in (
        ("qwen 2", "llama", "LLaMA has not: model.layers.0.self_attn.k_proj.bias"),
        ("qwen 3", "llama", "k_norm.weight"),
        ("llama 1", "qwen2", "lacks tensors .*q_proj.bias"),
        ("mistral 0.3", "qwen3", "lacks tensors .*q_norm.weight"),
    ):
        folder = folder_of(name, tmp_path, {"model_type": model_type})
        with pytest.raises(DataError, match=problem):
            load_llm(folder, torch.float32)
