"""The demo's small Chat-Scene while it is trained: many questions packed behind one scene.

Attention sees only what stands before it, so questions about one scene can share it: each one attends to the system
prefix, the scene, and itself, at the positions it would have alone. One pass over prefix, scene and sixteen questions
then trains sixteen prompts for little more than the price of one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from fast3d_core.plan import TOKENS_PER_OBJECT
from fast3d_core.vicuna.llm import finish_layer, project


@dataclass(frozen=True)
class SmallShape:
    """Sizes of the demo's model; about 10 M parameters.

    Attributes:
        features: width of the 3D and of the 2D features.
        rope_theta: 1e6 and heads of 64 learn to match across 300 tokens; LLaMA's 1e4 and narrower heads did not.
        read_layer: the layer whose output the auxiliary readers see.
    """

    layers: int = 12
    width: int = 256
    heads: int = 4
    intermediate: int = 688
    objects: int = 100
    features: int = 64
    rope_theta: float = 1e6
    read_layer: int = 4

    def llama(self, vocab: int) -> LlamaConfig:
        """The LLM's config in Hugging Face's terms."""
        return LlamaConfig(
            vocab_size=vocab,
            hidden_size=self.width,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=2048,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
            tie_word_embeddings=False,
        )


@dataclass(frozen=True)
class Packed:
    """A batch of scenes with questions behind each; texts are right-padded.

    Attributes:
        features_3d, features_2d: (scenes, objects, features), zeros where a slot holds no object.
        ids: (scenes, questions, tokens) int64, question and answer.
        wanted: (scenes, questions, tokens) int64, the token that each one should be followed by; -100 where none.
    """

    features_3d: Tensor
    features_2d: Tensor
    ids: Tensor
    wanted: Tensor


class SmallChatScene(nn.Module):
    """The LLM and the projectors, all trained from scratch.

    Args:
        words: tokens of the tokenizer; the objects' identifiers follow behind them.
        prefix, after_objects: token ids of the fixed text around the objects.
    """

    def __init__(self, shape: SmallShape, words: int, prefix: list[int], after_objects: list[int]):
        super().__init__()
        self.shape = shape
        self.words = words
        self.llm = LlamaForCausalLM(shape.llama(words + shape.objects))
        self.object_proj, self.object_img_proj = (
            nn.Sequential(nn.Linear(shape.features, shape.width), nn.GELU(), nn.Linear(shape.width, shape.width))
            for _ in range(2)
        )
        self._prefix: Tensor
        self._after_objects: Tensor
        self.register_buffer("_prefix", torch.tensor(prefix), persistent=False)
        self.register_buffer("_after_objects", torch.tensor(after_objects), persistent=False)

    @property
    def scene_tokens(self) -> int:
        """Tokens before a question."""
        return len(self._prefix) + self.shape.objects * TOKENS_PER_OBJECT + len(self._after_objects)

    def forward(self, batch: Packed) -> tuple[Tensor, Tensor]:
        """The mean loss of the wanted tokens, and (scenes, objects, width) what the readers see of each object."""
        text, seen = self._read(batch)
        logits = self.llm.lm_head(text)
        loss = functional.cross_entropy(logits.flatten(0, 2).float(), batch.wanted.flatten(), ignore_index=-100)
        return loss, seen

    def best_tokens(self, batch: Packed) -> Tensor:
        """(scenes, questions, tokens) the most probable token behind each."""
        return self.llm.lm_head(self._read(batch)[0]).argmax(-1)

    def _read(self, batch: Packed) -> tuple[Tensor, Tensor]:
        """(scenes, questions, tokens, width) what the LLM's head sees, and what the readers see."""
        before = self._before(batch)
        text = self.llm.model.embed_tokens(batch.ids)
        places = torch.arange(before.shape[1] + text.shape[2], device=text.device)
        cos, sin = (table[0] for table in self.llm.model.rotary_emb(text, places[None]))
        start = len(self._prefix)
        seen = before[:, start : start + self.shape.objects * TOKENS_PER_OBJECT]
        for number, layer in enumerate(self.llm.model.layers, start=1):
            before, text = _packed_layer(layer, before, text, cos, sin)
            if number == self.shape.read_layer:
                seen = before[:, start : start + self.shape.objects * TOKENS_PER_OBJECT]
        return self.llm.model.norm(text), seen[:, TOKENS_PER_OBJECT - 1 :: TOKENS_PER_OBJECT]

    def _before(self, batch: Packed) -> Tensor:
        """Prefix, objects and what follows them, embedded: (scenes, tokens, width)."""
        embed = self.llm.model.embed_tokens
        scenes = len(batch.ids)
        names = embed.weight[self.words :].expand(scenes, -1, -1)
        parts = [names]
        for features, proj in ((batch.features_3d, self.object_proj), (batch.features_2d, self.object_img_proj)):
            parts.append(proj(functional.normalize(features, dim=-1)))
        visual = torch.stack([part.to(names.dtype) for part in parts], dim=2).flatten(1, 2)
        fixed = (embed(ids).expand(scenes, -1, -1) for ids in (self._prefix, self._after_objects))
        prefix, after = fixed
        return torch.cat([prefix, visual, after], dim=1)


def _packed_layer(layer: nn.Module, before: Tensor, text: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """A decoder layer over before (scenes, m, width) and text (scenes, questions, n, width)."""
    m, questions = before.shape[1], text.shape[1]
    q, k, v = (x.transpose(1, 2) for x in project(layer, before, cos[:m], sin[:m]))
    seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    before_out = finish_layer(layer, before, seen.transpose(1, 2))
    q2, k2, v2 = (x.transpose(2, 3) for x in project(layer, text, cos[m:], sin[m:]))  # (scenes, questions, heads, n, d)
    # Each question's keys behind the scene's; its rows see all of the scene, and themselves up to where they stand.
    keys, values = (
        torch.cat([scene[:, None].expand(-1, questions, -1, -1, -1), own], dim=3).flatten(0, 1)
        for scene, own in ((k, k2), (v, v2))
    )
    n = text.shape[2]
    visible = torch.ones(n, m + n, dtype=torch.bool, device=text.device).tril(m)
    gathered = functional.scaled_dot_product_attention(q2.flatten(0, 1), keys, values, attn_mask=visible)
    gathered = gathered.unflatten(0, text.shape[:2]).transpose(2, 3)
    return before_out, finish_layer(layer, text, gathered)
