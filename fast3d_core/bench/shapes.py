"""Random models of full size, made on the device, and generated questions about generated scenes: nothing is read.

Speed does not depend on what weights hold, as long as they are not all alike; accuracy does, and is not measured here.
One thing does depend on it: how many objects SAP keeps. The GAP network is drawn so that its maps are about as peaked,
and as different from question to question, as predicted ones of real questions are.
"""

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from torch import nn
from transformers import RobertaConfig, RobertaModel

from fast3d_core.bench.subject import Batch, Subject, predicted_maps
from fast3d_core.data.annotations import Sample, Scene
from fast3d_core.errors import UsageError
from fast3d_core.gap.network import GapNetwork, GapShape
from fast3d_core.gap.predictor import MapPredictor
from fast3d_core.gap.text import QuestionTokenizer
from fast3d_core.llm.cost import LlmShape
from fast3d_core.models.base import SceneModel
from fast3d_core.models.registry import model_class
from fast3d_core.plan import Units
from fast3d_core.runtime.devices import out_of_memory_says
from fast3d_core.runtime.draws import seed_of

KIND = "chat-scene"  # what a model of a named shape is
OBJECTS = 100
QUESTIONS_A_SCENE = 67  # as ScanRefer asks
WORDS = (
    *("the", "chair", "table", "window", "that", "is", "next", "to", "left", "right", "of", "brown", "white", "and"),
    *("small", "large", "under", "near", "door", "what", "colour", "find", "object", "which", "stands", "behind"),
)

# Maps whose logits have this standard deviation keep 3 to 20 objects a question (p5 to p95) where 90% are pruned.
_LOGITS_STD = 2.5


@dataclass(frozen=True)
class Shape:
    """Sizes of an LLM with its projectors and its GAP network; the defaults are those of LLaMA-7B, RoBERTa-base and the
    published GAP network.

    Attributes:
        words: vocabulary without the object tokens.
        features: width of the 3D and of the 2D features.
        text: RoBERTa's sizes that are not RoBERTa-base's; gap: the network's.
    """

    layers: int = 32
    hidden: int = 4096
    heads: int = 32
    intermediate: int = 11008
    words: int = 32000
    features: int = 1024
    text: dict[str, int] = field(default_factory=dict)
    gap: GapShape = field(default_factory=GapShape)

    @property
    def llm(self) -> LlmShape:
        """The LLM's sizes."""
        head_dim = self.hidden // self.heads
        return LlmShape(self.layers, self.hidden, self.heads, self.heads, head_dim, self.intermediate, self.words)


def units() -> Units:
    """The units of a prompt of a model of a named shape."""
    return Units(OBJECTS, model_class(KIND).unit_tokens)


SHAPES = {
    "7b": Shape(),
    "13b": Shape(layers=40, hidden=5120, heads=40, intermediate=13824),
    "tiny": Shape(  # for trying the command
        layers=16, hidden=64, heads=4, intermediate=128, words=1000, features=32,
        text={"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96},
        gap=GapShape(features=64, hidden=48, heads=4, layers=2, feedforward=96),
    ),
}  # fmt: skip


def random_subject(name: str, device: torch.device, dtype: torch.dtype, text_tokens: int, seed: int) -> Subject:
    """A model of a named shape with random weights, and endless questions about scenes of 100 objects.

    One batch after another, 67 questions in a row are about the same scene.

    Args:
        dtype: of the LLM; text_tokens: tokens of a prompt that are not visual.

    Raises:
        UsageError: the prompt alone is longer than `text_tokens`.
        DataError: memory does not suffice.
    """
    shape = SHAPES[name]
    cuda = [device] if device.type == "cuda" else []
    too_large = f"the {name} model does not fit into the memory of {device}; take a smaller one, or another device"
    with tempfile.TemporaryDirectory() as temporary, torch.random.fork_rng(cuda), out_of_memory_says(too_large):
        torch.manual_seed(seed)
        model = model_class(KIND).random(shape.llm, OBJECTS, shape.features, WORDS, device, dtype)
        make = _Questions(model, shape.features, text_tokens, seed)
        gap = MapPredictor(_gap_network(shape, device), _gap_tokenizer(Path(temporary) / "gap", shape))
        maps = torch.cat([predicted_maps(gap, make.batch(8, number)).scores for number in range(4)])
        _scale_logits(gap.network, _LOGITS_STD / float(maps.std(dim=-1).mean()))
    described = f"generated, {text_tokens} text tokens each, {QUESTIONS_A_SCENE} in a row about each scene"
    return Subject(name, model, gap, make.batch, described)


@torch.no_grad()
def _gap_network(shape: Shape, device: torch.device) -> GapNetwork:
    """Published initialisation, but for the attention to the text, whose weights are large enough for the question to
    matter (0.2 instead of 0.02 at full width)."""
    with device:
        network = GapNetwork(shape.gap, RobertaModel(_text_config(shape)))
    for name, weight in network.mm_encoder.named_parameters():
        if "multihead_attn" in name and name.endswith("weight"):
            weight.normal_(std=(30 / shape.gap.hidden) ** 0.5)
    return network.eval().requires_grad_(False)


def _scale_logits(network: GapNetwork, factor: float) -> None:
    last = network.out_head_attn[-1]
    assert isinstance(last, nn.Linear)
    last.weight.data *= factor


def _text_config(shape: Shape) -> RobertaConfig:
    sizes: dict[str, Any] = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, **shape.text}
    return RobertaConfig(layer_norm_eps=1e-5, pad_token_id=1, bos_token_id=0, eos_token_id=2, **sizes)


def _gap_tokenizer(folder: Path, shape: Shape) -> QuestionTokenizer:
    """Of RoBERTa's kind; to it, too, almost every word is one token, as common words are to RoBERTa's own.

    In a folder of its own: transformers would take LLaMA's tokenizer.model for it.
    """
    folder.mkdir()
    _text_config(shape).save_pretrained(folder)
    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator([" ".join(WORDS)] * 2, 1000, special_tokens=special, show_progress=False)
    tokenizer.save_model(str(folder))
    return QuestionTokenizer(folder)


class _Questions:
    """Questions whose prompts have exactly `text_tokens` tokens that are not visual."""

    def __init__(self, model: SceneModel, features: int, text_tokens: int, seed: int):
        shortest = model.text_tokens(WORDS[0])
        if text_tokens < shortest:
            raise UsageError(f"--text-tokens must be at least {shortest}, what a prompt of one word has")
        self._features, self._seed = features, seed
        self._words = text_tokens - shortest + 1
        assert model.text_tokens(" ".join(self._draw(0, 0, 0))) == text_tokens  # every word is one token

    def batch(self, size: int, number: int) -> Batch:
        """See `Subject.batch`."""
        names = [f"{size}-{(number * size + i) // QUESTIONS_A_SCENE}" for i in range(size)]
        samples = [
            Sample("bench", number * size + i, name, " ".join(self._draw(size, number, i)), 0, 0, 0, (), 0, None)
            for i, name in enumerate(names)
        ]
        unique = list(dict.fromkeys(names))
        generators = {name: torch.Generator().manual_seed(seed_of(self._seed, name)) for name in unique}
        scenes = {name: self._scene(name, generator) for name, generator in generators.items()}
        room = torch.tensor([8.0, 6.0, 3.0, 1.5, 1.5, 1.5])  # metres
        locations = {name: room * torch.rand(OBJECTS, 6, generator=generator) for name, generator in generators.items()}
        return Batch(samples, scenes, locations)

    def _draw(self, *place: int) -> Sequence[str]:
        return random.Random(seed_of(self._seed, *place)).choices(WORDS, k=self._words)

    def _scene(self, name: str, generator: torch.Generator) -> Scene:
        features = torch.randn(2, OBJECTS, self._features, generator=generator)
        return Scene(name, features[0], features[1], torch.ones(OBJECTS, dtype=torch.bool))
