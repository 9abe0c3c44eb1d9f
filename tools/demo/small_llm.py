"""The demo's small Chat-Scene while it is trained: many questions packed behind one scene.

Attention sees only what stands before it, so questions about one scene can share it: each one attends to the system
prefix, the scene, and itself, at the positions it would have alone. One pass over prefix, scene and sixteen questions
then trains sixteen prompts for little more than the price of one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import LlamaForCausalLM

from fast3d_core.demo.shape import SmallShape
from fast3d_core.llm.weights import finish_layer, project
from fast3d_core.models.chat_scene.model import ChatScene

Mask = Tensor | BlockMask
"""Which tokens see which: dense, (tokens, tokens) bool, or by blocks, of which those that nothing sees are skipped."""

_TOKENS = ChatScene.unit_tokens  # of an object


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

    def mask(self, questions: int, tokens: int) -> Mask:
        """For batches of `questions` texts of `tokens`: causal, and no question sees another."""
        device = self._prefix.device
        shared = len(self._prefix) + self.shape.objects * _TOKENS + len(self._after_objects)
        length = shared + questions * tokens

        def visible(_b: Tensor, _h: Tensor, row: Tensor, column: Tensor) -> Tensor:
            same = (row >= shared) & ((row - shared) // tokens == (column - shared) // tokens)
            return (column <= row) & ((column < shared) | same)

        if device.type == "cuda":
            return create_block_mask(visible, None, None, length, length, device=str(device))
        positions = torch.arange(length, device=device)
        return visible(positions, positions, positions[:, None], positions[None])

    def forward(self, batch: Packed, mask: Mask) -> tuple[Tensor, Tensor, Tensor]:
        """The mean loss of the wanted tokens, (scenes, objects, width) what the readers see of each object, and the
        share of its attention that the first question of each scene pays to the objects, mean over its tokens.
        """
        text, seen, maps = self._read(batch, mask, recorded=1)
        logits = self.llm.lm_head(text)
        loss = functional.cross_entropy(logits.flatten(0, 2).float(), batch.wanted.flatten(), ignore_index=-100)
        return loss, seen, maps.sum(-1).mean()

    def best_tokens(self, batch: Packed, mask: Mask) -> Tensor:
        """(scenes, questions, tokens) the most probable token behind each."""
        return self.llm.lm_head(self._read(batch, mask)[0]).argmax(-1)

    def attention_maps(self, batch: Packed, mask: Mask) -> Tensor:
        """(scenes, questions, objects) what `fast3d extract` records, where `batch` holds texts as it appends them: the
        attention that texts pay to objects, mean over layers, heads and tokens."""
        return self._read(batch, mask, recorded=batch.ids.shape[1])[2]

    def _read(self, batch: Packed, mask: Mask, recorded: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """(scenes, questions, tokens, width) what the LLM's head sees, what the readers see, and the attention maps of
        the first `recorded` questions."""
        before = self._before(batch)
        text = self.llm.model.embed_tokens(batch.ids)
        (shared, _), (questions, tokens) = before.shape[1:], text.shape[1:3]
        x = torch.cat([before, text.flatten(1, 2)], dim=1)
        positions = torch.arange(shared + tokens, device=x.device)
        positions = torch.cat([positions[:shared], positions[shared:].repeat(questions)])
        cos, sin = (part[0] for part in self.llm.model.rotary_emb(x, positions[None]))
        first = len(self._prefix) + _TOKENS - 1
        last_tokens = slice(first, first + self.shape.objects * _TOKENS, _TOKENS)
        seen, maps = x[:, last_tokens], x.new_zeros(len(x), recorded, self.shape.objects, dtype=torch.float32)
        for number, layer in enumerate(self.llm.model.layers, start=1):
            q, k, v = project(layer, x, cos, sin)
            x = finish_layer(layer, x, _attend(q, k, v, mask))
            if recorded:
                maps = maps + self._maps(q, k, shared, batch.ids[:, :recorded]) / self.shape.layers
            if number == self.shape.read_layer:
                seen = x[:, last_tokens]
        return self.llm.model.norm(x[:, shared:]).unflatten(1, (questions, tokens)), seen, maps

    def _maps(self, q: Tensor, k: Tensor, shared: int, ids: Tensor) -> Tensor:
        """(scenes, questions, objects) of a layer, for the first questions, `ids` (scenes, questions, n)."""
        (questions, n), start = ids.shape[1:], len(self._prefix)
        rows, own = (t[:, shared : shared + questions * n].unflatten(1, (questions, n)) for t in (q, k))
        ahead = torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1)
        on_shared = torch.einsum("sqnhd,smhd->sqhnm", rows, k[:, :shared])
        on_own = torch.einsum("sqnhd,sqmhd->sqhnm", rows, own).masked_fill(ahead, -torch.inf)
        weights = (torch.cat([on_shared, on_own], dim=-1).float() * q.shape[-1] ** -0.5).softmax(-1)
        visual = weights[..., start : start + self.shape.objects * _TOKENS]
        maps = visual.unflatten(-1, (-1, _TOKENS)).sum(-1).mean(2)  # (scenes, questions, n, objects)
        there = (ids != 0).to(maps.dtype)[..., None]
        return (maps * there).sum(2) / there.sum(2)

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


_flex_attention = torch.compile(flex_attention)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
    """What queries gather, (scenes, tokens, heads, head width) each."""
    # The rope cos and sin are fp32; under autocast attention is to run in v's dtype.
    q, k, v = (t.to(v.dtype).transpose(1, 2) for t in (q, k, v))
    if isinstance(mask, Tensor):
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
    return _flex_attention(q, k, v, block_mask=mask).transpose(1, 2)  # type: ignore[union-attr]
