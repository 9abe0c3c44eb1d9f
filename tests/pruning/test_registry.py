"""Where methods come from: entry points, what is refused, and that one refused method stops no other."""

import inspect
import subprocess
import sys

import pytest

from fast3d_core.errors import UsageError
from fast3d_core.plan import Units
from fast3d_core.pruning import BASELINE, DEFAULT, METHODS, Gap, Pruner, Sap, Vanilla
from fast3d_core.pruning.options import MethodOptions, build_pruners
from fast3d_core.pruning.registry import REGISTRY
from fast3d_core.pruning.settings import RESERVED
from tests.pruning.default_methods import EXAMPLES, UNITS
from tests.pruning.packages import HEAD, ODD, odd, packages  # noqa: F401 (fixtures)

# ruff: noqa: F811

BUILT_IN = list(REGISTRY.builtin)

UNITS = Units(count=100, tokens=3)


def source(fields="", name="own", body="def plan(self, request): return Vanilla().plan(request)", extra=""):
    lines = [
        f"    {line}" for line in [*fields.split("\n"), f"name: ClassVar[str] = {name!r}", *extra.split("\n"), body]
    ]
    return HEAD + "@dataclass(frozen=True)\nclass Own(Pruner):\n" + "\n".join(lines) + "\n"


def test_registry_names():
    assert list(METHODS) == BUILT_IN and set(EXAMPLES) == set(BUILT_IN) and METHODS.problems == []
    assert METHODS["sap"] is Sap and METHODS.package("sap") is None
    assert METHODS[BASELINE] is Vanilla and METHODS[DEFAULT] is Sap
    assert [name for name, method in METHODS.items() if method.is_baseline] == [BASELINE]


def test_every_method_has_examples():
    for name, method in METHODS.items():
        assert EXAMPLES[name] and all(type(one) is method for one in EXAMPLES[name])
        kept = [one.name for one in METHODS.settings[name]]
        does, *rest = inspect.getdoc(method).split("\n")
        assert does.startswith("Keeps ") and all(setting in "\n".join(rest) for setting in kept), name


def test_a_method_of_another_package(odd):
    assert list(METHODS) == [*BUILT_IN, "odd"] and issubclass(odd, Pruner)
    assert METHODS.package("odd") == "odd-methods 1.0"
    assert build_pruners(["odd"], MethodOptions(layer=1, keep=9), 4, UNITS) == [odd(1, 9)]
    style = METHODS.style("odd")
    assert (style.title, style.colour, style.marker) == ("Odd one", "#aa4400", "P")
    assert METHODS.style("gone").title == "gone" and METHODS.style(None).title == "scored"
    assert METHODS.style("gap").title == "GAP"


def test_packages_come_and_go(packages):
    assert "odd" not in METHODS
    packages.install(ODD, "odd=Odd")
    assert "odd" in METHODS
    next(packages.folder.glob("*.dist-info/entry_points.txt")).unlink()
    METHODS.refresh()
    assert list(METHODS) == BUILT_IN


REFUSED = {
    "import torch_of_the_future": ("own=Own", r"odd_methods:Own cannot be imported \(ModuleNotFoundError"),
    "raise SystemExit(3)": ("own=Own", r"cannot be imported \(SystemExit: 3\)"),
    "def f(:": ("own=Own", r"cannot be imported \(SyntaxError"),
    "Own = 3": ("own=Own", "it is no subclass of fast3d_core.pruning.Pruner"),
    source(body=""): ("own=Own", r"it has no plan\(self, request\)"),
    source(name="other"): ("own=Own", "its class is named 'other'; both names must be one"),
    source(name="../own"): ("../own=Own", "small letters, digits"),
    source(name="sap"): ("sap=Own", "fast3d has a method of that name; one of them has to be renamed"),
    source(extra="colour = 'red'"): ("own=Own", "its colour is 'red', not one such as #0072b2"),
    source("sharpness: float = 0.5"): ("own=Own", "its field 'sharpness' is no option; make it by .*setting"),
    source("sizes: list[int] = setting(None, 'x')"): ("own=Own", r"'sizes' is of type list\[int\], for which"),
    source("sizes: 'Missing' = setting(1, 'x')"): ("own=Own", "the types of its fields cannot be read"),
    source("choice: Literal['a', 1] = setting('a', 'x')"): ("own=Own", "'choice' is of type .* no option"),
    source("limit: int = setting(1, 'x')"): ("own=Own", "'limit' needs another name: that one is taken"),
    source("Sharp: int = setting(1, 'x')"): ("own=Own", "'Sharp' needs another name"),
    source("files: str = setting('a', 'x')"): ("own=Own", "'files' needs another name"),
    source("seed: str = setting('a', 'x')"): ("own=Own", "'seed' is of type str, but must be int"),
    source("sharp: float = setting(3.0, 'x', at_most=2)"): ("own=Own", "default of its setting 'sharp' .*at most 2"),
    source("mode: Literal['a', 'b'] = setting('c', 'x')"): ("own=Own", "default of its setting 'mode' is not one"),
    source("layer: int"): ("own=Own", "has one of the settings layer and keep"),
    source("keep: int"): ("own=Own", "has one of the settings layer and keep"),
}  # fmt: skip


@pytest.mark.parametrize(("code", "refusal"), REFUSED.items(), ids=[text for _, text in REFUSED.values()])
def test_refused_in_one_line_while_others_work(packages, code, refusal):
    name, why = refusal
    packages.install(code, name)
    (problem,) = METHODS.problems
    with pytest.raises(UsageError, match=why):
        raise UsageError(problem)
    assert f"the method {name.split('=')[0]!r} of the package odd-methods 1.0 is left out: " in problem
    assert "\n" not in problem and list(METHODS) == BUILT_IN
    assert build_pruners(["gap"], MethodOptions(layer=1, keep=9), 4, UNITS) == [Gap(1, 9)]
    if name != "sap=Own":
        with pytest.raises(UsageError, match=why):
            build_pruners([name.split("=")[0]], MethodOptions(), 4, UNITS)


def test_two_packages_with_a_name(packages):
    packages.install(source(), "own=Own", package="a-methods")
    packages.install(source(), "own=Own", package="b-methods")
    (problem,) = METHODS.problems
    assert METHODS.package("own") == "a-methods 1.0"
    assert "of the package b-methods 1.0 is left out: a-methods 1.0 has a method of that name" in problem


@pytest.mark.parametrize(("second", "problem"), [
    ("sharp: float = setting(1.0, 'other')", None),
    ("sharp: int = setting(1, 'other')", "its setting sharp is of type int, that of a of float; rename it"),
    ("sharp: Literal['x'] = setting('x', 'other')", "its setting sharp is of type 'x', that of a of float; rename it"),
    ("no_loud: int = setting(1, 'other')", "its setting no_loud needs an option that loud of a has; rename it"),
])  # fmt: skip
def test_two_methods_share_an_option_of_one_type(packages, second, problem):
    fields = "sharp: float = setting(0.5, 'how sharp')\nloud: bool = setting(True, 'how loud')"
    packages.install(source(fields, "a"), "a=Own", package="a-methods")
    packages.install(source(second, "b"), "b=Own", package="b-methods")
    assert [line.partition("left out: ")[2] for line in METHODS.problems] == ([] if problem is None else [problem])
    assert ("b" in METHODS) is (problem is None)
    if problem is None:
        a, b = build_pruners(["a", "b"], MethodOptions(settings={"sharp": 2.0}), 4, UNITS)
        assert (a.sharp, b.sharp) == (2, 2)
        assert build_pruners(["b"], MethodOptions(), 4, UNITS)[0].sharp == 1


def test_no_module_of_a_method_imports_torch(packages):
    """Nor is a package's module imported before a method is asked for."""
    packages.install("print('imported')\n" + ODD, "odd=Odd")
    code = (
        f"import sys; sys.path.insert(0, {str(packages.folder)!r})\n"
        "from fast3d_core.pruning import METHODS\nprint('made')\n"
        "assert [one.name for one in METHODS.settings['odd']][2:4] == ['sharpness', 'use_text']\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["made", "imported"]


def test_names_that_settings_cannot_have():
    """Whatever is an option of a command that has the methods' settings, or a key of a run's settings."""
    import typer.main

    from fast3d_cli.app import app

    commands = typer.main.get_command(app).commands
    own = {"layer", "keep", "alpha", "seed"}
    for name in ("eval", "ask", "bench"):
        for parameter in commands[name].params:
            flags = [*parameter.opts, *parameter.secondary_opts]
            named = {flag[2:].replace("-", "_") for flag in flags if flag.startswith("--")}
            assert named <= RESERVED | own | {"help"}, name
