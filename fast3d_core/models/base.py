"""What a scene model is: scene and question in, answer out, by an LLM that reads some visual tokens of the scene.

Evaluation, asking, bench, extraction and the doctor know a model by this interface alone; `registry.py` finds the one
that `model.kind` names. What commands need before any weights are loaded (`--dry-run`, `--batch auto`, the settings of
a run) are class methods that take the config.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from fast3d_core import mentions
from fast3d_core.config import Config
from fast3d_core.data.annotations import Scene, Scenes
from fast3d_core.errors import UsageError
from fast3d_core.llm import reference
from fast3d_core.llm.cost import LlmShape
from fast3d_core.llm.engine.fast import FastEngine
from fast3d_core.llm.families import Llm
from fast3d_core.llm.generation import Generation, GenerationConfig, Prompt
from fast3d_core.llm.weights import shape_of
from fast3d_core.plan import Plan, Units


@dataclass(frozen=True)
class Answer:
    """An answer as text, and how it came about."""

    text: str
    generation: Generation


class SceneModel(ABC):
    """A scene model, loaded and in evaluation mode.

    A scene has as many units as `data.max_objects` says, and unit i is what slot i of its features shows: so attention
    maps, boxes and `<OBJxxx>` count units. Annotation files and the published scorers know `<OBJxxx>` only; a model
    that spells units otherwise translates in `prompts` and `decode`.

    Class attributes:
        kind: its name in the config.
        unit_tokens: visual tokens of a unit.
        shares_prefix: whether the visual tokens stand before the question, in a run of tokens that is the same for all
            questions about a scene. `eval.reuse_scene` and `fast3d extract` rely on that; without, they are refused,
            and `prefix`, `text` and `question_rows` are not called.
        checks: "module:name" of what `fast3d doctor` looks at beside what every model needs (a `doctor.findings.
            ModelChecks`); empty for nothing. It is a name, as the doctor stands above the models.

    Attributes:
        llm: the LLM; engine: the fast engine that runs it.
        units: of every prompt.
        bos_id, eos_id: the tokens by which an answer begins and ends.
        ignored: names of tensors in its files that are not used.
    """

    kind: ClassVar[str]
    unit_tokens: ClassVar[int]
    shares_prefix: ClassVar[bool] = True
    checks: ClassVar[str] = ""

    def __init__(self, llm: Llm, units: Units, bos_id: int, eos_id: int, ignored: Sequence[str] = ()):
        self.llm = llm
        self.units = units
        self.bos_id, self.eos_id = bos_id, eos_id
        self.ignored = list(ignored)
        self.engine = FastEngine(llm)

    # --- what is known without weights

    @classmethod
    def units_of(cls, config: Config) -> Units:
        """The units of every prompt."""
        return Units(config.data.max_objects, cls.unit_tokens)

    @classmethod
    @abstractmethod
    def shape_of(cls, config: Config) -> LlmShape:
        """The sizes of the LLM, with all tokens in its vocabulary. Raises `DataError` where a file is missing."""

    @classmethod
    @abstractmethod
    def text_counter(cls, config: Config) -> Callable[[str], int]:
        """A function that counts, for a question, the tokens of its prompt that are not visual.

        Raises `DataError` where the tokeniser is missing or damaged.
        """

    @classmethod
    @abstractmethod
    def files(cls, config: Config) -> list[Path]:
        """The files that answers depend on, but for those of the scenes and questions.

        Their fingerprints are among a run's settings. Raises `DataError` where one is missing.
        """

    @classmethod
    @abstractmethod
    def from_config(cls, config: Config, device: torch.device | None = None) -> "SceneModel":
        """Loads the model onto `device` if given, else onto `config.model.device`.

        Raises:
            DataError: a file is missing, damaged, or does not fit the others.
            UsageError: the device is not there.
        """

    @classmethod
    def random(
        cls,
        shape: LlmShape,
        objects: int,
        features: int,
        words: Sequence[str],
        device: torch.device,
        dtype: torch.dtype,
    ) -> "SceneModel":
        """A model with random weights, drawn by torch's generators, for `fast3d bench --llm 7b`.

        Args:
            shape: of the LLM; its vocabulary is without the tokens that the model adds.
            objects: units of a prompt; features: the width of a unit's 3D and of its 2D features.
            words: each of which its tokeniser makes one token.

        Raises `UsageError` where the model has no such form.
        """
        raise UsageError(f"model.kind {cls.kind} has no form with random weights; bench it by --llm and a config file")

    @classmethod
    def mention(cls, unit: int) -> str:
        """How a question or an answer names a unit: `<OBJ017>`."""
        return mentions.mention(unit)

    @classmethod
    def mentioned(cls, text: str) -> list[int]:
        """The units that a text names, in order."""
        return mentions.mentioned(text)

    # --- prompts

    @abstractmethod
    def prompts(self, scenes: Sequence[Scene], questions: Sequence[str]) -> list[Prompt]:
        """The prompt of each question about its scene, on the model's device.

        The visual tokens of a prompt stand in one run, unit by unit, wherever in the prompt.
        """

    @abstractmethod
    def text_tokens(self, question: str) -> int:
        """How many tokens of the question's prompt are not visual; see `text_counter`."""

    def prompt(self, scene: Scene, question: str) -> Prompt:
        """The prompt of one question."""
        return self.prompts([scene], [question])[0]

    def check_scenes(self, scenes: Scenes) -> None:  # noqa: B027 (a model may have nothing to check)
        """Raises `DataError` where the model cannot read these scenes' features."""

    def prefix(self, scene: Scene) -> Prompt:
        """What stands before every question about a scene, its visual tokens included, as a prompt without question.

        Its `prefix` is the very same tensor as long as the same scene is asked about.
        """
        raise NotImplementedError

    def text(self, question: str, answer: str = "") -> Tensor:
        """What stands behind `prefix`: the question and the answer, embedded as one text, (tokens, hidden)."""
        raise NotImplementedError

    def question_rows(self, question: str) -> int:
        """How many rows of `text` are the question; attention maps of the question (`a_map_ori`) are over these."""
        raise NotImplementedError

    # --- answers

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The answer that these token ids are, BOS in front and EOS at the end where there are any, as it is scored."""

    def answer(self, generation: Generation) -> Answer:
        """A generation as text."""
        return Answer(self.decode(generation.ids), generation)

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
            reuse_scene: the fast engine reads a scene once for all questions about it (see `llm.engine.fast`).
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
        bos, eos = self.bos_id, self.eos_id
        if engine == "fast":
            return self.engine.generate(prompts, plans, settings, bos, eos, reuse_scene, meanwhile)
        meanwhile()
        pairs = zip(prompts, plans, strict=True)
        return [reference.generate(self.llm, prompt, plan, settings, bos, eos) for prompt, plan in pairs]

    # --- the LLM

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.llm.device

    @property
    def shape(self) -> LlmShape:
        """The sizes of the LLM."""
        return shape_of(self.llm.config)

    @property
    def positions(self) -> int:
        """The longest prompt and answer, in tokens, that the LLM was trained on."""
        longest: int = self.llm.config.max_position_embeddings
        return longest

    def release(self) -> None:
        """Gives back what is kept from batch to batch; it is rebuilt where it is needed."""
        self.engine.release()
