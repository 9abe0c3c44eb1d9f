import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast3d_core.errors import UsageError
from fast3d_core.plan import Units, pruning_ratio
from fast3d_core.pruning import METHODS, FastV, Gap, Random, Sap, Vanilla
from fast3d_core.pruning.budget import Budget, from_preset, from_ratio
from fast3d_core.pruning.options import MethodOptions, build_pruners, run_name
from tests.pruning.packages import HEAD, packages  # noqa: F401 (a fixture)

# ruff: noqa: F811

UNITS = Units(count=100, tokens=3)


def test_published_presets():
    budgets = {preset: from_preset(preset, 32, UNITS) for preset in (35, 65, 90)}
    assert budgets == {35: Budget(16, 90), 65: Budget(6, 60), 90: Budget(2, 15)}
    ratios = [100 * pruning_ratio(32, 300, [(b.layer, b.keep)]) for b in budgets.values()]
    assert ratios == [35, 65, 89.0625]


def test_presets_on_other_depths():
    assert from_preset(35, 4, UNITS) == Budget(2, 90)
    assert from_preset(65, 4, UNITS) == Budget(1, 39)
    assert from_preset(90, 12, UNITS) == Budget(1, 9)
    assert from_preset(90, 40, UNITS) == Budget(2, 18)  # round(2.5) is 2


def test_a_ratio_out_of_reach_names_the_largest():
    with pytest.raises(UsageError, match=r"from layer 1 of 4 on: the largest reachable ratio is 74\.25%"):
        from_preset(90, 4, UNITS)


@given(st.integers(2, 80), st.floats(0, 99))
def test_a_ratio_is_met_to_half_an_object(layers, ratio):
    try:
        budget = from_ratio(ratio, layers, UNITS)
    except UsageError as error:
        assert "largest reachable" in str(error)
        return
    assert 1 <= budget.layer < layers
    assert budget.keep % 3 == 0 and 3 <= budget.keep <= 300
    got = 100 * pruning_ratio(layers, 300, [(budget.layer, budget.keep)])
    assert abs(got - ratio) <= 50 * (1 - budget.layer / layers) / 100 + 1e-9


@given(st.integers(1, 80), st.data())
def test_ratio_of_a_budget_comes_back(layers, data):
    layer = data.draw(st.integers(0, layers - 1))
    keep = 3 * data.draw(st.integers(1, 100))
    ratio = 100 * pruning_ratio(layers, 300, [(layer, keep)])
    assert from_ratio(ratio, layers, UNITS, layer=layer) == Budget(layer, keep)


def test_variants():
    options = MethodOptions(presets=[35, 65, 35], alphas=[0.21, 0.5], settings={"seed": 4})
    pruners = build_pruners(["vanilla", "random", "fastv", "gap", "sap", "gap"], options, 32, UNITS)
    assert pruners == [
        Vanilla(), Random(16, 90, 4), Random(6, 60, 4), FastV(16, 90), FastV(6, 60), Gap(16, 90), Gap(6, 60),
        Sap(0.21), Sap(0.5),
    ]  # fmt: skip
    assert [run_name(p) for p in pruners[:4]] == [
        "vanilla",
        "random-K16-keep90-seed4",
        "random-K6-keep60-seed4",
        "fastv-K16-keep90",
    ]
    assert run_name(pruners[-1]) == "sap-alpha0.5"
    by_count = MethodOptions(layer=0, keep=16)
    assert build_pruners(["gap"], by_count, 4, UNITS) == [Gap(0, 16)]
    assert build_pruners(["gap"], MethodOptions(ratio=50, layer=1), 4, UNITS) == [Gap(1, 99)]


@pytest.mark.parametrize(
    ("methods", "options", "message"),
    [
        (["gpa"], {}, "there is no method 'gpa'; .* did you mean gap"),
        (["gap"], {}, "gap needs a budget"),
        (["sap"], {}, "sap needs --alpha"),
        (["gap"], {"presets": [35], "ratio": 50.0}, "one kind of budget"),
        (["gap"], {"presets": [35], "layer": 1}, "--preset brings its own K"),
        (["gap"], {"presets": [50]}, "--preset must be one of 35, 65, 90"),
        (["gap"], {"keep": 15}, "--keep needs --layer"),
        (["gap"], {"layer": 1}, "gap needs a budget"),
        (["gap"], {"keep": 0, "layer": 1}, r"--keep must lie in 1\.\.300"),
        (["gap"], {"keep": 301, "layer": 1}, r"--keep must lie in 1\.\.300"),
        (["gap"], {"keep": 15, "layer": 4}, r"--layer must lie in 0\.\.3"),
        (["gap"], {"keep": 15, "layer": -1}, r"--layer must lie in 0\.\.3"),
        (["gap"], {"ratio": 50.0, "layer": 4}, r"--layer must lie in 0\.\.3"),
        (["gap"], {"ratio": 100.0}, "percentage"),
        (["fastv"], {"keep": 15, "layer": 0}, "K must be at least 1"),
        (["sap"], {"alphas": [0.0]}, "alpha must lie"),
        (["sap"], {"alphas": [1.01]}, "alpha must lie"),
        (["sap"], {"alphas": [0.5], "keep": 15}, "--keep means nothing to sap"),
        (["vanilla", "sap"], {"alphas": [0.5], "presets": [35]}, "--preset means nothing to vanilla, sap"),
        (["gap"], {"keep": 15, "layer": 1, "alphas": [0.5]}, "--alpha means nothing to gap"),
        (["gap"], {"keep": 15, "layer": 1, "settings": {"seed": 1}}, "--seed means nothing to gap"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_meant(methods, options, message):
    with pytest.raises(UsageError, match=message):
        build_pruners(methods, MethodOptions(**options), 4, UNITS)


def test_settings_of_several_kinds(packages):
    """A budget, a share and a seed: alpha was dropped beside a budget."""
    fields = "    layer: int\n    keep: int\n    alpha: float\n    seed: int\n    name: ClassVar[str] = 'own'\n"
    plan = "    def plan(self, request): return Vanilla().plan(request)\n"
    packages.install(HEAD + f"@dataclass(frozen=True)\nclass Own(Pruner):\n{fields}{plan}", "own=Own")
    own = METHODS["own"]
    options = MethodOptions(layer=1, keep=9, alphas=[0.5, 0.25])
    got = build_pruners(["own"], options, 4, UNITS)
    assert got == [own(1, 9, 0.5, 0), own(1, 9, 0.25, 0)]
    assert run_name(got[1]) == "own-K1-keep9-alpha0.25-seed0"
    with pytest.raises(UsageError, match="own needs --alpha"):
        build_pruners(["own"], MethodOptions(layer=1, keep=9), 4, UNITS)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_an_unreachable_preset_advises_what_was_given(layers):
    with pytest.raises(UsageError) as caught:
        from_preset(90, layers, UNITS)
    message = str(caught.value)
    assert message.startswith("--preset 90: ") and "lower --ratio" not in message
    assert "give a lower --preset (35, 65), or in its place --ratio, or --layer and --keep" in message
    with pytest.raises(UsageError, match="use a lower --ratio or --layer"):
        from_ratio(99, 4, UNITS, layer=2)
