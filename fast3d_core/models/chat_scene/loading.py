"""Loading Chat-Scene for some scenes, with the errors that a user can mend."""

import torch

from fast3d_core.config import Config
from fast3d_core.data.annotations import Scenes
from fast3d_core.errors import DataError
from fast3d_core.models.chat_scene.model import ChatScene
from fast3d_core.runtime.devices import out_of_memory_says
from fast3d_core.runtime.progress import Progress


def load_model(config: Config, scenes: Scenes, device: torch.device, progress: Progress) -> ChatScene:
    """The model on `device`. Raises `DataError` if it does not fit the features or the memory."""
    progress.loading()
    too_large = f"the model does not fit into the memory of {device}; try --set model.dtype=bfloat16 or another device"
    with out_of_memory_says(too_large):
        model = ChatScene.from_config(config, device)
    check_widths(config, scenes, model.feature_widths)
    progress.loaded(model.ignored)
    return model


def check_widths(config: Config, scenes: Scenes, wanted: tuple[int, int]) -> None:
    """Raises `DataError` unless the 3D and the 2D features have the widths that the checkpoint reads."""
    if (scenes.width_3d, scenes.width_2d) != wanted:
        raise DataError(
            f"the features in {scenes.folder} are {scenes.width_3d} (3D) and {scenes.width_2d} (2D) wide, "
            f"{config.model.checkpoint} reads {wanted[0]} and {wanted[1]}"
        )
