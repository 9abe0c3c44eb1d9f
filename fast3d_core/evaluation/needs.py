"""What answering needs, by arithmetic from the LLM's shape and the plans: FLOPs, memory, and the batch that fits."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from fast3d_core.config import Config, GenerationConfig
from fast3d_core.data.annotations import Sample
from fast3d_core.llm.cost import Cost, LlmShape, cost
from fast3d_core.llm.engine.cache import GROWTH
from fast3d_core.llm.engine.prefix_cache import PREFIXES_KEPT
from fast3d_core.models.registry import scene_model
from fast3d_core.plan import Plan


@dataclass(frozen=True)
class Need:
    """What one sample asks of the LLM.

    Attributes:
        cost: with an answer of `max_new_tokens`.
        rows: tokens that the first layer sees; tokens: of the whole prompt.
    """

    cost: Cost
    rows: int
    tokens: int


@dataclass(frozen=True)
class Needs:
    """Works out what samples need; no weights are read.

    Attributes:
        text_tokens: of a question's prompt, those that are not visual.
        element_bytes: bytes of one weight, activation or cached number.
        reuse_scene: the keys and values of scenes are kept, too.
    """

    shape: LlmShape
    generation: GenerationConfig
    element_bytes: int
    text_tokens: Callable[[str], int]
    reuse_scene: bool = False

    @classmethod
    def of_config(cls, config: Config) -> "Needs":
        """Of the model that the config names. Raises `DataError` where its config or its tokenizer is missing."""
        model = scene_model(config)
        return cls(
            model.shape_of(config),
            config.generation,
            getattr(torch, config.model.dtype).itemsize,
            model.text_counter(config),
            config.eval.reuse_scene,
        )

    @property
    def weights(self) -> int:
        """Bytes of the LLM's weights."""
        return self.shape.parameters * self.element_bytes

    def of(self, plan: Plan, text: int) -> Need:
        """Of a prompt with `text` tokens that are not visual."""
        counts = plan.counts(self.shape.layers)
        spent = cost(
            self.shape,
            counts,
            text=text,
            beams=self.generation.beams,
            steps=self.generation.max_new_tokens,
            element_bytes=self.element_bytes,
        )
        return Need(spent, text + counts[0], text + plan.visual)

    def of_batch(self, samples: Sequence[Sample], plans: Sequence[Plan]) -> list[Need]:
        """Of each sample under its plan."""
        texts = [self.text_tokens(sample.prompt) for sample in samples]
        return [self.of(plan, text) for plan, text in zip(plans, texts, strict=True)]

    def memory(self, batch: Sequence[Need]) -> float:
        """Bytes of weights, caches and activations while a batch is answered."""
        rows, cached = sum(need.rows for need in batch), sum(need.cost.kv_bytes for need in batch)
        return self._memory(len(batch), rows, cached, max(need.tokens for need in batch))

    def largest_batch(self, needs: Iterable[Need], available: float, most: int) -> int:
        """The most samples, up to `most`, that fit into `available` bytes, however greedy they are: 1, 2, 4, or a
        multiple of 8. 1 where nothing fits."""
        each = ((need.rows, need.cost.kv_bytes, need.tokens) for need in needs)
        rows, cached, tokens = (max(values) for values in zip(*each, strict=True))
        sizes = [size for size in (1, 2, 4, *range(8, most + 1, 8)) if size <= most]
        return max((n for n in sizes if self._memory(n, n * rows, n * cached, tokens) <= available), default=1)

    def _memory(self, samples: int, rows: int, cached: int, tokens: int) -> float:
        shape = self.shape
        # Alive at the widest moment: a layer's MLP over all packed rows, or the scores over the vocabulary.
        layer = rows * (4 * shape.hidden + 3 * shape.intermediate) * self.element_bytes
        scores = 4 * samples * self.generation.beams * shape.vocab * 4
        # At worst every sample asks about a scene of its own.
        scenes = max(samples, PREFIXES_KEPT) * tokens if self.reuse_scene else 0
        kept = GROWTH * scenes * shape.layers * 2 * shape.kv_heads * shape.head_dim * self.element_bytes
        return self.weights + GROWTH * cached + kept + max(layer, scores)
