"""From a user's choice to runs with names, without the command line."""

import json

import pytest

from fast3d_core.config import load_config
from fast3d_core.errors import UsageError
from fast3d_core.evaluation.jobs import MapOptions, choose_jobs
from fast3d_core.evaluation.search_alpha import AlphaOptions, search_alpha
from fast3d_core.pruning.options import MethodOptions
from tests.conftest import MINIATURE


def names(*methods, overrides=(), maps=None, name=None):
    config, options = load_config(MINIATURE, overrides), MethodOptions(layer=2, keep=15)
    return [job.name for job in choose_jobs(config, methods, options, maps or MapOptions(), name=name)]


def test_names_say_what_differs_from_the_published_way():
    assert names("gap", "fastv") == ["gap-K2-keep15", "fastv-K2-keep15"]
    assert names("gap", maps=MapOptions(live=True)) == ["gap-K2-keep15-live"]
    assert names("gap", overrides=["eval.engine=reference"]) == ["gap-K2-keep15-reference"]
    assert names("gap", overrides=["eval.reuse_scene=true"]) == ["gap-K2-keep15-reuse"]


def test_a_name_is_whole_for_one_run_and_a_beginning_for_several():
    assert names("gap", name="mine") == ["mine"]
    assert names("gap", "fastv", name="mine") == ["mine-gap-K2-keep15", "mine-fastv-K2-keep15"]
    with pytest.raises(UsageError, match="--name is the name of a folder"):
        names("gap", name="../mine")


def test_maps_are_only_for_methods_that_follow_them(tmp_path):
    config = load_config(MINIATURE)
    options = MethodOptions(layer=2, keep=15)
    gap, fastv = choose_jobs(config, ["gap", "fastv"], options, MapOptions(tmp_path, "a_map_ori"))
    assert (gap.maps, gap.map_key, fastv.maps) == (tmp_path, "a_map_ori", None)
    for maps, message in (
        (MapOptions(tmp_path), "--maps means nothing to fastv"),
        (MapOptions(live=True), "--gap live means nothing to fastv"),
    ):
        with pytest.raises(UsageError, match=message):
            choose_jobs(config, ["fastv"], options, maps)
    with pytest.raises(UsageError, match="--maps means nothing with --gap live"):
        choose_jobs(config, ["gap"], options, MapOptions(tmp_path, live=True))


def test_an_alpha_is_searched_kept_and_taken(tmp_path):
    config = load_config(MINIATURE, [f"runs={tmp_path / 'runs'}"])
    maps = MapOptions(kind="logits")
    shown = search_alpha(config, AlphaOptions(alpha=0.5), maps)
    assert shown.path is None and not (tmp_path / "runs").exists()
    found = search_alpha(config, AlphaOptions(target=70, tolerance=5), maps)
    assert found.valid and json.loads(found.path.read_text())["alpha"] == found.alpha
    log = []
    (job,) = choose_jobs(config, ["sap"], MethodOptions(), maps, log=log.append)
    assert job.pruner.alpha == found.alpha and "as found by `fast3d search-alpha`" in log[0]


@pytest.mark.parametrize(
    "options", [{"target": 100}, {"tolerance": -1}, {"alpha": 0}, {"alpha": 1, "per_dataset": True}]
)
def test_alphas_that_make_no_sense(options):
    with pytest.raises(UsageError, match="--target|--tolerance|--alpha"):
        AlphaOptions(**options)
