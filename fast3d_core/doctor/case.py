"""What is examined: the files that a config names, each loaded once, by the loaders that `fast3d eval` uses."""

import contextlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from fast3d_core.benchmarks.questions import annotation_file, load_samples
from fast3d_core.benchmarks.references import References
from fast3d_core.config import Config, need_path
from fast3d_core.data.annotations import Sample, Scenes
from fast3d_core.doctor.findings import ModelChecks, NotCheckedError, Options
from fast3d_core.errors import Fast3DError, UsageError
from fast3d_core.llm.cost import LlmShape
from fast3d_core.maps.kind import AttentionMaps
from fast3d_core.maps.origin import load_known_maps
from fast3d_core.models.base import SceneModel
from fast3d_core.models.registry import scene_model
from fast3d_core.plan import Units
from fast3d_core.pruning import METHODS
from fast3d_core.pruning.options import settings_taken
from fast3d_core.registry import MODELS
from fast3d_core.runtime.devices import pick_device
from fast3d_core.text import first_line

T = TypeVar("T")


class Case:
    """The files behind one config.

    What cannot be loaded raises its loader's error for the first check that asks, and `NotCheckedError` for the others,
    so that one damaged file is reported once; likewise where a second loader meets what a first one has said in the
    same words. Raises `UsageError` for a method that there is not, and for live maps where no method follows any.
    """

    def __init__(self, options: Options):
        settings_taken(options.methods)
        self.options = options
        self.methods = list(dict.fromkeys(options.methods or METHODS))
        self._loaded: dict[str, Any] = {}
        self._failed: dict[str, str] = {}  # name -> the name that was reported
        self._messages: dict[str, str] = {}  # of what failed, by the error
        if options.live and not self.needs_maps:
            raise UsageError(f"--gap live means nothing to {', '.join(self.methods)}")

    def once(self, name: str, load: Callable[[], T]) -> T:
        """What `load` returns, called once. Callers get what it needs of the case before, so that of two files the
        one that fails is the damaged one."""
        if name in self._failed:
            raise NotCheckedError(self._failed[name])
        if name not in self._loaded:
            try:
                self._loaded[name] = load()
            except NotCheckedError:
                raise
            except Exception as problem:
                self._failed[name] = self._messages.setdefault(str(problem), name)
                if self._failed[name] != name:
                    raise NotCheckedError(self._failed[name]) from None
                raise
        loaded: T = self._loaded[name]
        return loaded

    @property
    def config(self) -> Config:
        return self.once("the config", self.options.load)

    @property
    def needs_maps(self) -> bool:
        """Whether any of the methods follows attention maps."""
        return any(METHODS[name].needs_map for name in self.methods)

    @property
    def needs_alpha(self) -> bool:
        """Whether any of the methods takes an alpha."""
        return "alpha" in settings_taken(self.methods)

    @property
    def device(self) -> torch.device:
        return self.once("the device", lambda: pick_device(self.config.model.device))

    @property
    def model(self) -> type[SceneModel]:
        """The scene model that the config names."""
        return self.once("the scene model", lambda: scene_model(self.config))

    @property
    def model_checks(self) -> ModelChecks:
        """What is looked at for that model alone."""
        if not self.model.checks:
            return ModelChecks()
        try:
            found: ModelChecks = pkgutil.resolve_name(self.model.checks)
        except (Exception, SystemExit) as error:  # whatever a stranger's module does
            why = f"its checks {self.model.checks} cannot be imported ({type(error).__name__}: {first_line(error)})"
            raise MODELS.broken(self.model.kind, why) from error
        return found

    @property
    def units(self) -> Units:
        """Those of a prompt."""
        return self.model.units_of(self.config)

    @property
    def shape(self) -> LlmShape:
        """The LLM's, with all tokens in its vocabulary."""
        return self.once("the LLM's shape", lambda: self.model.shape_of(self.config))

    @property
    def annotations(self) -> Path:
        return self.once("the annotations folder", lambda: need_path(self.config, "data.annotations"))

    def samples(self, dataset: str) -> list[Sample]:
        folder = self.annotations
        return self.once(f"the questions of {dataset}", lambda: load_samples(folder, dataset))

    @property
    def scenes(self) -> Scenes:
        folder, objects = self.annotations, self.config.data.max_objects
        return self.once("the feature files", lambda: Scenes(folder, objects))

    @property
    def maps_folder(self) -> Path:
        """That of the predicted maps."""
        return self.once("the folder of maps", lambda: need_path(self.config, "maps.predicted"))

    def maps(self, dataset: str) -> AttentionMaps:
        """The predicted maps, made sure, where that is known, that they are of these questions."""

        def load() -> AttentionMaps:
            questions = annotation_file(annotations, dataset)
            return load_known_maps(folder, dataset, questions, count, objects=objects, what="maps.predicted")[0]

        folder, objects, annotations = self.maps_folder, self.config.data.max_objects, self.annotations
        count = len(self.samples(dataset))
        return self.once(f"the maps of {dataset}", load)

    @property
    def references(self) -> References:
        folder = self.annotations
        return self.once("the references", lambda: References(folder))

    @property
    def datasets(self) -> list[str]:
        """Those of the config whose questions can be read."""
        found: list[str] = []
        for dataset in self.config.data.datasets:
            with contextlib.suppress(NotCheckedError, Fast3DError):  # which `annotations.questions` reports
                self.samples(dataset)
                found.append(dataset)
        if not found:
            raise NotCheckedError("the questions")
        return found

    @property
    def present(self) -> dict[str, Tensor]:
        """Scene -> (objects,) bool, of the scenes that are asked about and have features; all of them are read."""

        def load() -> dict[str, Tensor]:
            asked = dict.fromkeys(sample.scene_id for name in self.datasets for sample in self.samples(name))
            return {name: scenes[name].present for name in asked if name in scenes}

        scenes = self.scenes
        return self.once("the features", load)

    def longest_text(self) -> int:
        """Tokens, of those that are not visual, of the prompt whose question has the most characters."""
        count = self.once("the prompts' tokens", lambda: self.model.text_counter(self.config))
        prompts = [sample.prompt for dataset in self.datasets for sample in self.samples(dataset)]
        return count(max(prompts, key=len))
