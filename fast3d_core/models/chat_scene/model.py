"""Chat-Scene: scene and question in, answer out, with a plan that says which visual tokens the LLM keeps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fast3d_core.config import Config, need_checkpoint, need_path
from fast3d_core.data.annotations import Scene
from fast3d_core.errors import DataError
from fast3d_core.llm import reference
from fast3d_core.llm.cost import LlmShape
from fast3d_core.llm.engine.fast import FastEngine
from fast3d_core.llm.families import Llm
from fast3d_core.llm.generation import Generation, GenerationConfig, Prompt
from fast3d_core.llm.weights import load_llm, shape_of
from fast3d_core.models.chat_scene.checkpoint import check_fit, load_checkpoint, merge, projector
from fast3d_core.models.chat_scene.lora import check_base
from fast3d_core.models.chat_scene.tokenizer import ChatSceneTokenizer, tidy_answer
from fast3d_core.plan import TOKENS_PER_OBJECT, Plan
from fast3d_core.runtime.devices import pick_device

# Chat-Scene's conversation (its prompts/system.txt and instruction.txt on one line).
PREFIX = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. The conversation centers around an indoor scene. Object information: ["
)
AFTER_OBJECTS = "]. USER: "
QUESTION = " {prompt} ASSISTANT: "

_SCENES_BYTES = 1 << 30  # of embedded scenes, kept on the device; one is 3 MB for Vicuna-7B in bf16


@dataclass(frozen=True)
class Answer:
    """An answer as text, and how it came about."""

    text: str
    generation: Generation


class ChatScene:
    """The model, in evaluation mode.

    Attributes:
        tokenizer, llm: the LLaMA with the checkpoint merged in.
        objects: object slots of a prompt; each takes three tokens.
        ignored: names in the checkpoint that are not used.
    """

    def __init__(
        self,
        llm: Llm,
        tokenizer: ChatSceneTokenizer,
        projectors: tuple[nn.Module, nn.Module],
        fixed_embeds: tuple[Tensor, Tensor],
        objects: int,
        ignored: Sequence[str] = (),
    ):
        self.llm = llm
        self.tokenizer = tokenizer
        self.objects = objects
        self.ignored = list(ignored)
        self._project_3d, self._project_2d = projectors
        self._prefix, self._after_objects = fixed_embeds
        self._prefixes: dict[str, tuple[Scene, Tensor]] = {}  # oldest first
        self.engine = FastEngine(llm)

    @classmethod
    def from_config(cls, config: Config, device: torch.device | None = None) -> "ChatScene":
        """Loads the released files that `config.model` names, onto `device` if given, else onto `config.model.device`.

        Raises:
            DataError: a file is missing, damaged, or does not fit the others.
            UsageError: the device is not there.
        """
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
        fixed = tuple(
            llm.model.embed_tokens(torch.tensor(ids, device=device))
            for ids in (tokenizer.encode(PREFIX, bos=True), tokenizer.encode(AFTER_OBJECTS))
        )
        projectors = tuple(projector(checkpoint, name).to(device) for name in ("object_proj", "object_img_proj"))
        merge(checkpoint, llm, config.model.lora_alpha)  # on the device: a CPU takes minutes for 7B
        return cls(llm, tokenizer, projectors, fixed, objects, checkpoint.ignored)  # type: ignore[arg-type]

    def release(self) -> None:
        """Gives back what is kept from batch to batch: embedded scenes, and what the engine keeps."""
        self._prefixes.clear()
        self.engine.release()

    @property
    def device(self) -> torch.device:
        return self.llm.device

    @property
    def shape(self) -> LlmShape:
        return shape_of(self.llm.config)

    @property
    def feature_widths(self) -> tuple[int, int]:
        """Widths of the 3D and the 2D features it reads."""
        return self._project_3d[0].in_features, self._project_2d[0].in_features  # type: ignore[index]

    @torch.inference_mode()
    def object_embeds(self, scene: Scene) -> Tensor:
        """The scene's visual tokens, (3 x objects, hidden): identifier, 3D feature, 2D feature of each slot in turn."""
        widths = (scene.features_3d.shape[1], scene.features_2d.shape[1])
        if widths != self.feature_widths:
            raise DataError(
                f"the features of {scene.scene_id} are {widths[0]} (3D) and {widths[1]} (2D) wide, "
                f"the checkpoint reads {self.feature_widths[0]} and {self.feature_widths[1]}"
            )
        embeds = torch.empty(self.objects, TOKENS_PER_OBJECT, self.llm.config.hidden_size, device=self.device)
        first = self.tokenizer.vocab_size
        embeds[:, 0] = self.llm.model.embed_tokens.weight[first : first + self.objects]
        pairs = ((scene.features_3d, self._project_3d), (scene.features_2d, self._project_2d))
        for place, (features, project) in enumerate(pairs, start=1):
            embeds[:, place] = project(nn.functional.normalize(features.to(self.device), dim=-1))
        return embeds.flatten(0, 1).to(self.llm.dtype)

    @torch.inference_mode()
    def prefix(self, scene: Scene) -> Prompt:
        """What stands before every question about a scene: system prefix | visual tokens | `]. USER: `, embedded."""
        known, embeds = self._prefixes.get(scene.scene_id, (None, None))
        if known is not scene or embeds is None:
            embeds = torch.cat([self._prefix, self.object_embeds(scene), self._after_objects])
            self._prefixes.pop(scene.scene_id, None)
            if (1 + len(self._prefixes)) * embeds.nbytes > _SCENES_BYTES:
                del self._prefixes[next(iter(self._prefixes))]
            self._prefixes[scene.scene_id] = (scene, embeds)
        return Prompt(embeds, len(self._prefix), TOKENS_PER_OBJECT * self.objects, prefix=embeds)

    @torch.inference_mode()
    def text(self, question: str, answer: str = "") -> Tensor:
        """Question, `ASSISTANT: `, and the answer if there is one, as one text, embedded: (tokens, hidden)."""
        ids = self.tokenizer.encode(QUESTION.format(prompt=question) + answer)
        return self.llm.model.embed_tokens(torch.tensor(ids, device=self.device))

    def prompt(self, scene: Scene, question: str) -> Prompt:
        """System prefix | visual tokens | `]. USER: ` | question `ASSISTANT: `, embedded."""
        return self.prompts([scene], [question])[0]

    @torch.inference_mode()
    def prompts(self, scenes: Sequence[Scene], questions: Sequence[str]) -> list[Prompt]:
        """The prompt of each question about its scene; the questions of a batch are embedded at once."""
        ids = [self.tokenizer.encode(QUESTION.format(prompt=question)) for question in questions]
        embeds = self.llm.model.embed_tokens(torch.tensor([i for one in ids for i in one], device=self.device))
        texts = embeds.split([len(one) for one in ids])
        return [
            replace(prefix, embeds=torch.cat([prefix.embeds, text]))
            for prefix, text in zip(map(self.prefix, scenes), texts, strict=True)
        ]

    def question_rows(self, question: str) -> int:
        """How many rows of `text` the published extraction takes for the question: one more than it has tokens.

        It counts the tokens of " {prompt} " alone, whose trailing space is a token only there.
        """
        return len(self.tokenizer.encode(f" {question} "))

    def generate(
        self,
        prompts: Sequence[Prompt],
        plans: Sequence[Plan],
        settings: GenerationConfig,
        engine: str = "fast",
        reuse_scene: bool = False,
    ) -> list[Answer]:
        """Answers to a batch of prompts, each under its own plan.

        Args:
            engine: "fast" drops tokens and runs the batch at once; "reference" masks them, one sample after another.
            reuse_scene: the fast engine computes a scene once for all questions about it (see `engine.fast`).
        """
        return [self.answer(one) for one in self.generations(prompts, plans, settings, engine, reuse_scene)]

    def generations(
        self,
        prompts: Sequence[Prompt],
        plans: Sequence[Plan],
        settings: GenerationConfig,
        engine: str = "fast",
        reuse_scene: bool = False,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[Generation]:
        """What `generate` makes answers of; for `meanwhile`, see `FastEngine.generate`."""
        bos, eos = self.tokenizer.bos_id, self.tokenizer.eos_id
        if engine == "fast":
            return self.engine.generate(prompts, plans, settings, bos, eos, reuse_scene, meanwhile)
        meanwhile()
        pairs = zip(prompts, plans, strict=True)
        return [reference.generate(self.llm, prompt, plan, settings, bos, eos) for prompt, plan in pairs]

    def answer(self, generation: Generation) -> Answer:
        """As text."""
        return Answer(tidy_answer(self.tokenizer.decode(generation.ids)), generation)


def check_vocabulary(tokenizer: ChatSceneTokenizer, vocab: int) -> None:
    """Raises `DataError` unless the tokeniser has as many tokens as the LLM, without its object tokens."""
    if tokenizer.vocab_size != vocab:
        raise DataError(
            f"model.llm: tokenizer.model has {tokenizer.vocab_size} tokens, config.json says {vocab}; "
            "are both from the same model?"
        )


def prompt_tokens(tokenizer: ChatSceneTokenizer, question: str) -> int:
    """Tokens of a prompt that are not visual."""
    fixed = len(tokenizer.encode(PREFIX, bos=True)) + len(tokenizer.encode(AFTER_OBJECTS))
    return fixed + len(tokenizer.encode(QUESTION.format(prompt=question)))
