"""Answers one question after another, about whichever scene, by whichever method; what is loaded stays loaded."""

import zlib
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

import torch

from fast3d_core.asking.reply import Reply
from fast3d_core.asking.rooms import Rooms, SceneObject
from fast3d_core.asking.wording import dataset_of, prompt_of
from fast3d_core.config import Config, need_checkpoint, need_path
from fast3d_core.data.annotations import Sample, Scene
from fast3d_core.errors import DataError, UsageError
from fast3d_core.evaluation.context import Context
from fast3d_core.evaluation.costs import entry_cost, made_entry, pruned_share
from fast3d_core.evaluation.journal import Entry
from fast3d_core.evaluation.planner import Planner
from fast3d_core.gap.predictor import MapPredictor
from fast3d_core.llm.cost import scene_flops
from fast3d_core.maps.kind import AttentionMap
from fast3d_core.models.base import SceneModel
from fast3d_core.models.loading import load_model
from fast3d_core.models.registry import scene_model
from fast3d_core.plan import Units
from fast3d_core.pruning import BASELINE, Pruner
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
        progress: is called when the model is loaded.

    Attributes:
        rooms: what can be asked about.

    Raises:
        UsageError, DataError: the device is not there, or the features are not.
    """

    def __init__(self, config: Config, progress: Progress | None = None):
        self.config = config
        self._units = scene_model(config).units_of(config)
        self.rooms = Rooms(need_path(config, "data.annotations"), self._units.count)
        self._context = Context(
            lambda: self.model.shape.layers, self.rooms.scene, self.rooms.detections.boxes, self.rooms.detections.labels
        )
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
    def _gap(self) -> MapPredictor:
        try:
            need_checkpoint(self.config, "gap.checkpoint")
        except DataError as missing:
            raise DataError(
                f"{missing}; methods that follow a map need this network: `fast3d download gap roberta`, or "
                f"`fast3d train-gap`, or ask with --method {BASELINE}"
            ) from None
        return MapPredictor.from_config(self.config, self.rooms.scenes, self._device)

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
        sample = _sample(room.scene_id, text, dataset_of(task))
        maps, gap_flops = self._map(sample, room) if pruner.needs_map else (None, None)
        watch.mark("gap")
        (plan,) = Planner(pruner, self._units, self._context)([sample], maps)
        watch.mark("plan")
        prompt = model.prompt(room, text)
        watch.mark("prompt")
        known = reuse and model.engine.is_cached(prompt)
        state = model.engine.prefill([prompt], [plan], self.config.generation, reuse)
        watch.mark("prefill")
        (generation,) = model.engine.decode(state, model.bos_id, model.eos_id)
        watch.mark("decode")
        answer = model.answer(generation).text
        watch.mark("text")
        entry = made_entry(sample, prompt, generation, answer, reuse, gap_flops)
        flops, unpruned = self._flops(entry, prompt.visual, known)
        by_slot = {one.slot: one for one in objects}
        share = None if maps is None else torch.softmax(maps.logits()[0], dim=-1).tolist()
        kept, layers = range(prompt.visual) if entry.kept is None else entry.kept, model.shape.layers
        return Reply(
            scene=room.scene_id,
            question=question,
            task=task,
            prompt=text,
            method=run_name(pruner),
            text=entry.pred,
            named=tuple(by_slot.get(slot, SceneObject(slot)) for slot in dict.fromkeys(model.mentioned(entry.pred))),
            kept=tuple(by_slot[slot] for slot in _kept_slots(self._units, kept, share) if slot in by_slot),
            layer=entry.stages[0][0] if entry.stages else 0,
            layers=layers,
            visual=prompt.visual,
            kept_tokens=len(kept),
            stages=tuple((at, prompt.visual if own is None else len(own)) for at, own in entry.stages),
            pruned=100 * pruned_share(entry, layers, prompt.visual),
            flops=flops + (gap_flops or 0.0),
            flops_unpruned=unpruned,
            attention=None if share is None else tuple(share),
            seconds=watch.seconds(),
            reuse_scene=reuse,
        )

    def _map(self, sample: Sample, room: Scene) -> tuple[AttentionMap, float]:
        """The map (1, objects) that GAP predicts for a question, and what that costs in FLOPs."""
        name = room.scene_id
        inputs = self._gap.inputs([sample], {name: room}, {name: self.rooms.locations(name)})
        return self._gap(inputs, [sample]), self._gap.flops(inputs, sample)

    def _flops(self, entry: Entry, visual: int, known: bool) -> tuple[float, float]:
        """Of the LLM, and what it would be unpruned; reading the scene counts where it was not known."""
        shape = self.model.shape

        def of(one: Entry) -> int:
            spent = entry_cost(one, shape, visual, self.config.generation.beams, self.model.llm.dtype.itemsize)
            return spent.prefill_flops + spent.decode_flops

        scene = scene_flops(shape, entry.cached) if entry.cached and not known else 0
        return of(entry) + scene, of(replace(entry, stages=(), cached=0))


def _sample(scene: str, prompt: str, dataset: str) -> Sample:
    """A question of one's own as a sample; its number, by which random methods draw, is of its scene and words."""
    number = zlib.crc32(f"{scene}\n{prompt}".encode())
    return Sample(dataset, number, scene, prompt, 0, 0, 0, (), 0, None)


def _kept_slots(units: Units, kept: Iterable[int], share: list[float] | None) -> list[int]:
    """The slots of these visual tokens."""
    slots = units.of(kept)
    return slots if share is None else sorted(slots, key=lambda slot: -share[slot])
