"""A decoder layer as the fast engine computes it: four matrix products, and as little as possible between them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fast3d_core.llm.engine.backend import Backend
from fast3d_core.llm.engine.operations import HeadNorms
from fast3d_core.llm.families import Llm, family_of

_TILE = 64


@dataclass(frozen=True)
class Layer:
    """The weights of a layer; queries, keys and values are one product, gate and up another.

    Attributes:
        backend: what it runs on.
        norm, mlp_norm: (hidden,) weights of the norms before attention and before the MLP; epsilon: of all norms.
        qkv: ((heads + 2 kv heads) x head_dim, hidden); out: (hidden, heads x head_dim).
        gate_up: (2 x intermediate, hidden); down: (hidden, intermediate).
        qkv_bias: as many as `qkv` has rows; head_norms: (head_dim,) each. None in families without.
    """

    backend: Backend
    norm: Tensor
    qkv: Tensor
    out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor
    epsilon: float
    qkv_bias: Tensor | None = None
    head_norms: HeadNorms | None = None

    def queries(
        self, x: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, slot_mapping: Tensor
    ) -> Tensor:
        """The queries (rows, heads, head_dim) of x (rows, hidden); keys and values go to `slot_mapping` of the cache.

        For the other arguments, see `operations.rotate_into`.
        """
        backend = self.backend
        qkv = functional.linear(backend.rms_norm(x, self.norm, self.epsilon), self.qkv, self.qkv_bias)
        return backend.rotate_into(qkv, cos, sin, keys, values, slot_mapping, self.head_norms, self.epsilon)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The layer's output from its input x (rows, hidden) and what attention gathered, (rows, heads, head_dim).

        The output takes the place of x, so that the matrix products add the residual on the way.
        """
        backend = self.backend
        x.addmm_(attended.flatten(1), self.out.T)
        both = functional.linear(backend.rms_norm(x, self.mlp_norm, self.epsilon), self.gate_up)
        return x.addmm_(backend.gated(both), self.down.T)


@dataclass(frozen=True)
class Head:
    """From the last layer's output to the vocabulary.

    Attributes:
        weight: (at least vocab, hidden), whole tiles of rows: GPUs multiply them twice as fast.
    """

    backend: Backend
    norm: Tensor
    weight: Tensor
    vocab: int
    epsilon: float

    def logits(self, x: Tensor) -> Tensor:
        """(rows, vocab) float32 of x (rows, hidden)."""
        normed = self.backend.rms_norm(x, self.norm, self.epsilon)
        return functional.linear(normed, self.weight)[:, : self.vocab].float()


def fuse(llm: Llm, backend: Backend) -> tuple[list[Layer], Head]:
    """The LLM's layers and head.

    Weights are joined one layer after another, and the LLM's own parameters become views of what they were joined into:
    it works as before, and memory holds them once.

    Raises `DataError` for an LLM of no family that runs here (see `families.family_of`).
    """
    family = family_of(llm.config)
    layers = [_fuse(layer, backend, bias=family.qkv_bias, head_norms=family.head_norms) for layer in llm.model.layers]
    return layers, _head(llm, backend)


def _fuse(layer: Any, backend: Backend, *, bias: bool, head_norms: bool) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    projections = attention.q_proj, attention.k_proj, attention.v_proj
    return Layer(
        backend=backend,
        norm=layer.input_layernorm.weight,
        qkv=_joined(*(projection.weight for projection in projections)),
        out=attention.o_proj.weight,
        mlp_norm=layer.post_attention_layernorm.weight,
        gate_up=_joined(mlp.gate_proj.weight, mlp.up_proj.weight),
        down=mlp.down_proj.weight,
        epsilon=layer.input_layernorm.variance_epsilon,
        qkv_bias=_joined(*(projection.bias for projection in projections)) if bias else None,
        head_norms=(attention.q_norm.weight, attention.k_norm.weight) if head_norms else None,
    )


def _head(llm: Llm, backend: Backend) -> Head:
    weight, norm = llm.lm_head.weight, llm.model.norm
    vocab = len(weight)
    padded = functional.pad(weight.data, (0, 0, 0, -vocab % _TILE))
    weight.data = padded[:vocab]
    return Head(backend, norm.weight, padded, vocab, norm.variance_epsilon)


def _joined(*parameters: nn.Parameter) -> Tensor:
    """The parameters, one behind another; they become views of it."""
    joined = torch.cat([parameter.data for parameter in parameters])
    for parameter, part in zip(parameters, joined.split([len(p) for p in parameters]), strict=True):
        parameter.data = part
    return joined
