"""The runs that a choice of methods, budgets and attention maps makes, and what their folders are called."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fast3d_core.config import Config, need_path
from fast3d_core.errors import UsageError
from fast3d_core.evaluation.found_alpha import found_alpha
from fast3d_core.evaluation.questions import Job
from fast3d_core.evaluation.run_folder import check_name
from fast3d_core.maps.kind import MapKind
from fast3d_core.maps.published import MAP_KEYS
from fast3d_core.models.registry import scene_model
from fast3d_core.pruning import Pruner
from fast3d_core.pruning.options import MethodOptions, build_pruners, run_name, wants_alpha


@dataclass(frozen=True)
class MapOptions:
    """Where attention maps come from, as far as a user says; None where a user does not.

    Attributes:
        folder: of the maps, in place of `maps.predicted`; key: which map of an entry; kind: what the maps hold.
        live: the GAP network predicts the maps during the run; the others mean nothing then.
    """

    folder: Path | None = None
    key: str | None = None
    kind: MapKind | None = None
    live: bool = False

    def folder_in(self, config: Config) -> Path:
        """The folder of the maps. Raises `DataError` where the config's is not there."""
        return self.folder or need_path(config, "maps.predicted")

    @property
    def key_or_default(self) -> str:
        """Which map of an entry is taken."""
        return self.key or MAP_KEYS[0]


def choose_jobs(
    config: Config,
    methods: Sequence[str],
    options: MethodOptions,
    maps: MapOptions,
    datasets: Sequence[str] | None = None,
    name: str | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> list[Job]:
    """One run for each method with each budget; an alpha that nobody gave is the one that `fast3d search-alpha` found.

    Args:
        datasets: to evaluate; None: those of the config.
        name: of the run folder, or its beginning where there are several runs.
        log: called with which alpha was found.

    Raises:
        UsageError: see `build_pruners`; an option about maps means nothing to the methods; `name` is a path.
        DataError: see `found_alpha`; the config's LLM or maps are not there.
    """
    check_name(name)
    if not options.alphas and wants_alpha(methods):
        folder = None if maps.live else maps.folder_in(config)
        found = found_alpha(config, datasets or config.data.datasets, folder, maps.key_or_default, log, maps.kind)
        options = replace(options, found_alpha=found)
    model = scene_model(config)
    pruners = build_pruners(methods, options, model.shape_of(config).layers, model.units_of(config))
    _check_map_options(pruners, maps)
    return [_job(config, pruner, maps, name, alone=len(pruners) == 1) for pruner in pruners]


def _check_map_options(pruners: Sequence[Pruner], maps: MapOptions) -> None:
    """Raises `UsageError` for options about maps that mean nothing."""
    given = (("--maps", maps.folder), ("--map-key", maps.key), ("--map-kind", maps.kind), ("--gap live", maps.live))
    for option, value in given:
        needed = any(pruner.needs_logits if option == "--map-kind" else pruner.needs_map for pruner in pruners)
        if value and not needed:
            raise UsageError(f"{option} means nothing to {', '.join(dict.fromkeys(one.name for one in pruners))}")
        if value and maps.live and option != "--gap live":
            raise UsageError(f"{option} means nothing with --gap live, which reads no maps")


def _job(config: Config, pruner: Pruner, maps: MapOptions, name: str | None, *, alone: bool) -> Job:
    """The run of one method; `alone`: there is no other, so that a name given is its whole name."""
    own = run_name(pruner) + ("" if config.eval.engine == "fast" else f"-{config.eval.engine}")
    own += "-reuse" if config.eval.reuse_scene else ""
    if name:
        own = name if alone else f"{name}-{own}"
    predicted = maps.live and pruner.needs_map
    if predicted and not name:
        own += "-live"
    folder = maps.folder_in(config) if pruner.needs_map and not maps.live else None
    kind = maps.kind if pruner.needs_logits else None
    return Job(own, pruner, folder, maps.key_or_default, predicted, kind)
