"""Answers one question after another, about whichever scene, by whichever method; what is loaded stays loaded."""

import zlib
from functools import cached_property

import torch
from torch import Tensor

from fast3d_core.asking.reply import Reply
from fast3d_core.asking.rooms import Rooms, SceneObject
from fast3d_core.asking.wording import dataset_of, prompt_of
from fast3d_core.config import Config, need_checkpoint, need_path
from fast3d_core.data.annotations import Sample, Scene
from fast3d_core.errors import DataError, UsageError
from fast3d_core.gap.checkpoint import load_gap
from fast3d_core.gap.inputs import GapInputs, check_fit
from fast3d_core.gap.predictor import MapPredictor
from fast3d_core.gap.text import QuestionTokenizer
from fast3d_core.llm.weights import Generation, Prompt
from fast3d_core.models.base import SceneModel
from fast3d_core.models.loading import load_model
from fast3d_core.models.registry import scene_model
from fast3d_core.plan import cost, pruning_ratio, scene_flops
from fast3d_core.pruning import PlanRequest, Pruner
from fast3d_core.pruning.options import run_name
from fast3d_core.runtime.devices import out_of_memory_says, pick_device
from fast3d_core.runtime.progress import Progress, Silent
from fast3d_core.runtime.stopwatch import Stopwatch


class Asker:
    """A model, its GAP network and its scenes, each loaded when it is first needed.

    Answers are those of `fast3d eval` with the fast engine at batch size 1, but for random's, whose draw depends on the
    scene and the words here, and not on a question's number. `eval.reuse_scene` reads a scene once for
    all questions about it.

    Args:
        config: names the files.
        progress: is told when the model is loaded.

    Attributes:
        rooms: what can be asked about.

    Raises:
        UsageError, DataError: the device is not there, or the features are not.
    """

    def __init__(self, config: Config, progress: Progress | None = None):
        self.config = config
        self._units = scene_model(config).units_of(config)
        self.rooms = Rooms(need_path(config, "data.annotations"), self._units.count)
        self._device = pick_device(config.model.device)
        self._progress = progress or Silent()

    def ask(self, question: str, scene: str, pruner: Pruner, task: str = "qa") -> Reply:
        """The answer to a question about a scene.

        Args:
            question: see `prompt_of` for how `task` words it.

        Raises:
            UsageError: there is no such scene or object, or the question is empty or longer than the LLM can read.
            DataError: the model, or the GAP network for methods that follow a map, cannot be loaded.
        """
        room, objects = self.rooms.scene(scene), self.rooms.objects(scene)
        prompt = prompt_of(question, task, scene, objects)
        self.load(pruner)
        self._check_length(prompt)
        with out_of_memory_says(f"{self._device} is out of memory; free some, or prune more"):
            return self._answer(question, task, prompt, room, objects, pruner)

    def load(self, pruner: Pruner) -> None:
        """Loads what the method needs, and what is not loaded yet. Raises `DataError`."""
        if pruner.needs_map:
            _ = self._gap  # the smaller, and the one that is more often missing, first
        _ = self.model

    @cached_property
    def model(self) -> SceneModel:
        """The scene model."""
        return load_model(self.config, self.rooms.scenes, self._device, self._progress)

    @cached_property
    def _gap(self) -> tuple[MapPredictor, QuestionTokenizer]:
        try:
            need_checkpoint(self.config, "gap.checkpoint")
        except DataError as missing:
            raise DataError(
                f"{missing}; methods that follow a map need this network: `fast3d download gap roberta`, or "
                "`fast3d train-gap`, or ask with --method vanilla"
            ) from None
        network = load_gap(self.config, self._device)
        check_fit(self.config, self.rooms.scenes, network)
        return MapPredictor(network), QuestionTokenizer(self.config.gap.text_encoder)

    def _check_length(self, prompt: str) -> None:
        positions, visual = self.model.positions, self._units.visual
        longest = positions - visual - self.config.generation.max_new_tokens
        text = self.model.text_tokens(prompt)
        if longest < 1:
            raise UsageError(
                f"generation.max_new_tokens {self.config.generation.max_new_tokens} leaves no room for a question: the "
                f"LLM reads {positions} tokens in all, with the {visual} of a scene"
            )
        if text > longest:
            raise UsageError(
                f"the question takes {text} tokens with the words around it; beside the scene and the answer "
                f"(generation.max_new_tokens) the LLM reads {longest}"
            )

    def _answer(
        self, question: str, task: str, text: str, room: Scene, objects: list[SceneObject], pruner: Pruner
    ) -> Reply:
        model, reuse = self.model, self.config.eval.reuse_scene
        watch = Stopwatch(self._device)
        scores, gap_flops = self._map(text, room) if pruner.needs_map else (None, 0.0)
        watch.mark("gap")
        number = zlib.crc32(f"{room.scene_id}\n{text}".encode())
        plan = pruner.plan(PlanRequest(dataset_of(task), number, self._units, scores))
        watch.mark("plan")
        prompt = model.prompt(room, text)
        watch.mark("prompt")
        known = reuse and model.engine.knows(prompt)
        state = model.engine.prefill([prompt], [plan], self.config.generation, reuse)
        watch.mark("prefill")
        (generation,) = model.engine.decode(state, model.bos_id, model.eos_id)
        watch.mark("decode")
        answer = model.answer(generation).text
        watch.mark("text")
        flops, unpruned = self._flops(prompt, generation, plan.layer, reuse, known)
        by_slot = {one.slot: one for one in objects}
        share = None if scores is None else torch.softmax(scores, dim=-1).tolist()
        return Reply(
            scene=room.scene_id,
            question=question,
            task=task,
            prompt=text,
            method=run_name(pruner),
            text=answer,
            named=tuple(by_slot.get(slot, SceneObject(slot)) for slot in dict.fromkeys(model.mentioned(answer))),
            kept=tuple(by_slot[slot] for slot in self._kept_slots(generation.kept, share) if slot in by_slot),
            layer=plan.layer,
            layers=model.shape.layers,
            visual=plan.visual,
            kept_tokens=len(generation.kept),
            pruned=100 * pruning_ratio(model.shape.layers, plan.layer, plan.visual, len(generation.kept)),
            flops=flops + gap_flops,
            flops_unpruned=unpruned,
            attention=None if share is None else tuple(share),
            seconds=watch.seconds(),
            reuse_scene=reuse,
        )

    def _map(self, prompt: str, room: Scene) -> tuple[Tensor, float]:
        """The map (objects,) that GAP predicts for a prompt, on the CPU, and what that costs in FLOPs."""
        predictor, tokenizer = self._gap
        name = room.scene_id
        sample = Sample("", 0, name, prompt, 0, 0, 0, (), 0, None)
        inputs = GapInputs([sample], {name: room}, {name: self.rooms.locations(name)}, tokenizer, self._device)
        scores = predictor(inputs.batch(torch.zeros(1, dtype=torch.long)))[0].cpu()
        if not scores.isfinite().all():
            raise DataError(f"{self.config.gap.checkpoint} predicts NaN or infinity for {name}; train it again")
        return scores, predictor.network.flops(inputs.tokens(0))

    def _flops(
        self, prompt: Prompt, generation: Generation, layer: int, reuse: bool, known: bool
    ) -> tuple[float, float]:
        """Of the LLM, and what it would be unpruned; reading the scene counts where it was not known."""
        shape = self.model.shape

        def of(layer: int, count: int, shared: int) -> int:
            spent = cost(
                shape,
                layer=layer,
                text=len(prompt) - prompt.visual,
                visual=prompt.visual,
                count=count,
                beams=self.config.generation.beams,
                steps=generation.steps,
                element_bytes=self.model.llm.dtype.itemsize,
                known=shared,
            )
            return spent.prefill_flops + spent.decode_flops

        scene = scene_flops(shape, prompt.shared) if reuse and not known else 0
        return of(layer, len(generation.kept), prompt.shared if reuse else 0) + scene, of(0, prompt.visual, 0)

    def _kept_slots(self, kept: Tensor, share: list[float] | None) -> list[int]:
        """The slots of these visual tokens."""
        slots = self._units.of(kept.tolist())
        return slots if share is None else sorted(slots, key=lambda slot: -share[slot])
