"""fast3d as a library: prune the visual tokens of 3D multimodal LLMs. `fast3d_core.pruning` has the methods."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fast3d_core.asking.asker import Asker
    from fast3d_core.benchmarks.questions import load_samples
    from fast3d_core.config import Config
    from fast3d_core.data.annotations import Sample, Scene, Scenes
    from fast3d_core.defaults import load_config
    from fast3d_core.models.base import SceneModel
    from fast3d_core.models.chat_scene.model import ChatScene
    from fast3d_core.plan import Plan

__version__ = "0.1.0"
"""Among the settings of runs, stores and trainings, so that an upgrade does not continue an old one."""

_HOME = {
    "Asker": "asking.asker",
    "ChatScene": "models.chat_scene.model",
    "SceneModel": "models.base",
    "Config": "config",
    "Plan": "plan",
    "Sample": "data.annotations",
    "Scene": "data.annotations",
    "Scenes": "data.annotations",
    "load_config": "defaults",
    "load_samples": "benchmarks.questions",
}

__all__ = [
    "Asker",
    "ChatScene",
    "Config",
    "Plan",
    "Sample",
    "Scene",
    "SceneModel",
    "Scenes",
    "load_config",
    "load_samples",
]


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use: `fast3d --help` must not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
