"""A second scene model, in a package of its own, through everything that Chat-Scene goes through; and broken ones."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from fast3d_core.benchmarks.questions import load_samples
from fast3d_core.config import DATASETS, load_config
from fast3d_core.data.annotations import Scenes
from fast3d_core.errors import DataError, PlanError, UsageError
from fast3d_core.llm import reference
from fast3d_core.models.registry import scene_model
from fast3d_core.plan import Plan, Stage, Units
from fast3d_core.pruning import FastV, Gap, PlanRequest, Random, Sap, Vanilla
from tests.maps.scores import load_maps
from tests.plugins.conftest import PLUGINS
from tests.report.browsing import kept

PATCHES = PLUGINS / "patches"
SCENE, QUESTION = "scene0011_00", "What is next to <OBJ003>?"
PRUNERS = [Vanilla(), Random(1, 33), FastV(2, 101), Gap(0, 7), Gap(3, 250), Sap(0.4)]


def patched(files, install):
    """The miniature's files with the other model in their config."""
    install(PATCHES)
    config = files / "fast3d.yaml"
    config.write_text(config.read_text().replace("model: {", "model: {kind: patches, "))
    return config


@pytest.fixture
def config(files, install):
    return patched(files, install)


@pytest.fixture
def loaded(config):
    """Config, model, samples and prompts, whose visual tokens begin wherever their questions end."""
    settings = load_config(config)
    model = scene_model(settings).from_config(settings)
    samples = [sample for dataset in DATASETS for sample in load_samples(settings.data.annotations, dataset)]
    scenes = Scenes(settings.data.annotations)
    prompts = model.prompts([scenes[s.scene_id] for s in samples], [s.prompt for s in samples])
    return settings, model, samples, prompts


def test_size(loaded):
    """The package is as small as is promised, and touches nothing of fast3d's."""
    _, model, _, prompts = loaded
    assert model.units == Units(100, 5)
    starts = {prompt.visual_start for prompt in prompts}
    assert len(starts) > 5 and min(starts) > 30  # behind the questions
    assert sum(len(path.read_text().splitlines()) for path in PATCHES.glob("*.py")) <= 150


@pytest.mark.parametrize("pruner", PRUNERS, ids=str)
def test_engines_agree(loaded, pruner):
    """Equal ids, stage by stage; FastV's by what it kept at prefill, as the reference engine picks again later."""
    settings, model, samples, prompts = loaded
    maps = {dataset: load_maps(settings.maps.predicted, dataset, 3) for dataset in DATASETS}
    plans = [pruner.plan(PlanRequest(s.dataset, s.index, model.units, maps[s.dataset][s.index])) for s in samples]
    fast = model.generations(prompts, plans, settings.generation)
    if isinstance(pruner, FastV):
        first = [
            reference.generate(
                model.llm, prompt, plan, replace(settings.generation, max_new_tokens=1), model.bos_id, model.eos_id
            )
            for prompt, plan in zip(prompts, plans, strict=True)
        ]
        assert [one.kept.tolist() for one in fast] == [one.kept.tolist() for one in first]
        plans = [Plan(500, [Stage(pruner.layer, pruner.keep, one.kept)]) for one in fast]
    slow = model.generations(prompts, plans, settings.generation, "reference")
    assert [one.ids for one in fast] == [one.ids for one in slow]
    assert [one.kept.tolist() for one in fast] == [one.kept.tolist() for one in slow]
    assert len({tuple(one.ids) for one in fast}) > 3  # answers depend on scene and question


def test_whole_units_stay(loaded):
    settings, model, _, _ = loaded
    scores = load_maps(settings.maps.predicted, "scanqa", 3)[0]
    plan = Sap(0.4).plan(PlanRequest("scanqa", 0, model.units, scores))
    (stage,) = plan.stages
    assert stage.count % 5 == 0 and plan.visual == 500
    assert stage.select.tolist() == [5 * unit + i for unit in model.units.of(stage.select.tolist()) for i in range(5)]


def test_eval_report_and_page(fast3d, config, visit, tmp_path):
    """Every method, in files and by the network; the page shows the units that a run kept."""
    runs = ["-m", "vanilla", "-m", "random", "-m", "fastv", "-m", "gap", "--ratio", "40"]
    fast3d("eval", "-c", config, "--no-meteor", *runs)
    fast3d("eval", "-c", config, "--no-meteor", "-m", "sap", "--alpha", "0.4")
    fast3d("eval", "-c", config, "--no-meteor", "-m", "sap", "--alpha", "0.4", "--gap", "live")
    folder = load_config(config).runs
    results = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/result.json")}
    assert len(results) == 6
    assert all(one["settings"]["units"] == {"count": 100, "tokens": 5} for one in results.values())
    assert results["gap-K2-keep100"]["pruning"]["ratio"] == pytest.approx(40)
    assert results["vanilla"]["pruning"]["kept_tokens"] == 500
    report = json.loads(fast3d("report", "-c", config, "--json").stdout)
    assert {row["name"] for row in report["rows"]} == set(results)
    fast3d("report", "-c", config, "--html", tmp_path / "page.html")
    page = visit(tmp_path / "page.html", fragment="#scanqa-0")
    assert page.locator("#tables tbody tr").count() >= 6
    number = page.evaluate("sceneBrowser.runs.findIndex(run => run.name === 'gap-K2-keep100')")
    page.check(f"input[name=shown][value='{number}']")
    assert len(kept(page)) == 20  # 100 tokens, five each


def test_ask_and_its_page(fast3d, config, visit, tmp_path):
    page = tmp_path / "asked.html"
    methods = ["-m", "vanilla", "-m", "fastv", "-m", "gap", "-m", "sap", "--ratio", "40", "--alpha", "0.4"]
    done = fast3d("ask", QUESTION, "-c", config, "--scene", SCENE, *methods, "--html", page, "--json")
    replies = json.loads(done.stdout)
    assert [one["visual"] for one in replies] == [500] * 4
    assert replies[2]["kept_tokens"] == 100 and replies[2]["pruned"] == pytest.approx(40)
    shown = visit(page)
    assert shown.locator("#prompt").inner_text().startswith(QUESTION)
    assert shown.locator("#tables tbody tr").count() == 4


def test_bench(fast3d, config, tmp_path):
    out = tmp_path / "bench.json"
    fast3d("bench", "--llm", config, "--batch", "2", "--repeats", "1", "--warmup", "0", "--baselines", "--out", out)
    result = json.loads(out.read_text())
    assert {"vanilla", "sap", "stock"} <= {row["name"] for row in result["rows"]}
    assert result["rows"][0]["kept"]["tokens"] == 500


def test_another_process_finds_it_too(config):
    """What is known without weights: units, the length of prompts, and the memory that a batch takes."""
    command = [sys.executable, "-m", "fast3d_cli", "eval", "-c", config, "-m", "vanilla", "--batch", "auto"]
    done = subprocess.run([*command, "--dry-run", "--json"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["kept_tokens"]["mean"] == 500 and found["batch_size"] in (1, 2, 4, 8, 16)


def test_doctor(fast3d, config):
    """What belongs to Chat-Scene alone is not looked at."""
    shutil.rmtree(config.parent / "llm")
    (config.parent / "ckpt_01_3446.pth").unlink()
    done = fast3d("doctor", "-c", config, "--deep", "--json")
    findings = json.loads(done.stdout)["findings"]
    assert not [one for one in findings if one["status"] == "error"]
    assert "model.checkpoint" not in {one["area"] for one in findings}


@pytest.mark.parametrize(
    "arguments",
    [
        ["extract"],
        ["eval", "-m", "vanilla", "--reuse-scene"],
        ["ask", "what?", "--scene", SCENE, "-m", "vanilla", "--reuse-scene"],
        ["bench", "--batch", "1", "--reuse-scene"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_needs_visual_tokens_before_the_question_is_refused(fast3d, config, arguments):
    named = ["--llm", config] if arguments[0] == "bench" else ["-c", config]
    done = fast3d(*arguments, *named, check=False)
    assert done.returncode == 2
    assert re.search("^error: .* needs a scene model whose visual tokens stand before the question", done.stderr, re.M)


def test_the_engine_refuses_to_reuse_such_a_scene(loaded):
    settings, model, _, prompts = loaded
    plans = [Plan(500)] * len(prompts)
    with pytest.raises(PlanError, match="does not reach to the end of the visual tokens"):
        model.generations(prompts, plans, settings.generation, reuse_scene=True)


def test_an_unknown_kind(fast3d, config):
    done = fast3d("eval", "-m", "vanilla", "-c", config, "--set", "model.kind=patche", check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    line = "error: there is no scene model patche; choose from chat-scene, patches; did you mean patches?"
    assert line in done.stderr


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise RuntimeError('no\\nmore')", r"RuntimeError: no"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("class Model: pass", "it is no subclass of fast3d_core.models.base.SceneModel"),
        (
            "from fast3d_core.models.base import SceneModel\nclass Model(SceneModel):\n    kind = 'broken'",
            "it does not define decode, files, from_config, prompts, shape_of, text_counter, text_tokens",
        ),
        (
            "from fast3d_patches import PatchModel\nclass Model(PatchModel):\n    kind = 'another'",
            "its `kind` is not broken",
        ),
    ],
)
def test_a_broken_package_gives_one_line_and_disturbs_no_other(files, install, tmp_path, code, message):
    install(PATCHES)
    info = tmp_path / "packages" / "broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fast3d.models]\nbroken = broken_model:Model\n")
    (info.parent / "broken_model.py").write_text(code)
    install(info.parent)
    sys.modules.pop("broken_model", None)
    with pytest.raises(DataError, match=message) as caught:
        scene_model(load_config(files / "fast3d.yaml", ["model.kind=broken"]))
    assert str(caught.value).isprintable() and "the scene model 'broken' of the package broken 1.0" in str(caught.value)
    assert scene_model(load_config(files / "fast3d.yaml", ["model.kind=patches"])).kind == "patches"
    assert scene_model(load_config(files / "fast3d.yaml")).kind == "chat-scene"


def test_checks_that_cannot_be_imported_are_a_finding(fast3d, files, install, tmp_path):
    info = tmp_path / "packages" / "unchecked-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unchecked\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fast3d.models]\nunchecked = unchecked_model:Model\n")
    code = "class Model(PatchModel):\n    kind, checks = 'unchecked', 'no_such_module:CHECKS'\n"
    (info.parent / "unchecked_model.py").write_text(f"from fast3d_patches import PatchModel\n{code}")
    install(PATCHES)
    install(info.parent)
    done = fast3d("doctor", "-c", files / "fast3d.yaml", "--set", "model.kind=unchecked", "--json", check=False)
    (found,) = [one for one in json.loads(done.stdout)["findings"] if one["status"] == "error"]
    assert found["area"] == "config" and "its checks no_such_module:CHECKS cannot be imported" in found["what"]


def test_values_that_are_no_name(files):
    for value in ("[1]", "''", "a/b", "x" * 80):
        with pytest.raises(UsageError, match="model.kind must be a name, such as chat-scene"):
            load_config(files / "fast3d.yaml", [f"model.kind={value}"])


def test_chat_scene_is_what_it_was(fixture):
    assert fixture.model.kind == "chat-scene" and fixture.model.units == Units(100, 3)
    assert fixture.model.mention(17) == "<OBJ017>" and fixture.model.mentioned("<OBJ017>, <OBJ3>") == [17]
