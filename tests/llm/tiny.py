"""Tiny random LLMs of every family, as stock transformers makes them."""

import torch
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from fast3d_core.llm.families import FAMILIES
from fast3d_core.llm.generation import Prompt

LAYERS, HIDDEN, VOCAB, START, VISUAL = 3, 32, 90, 3, 6
_SIZES = {
    "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
_LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
_YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 16}
_WINDOW = {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1}

LLMS = {
    "llama 1": (LlamaConfig, {"num_key_value_heads": 4}),
    "llama 3": (LlamaConfig, {"rope_parameters": _LLAMA3, "tie_word_embeddings": True}),
    "mistral 0.1": (MistralConfig, {"sliding_window": 40}),
    "mistral 0.3": (MistralConfig, {"sliding_window": None, "head_dim": 16}),
    "qwen 2": (Qwen2Config, {"tie_word_embeddings": True}),
    "qwen 2, windows": (Qwen2Config, _WINDOW),
    "qwen 2.5, yarn": (Qwen2Config, {"rope_parameters": _YARN, "num_key_value_heads": 1}),
    "qwen 3": (Qwen3Config, {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen 3, windows": (Qwen3Config, {"head_dim": 8, **_WINDOW}),
}
"""By name: the class of config, and what differs from `_SIZES`. Windows are longer than all prompts of the tests."""


def tiny_llm(name, **others):
    """The LLM of that name, in float32, its weights such that attention is far from uniform, biases and norms too."""
    kind, own = LLMS[name]
    config = kind(**{**_SIZES, **own, **others}, attn_implementation="eager")
    torch.manual_seed(0)
    llm = FAMILIES[config.model_type].model(config).eval().requires_grad_(False)
    for key, parameter in llm.named_parameters():
        if "norm" in key:
            parameter.copy_(0.6 + 0.8 * torch.rand_like(parameter))
        else:
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.dim() == 1 else 1.2 * HIDDEN**-0.5))
    return llm


def ragged_prompts(lengths=(21, 34, 27)):
    """Random prompts, their visual tokens in the same place."""
    generator = torch.Generator().manual_seed(1)
    return [Prompt(torch.randn(n, HIDDEN, generator=generator), START, VISUAL) for n in lengths]
