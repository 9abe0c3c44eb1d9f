"""A decoder layer as the fast engine computes it: four matrix products, and as little as possible between them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM

from fast3d_core.errors import DataError
from fast3d_core.llm.engine.operations import gated, rms_norm, rotate_into

_TILE = 64


@dataclass(frozen=True)
class Layer:
    """The weights of a layer; queries, keys and values are one product, gate and up another.

    Attributes:
        qkv: ((heads + 2 kv heads) x head_dim, hidden); out: (hidden, heads x head_dim).
        gate_up: (2 x intermediate, hidden); down: (hidden, intermediate).
        norm, mlp_norm: (hidden,) weights of the norms before attention and before the MLP.
    """

    norm: Tensor
    qkv: Tensor
    out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor
    epsilon: float

    def queries(self, x: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, places: Tensor) -> Tensor:
        """The queries (rows, heads, head_dim) of x (rows, hidden); keys and values go to `places` of the cache."""
        qkv = functional.linear(rms_norm(x, self.norm, self.epsilon), self.qkv)
        return rotate_into(qkv, cos, sin, keys, values, places)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The layer's output from its input x (rows, hidden) and what attention gathered, (rows, heads, head_dim).

        The output takes the place of x, so that the matrix products add the residual on the way.
        """
        x.addmm_(attended.flatten(1), self.out.T)
        both = functional.linear(rms_norm(x, self.mlp_norm, self.epsilon), self.gate_up)
        return x.addmm_(gated(both), self.down.T)


@dataclass(frozen=True)
class Head:
    """From the last layer's output to the vocabulary.

    Attributes:
        weight: (at least vocab, hidden), whole tiles of rows: GPUs multiply them twice as fast.
    """

    norm: Tensor
    weight: Tensor
    vocab: int
    epsilon: float

    def logits(self, x: Tensor) -> Tensor:
        """(rows, vocab) float32 of x (rows, hidden)."""
        return functional.linear(rms_norm(x, self.norm, self.epsilon), self.weight)[:, : self.vocab].float()


def fuse(llm: LlamaForCausalLM) -> tuple[list[Layer], Head]:
    """The LLM's layers and head.

    Weights are joined one layer after another, and the LLM's own parameters become views of what they were joined into:
    it works as before, and memory holds them once.

    Raises `DataError` for a LLaMA with biases or another activation than silu, which none of the released ones has.
    """
    if llm.config.hidden_act != "silu" or llm.config.attention_bias or llm.config.mlp_bias:
        raise DataError("model.llm: LLaMAs with biases in their layers, or without silu, are not supported")
    return [_fuse(layer) for layer in llm.model.layers], _head(llm)


def _fuse(layer: Any) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return Layer(
        norm=layer.input_layernorm.weight,
        qkv=_joined(attention.q_proj, attention.k_proj, attention.v_proj),
        out=attention.o_proj.weight,
        mlp_norm=layer.post_attention_layernorm.weight,
        gate_up=_joined(mlp.gate_proj, mlp.up_proj),
        down=mlp.down_proj.weight,
        epsilon=layer.input_layernorm.variance_epsilon,
    )


def _head(llm: LlamaForCausalLM) -> Head:
    weight, norm = llm.lm_head.weight, llm.model.norm
    vocab = len(weight)
    padded = functional.pad(weight.data, (0, 0, 0, -vocab % _TILE))
    weight.data = padded[:vocab]
    return Head(norm.weight, padded, vocab, norm.variance_epsilon)


def _joined(*linears: nn.Linear) -> Tensor:
    sizes = [len(linear.weight) for linear in linears]
    joined = torch.cat([linear.weight.data for linear in linears])
    for linear, part in zip(linears, joined.split(sizes), strict=True):
        linear.weight.data = part
    return joined
