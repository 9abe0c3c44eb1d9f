"""Chat-Scene: scene and question in, answer out, with a plan that says which visual tokens the LLM keeps."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from fast3d_core.config import Config, need_checkpoint, need_path
from fast3d_core.data.annotations import Scene, Scenes
from fast3d_core.errors import DataError
from fast3d_core.files.fingerprints import llm_files
from fast3d_core.llm.cost import LlmShape
from fast3d_core.llm.families import Llm
from fast3d_core.llm.generation import Prompt
from fast3d_core.llm.weights import load_llm, read_shape, shape_of
from fast3d_core.models.base import SceneModel
from fast3d_core.models.chat_scene.checkpoint import check_fit, load_checkpoint, merge, projector
from fast3d_core.models.chat_scene.lora import check_base
from fast3d_core.models.chat_scene.prompt import Wording
from fast3d_core.models.chat_scene.tokenizer import ChatSceneTokenizer, tidy_answer
from fast3d_core.plan import Units
from fast3d_core.runtime.devices import pick_device

_SCENES_BYTES = 1 << 30  # of embedded scenes, kept on the device; one is 3 MB for Vicuna-7B in bf16


class ChatScene(SceneModel):
    """The model; a unit is an object: its identifier, its 3D feature and its 2D feature.

    Attributes:
        tokenizer, llm: the LLaMA with the checkpoint merged in.

    Args:
        projectors: of the 3D and of the 2D features, (n, width) -> (n, hidden).
        fixed_embeds: the prompt's fixed text before and behind the visual tokens, (tokens, hidden) each.
        source: the file of the checkpoint, for errors.
    """

    kind: ClassVar[str] = "chat-scene"
    unit_tokens: ClassVar[int] = 3
    checks: ClassVar[str] = "fast3d_core.doctor.chat_scene:CHECKS"

    def __init__(
        self,
        llm: Llm,
        tokenizer: ChatSceneTokenizer,
        projectors: tuple[nn.Module, nn.Module],
        fixed_embeds: tuple[Tensor, Tensor],
        objects: int,
        ignored: Sequence[str] = (),
        source: str = "the checkpoint",
    ):
        super().__init__(llm, Units(objects, self.unit_tokens), tokenizer.bos_id, tokenizer.eos_id, ignored)
        self.tokenizer = tokenizer
        self._wording = Wording(tokenizer)
        self._project_3d, self._project_2d = projectors
        self._prefix, self._after_objects = fixed_embeds
        self._source = source
        self._prefixes: dict[str, tuple[Scene, Tensor]] = {}  # oldest first

    @classmethod
    def shape_of(cls, config: Config) -> LlmShape:
        return read_shape(need_path(config, "model.llm"), extra_tokens=config.data.max_objects)

    @classmethod
    def text_counter(cls, config: Config) -> Callable[[str], int]:
        folder = need_path(config, "model.llm")
        return Wording(ChatSceneTokenizer(folder, config.data.max_objects)).text_tokens

    @classmethod
    def files(cls, config: Config) -> list[Path]:
        return [*llm_files(need_path(config, "model.llm")), need_checkpoint(config, "model.checkpoint")]

    @classmethod
    def from_config(cls, config: Config, device: torch.device | None = None) -> "ChatScene":
        """Loads the released files that `config.model` names; see `SceneModel.from_config`."""
        device = device or pick_device(config.model.device)
        llm = load_llm(need_path(config, "model.llm"), getattr(torch, config.model.dtype), device)
        checkpoint = load_checkpoint(
            need_checkpoint(config, "model.checkpoint"),
            llm.config.num_hidden_layers,
            allow_unexpected=config.model.allow_unexpected,
        )
        objects, vocab = config.data.max_objects, llm.config.vocab_size
        check_fit(checkpoint, shape_of(llm.config), objects)
        check_base(checkpoint.base, llm.state_dict(), f"model.checkpoint: {checkpoint.path}")
        tokenizer = ChatSceneTokenizer(config.model.llm, objects=checkpoint.vocab - vocab)
        check_vocabulary(tokenizer, vocab)
        # Chat-Scene embeds the fixed text before it loads the checkpoint, so with the original LLaMA rows.
        fixed = embed_fixed(llm, tokenizer)
        projectors = tuple(projector(checkpoint, name).to(device) for name in ("object_proj", "object_img_proj"))
        merge(checkpoint, llm, config.model.lora_alpha)  # on the device: a CPU takes minutes for 7B
        source = str(config.model.checkpoint)
        return cls(llm, tokenizer, projectors, fixed, objects, checkpoint.ignored, source)  # type: ignore[arg-type]

    @classmethod
    def random(
        cls,
        shape: LlmShape,
        objects: int,
        features: int,
        words: Sequence[str],
        device: torch.device,
        dtype: torch.dtype,
    ) -> "ChatScene":
        """See `SceneModel.random`."""
        from fast3d_core.models.chat_scene.random_weights import random_parts

        llm, tokenizer, projectors = random_parts(shape, objects, features, words, device, dtype)
        return cls(llm, tokenizer, projectors, embed_fixed(llm, tokenizer), objects)

    def release(self) -> None:
        """Gives back embedded scenes, too."""
        self._prefixes.clear()
        super().release()

    @property
    def feature_widths(self) -> tuple[int, int]:
        """Widths of the 3D and the 2D features it reads."""
        return self._project_3d[0].in_features, self._project_2d[0].in_features  # type: ignore[index]

    def check_scenes(self, scenes: Scenes) -> None:
        check_widths(self._source, scenes, self.feature_widths)

    @torch.inference_mode()
    def object_embeds(self, scene: Scene) -> Tensor:
        """The scene's visual tokens, (3 x objects, hidden): identifier, 3D feature, 2D feature of each slot in turn."""
        widths = (scene.features_3d.shape[1], scene.features_2d.shape[1])
        if widths != self.feature_widths:
            raise DataError(
                f"the features of {scene.scene_id} are {widths[0]} (3D) and {widths[1]} (2D) wide, "
                f"the checkpoint reads {self.feature_widths[0]} and {self.feature_widths[1]}"
            )
        objects = self.units.count
        embeds = torch.empty(objects, self.units.tokens, self.llm.config.hidden_size, device=self.device)
        first = self.tokenizer.vocab_size
        embeds[:, 0] = self.llm.model.embed_tokens.weight[first : first + objects]
        pairs = ((scene.features_3d, self._project_3d), (scene.features_2d, self._project_2d))
        for token, (features, project) in enumerate(pairs, start=1):
            embeds[:, token] = project(nn.functional.normalize(features.to(self.device), dim=-1))
        return embeds.flatten(0, 1).to(self.llm.dtype)

    @torch.inference_mode()
    def prefix(self, scene: Scene) -> Prompt:
        """System prefix | visual tokens | `]. USER: `, embedded."""
        known, embeds = self._prefixes.get(scene.scene_id, (None, None))
        if known is not scene or embeds is None:
            embeds = torch.cat([self._prefix, self.object_embeds(scene), self._after_objects])
            self._prefixes.pop(scene.scene_id, None)
            if (1 + len(self._prefixes)) * embeds.nbytes > _SCENES_BYTES:
                del self._prefixes[next(iter(self._prefixes))]
            self._prefixes[scene.scene_id] = (scene, embeds)
        return Prompt(embeds, len(self._prefix), self.units.visual, prefix=embeds)

    @torch.inference_mode()
    def text(self, question: str, answer: str = "") -> Tensor:
        """Question, `ASSISTANT: `, and the answer if there is one, as one text, embedded: (tokens, hidden)."""
        ids = self._wording.question(question, answer)
        return self.llm.model.embed_tokens(torch.tensor(ids, device=self.device))

    def text_tokens(self, question: str) -> int:
        return self._wording.text_tokens(question)

    def question_rows(self, question: str) -> int:
        return self._wording.question_rows(question)

    @torch.inference_mode()
    def prompts(self, scenes: Sequence[Scene], questions: Sequence[str]) -> list[Prompt]:
        """System prefix | visual tokens | `]. USER: ` | question `ASSISTANT: `, of each question about its scene.

        The questions of a batch are embedded at once.
        """
        ids = [self._wording.question(question) for question in questions]
        embeds = self.llm.model.embed_tokens(torch.tensor([i for one in ids for i in one], device=self.device))
        texts = embeds.split([len(one) for one in ids])
        return [
            replace(prefix, embeds=torch.cat([prefix.embeds, text]))
            for prefix, text in zip(map(self.prefix, scenes), texts, strict=True)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        return tidy_answer(self.tokenizer.decode(list(ids)))


def embed_fixed(llm: Llm, tokenizer: ChatSceneTokenizer) -> tuple[Tensor, Tensor]:
    """The fixed text before and behind the visual tokens, (tokens, hidden) each."""
    wording = Wording(tokenizer)
    before, behind = (
        llm.model.embed_tokens(torch.tensor(ids, device=llm.device)) for ids in (wording.prefix, wording.after_objects)
    )
    return before, behind


def check_vocabulary(tokenizer: ChatSceneTokenizer, vocab: int) -> None:
    """Raises `DataError` unless the tokeniser has as many tokens as the LLM, without its object tokens."""
    if tokenizer.vocab_size != vocab:
        raise DataError(
            f"model.llm: tokenizer.model has {tokenizer.vocab_size} tokens, config.json says {vocab}; "
            "are both from the same model?"
        )


def check_widths(source: str, scenes: Scenes, wanted: tuple[int, int]) -> None:
    """Raises `DataError` unless the 3D and the 2D features have the widths that the checkpoint in `source` reads."""
    if (scenes.width_3d, scenes.width_2d) != wanted:
        raise DataError(
            f"the features in {scenes.folder} are {scenes.width_3d} (3D) and {scenes.width_2d} (2D) wide, "
            f"{source} reads {wanted[0]} and {wanted[1]}"
        )
