"""The GAP network (arXiv 2507.09334, section 3.2): question and scene in, one attention logit per object out.

RoBERTa reads the question; a decoder lets the objects look at each other, by where they stand, and at the question; a
small head gives the logits. Parameter names are those of the published checkpoint.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import RobertaModel

_SPATIAL_NUMBERS = 5  # of a pair of objects, see `pairwise_numbers`


@dataclass(frozen=True)
class GapShape:
    """Sizes of a GAP network; the defaults are the published ones.

    Attributes:
        features: width of an object's 3D and 2D features together.
        objects: object slots; each has an embedding of its own.
        spatial: whether self-attention knows where objects stand; else it is ordinary attention.
        dropout: of the decoder; head_dropout: of the head.
    """

    features: int = 2048
    objects: int = 100
    hidden: int = 768
    heads: int = 12
    layers: int = 4
    feedforward: int = 2048
    spatial: bool = True
    dropout: float = 0.1
    head_dropout: float = 0.3


class GapNetwork(nn.Module):
    """The network; a new one has the published initialisation.

    Args:
        shape: its sizes.
        text_encoder: RoBERTa; its width may differ from `shape.hidden`.
    """

    def __init__(self, shape: GapShape, text_encoder: RobertaModel):
        super().__init__()
        self.shape = shape
        self.text_encoder = text_encoder
        self.mm_encoder = _Decoder(shape)
        self.text_projector = nn.Linear(text_encoder.config.hidden_size, shape.hidden)
        self.obj_feat_projector = nn.Linear(shape.features, shape.hidden)
        self.obj_id_embedding = nn.Embedding(shape.objects, shape.hidden)
        self.out_head_attn = nn.Sequential(
            nn.Linear(shape.hidden, shape.hidden // 2),
            nn.ReLU(),
            nn.LayerNorm(shape.hidden // 2, eps=1e-12),
            nn.Dropout(shape.head_dropout),
            nn.Linear(shape.hidden // 2, 1),
        )

    def train(self, mode: bool = True) -> "GapNetwork":
        """Training mode; a frozen text encoder stays in evaluation mode, without dropout."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.text_encoder.parameters()):
            self.text_encoder.eval()
        return self

    def forward(self, features: Tensor, locations: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Attention logits (samples, objects).

        Args:
            features: (samples, objects, features) 3D beside 2D features as released, not normalised.
            locations: (samples, objects, 6) box centres and sizes in metres; zeros where a slot has no box.
            ids, mask: (samples, tokens) RoBERTa token ids, and 1 where there is a token.
        """
        # Of a mask with two dimensions transformers asks whether it is all ones, and the host waits for the answer.
        seen = (mask != 0)[:, None, None].expand(-1, 1, ids.shape[1], -1)
        text = self.text_projector(self.text_encoder(input_ids=ids, attention_mask=seen).last_hidden_state)
        objects = self.obj_feat_projector(features) + self.obj_id_embedding.weight
        return self.out_head_attn(self.mm_encoder(objects, locations, text, mask)).squeeze(-1)

    def flops(self, tokens: int) -> float:
        """Of predicting one map for a question of `tokens` tokens: 2 per multiply-add of the matrix products."""
        s, text = self.shape, self.text_encoder.config
        n, h, w = s.objects, s.hidden, text.hidden_size
        encoder = text.num_hidden_layers * tokens * (4 * w * w + 2 * w * text.intermediate_size + 2 * tokens * w)
        # Self-attention with its bias from six numbers a head, attention to the text, MLP.
        objects = 4 * h * h + 2 * n * h + 2 * h * h + 2 * tokens * h + 2 * h * s.feedforward + 6 * h
        spatial = s.heads * (_SPATIAL_NUMBERS + 1) * h + s.heads * n * _SPATIAL_NUMBERS if s.spatial else 0
        decoder = s.layers * (n * (objects + spatial) + tokens * 2 * h * h)
        ends = tokens * w * h + n * (s.features * h + h * h // 2)
        return 2.0 * (encoder + decoder + ends)


class _Decoder(nn.Module):
    def __init__(self, shape: GapShape):
        super().__init__()
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        # One pair of modules, applied again before every layer.
        self.loc_layers = nn.ModuleList([nn.Sequential(nn.Linear(6, shape.hidden), nn.LayerNorm(shape.hidden))])
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, objects: Tensor, locations: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        pairs = pairwise_numbers(locations) if self.layers[0].spatial else None
        where = self.loc_layers[0](locations)
        padding = mask == 0
        for layer in self.layers:
            objects = layer(objects + where, text, padding, pairs)
        return objects


class _Layer(nn.Module):
    def __init__(self, shape: GapShape):
        super().__init__()
        h = shape.hidden
        self.spatial = shape.spatial
        self.self_attn = _SpatialAttention(shape) if shape.spatial else _attention(shape)
        self.multihead_attn = _attention(shape)
        self.linear1 = nn.Linear(h, shape.feedforward)
        self.linear2 = nn.Linear(shape.feedforward, h)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(h), nn.LayerNorm(h), nn.LayerNorm(h)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, text: Tensor, padding: Tensor, pairs: Tensor | None) -> Tensor:
        normed = self.norm1(x)
        if pairs is not None:
            seen = self.self_attn(normed, text[:, :1], pairs)
        else:
            seen, _ = self.self_attn(normed, normed, normed, need_weights=False)
        x = x + self.dropout(seen)
        read, _ = self.multihead_attn(self.norm2(x), text, text, key_padding_mask=padding, need_weights=False)
        x = x + self.dropout(read)
        return x + self.dropout(self.linear2(self.dropout(functional.gelu(self.linear1(self.norm3(x))))))


class _SpatialAttention(nn.Module):
    """Self-attention whose weights are multiplied by a gate per pair of objects and head.

    The gate is a sigmoid of the pair's spatial numbers, weighed by the querying object and the question.
    """

    def __init__(self, shape: GapShape):
        super().__init__()
        h = shape.hidden
        self.heads = shape.heads
        self.w_qs, self.w_ks, self.w_vs, self.fc = (nn.Linear(h, h) for _ in range(4))
        self.lang_cond_fc = nn.Linear(h, shape.heads * (_SPATIAL_NUMBERS + 1))
        self.layer_norm = nn.LayerNorm(h)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, sentence: Tensor, pairs: Tensor) -> Tensor:
        """x (samples, objects, hidden), sentence (samples, 1, hidden) the text's first token, pairs as below."""
        condition = self.lang_cond_fc(x + sentence).unflatten(-1, (self.heads, -1))  # heads outermost, bias first
        gate = torch.einsum("blhd,bltd->bhlt", condition[..., 1:], pairs) + condition[..., 0].transpose(1, 2)[..., None]
        gate = functional.logsigmoid(gate).clamp(min=math.log(1e-6))  # the log of a gate of at least 1e-6
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.w_qs, self.w_ks, self.w_vs))
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=gate.to(q.dtype))
        # Its own residual and norm here, and one more residual around it in the layer: so the published network.
        return self.layer_norm(self.dropout(self.fc(seen.transpose(1, 2).flatten(2))) + x)


def _attention(shape: GapShape) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(shape.hidden, shape.heads, dropout=shape.dropout, batch_first=True)


def pairwise_numbers(locations: Tensor) -> Tensor:
    """How each object stands to each other one.

    Args:
        locations: (samples, objects, 6) centres and sizes; padding takes part, as in the published network.

    Returns:
        (samples, objects, objects, 5): distance over the scene's largest; then, of the vector from the second object to
        the first, the sine of its elevation, its cosine, and the sine and cosine of its direction seen from above.
    """
    centres = locations[..., :3]
    between = centres[:, :, None] - centres[:, None]
    x, y, z = between.unbind(-1)
    flat = (x**2 + y**2 + 1e-10).sqrt()
    distance = ((between**2).sum(-1) + 1e-10).sqrt()
    nearness = distance / distance.amax(dim=(1, 2), keepdim=True)
    return torch.stack([nearness, z / distance, flat / distance, y / flat, x / flat], dim=-1)


def kl_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """KL divergence of each sample's predicted from its target distribution, (samples,), in nats.

    Args:
        logits: (samples, objects); targets: (samples, objects), not negative, in any scale.
    """
    predicted = (logits.float().softmax(-1) + 1e-8).log()
    wanted = targets / (targets.sum(-1, keepdim=True) + 1e-8)
    return functional.kl_div(predicted, wanted, reduction="none").sum(-1)
