"""The scene models by name: those of this package, and those that others register under `fast3d.models`.

A model's module is imported when the config names it, so that a broken package disturbs none of the others.
"""

import inspect

from fast3d_core.config import Config
from fast3d_core.errors import UsageError
from fast3d_core.models.base import SceneModel
from fast3d_core.registry import MODELS


def model_class(kind: str) -> type[SceneModel]:
    """The scene model of that name. Raises `UsageError` where there is none, `DataError` where it is broken."""
    found = MODELS.load(kind)
    if not (isinstance(found, type) and issubclass(found, SceneModel)):
        raise MODELS.broken(kind, "it is no subclass of fast3d_core.models.base.SceneModel")
    if inspect.isabstract(found):
        raise MODELS.broken(kind, f"it does not define {', '.join(sorted(found.__abstractmethods__))}")
    if getattr(found, "kind", None) != kind or not isinstance(getattr(found, "unit_tokens", None), int):
        raise MODELS.broken(kind, f"its `kind` is not {kind}, or it has no `unit_tokens`")
    return found


def scene_model(config: Config) -> type[SceneModel]:
    """The scene model that `model.kind` names.

    Raises `UsageError` and `DataError`, see `model_class`; or where `eval.reuse_scene` asks for what it does not do.
    """
    found = model_class(config.model.kind)
    if config.eval.reuse_scene:
        check_shares_prefix(found, "eval.reuse_scene (--reuse-scene)")
    return found


def check_shares_prefix(model: type[SceneModel], what: str) -> None:
    """Raises `UsageError` where `what` cannot be done, as the model's visual tokens stand behind the question."""
    if not model.shares_prefix:
        raise UsageError(
            f"{what} needs a scene model whose visual tokens stand before the question, which those of "
            f"model.kind {model.kind} do not"
        )
