"""Settings of any kind: from options to methods, their bounds, their part of a run's name."""

import json
import os
from dataclasses import asdict, make_dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast3d_core.errors import UsageError
from fast3d_core.fields import setting
from fast3d_core.pruning import METHODS, Sap
from fast3d_core.pruning.options import (
    MethodOptions,
    build_pruners,
    methods_with,
    run_name,
    settings_taken,
    wants_alpha,
)
from fast3d_core.pruning.settings import Setting
from tests.pruning.default_methods import ALL, LAYERS, UNITS
from tests.pruning.packages import HEAD, odd, packages  # noqa: F401 (fixtures)

# ruff: noqa: F811

BUDGET = {"layer": 1, "keep": 9}


def built(method, **settings):
    budget = BUDGET if method == "odd" else {}
    (pruner,) = build_pruners([method], MethodOptions(**budget, settings=settings), LAYERS, UNITS)
    return pruner


@pytest.mark.parametrize("pruner", ALL, ids=repr)
def test_options_make_every_method(pruner):
    """As `fast3d eval` would be asked for it, and its settings read back from JSON make it again."""
    values = asdict(pruner)
    budget = {name: values[name] for name in ("layer", "keep") if name in values}
    alphas = [values["alpha"]] if "alpha" in values else []
    others = {name: value for name, value in values.items() if name not in (*budget, "alpha")}
    assert build_pruners([pruner.name], MethodOptions(**budget, alphas=alphas, settings=others), LAYERS, UNITS) == [
        pruner
    ]
    assert type(pruner)(**json.loads(json.dumps(values))) == pruner
    assert settings_taken([pruner.name]) == set(values)


def test_names_of_runs_differ():
    names = [run_name(pruner) for pruner in ALL]
    assert len(set(names)) == len(names) and all(
        name.startswith(one.name) for name, one in zip(names, ALL, strict=True)
    )


def test_every_kind_of_setting(odd):
    assert built("odd") == odd(1, 9, 0.5, False, "object", "near", 1)
    made = built("odd", sharpness=2, use_text=True, word="chair", mode="far", rounds=9)
    assert made == odd(1, 9, 2.0, True, "chair", "far", 9) and isinstance(made.sharpness, float)
    assert run_name(made) == "odd-K1-keep9-sharpness2.0-use_text-wordchair-modefar-rounds9"
    assert run_name(built("odd")) == "odd-K1-keep9-sharpness0.5-no-use_text-wordobject-modenear-rounds1"
    assert methods_with("sharpness") == ["odd"] and not wants_alpha(["odd"]) and wants_alpha(["odd", "sap"])


@pytest.mark.parametrize(("given_", "message"), [
    ({"sharpness": 0}, r"--sharpness must lie in \(0, 2\], not 0"),
    ({"sharpness": 2.5}, r"--sharpness must lie in \(0, 2\], not 2\.5"),
    ({"sharpness": float("nan")}, "--sharpness must be a finite number, not nan"),
    ({"sharpness": "x"}, "--sharpness must be a finite number, not 'x'"),
    ({"rounds": 0}, r"--rounds must lie in \[1, 9\], not 0"),
    ({"rounds": 1.5}, "--rounds must be a 64-bit integer, not 1.5"),
    ({"rounds": True}, "--rounds must be a 64-bit integer, not true"),
    ({"use_text": 1}, "--use-text must be true or false, not 1"),
    ({"mode": "fra"}, "--mode must be one of near, far, not 'fra'; did you mean far"),
    ({"word": "a\nb"}, r"--word must be a text of at most 200 printable characters, not 'a\\nb'"),
    ({"word": "\udc80"}, "--word must be a text of at most 200 printable"),
    ({"word": "x" * 201}, "--word must be a text of at most 200"),
    ({"depth": 3}, "--depth means nothing to odd"),
])  # fmt: skip
def test_values_out_of_bounds(odd, given_, message):
    with pytest.raises(UsageError, match=message) as caught:
        built("odd", **given_)
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()


def test_bounds_on_one_side_and_forms():
    def one(kind, **bounds):
        return Setting("some_name", kind, (), 1, "meaning", **bounds)

    assert one(int, at_least=1).described() == "meaning (at least 1; default 1)"
    assert one(float, above=0).described() == "meaning (above 0; default 1)"
    for own, value, message in [
        (one(int, at_least=1), 0, "--some-name must be at least 1, not 0"),
        (one(float, above=0), 0, "--some-name must be above 0, not 0"),
        (one(int, at_most=3), 4, "--some-name must be at most 3, not 4"),
        (one(int), 2**63, "--some-name must be a 64-bit integer"),
        (one(str, form=("[ab]+", "made of a and b")), "abc", "--some-name must be made of a and b, not 'abc'"),
    ]:
        with pytest.raises(UsageError, match=message):
            own.check(value)
    assert one(str, form=("[ab]+", "made of a and b")).check("ab") == "ab"


def test_an_option_means_nothing_to_methods_without_it(odd):
    options = MethodOptions(**BUDGET, settings={"mode": "far"})
    assert [one.name for one in build_pruners(["odd", "gap"], options, LAYERS, UNITS)] == ["odd", "gap"]
    with pytest.raises(UsageError, match="--mode means nothing to gap, fastv"):
        build_pruners(["gap", "fastv"], options, LAYERS, UNITS)
    with pytest.raises(UsageError, match="--use-text means nothing to sap"):
        build_pruners(["sap"], MethodOptions(alphas=[0.5], settings={"use_text": True}), LAYERS, UNITS)
    assert options.taken_by(["gap"]) == MethodOptions(**BUDGET)
    assert options.taken_by(["vanilla"]) == MethodOptions()


def own(packages, fields, check=""):
    plan = "    def plan(self, request): return Vanilla().plan(request)\n"
    lines = "".join(f"    {line}\n" for line in [*fields, "name: ClassVar[str] = 'own'"])
    packages.install(HEAD + f"@dataclass(frozen=True)\nclass Own(Pruner):\n{lines}{plan}{check}", "own=Own")
    return METHODS["own"]


def test_settings_without_a_default(packages):
    cls = own(packages, ["size: int = setting(doc='how large', at_least=1)", "seed: int"])
    with pytest.raises(UsageError, match=r"own needs --size: how large \(at least 1\)"):
        built("own")
    assert built("own", size=3) == cls(3, 0) and built("own", size=3, seed=4) == cls(3, 4)


def test_an_empty_setting_and_numbers_to_choose_from(packages):
    cls = own(packages, ["size: int | None = setting(None, 'how large')", "side: Literal[1, 2] = setting(1, 'which')"])
    assert built("own") == cls(None, 1) and built("own", size=3, side="2") == cls(3, 2)
    assert run_name(built("own")) == "own-sizeNone-side1"
    with pytest.raises(UsageError, match="--side must be one of 1, 2, not '3'"):
        built("own", side="3")


def test_settings_that_do_not_go_together(packages):
    check = "    def __post_init__(self):\n        if self.a > self.b: raise ValueError('a is more than b')\n"
    own(packages, ["a: int = setting(1, 'x')", "b: int = setting(2, 'x')"], check)
    with pytest.raises(UsageError, match="own cannot be made with these settings: a is more than b"):
        built("own", a=3)


def test_an_alpha_of_ones_own(packages):
    cls = own(packages, ["alpha: float = setting(0.5, 'a share', above=0, at_most=1)"])
    assert build_pruners(["own"], MethodOptions(), LAYERS, UNITS) == [cls(0.5)] and not wants_alpha(["own"])
    assert build_pruners(["own"], MethodOptions(alphas=[0.2, 0.3]), LAYERS, UNITS) == [cls(0.2), cls(0.3)]
    found = MethodOptions(found_alpha=0.7)  # for what has no default alone, whatever else is asked for with it
    assert build_pruners(["own", "sap"], found.taken_by(["own", "sap"]), LAYERS, UNITS) == [cls(0.5), Sap(0.7)]
    with pytest.raises(UsageError, match="own takes one alpha for all datasets"):
        build_pruners(["own"], MethodOptions(alphas=[{"scanqa": 0.2}]), LAYERS, UNITS)
    with pytest.raises(UsageError, match=r"--alpha must lie in \(0, 1\], not 2"):
        build_pruners(["own"], MethodOptions(alphas=[2.0]), LAYERS, UNITS)


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=200))
def test_any_text_names_a_folder(word):
    """One name for one text, that is a folder's, and no other place."""

    class Named:
        name = "own"

    cls = make_dataclass("Own", [("word", str)], bases=(Named,), frozen=True)
    name = run_name(cls(word))
    assert name.isascii() and os.sep not in name and len(name) < 200 and name.startswith("own-word")
    assert name == run_name(cls(word)) and (word == "x" or name != run_name(cls("x")))
    long = make_dataclass("Own", [(f"word{i}", str) for i in range(20)], bases=(Named,), frozen=True)
    first, other = run_name(long(*[word] * 20)), run_name(long(*[word] * 19, word + "x"))
    assert first != other and len(first) < 170


def test_setting_is_a_field():
    assert setting(1, "x").default == 1 and setting(doc="x").metadata["doc"] == "x"
