"""A Chat-Scene of random weights, made on the device: for timing, nothing is read."""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from fast3d_core.llm.cost import LlmShape
from fast3d_core.models.chat_scene.prompt import AFTER_OBJECTS, PREFIX, QUESTION
from fast3d_core.models.chat_scene.tokenizer import ChatSceneTokenizer


@torch.no_grad()
def random_parts(
    shape: LlmShape, objects: int, features: int, words: Sequence[str], device: torch.device, dtype: torch.dtype
) -> tuple[LlamaForCausalLM, ChatSceneTokenizer, tuple[nn.Module, nn.Module]]:
    """LLM, tokeniser and projectors; for the arguments, see `SceneModel.random`."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = random_tokenizer(Path(folder), shape.vocab, objects, words)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim, max_position_embeddings=4096,
    )  # fmt: skip
    with device:
        llm = AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(False)
        object_proj, image_proj = (
            nn.Sequential(nn.Linear(features, shape.hidden), nn.GELU(), nn.Linear(shape.hidden, shape.hidden))
            .eval()
            .requires_grad_(False)
            for _ in range(2)
        )
    return llm, tokenizer, (object_proj, image_proj)


def random_tokenizer(folder: Path, vocab: int, objects: int, words: Sequence[str]) -> ChatSceneTokenizer:
    """Its sentencepiece model, written into `folder`, has the prompts' words and, to make up `vocab` tokens, pieces
    that no text has; so prompts are about as long as with LLaMA's."""

    def train(unused: int) -> bytes:
        model = io.BytesIO()
        SentencePieceTrainer.train(
            sentence_iterator=iter([PREFIX, AFTER_OBJECTS, QUESTION.format(prompt=" ".join(words))]),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab,
            hard_vocab_limit=False,
            user_defined_symbols=[f"<unused{i}>" for i in range(unused)],
            minloglevel=2,
        )
        return model.getvalue()

    pieces = SentencePieceProcessor(model_proto=train(0)).get_piece_size()
    (folder / "tokenizer.model").write_bytes(train(vocab - pieces))
    return ChatSceneTokenizer(folder, objects)
