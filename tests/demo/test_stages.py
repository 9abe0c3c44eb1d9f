"""The demo's stages are commands; `tests/cli/test_demo.py` runs them."""

from fast3d_core.demo.stages import DemoOptions, demo_stages


def commands(**options):
    return [stage.arguments[0] for stage in demo_stages(DemoOptions(**options))]


def test_each_stage_is_a_command():
    assert commands() == ["predict", "eval", "eval", "search-alpha", "eval", "report"]
    assert commands(everything=True) == ["predict", "eval", "eval", *["search-alpha", "eval"] * 3, "report"]
    assert commands(from_scratch=True)[:3] == ["extract", "train-gap", "predict"]


def test_the_number_of_samples_limits_every_evaluation():
    for stage in demo_stages(DemoOptions(samples=7)):
        assert (stage.arguments[0] == "eval") == ("--limit" in stage.arguments)
        assert "--limit" not in stage.arguments or stage.arguments[stage.arguments.index("--limit") + 1] == "7"
