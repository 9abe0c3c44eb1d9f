"""What the fast engine computes with: plain torch anywhere, or CUDA with Triton's kernels.

`choose` picks one for a device, number type and shape; nothing else in the engine asks what it runs on. Matrix products
are torch's everywhere; a backend has what stands between them.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fast3d_core.llm.cost import LlmShape
from fast3d_core.llm.engine import flash, operations
from fast3d_core.llm.engine.attention import beam_attention, padded_attention, row_weights, varlen_attention
from fast3d_core.llm.engine.cache import Layout, PromptRows
from fast3d_core.llm.engine.operations import HeadNorms
from fast3d_core.llm.engine.packing import Packing, Seqlens


@dataclass(frozen=True)
class DecodeView:
    """What the newest token of each beam sees in a layer's cache.

    Attributes:
        layout: of the cache; bounds: its `bounds`, (3, samples) int32.
        slots: (samples, beams, tokens) int32, the beam ancestry; number: () int64, how many tokens a beam has.
        done: (samples,) bool, whose beams need no answer.
        samples: the numbers of those that are not done; visible: (not done, beams, max_seqlen + max generated x beams)
            bool, what each of their beams sees, prompt before decode slots; max_generated: of a beam. Empty, None and 0
            for backends that read where they are (`Backend.decodes_in_place`).
    """

    layout: Layout
    bounds: Tensor
    slots: Tensor
    number: Tensor
    done: Tensor
    samples: Sequence[int] = ()
    visible: Tensor | None = None
    max_generated: int = 0


class Backend:
    """Plain torch, on any device.

    Args:
        prefill: what attention over prompts runs on: "flash-attn", "torch-varlen" (torch's own flash attention over
            packed rows), or "sdpa" (torch's attention over padded rows).

    Attributes:
        name: what attention runs on, prefill + decoding, such as "torch-varlen + triton".
        padded: whether caches have to be (see `cache.Layout`).
        captures: whether steps can be captured as CUDA graphs.
        decodes_in_place: whether `decode_attention` passes over samples that are done, and takes no mask.
    """

    captures = False
    decodes_in_place = False
    _decode = "sdpa"

    def __init__(self, prefill: str = "sdpa"):
        self._prefill = prefill
        self.name = f"{prefill} + {self._decode}"
        self.padded = prefill == "sdpa"

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """x (rows, hidden) over its root mean square, times weight (hidden,)."""
        return operations.rms_norm(x, weight, epsilon)

    def rotate_into(
        self,
        qkv: Tensor,
        cos: Tensor,
        sin: Tensor,
        keys: Tensor,
        values: Tensor,
        slot_mapping: Tensor,
        norms: HeadNorms | None = None,
        epsilon: float = 0.0,
    ) -> Tensor:
        """Positions into new queries and keys, keys and values into the cache; see `operations.rotate_into`."""
        return operations.rotate_into(qkv, cos, sin, keys, values, slot_mapping, norms, epsilon)

    def gated(self, both: Tensor) -> Tensor:
        """silu(gate) * up of (rows, 2 x width), gate before up: (rows, width)."""
        return operations.gated(both)

    def prefill_attention(
        self, q: Tensor, keys: Tensor, values: Tensor, queries: Seqlens, layout: PromptRows
    ) -> Tensor:
        """Causal attention of each sample's last rows to all rows of its prompt; see `attention.padded_attention`."""
        if layout.padded or self._prefill == "sdpa":
            assert isinstance(queries, Packing) and isinstance(layout, Layout)  # nothing is captured there
            return padded_attention(q, keys, values, queries, layout)
        prompts = layout.prompts
        attend = flash.causal_attention if self._prefill == "flash-attn" else varlen_attention
        return attend(q, keys[: prompts.num_tokens], values[: prompts.num_tokens], queries, prompts)

    def row_weights(self, q: Tensor, k: Tensor, valid: Tensor) -> Tensor:
        """Attention weights of one query row per sample; see `attention.row_weights`."""
        return row_weights(q, k, valid)

    def decode_attention(self, q: Tensor, keys: Tensor, values: Tensor, view: DecodeView) -> Tensor:
        """Attention of each beam's newest token to its sample's prompt and to what the beam has generated.

        Args:
            q: (samples that are asked about, beams, heads, head_dim): `view.samples`, or all of them in place.
            keys, values: (cache rows, kv heads, head_dim).

        Returns:
            The same shape as q.
        """
        assert view.visible is not None
        k, v = (view.layout.view(rows, new=view.max_generated * q.shape[1]) for rows in (keys, values))
        return beam_attention(q, k, v, view.visible, view.samples)


class TritonBackend(Backend):
    """The kernels of `kernels.py`, on NVIDIA GPUs that know bf16; tests run them in Triton's interpreter on a CPU.

    Args:
        captures: False where there is no CUDA.
    """

    decodes_in_place = True
    _decode = "triton"

    def __init__(self, prefill: str = "sdpa", *, captures: bool = True):
        from fast3d_core.llm.engine import kernels  # Triton comes with torch's CUDA builds alone

        super().__init__(prefill)
        self.captures = captures
        self._kernels = kernels

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        return self._kernels.rms_norm(x, weight, epsilon)

    def rotate_into(
        self,
        qkv: Tensor,
        cos: Tensor,
        sin: Tensor,
        keys: Tensor,
        values: Tensor,
        slot_mapping: Tensor,
        norms: HeadNorms | None = None,
        epsilon: float = 0.0,
    ) -> Tensor:
        return self._kernels.rotate_into(qkv, cos, sin, keys, values, slot_mapping, norms, epsilon)

    def gated(self, both: Tensor) -> Tensor:
        return self._kernels.gated(both)

    def decode_attention(self, q: Tensor, keys: Tensor, values: Tensor, view: DecodeView) -> Tensor:
        begin, end, new = view.bounds
        return self._kernels.attend_beams(q, keys, values, begin, end, new, view.slots, view.number, view.done)


def choose(device: torch.device, dtype: torch.dtype, shape: LlmShape) -> Backend:
    """The fastest backend for an LLM of this shape: the kernels on NVIDIA GPUs that know bf16, else plain torch.

    Half precision reads packed prompts there, by flash-attn where it is installed, else by torch's own flash attention
    where that has the size of head.
    """
    knows_bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    if not knows_bf16 or importlib.util.find_spec("triton") is None:
        return Backend()
    if dtype not in (torch.float16, torch.bfloat16):
        return TritonBackend()
    if flash.is_installed():
        return TritonBackend("flash-attn")
    fits = shape.head_dim <= 256 and shape.head_dim % 8 == 0  # what torch's flash attention asks for
    return TritonBackend("torch-varlen" if fits else "sdpa")
