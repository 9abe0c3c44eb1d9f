"""Methods of another package, each a file of its own, through everything that fast3d's own methods go through."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from fast3d_core.benchmarks.questions import load_samples
from fast3d_core.config import DATASETS, load_config
from fast3d_core.data.annotations import Scenes
from fast3d_core.evaluation.journal import Journal
from fast3d_core.llm.cost import cost
from fast3d_core.models.registry import scene_model
from fast3d_core.plan import Units, View
from fast3d_core.pruning import METHODS, PlanRequest, Sap
from tests.cli.test_eval import LIMITED
from tests.cli.test_methods import words
from tests.cli.test_search_alpha import error
from tests.maps.scores import load_maps
from tests.plugins.conftest import PLUGINS
from tests.report.browsing import kept

FOLDER = PLUGINS / "methods"
SCENE, QUESTION = "scene0011_00", "What is next to <OBJ003>?"
UNITS = Units(100, 3)
SETTINGS = [
    ("raters", {"layer": 1, "keep": 33}), ("raters", {"layer": 3, "keep": 4}),
    ("pyramid", {"alpha": 0.4}), ("pyramid", {"alpha": 1.0}),
    ("folding", {"layer": 0, "keep": 15}), ("folding", {"layer": 2, "keep": 40}),
]  # fmt: skip


@pytest.fixture
def methods(install):
    """The package, installed: its methods by name."""
    install(FOLDER)
    return METHODS


@pytest.fixture
def config(files, methods):
    return files / "fast3d.yaml"


def request(sample, units, maps, layers=4):
    return PlanRequest(sample.dataset, sample.index, units, maps[sample.dataset][sample.index], layers=layers)


def all_maps(config):
    return {dataset: load_maps(config.maps.predicted, dataset, 3) for dataset in DATASETS}


def test_size(methods):
    """Each is as small as is promised."""
    files = sorted(FOLDER.glob("*.py"))
    assert [METHODS.package(name) for name in ("raters", "pyramid", "folding")] == ["fast3d-methods 1.0"] * 3
    assert len(files) == 3 and all(len(path.read_text().splitlines()) <= 60 for path in files)


def same_ids(model, prompts, plans, settings):
    """Answers of both engines, which keep the same tokens in all stages and give the same ids."""
    fast = model.generations(prompts, plans, settings)
    slow = model.generations(prompts, plans, settings, "reference")
    assert [one.ids for one in fast] == [one.ids for one in slow]
    for one, other in zip(fast, slow, strict=True):
        assert [(layer, kept.tolist()) for layer, kept in one.stages] == [
            (layer, kept.tolist()) for layer, kept in other.stages
        ]
    return [tuple(one.ids) for one in fast]


@pytest.mark.parametrize("beams", [1, 5])
@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=str)
def test_engines_agree(fixture, methods, name, settings, beams):
    """On prompts of all lengths."""
    maps = all_maps(fixture.config)
    plans = [methods[name](**settings).plan(request(sample, UNITS, maps)) for sample in fixture.samples]
    search = replace(fixture.config.generation, beams=beams, max_new_tokens=6)
    assert len(set(same_ids(fixture.model, fixture.prompts, plans, search))) > 3


@pytest.mark.parametrize("kind", ["chat-scene", "patches"])
def test_all_in_one_batch(config, install, kind):
    """Stages of every kind at every layer beside one another; of patches, the visual tokens are behind the question."""
    install(PLUGINS / "patches")
    loaded = load_config(config, [f"model.kind={kind}"])
    model, maps = scene_model(loaded).from_config(loaded), all_maps(loaded)
    samples = [sample for dataset in DATASETS for sample in load_samples(loaded.data.annotations, dataset)]
    scenes = Scenes(loaded.data.annotations)
    prompts = model.prompts([scenes[s.scene_id] for s in samples], [s.prompt for s in samples])
    pruners = [METHODS[name](**settings) for name, settings in SETTINGS]
    plans = [pruners[i % len(pruners)].plan(request(s, model.units, maps)) for i, s in enumerate(samples)]
    assert {tuple(stage.layer for stage in plan.stages) for plan in plans} == {(0, 2), (0,), (1,), (2,), (3,)}
    assert len(set(same_ids(model, prompts, plans, loaded.generation))) > 3


def test_raters(methods):
    """Only what rows above the mean say counts: the second alone, of which the others together say the contrary."""
    (stage,) = methods["raters"](layer=2, keep=2).plan(PlanRequest("scanqa", 0, UNITS)).stages
    rows = torch.tensor([[0.2, 0, 0, 0.1], [0, 0.5, 0.4, 0], [0.3, 0, 0, 0.1], [0.3, 0, 0, 0.1]])
    offsets = torch.tensor([1, 7, 20, 33])
    assert stage.selected(View(offsets, text=rows)).tolist() == [7, 20]
    equal = torch.tensor([[0.1, 0.3, 0.2, 0.0]]).repeat(7, 1)
    assert stage.selected(View(offsets, text=equal)).tolist() == [7, 20]
    assert stage.selected(View(offsets, text=equal[:1])).tolist() == [7, 20]


def test_folding(methods):
    """Means over what is nearest by angle, however long; what is kept stays with itself, beside an equal one, too."""
    scores = torch.arange(100, 0, -1).float()
    (stage,) = methods["folding"](layer=0, keep=3).plan(PlanRequest("scanqa", 0, UNITS, scores)).stages
    hidden = torch.tensor([[2.0, 0], [2, 0], [0, 2], [0, 10], [0.1, 4], [6, 1]])
    merged = stage.merged(View(torch.arange(6), hidden=hidden), torch.tensor([0, 1, 2]))
    torch.testing.assert_close(merged, torch.tensor([[4, 0.5], [2, 0], [0.1 / 3, 16 / 3]]))


@pytest.mark.parametrize("alpha", [0.02, 0.35, 0.4, 0.9, 1.0])
def test_pyramid(fixture, methods, alpha):
    """SAP's set, and the better half of it."""
    maps = all_maps(fixture.config)
    for sample in fixture.samples:
        one = request(sample, UNITS, maps)
        plan = methods["pyramid"](alpha).plan(one)
        (first,) = Sap(alpha).plan(one).stages
        objects = first.count // 3
        half = max(1, objects // 2)
        assert plan.counts(4) == [first.count] * 2 + [3 * half] * 2
        assert plan.stages[0].select.tolist() == first.select.tolist()
        assert plan.ratio(4) == pytest.approx(1 - (objects + half) / 200)
        best = sorted(one.scores.argsort(descending=True)[:half].tolist())
        assert UNITS.of(plan.stages[-1].select.tolist()) == best and len(plan.stages) == (2 if objects > 1 else 1)
        assert len(methods["pyramid"](alpha).plan(request(sample, UNITS, maps, layers=1)).stages) == 1


def test_eval_report_and_page(fast3d, config, visit, tmp_path):
    """Costs are those of the plans that were carried out, layer by layer; the page shows what the last stage kept."""
    fast3d("eval", "-c", config, "--no-meteor", "-m", "raters", "-m", "folding", "--layer", "1", "--keep", "12")
    done = fast3d("eval", "-c", config, "--no-meteor", "-m", "vanilla", "-m", "pyramid", "--alpha", "0.4", "--json")
    result = json.loads(done.stdout)[1]
    settings = load_config(config)
    maps, shape = all_maps(settings), scene_model(settings).shape_of(settings)
    samples = {d: load_samples(settings.data.annotations, d) for d in DATASETS}
    entries = [one for batch in Journal(settings.runs / "pyramid-alpha0.4", {}).batches().values() for one in batch]
    plans = [METHODS["pyramid"](0.4).plan(request(samples[e.dataset][e.index], UNITS, maps)) for e in entries]
    costs = [
        cost(shape, plan.counts(4), text=entry.tokens - 300, beams=5, steps=entry.steps, element_bytes=4)
        for plan, entry in zip(plans, entries, strict=True)
    ]
    for key in ("prefill_flops", "decode_flops", "kv_bytes"):
        assert result["cost"][key] == pytest.approx(sum(getattr(one, key) for one in costs) / len(costs))
    assert [entry.counts(4, 300) for entry in entries] == [plan.counts(4) for plan in plans]
    counts = Counter((plan.counts(4)[0], plan.counts(4)[-1]) for plan in plans)
    assert counts == {(18, 9): 4, (21, 9): 4, (33, 15): 3, (24, 12): 2, (27, 12): 1, (30, 15): 1}
    # On average 24 of 300 tokens in two layers and 11.2 in two; keys and values are 512 bytes a token and layer, those
    # of 5 beams' 11 tokens that were read again included.
    pruning, text = result["pruning"], result["cost"]["prompt_tokens"] - 300
    assert pruning["kept_tokens"] == pytest.approx(11.2) and pruning["ratio"] == pytest.approx(100 - 100 * 35.2 / 600)
    assert result["cost"]["kv_bytes"] == pytest.approx(512 * (2 * (24 + 11.2) + 4 * (text + 5 * 11)))
    rows = {row["name"]: row for row in json.loads(fast3d("report", "-c", config, "--json").stdout)["rows"]}
    assert set(rows) == {"vanilla", "pyramid-alpha0.4", "raters-K1-keep12", "folding-K1-keep12"}
    assert rows["raters-K1-keep12"]["pruning_ratio"] == pytest.approx(100 * 3 / 4 * 288 / 300)
    assert rows["pyramid-alpha0.4"]["flops"] == pytest.approx(
        sum(one.prefill_flops + one.decode_flops for one in costs) / len(costs)
    )
    fast3d("report", "-c", config, "--html", tmp_path / "page.html")
    page = visit(tmp_path / "page.html", fragment="#scanqa-0")
    assert page.locator("#tables tbody tr").count() >= 4
    number = page.evaluate("sceneBrowser.runs.findIndex(run => run.name === 'pyramid-alpha0.4')")
    page.check(f"input[name=shown][value='{number}']")
    (plan,) = [p for p, e in zip(plans, entries, strict=True) if (e.dataset, e.index) == ("scanqa", 0)]
    assert kept(page) == UNITS.of(plan.stages[1].select.tolist()) != UNITS.of(plan.stages[0].select.tolist())


def test_ask(fast3d, config, visit, tmp_path):
    asked = ["ask", QUESTION, "-c", config, "--scene", SCENE]
    done = fast3d(*asked, "-m", "pyramid", "--alpha", "0.4")
    assert "saved  270 of 300 visual tokens from layer 0 of 4 on, 285 from layer 2 on, 92.5% over all" in done.stdout
    page = tmp_path / "asked.html"
    replies = json.loads(
        fast3d(*asked, "--compare", "--ratio", "60", "--alpha", "0.4", "--html", page, "--json").stdout
    )
    found = {one["method"].split("-")[0]: one for one in replies}
    assert list(found) == list(METHODS) and {"raters", "pyramid", "folding"} < set(found)
    assert found["pyramid"]["stages"] == [[0, 30], [2, 15]] and found["pyramid"]["kept_tokens"] == 15
    assert found["raters"]["stages"] == [[1, 60]] and found["vanilla"]["stages"] == []
    assert found["pyramid"]["flops"] < found["sap"]["flops"] and found["folding"]["kept"] == found["gap"]["kept"]
    shown = visit(page)
    table = shown.locator("#tables").inner_text()
    assert "30, 15 of 300" in table and "0, 2 of 4" in table and "300 of 300" in table
    number = shown.evaluate("sceneBrowser.runs.findIndex(run => run.method === 'pyramid')")
    shown.check(f"input[name=shown][value='{number}']")
    assert kept(shown) == sorted(one["slot"] for one in found["pyramid"]["kept"])


def test_bench(fast3d, config):
    """What cannot be measured, two stages in stock transformers and merging a scene that is reused, is noted."""
    quick = ["--batch", "2", "--repeats", "1", "--warmup", "0", "--new-tokens", "2", "--beams", "2", "--ratio", "40"]
    chosen = ["-m", "vanilla", "-m", "raters", "-m", "folding", "-m", "pyramid", "--baselines", "--reuse-scene"]
    result = json.loads(fast3d("bench", "--llm", config, *quick, *chosen, "--json").stdout)
    rows = {row["name"]: row for row in result["rows"]}
    ours = {"vanilla", "vanilla reuse", "raters", "raters reuse", "folding", "pyramid", "pyramid reuse"}
    assert set(rows) == ours | {"published", "stock"}
    assert rows["raters"]["kept"]["ratio"] == pytest.approx(40) == rows["folding"]["kept"]["ratio"]
    assert rows["pyramid"]["kept"]["ratio"] > 50  # its alpha is that of which SAP's set has the ratio
    flops = {name: row["flops"]["prefill"] for name, row in rows.items() if row["flops"] and "reuse" not in name}
    assert flops["pyramid"] < flops["raters"] == flops["folding"] < flops["vanilla"]
    reuse, stock = result["notes"]
    assert reuse.startswith("folding reuse, batch 2: left out, the prefix cache holds no hidden states")
    assert stock.startswith("stock pruned, batch 2: left out, stock transformers can do without tokens before layer 0")


def test_merging_a_scene_that_is_reused_is_refused(fast3d, config):
    budget = ["--layer", "1", "--keep", "12"]
    reuse = ["-c", config, *LIMITED, "--set", "eval.reuse_scene=true"]
    line = "error: the prefix cache holds no hidden states, which a stage of the plan looks at; turn reuse off"
    assert line in error(fast3d("eval", "-m", "folding", *budget, *reuse, check=False), 1)
    fast3d("eval", "-m", "raters", *budget, *reuse)
    done = fast3d("eval", "-m", "raters", "--layer", "0", "--keep", "12", *reuse, check=False)
    assert "raters reads the attention of layer K - 1, so K must be at least 1" in error(done, 2)


def test_help_and_a_dry_run(fast3d, config):
    text = words(fast3d("eval", "--help").stdout)
    assert "gap, sap, folding, pyramid or raters." in text
    assert "pyramid: share of predicted attention to keep in the first layers (in (0, 1])." in text
    assert "raters: Keeps the tokens that those text tokens look at most" in text and "arXiv 2410.04417." in text
    dry = ["eval", "-c", config, "--dry-run", "--json"]
    found = json.loads(fast3d(*dry, "-m", "pyramid", "-m", "sap", "--alpha", "0.4").stdout)
    pyramid, sap = found
    assert (pyramid["layer"], pyramid["run"]) == (0, "pyramid-alpha0.4") and pyramid["ratio"] > sap["ratio"]
    assert pyramid["kept_tokens"]["mean"] < sap["kept_tokens"]["mean"] and pyramid["seconds"] < sap["seconds"]
    found = json.loads(fast3d(*dry, "-m", "raters", "--layer", "3", "--keep", "12").stdout)
    assert (found["layer"], found["kept_tokens"]["mean"]) == (3, 12)


def test_search_alpha_is_saps_and_pyramid_takes_it(fast3d, config):
    search = ["search-alpha", "-c", config, "--target", "90", "--tolerance", "10"]
    fast3d(*search)
    alpha = json.loads((load_config(config).runs / "alpha.json").read_text())["alpha"]
    name = json.loads(fast3d("eval", "-c", config, "-m", "pyramid", *LIMITED, "--json").stdout)["name"]
    assert name == f"pyramid-alpha{alpha}"
    fast3d(*search, "--per-dataset")
    name = json.loads(fast3d("eval", "-c", config, "-m", "pyramid", *LIMITED, "--json").stdout)["name"]
    assert name == "pyramid-per-dataset"
