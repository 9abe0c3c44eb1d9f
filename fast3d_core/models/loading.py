"""Loading the scene model that a config names, with errors that say what a user can do."""

import torch

from fast3d_core.config import Config
from fast3d_core.data.annotations import Scenes
from fast3d_core.models.base import SceneModel
from fast3d_core.models.registry import scene_model
from fast3d_core.runtime.devices import out_of_memory_says
from fast3d_core.runtime.progress import Progress


def load_model(config: Config, scenes: Scenes, device: torch.device, progress: Progress) -> SceneModel:
    """The model on `device`.

    Raises:
        UsageError: see `scene_model`.
        DataError: see `SceneModel.from_config`; or it does not fit the scenes' features or the memory.
    """
    progress.loading()
    too_large = f"the model does not fit into the memory of {device}; try --set model.dtype=bfloat16 or another device"
    with out_of_memory_says(too_large):
        model = scene_model(config).from_config(config, device)
    model.check_scenes(scenes)
    progress.loaded(model.ignored)
    return model
