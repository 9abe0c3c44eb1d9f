"""A second scene model, outside fast3d: patches instead of objects, five tokens each, behind the question.

Its weights are random and made when it is loaded, so that no file is read. Text is printable ASCII, a token a letter.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from fast3d_core.config import Config
from fast3d_core.data.annotations import Scene
from fast3d_core.llm.cost import LlmShape
from fast3d_core.llm.generation import Prompt
from fast3d_core.llm.weights import shape_of
from fast3d_core.models.base import SceneModel
from fast3d_core.runtime.devices import pick_device

FIRST, LETTERS = ord(" "), 95  # printable ASCII
BOS, EOS = LETTERS, LETTERS + 1
BEFORE, BEHIND = "Q: {question}\nPATCHES: ", "\nA:"


class PatchModel(SceneModel):
    """`Q: question PATCHES:` | visual tokens | `A:`. A patch is what one row of the scene's features shows."""

    kind: ClassVar[str] = "patches"
    unit_tokens: ClassVar[int] = 5
    shares_prefix: ClassVar[bool] = False  # the visual tokens stand behind the question

    @classmethod
    def shape_of(cls, config: Config) -> LlmShape:
        return shape_of(_llm_config())

    @classmethod
    def text_counter(cls, config: Config) -> Callable[[str], int]:
        return _text_tokens

    @classmethod
    def files(cls, config: Config) -> list[Path]:
        return [Path(__file__)]

    @classmethod
    def from_config(cls, config: Config, device: torch.device | None = None) -> "PatchModel":
        with torch.random.fork_rng([]):
            torch.manual_seed(7)
            llm = LlamaForCausalLM(_llm_config()).eval().requires_grad_(False)
        llm = llm.to(device or pick_device(config.model.device), getattr(torch, config.model.dtype))
        return cls(llm, cls.units_of(config), BOS, EOS)

    @torch.inference_mode()
    def prompts(self, scenes: Sequence[Scene], questions: Sequence[str]) -> list[Prompt]:
        return [self._prompt(scene, question) for scene, question in zip(scenes, questions, strict=True)]

    def _prompt(self, scene: Scene, question: str) -> Prompt:
        before = self._embed([BOS, *_encode(BEFORE.format(question=question))])
        parts = [before, self._patches(scene), self._embed(_encode(BEHIND))]
        return Prompt(torch.cat(parts), visual_start=len(before), visual=self.units.visual)

    def text_tokens(self, question: str) -> int:
        return _text_tokens(question)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(FIRST + i) for i in ids if i < LETTERS).strip()

    def _embed(self, ids: Sequence[int]) -> Tensor:
        return self.llm.model.embed_tokens(torch.tensor(ids, device=self.device))

    def _patches(self, scene: Scene) -> Tensor:
        """(5 x patches, hidden)."""
        features = torch.cat([scene.features_3d, scene.features_2d], dim=-1)
        tokens = nn.functional.normalize(features, dim=-1) @ _projection(features.shape[1])
        return tokens.reshape(self.units.visual, -1).to(self.device, self.llm.dtype)


@cache
def _projection(width: int) -> Tensor:
    """Features (width,) to the tokens of a patch, (5 x hidden,)."""
    generator = torch.Generator().manual_seed(width)
    return torch.randn(width, PatchModel.unit_tokens * _llm_config().hidden_size, generator=generator)


def _llm_config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=LETTERS + 2,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=1 / math.sqrt(32),  # large enough for answers to depend on the scene
    )


def _encode(text: str) -> list[int]:
    return [min(max(ord(letter) - FIRST, 0), LETTERS - 1) for letter in text]


def _text_tokens(question: str) -> int:
    return 1 + len(_encode(BEFORE.format(question=question))) + len(_encode(BEHIND))
