"""The scene models by name: those of this package, and those that others register under `fast3d.models`.

A model's module is imported when the config names it, so that a broken package disturbs none of the others.
"""

from fast3d_core import plugins
from fast3d_core.config import Config
from fast3d_core.errors import UsageError
from fast3d_core.models.base import SceneModel

GROUP = "fast3d.models"
"""The entry-point group."""

BUILT_IN = {"chat-scene": "fast3d_core.models.chat_scene.model:ChatScene"}


def kinds() -> list[str]:
    """What `model.kind` may be."""
    return plugins.names(GROUP, BUILT_IN)


def model_class(kind: str) -> type[SceneModel]:
    """The scene model of that name. Raises `UsageError`, see `plugins.load`."""
    found: type[SceneModel] = plugins.load(GROUP, kind, BUILT_IN, SceneModel, "model.kind")
    return found


def scene_model(config: Config) -> type[SceneModel]:
    """The scene model that `model.kind` names.

    Raises `UsageError`, see `model_class`; or where `eval.reuse_scene` asks for what the model does not do.
    """
    found = model_class(config.model.kind)
    if config.eval.reuse_scene:
        check_shares_prefix(found, "eval.reuse_scene (--reuse-scene)")
    return found


def check_shares_prefix(model: type[SceneModel], what: str) -> None:
    """Raises `UsageError` where `what` cannot be done, as the model's visual tokens stand behind the question."""
    if not model.shares_prefix:
        raise UsageError(
            f"{what} needs a model whose visual tokens stand before the question, which those of "
            f"model.kind {model.kind} do not"
        )
