"""The pruning methods by which a question is asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from fast3d_core.asking.wording import dataset_of
from fast3d_core.config import Config
from fast3d_core.errors import UsageError
from fast3d_core.evaluation.found_alpha import found_alpha
from fast3d_core.maps.published import MAP_KEYS
from fast3d_core.models.registry import scene_model
from fast3d_core.pruning import Pruner
from fast3d_core.pruning.options import MethodOptions, build_pruners, wants_alpha


def choose_pruners(
    config: Config,
    methods: Sequence[str],
    options: MethodOptions,
    task: str,
    log: Callable[[str], None] = lambda _: None,
) -> list[Pruner]:
    """The methods with their settings; an alpha that nobody gave is the one that `fast3d search-alpha` found.

    Args:
        log: called with which alpha was found.

    Raises:
        UsageError: see `build_pruners`; several alphas were found and `task` does not say which is meant.
        DataError: see `found_alpha`.
    """
    if not options.alphas and wants_alpha(methods):
        dataset = dataset_of(task)
        datasets = [dataset] if dataset else []
        found = found_alpha(config, datasets, None, MAP_KEYS[0], log)
        if isinstance(found, Mapping) and not datasets:
            raise UsageError("the alpha that was found is one for each dataset; give --alpha, or a --task of theirs")
        options = replace(options, found_alpha=found)
    model = scene_model(config)
    return build_pruners(methods, options, model.shape_of(config).layers, model.units_of(config))
