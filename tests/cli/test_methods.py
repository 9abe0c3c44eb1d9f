"""Methods of other packages on the command line: their options, their runs, and what is said where they are broken."""

import json
import subprocess
import sys

import pytest

from fast3d_core.pruning import METHODS
from fast3d_core.pruning.options import run_name
from fast3d_core.pruning.settings import RESERVED
from tests.cli.conftest import ROOT
from tests.cli.test_eval import LIMITED
from tests.cli.test_search_alpha import error
from tests.pruning.default_methods import ALL
from tests.pruning.packages import HEAD, odd, packages  # noqa: F401 (fixtures)

# ruff: noqa: F811

BUDGET = ["--layer", "1", "--keep", "9"]
GIVEN = ["--sharpness", "1.5", "--use-text", "--word", "a b/../c", "--mode", "far", "--rounds", "3"]
OPTIONS = ("--sharpness", "--use-text", "--no-use-text", "--word", "--mode", "--rounds", "--seed")
BENCH = ["bench", "--batch", "2", "--repeats", "1", "--warmup", "0", "--new-tokens", "2", "--beams", "1"]


def words(text):
    """A help text without its frames, on one line."""
    return " ".join(text.replace("│", " ").split())


def listed():
    """The methods as help texts list them: "vanilla, ... or sap"."""
    *others, last = METHODS
    return f"{', '.join(others)} or {last}"


@pytest.mark.parametrize("command", ["eval", "ask", "bench"])
def test_help_names_every_method_and_setting(fast3d, odd, command):
    text = words(fast3d(command, "--help").stdout)
    assert f"{listed()}." in text and listed().endswith(" or odd")
    assert all(option in text for option in OPTIONS)
    assert "odd: how much the boxes count (in (0, 2]; default 0.5)." in text and "near|far" in text
    assert "odd: which end is kept (near, far; default 'near')." in text
    assert (
        "odd: Keeps the objects whose numbers are drawn by what is set and what a scene holds. arXiv 0000.00000."
        in text
    )
    assert all(f" {name}: Keeps " in text for name in METHODS)
    assert ("--alpha" in text) is (command != "bench") and "{" not in text


def test_help_names_no_setting_that_no_method_has(fast3d):
    text = words(fast3d("eval", "--help").stdout)
    assert "--sharpness" not in text and f"{listed()}. Repeatable." in text
    assert "random: seed of the draw (default 0)." in text and "sap: share of predicted attention to keep" in text


@pytest.mark.parametrize("pruner", ALL, ids=repr)
def test_every_method_runs_with_its_settings(fast3d, tmp_path, pruner):
    """As its fields name them, under the name of its run."""
    settings = {setting.name: setting for setting in METHODS.settings[pruner.name]}
    given = [word for name, one in settings.items() for word in (one.option, getattr(pruner, name))]
    fast3d("eval", "-m", pruner.name, *given, *LIMITED)
    saved = json.loads((tmp_path / "runs" / run_name(pruner) / "settings.json").read_text())
    assert saved["method"] == pruner.name and "method_package" not in saved
    assert {name: saved[name] for name in settings} == {name: getattr(pruner, name) for name in settings}


def test_a_run_with_settings_of_every_kind(fast3d, tmp_path, odd):
    """It is resumed with the same settings only, reported, and looked at by doctor."""
    printed = json.loads(fast3d("eval", "-m", "odd", "-m", "vanilla", *BUDGET, *GIVEN, *LIMITED, "--json").stdout)
    name = printed[0]["name"]
    assert name.startswith("odd-K1-keep9-sharpness1.5-use_text-worda_b_.._c-") and (tmp_path / "runs" / name).is_dir()
    saved = json.loads((tmp_path / "runs" / name / "settings.json").read_text())
    wanted = {"sharpness": 1.5, "use_text": True, "word": "a b/../c", "mode": "far", "rounds": 3, "layer": 1, "keep": 9}
    assert {key: saved[key] for key in wanted} == wanted and saved["method_package"] == "odd-methods 1.0"
    assert set(saved) - set(wanted) <= RESERVED  # no setting can take the place of what else a run depends on
    assert any(key.endswith("scannet_mask3d_val_attributes.pt") for key in saved["files"])
    again = fast3d("eval", "-m", "odd", *BUDGET, *GIVEN, *LIMITED, "--json")
    assert json.loads(again.stdout) == printed[0]
    other = fast3d("eval", "-m", "odd", *BUDGET, *GIVEN, "--rounds", "4", "--name", name, *LIMITED, check=False)
    assert "holds a run with other settings (rounds" in error(other, 2)
    fast3d("eval", "-m", "odd", *BUDGET, *LIMITED)
    report = json.loads(fast3d("report", "--json").stdout)
    assert [row["method"] for row in report["rows"]] == ["vanilla", "odd", "odd"]
    fast3d("report", "--html", "page.html")
    assert '"title":"Odd one"' in (tmp_path / "page.html").read_text()
    assert fast3d("doctor", "-m", "odd", check=False).stdout


LATE = (
    HEAD
    + '''

@dataclass(frozen=True)
class Late(Pruner):
    """Keeps the first object alone, from the middle on."""

    name: ClassVar[str] = "late"

    def plan(self, request):
        import torch
        from fast3d_core.plan import Plan, Stage

        return Plan(request.units.visual, [Stage(request.layers // 2, 3, torch.arange(3))])
'''
)


def test_a_method_without_settings(fast3d, packages):
    """Where it prunes is told by its plans."""
    packages.install(LATE, "late=Late", package="late-methods")
    found = json.loads(fast3d("eval", "-m", "late", "-m", "vanilla", *LIMITED, "--dry-run", "--json").stdout)
    assert [(one["run"], one["layer"], one["kept_tokens"]["mean"]) for one in found] == [
        ("late", 2, 3),
        ("vanilla", 0, 300),
    ]
    asked = json.loads(fast3d("ask", "what?", "--scene", "scene0011_00", "-m", "late", "--json").stdout)
    assert (asked["layer"], asked["stages"], asked["pruned"]) == (2, [[2, 3]], pytest.approx(49.5))


def test_a_run_of_a_method_that_is_gone(fast3d, tmp_path, packages, odd):
    """It is still reported, under its name."""
    fast3d("eval", "-m", "odd", *BUDGET, *LIMITED)
    next(packages.folder.glob("*.dist-info/entry_points.txt")).unlink()
    METHODS.refresh()
    assert [row["method"] for row in json.loads(fast3d("report", "--json").stdout)["rows"]] == ["odd"]
    fast3d("report", "--html", "page.html")
    assert '"title":"odd"' in (tmp_path / "page.html").read_text()
    assert "there is no method 'odd'" in error(fast3d("eval", "-m", "odd", *BUDGET, *LIMITED, check=False), 2)


def test_ask(fast3d, odd):
    asked = ["ask", "what is this?", "--scene", "scene0011_00", "-m", "odd", *BUDGET, "--json"]
    one, other = (json.loads(fast3d(*asked, *given).stdout) for given in ([], GIVEN))
    kept = [[thing["slot"] for thing in reply["kept"]] for reply in (one, other)]
    assert len(kept[0]) == len(kept[1]) == 3 and kept[0] != kept[1]
    assert other["method"].startswith("odd-K1-keep9-sharpness1.5-use_text-")
    compared = json.loads(fast3d(*asked[:4], "--compare", *BUDGET, "--alpha", "0.5", "--json").stdout)
    assert [reply["method"].split("-")[0] for reply in compared] == list(METHODS)


@pytest.mark.parametrize("llm", ["demo", "tiny"])
def test_bench(fast3d, odd, llm):
    """The scenes of "tiny" are generated and have no labels, so the row is left out, and noted."""
    methods = ["-m", "odd", "-m", "vanilla", "--ratio", "40", "--rounds", "3"]
    result = json.loads(fast3d(*BENCH, "--llm", llm, *methods, "--json").stdout)
    assert result["settings"]["method_settings"] == {"rounds": 3}
    if llm == "tiny":
        assert [row["name"] for row in result["rows"]] == ["vanilla"]
        (note,) = result["notes"]
        assert note.startswith("a method asks for labels, but sample 0 of bench comes with no labels; ")
    else:
        assert [row["name"] for row in result["rows"]] == ["odd", "vanilla"]
        assert result["rows"][0]["settings"]["rounds"] == 3


REFUSED = [
    (["--sharpness", "2.5"], "--sharpness must lie in (0, 2], not 2.5"),
    (["--sharpness", "nan"], "--sharpness must be a finite number, not nan"),
    (["--rounds", "10"], "--rounds must lie in [1, 9], not 10"),
    (["--mode", "fra"], "--mode must be one of near, far, not 'fra'; did you mean far"),
    (["--word", "a\x1b[2J"], "--word must be a text of at most 200 printable characters"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
@pytest.mark.parametrize("command", [
    ["eval", "-m", "odd", *BUDGET, *LIMITED],
    ["ask", "what?", "--scene", "scene0011_00", "-m", "odd", *BUDGET],
    [*BENCH, "--llm", "demo", "-m", "odd", "--ratio", "40"],
], ids=["eval", "ask", "bench"])  # fmt: skip
def test_refusals(fast3d, odd, command, given, message):
    assert message in error(fast3d(*command, *given, check=False), 2)


@pytest.mark.parametrize("command", [
    ["eval", "-m", "gap", *BUDGET, *LIMITED],
    ["ask", "what?", "--scene", "scene0011_00", "-m", "gap", *BUDGET],
    [*BENCH, "--llm", "tiny", "-m", "gap"],
], ids=["eval", "ask", "bench"])  # fmt: skip
def test_settings_of_other_methods_mean_nothing(fast3d, odd, command):
    for given in (["--mode", "far"], ["--no-use-text"]):
        assert f"{given[0].replace('no-', '')} means nothing to gap" in error(fast3d(*command, *given, check=False), 2)


def test_a_broken_package_is_one_line_and_others_work(fast3d, packages, odd):
    packages.install("raise RuntimeError('of two\\nlines')", "own=Own", package="broken-methods")
    line = "the method 'own' of the package broken-methods 1.0 is left out: broken_methods:Own cannot be imported"
    done = fast3d("eval", "-m", "odd", *BUDGET, *LIMITED, "--json")
    assert done.stderr.count(line) == 1 and json.loads(done.stdout)
    assert line in fast3d("doctor", "-m", "vanilla", check=False).stderr
    failed = fast3d("eval", "-m", "own", *LIMITED, check=False)
    assert failed.returncode == 2 and failed.stderr.splitlines()[-1].count(line) == 1
    assert "Traceback" not in failed.stderr
    assert "own" not in words(fast3d("eval", "--help").stdout).split("Repeatable.")[0]


def test_help_with_a_package_loads_no_torch(packages, odd):
    """And without a command, not the package either."""
    for command, loaded in (([], False), (["eval"], True), (["ask"], True), (["bench"], True)):
        code = (
            f"import sys; sys.path.insert(0, {str(packages.folder)!r}); sys.argv = ['fast3d', *{command!r}, '--help']\n"
            "from fast3d_cli.app import app\ntry: app()\nexcept SystemExit: pass\n"
            f"assert 'torch' not in sys.modules and ('odd_methods' in sys.modules) is {loaded}"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
