"""Benchmarks by name: the five, one of another package through every command, and packages that are broken."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fast3d_core import registry
from fast3d_core.asking.wording import tasks
from fast3d_core.benchmarks import DATASETS, Benchmark, benchmark, benchmark_names, usable_benchmarks
from fast3d_core.benchmarks.questions import annotation_file, load_samples
from fast3d_core.config import load_config
from fast3d_core.errors import DataError, UsageError
from fast3d_core.extraction.extract import answer
from fast3d_core.maps.store import TargetStore
from fast3d_core.prepare import record_maker
from fast3d_core.report import build_report, load_runs
from fast3d_core.report.html import build_page
from tests.cli.conftest import fast3d  # noqa: F401 (a fixture)

ROOT = Path(__file__).parents[2]
SIXTH = ROOT / "tests" / "plugins" / "sixth"
BUILT_IN = list(registry.BENCHMARKS.builtin)
QUICK = ["--set", "generation.max_new_tokens=2", "--set", "generation.beams=1"]
QUESTIONS = [("scene0011_00", 3, "the couch"), ("scene0011_00", 5, "the lamp"), ("scene0025_00", 8, "the table")]


def fresh():
    registry.refresh()
    benchmark.cache_clear()


@pytest.fixture
def install(monkeypatch):
    """Makes a folder with packages importable, as if they were installed."""

    def put(folder):
        monkeypatch.syspath_prepend(str(folder))
        fresh()

    yield put
    monkeypatch.undo()
    fresh()


def package(folder, name, entry, code=""):
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fast3d.benchmarks]\n{entry}\n")
    (folder / f"{name}.py").write_text(code)
    return folder


@pytest.fixture
def sixth(install, files):
    """The sixth benchmark, installed; the miniature's config with questions of its own, and only those."""
    install(SIXTH)
    records = [
        {"scene_id": scene, "obj_id": thing, "prompt": f"Where is {words}? Answer with a place.", "floor": "ground"}
        | {"ref_captions": ["by the window", "near the door"]}
        for scene, thing, words in QUESTIONS
    ]
    (files / "annotations" / "whereabouts_val.json").write_text(json.dumps(records))
    config = files / "fast3d.yaml"
    text = config.read_text()
    config.write_text(text.replace("{annotations: annotations}", "{annotations: annotations, datasets: [whereabouts]}"))
    return config


def test_a_benchmark_more_is_run_only_where_it_is_named():
    """As a package's, so one that stands beside the five: else every config that names none needed its files."""
    code = (
        "from fast3d_core.registry import BENCHMARKS; BENCHMARKS.builtin['whereabouts'] = 'whereabouts:Whereabouts'; "
        "from fast3d_core.benchmarks import DATASETS, benchmark_names; from fast3d_core.config import DataConfig; "
        "assert benchmark_names()[-1] == 'whereabouts'; assert DataConfig().datasets == DATASETS; print(*DATASETS)"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{SIXTH}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(DATASETS)


def test_the_five_and_what_they_say_of_themselves():
    assert benchmark_names() == tuple(BUILT_IN) and set(DATASETS) <= set(BUILT_IN)
    assert DATASETS == ("scanrefer", "multi3dref", "scan2cap", "scanqa", "sqa3d")
    for name in DATASETS:
        one = benchmark(name)
        assert isinstance(one, Benchmark) and one.name == name and one is benchmark(name)
        assert one.hyphenated.replace("-\n", "") in ("", one.title) and one.headline.key.startswith(f"[{name}] ")
        assert record_maker(name).files and record_maker(name).source.startswith("https://")


def test_nothing_else_spells_a_benchmarks_name():
    """Only the registry, a benchmark's own files and references, the demo, which generates them, and GAP's published
    choice of weights by ScanRefer's quality."""
    allowed = {"fast3d_core/registry.py", "fast3d_core/benchmarks/references.py"}
    allowed |= {"fast3d_cli/commands/demo.py", "fast3d_cli/commands/train_gap.py"}
    for path in (*(ROOT / "fast3d_core").rglob("*.py"), *(ROOT / "fast3d_cli").rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        own = path.stem in DATASETS or file in allowed or file.startswith(("fast3d_core/demo/", "fast3d_core/gap/"))
        spelt = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert own or not spelt & set(DATASETS), file
    for path in (ROOT / "fast3d_core" / "report" / "assets").glob("*.js"):
        assert not re.search(f"[\"'](?:{'|'.join(DATASETS)})[\"']", path.read_text()), path


def test_names_are_told_without_importing_a_benchmark():
    code = (
        "import sys; from fast3d_core.config import load_config; from fast3d_core.registry import BENCHMARKS; "
        "names = BENCHMARKS.names(); assert not {'torch', 'numpy', 'whereabouts'} & set(sys.modules); print(*names)"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{SIXTH}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*BUILT_IN, "whereabouts"]


def test_a_wrong_name_is_told_with_the_nearest(fast3d, sixth):  # noqa: F811
    with pytest.raises(UsageError, match="there is no benchmark wherebouts; .*, whereabouts; did you mean where"):
        benchmark("wherebouts")
    done = fast3d("eval", "-c", sixth, "--method", "vanilla", "--set", "data.datasets=[scanq]", check=False)
    assert done.returncode == 2 and 'did you mean "scanqa"?' in done.stderr
    done = fast3d("eval", "-c", sixth, "--method", "vanilla", "--dataset", "nowhere", check=False)
    assert done.returncode == 2 and f"choose from {', '.join(BUILT_IN)}, whereabouts" in (" ".join(done.stderr.split()))


def test_a_sixth_is_evaluated_scored_and_reported(fast3d, sixth, tmp_path):  # noqa: F811
    fast3d("eval", "-c", sixth, "--method", "vanilla", "--no-meteor", *QUICK, "--set", "runs=runs")
    fast3d("eval", "-c", sixth, "--method", "sap", "--alpha", "0.5", "--gap", "live", *QUICK, "--set", "runs=runs")
    result = json.loads((tmp_path / "runs" / "vanilla" / "result.json").read_text())
    assert result["samples"] == {"whereabouts": 3} and result["headline"] == {"whereabouts": 0.0}

    predictions = json.loads((tmp_path / "runs" / "vanilla" / "predictions" / "whereabouts.json").read_text())
    for record in predictions[:2]:
        record["pred"] = "It stands near the DOOR."
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "preds_whereabouts.json").write_text(json.dumps(predictions))
    scored = json.loads(fast3d("score", "mine", "-c", sixth, "--json", "--name", "mine", "--set", "runs=runs").stdout)
    assert scored["headline"] == {"whereabouts": pytest.approx(200 / 3)}
    assert scored["metrics"]["[whereabouts] ground hits"] == pytest.approx(2 / 3)

    shown = fast3d("report", "-c", sixth, "--set", "runs=runs", "--html", "page.html")
    assert "Whereabouts" in shown.stdout and (tmp_path / "page.html").stat().st_size > 100_000
    settings = load_config(sixth, [f"runs={tmp_path / 'runs'}"])
    runs = load_runs([tmp_path / "runs" / name for name in ("vanilla", "mine")])
    page = build_page(settings, runs, build_report(runs, published=True, resamples=100))
    assert page.report.columns["whereabouts"] == "Whereabouts hits" and page.judged_by["whereabouts"] == "hits"
    (question, *_) = page.browser.scenes[0].questions
    assert question.expected == ["by the window", "near the door"] and len(question.targets) == 1
    assert question.answers[0].score == 0
    (mine,) = [row.scores["whereabouts"] for row in page.report.rows if row.name == "mine"]
    assert mine.value == pytest.approx(200 / 3) and mine.low <= mine.value <= mine.high and mine.n == 3
    assert [row.scores.keys() for row in page.report.rows if row.published] == [dict.fromkeys(DATASETS).keys()] * 8


def test_questions_of_a_sixth_are_checked_extracted_and_asked(fast3d, sixth, tmp_path):  # noqa: F811
    found = fast3d("doctor", "-c", sixth, "--method", "vanilla", "--json", "--set", f"runs={tmp_path / 'runs'}")
    told = [one["what"] for one in json.loads(found.stdout)["findings"]]
    assert "whereabouts: all questions can be scored" in told
    assert "whereabouts: 3 questions about 2 scenes" in told

    annotations = sixth.parent / "annotations"
    sample = load_samples(annotations, "whereabouts")[0]
    assert answer(sample, "val", 0) in ("It is by the window.", "It is near the door.")
    fast3d("extract", "-c", sixth, "--split", "val", "--set", f"maps.targets={tmp_path / 'targets'}")
    assert TargetStore.open(tmp_path / "targets").parts["val/whereabouts"].samples == 3

    asked = ["ask", "the couch", "-c", sixth, "--scene", "scene0011_00", "--method", "vanilla", "--json", *QUICK]
    reply = json.loads(fast3d(*asked, "--task", "where").stdout)
    assert reply["prompt"] == "Where is the couch? Answer with a place." == sample.prompt
    wrong = fast3d(*asked, "--task", "why", check=False)
    assert re.search("--task is one of qa, ground, ground-all, caption, .*where, plain", " ".join(wrong.stderr.split()))
    nothing = fast3d("prepare", tmp_path, "--dataset", "whereabouts", check=False)
    assert nothing.returncode == 2 and "whereabouts is not made from a raw release" in nothing.stderr


def test_what_is_wrong_with_a_record_names_the_files_own_field(fast3d, sixth):  # noqa: F811
    path = annotation_file(sixth.parent / "annotations", "whereabouts")
    records = json.loads(path.read_text())
    path.write_text(json.dumps([record | {"floor": "cellar", "prompt": "Where?"} for record in records]))
    done = fast3d("doctor", "-c", sixth, "--method", "vanilla", "--json", check=False)
    told = [one["what"] for one in json.loads(done.stdout)["findings"] if one["status"] != "ok"]
    assert any("record 0: floor must be one of ground, upper, not 'cellar'" in what for what in told), told
    assert any('3 of 3 questions do not end with "Answer with a place."' in what for what in told), told


@pytest.mark.parametrize(
    ("entry", "code", "message"),
    [
        ("mine = strange:Mine", "raise OSError('no disk')", "strange:Mine cannot be imported (OSError: no disk)"),
        ("mine = strange:Mine", "raise SystemExit(3)", "strange:Mine cannot be imported (SystemExit: 3)"),
        ("mine = strange:Mine", "", "strange:Mine cannot be imported (AttributeError: "),
        ("mine = strange:Mine", "Mine = 3", "it is no subclass of fast3d_core.benchmarks.Benchmark"),
        ("mine = strange:Mine", "from fast3d_core.benchmarks import Benchmark as Mine", "abstract"),
        ("mine = whereabouts:Whereabouts", "", "its name is whereabouts"),
        (
            "mine = strange:Mine",
            "from whereabouts import Whereabouts as Theirs\nclass Mine(Theirs):\n  def __init__(self): 1 / 0",
            "division by zero",
        ),
    ],
)
def test_a_broken_package_is_one_line(install, tmp_path, monkeypatch, entry, code, message):
    monkeypatch.delitem(sys.modules, "strange", raising=False)
    monkeypatch.syspath_prepend(str(SIXTH))
    install(package(tmp_path / "packages", "strange", entry, code))
    with pytest.raises(DataError) as caught:
        benchmark("mine")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert "the benchmark 'mine' of the package strange 1.0 is left out: " in str(caught.value)
    assert benchmark("scanqa").title == "ScanQA"  # the others are as usable as before
    assert [one.name for one in usable_benchmarks()] == [*BUILT_IN, "whereabouts"]
    assert list(tasks())[:4] == ["qa", "ground", "ground-all", "caption"] and list(tasks())[-2:] == ["where", "plain"]
    monkeypatch.delitem(sys.modules, "strange", raising=False)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("scanqa = strange:Mine", "fast3d has a benchmark of that name; one of them has to be renamed or uninstalled"),
        ("../mine = strange:Mine", "its name is not of small letters, digits, - and _"),
    ],
)
def test_a_name_that_is_taken_is_left_out_with_a_note(fast3d, install, files, tmp_path, entry, why):  # noqa: F811
    install(package(tmp_path / "packages", "strange", entry))
    name = entry.split(" ")[0]
    line = f"the benchmark '{name}' of the package strange 1.0 is left out: {why}"
    assert benchmark_names() == tuple(BUILT_IN) and benchmark("scanqa").title == "ScanQA"
    done = fast3d("search-alpha", "-c", files / "fast3d.yaml", "--alpha", "0.5", "--dataset", "scanqa")
    assert " ".join(done.stderr.split()).count(line) == 1
    assert line in " ".join(fast3d("doctor", "-m", "vanilla", check=False).stderr.split())
    if name != "scanqa":
        with pytest.raises(UsageError, match="is left out"):
            benchmark(name)
