"""The page in a real browser, a headless Chromium (see conftest.py), which opens the file from disk."""

import json
import shutil

import pytest
import torch

from fast3d_core.benchmarks.questions import annotation_file, load_samples
from fast3d_core.config import load_config
from fast3d_core.data.annotations import locations_file
from fast3d_core.files.files import write_json
from fast3d_core.plan import Units
from fast3d_core.pruning import Gap, PlanRequest, Random, Sap, Vanilla
from fast3d_core.pruning.budget import from_ratio
from fast3d_core.report import build_report, list_runs, load_runs
from fast3d_core.report.html import build_page, write_html
from tests.conftest import MINIATURE
from tests.maps.scores import load_maps
from tests.report.browsing import keep_screenshot, kept, room
from tests.report.fabricate import answered_run, long_answers, right_answer

UGLY = '</script><img src=x onerror="window.pwned=1"><b>\x1b[2J\u202eend'


def write_page(config, path):
    runs = load_runs(list_runs(config.runs)[0])
    write_html(path, build_page(config, runs, build_report(runs, published=True, resamples=100)))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The page of four methods on the miniature, whose pruned answers but random's are right, and its config."""
    files = tmp_path_factory.mktemp("page") / "files"
    shutil.copytree(MINIATURE.parent, files)
    config = load_config(files / "fast3d.yaml")
    long_answers(config)
    answered_run(config, Vanilla(), right_answer)
    answered_run(config, Random(layer=1, keep=15), lambda sample: "<OBJ003>.")
    answered_run(config, Gap(layer=2, keep=15), right_answer)
    answered_run(config, Sap(0.5), right_answer)
    return config, write_page(config, files.parent / "page.html")


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (1400, "dark"), (800, "light")])
def test_loads_without_a_complaint(visit, made, width, scheme):
    page = visit(made[1], width=width, scheme=scheme)
    assert page.locator("#tables tbody tr").count() == 4 + 8 and page.locator("tr.published").count() == 8
    assert page.evaluate("Object.values(Chart.instances).length") == 3 + 5 + 5
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing makes the page scroll sideways
    for number, box in enumerate(page.locator(".chart canvas").all()):
        pixels = "canvas => new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size"
        assert box.evaluate(pixels) > 5, f"chart {number} is empty"
    page.locator("#scenes").scroll_into_view_if_needed()
    keep_screenshot(page, f"report-{scheme}-{width}")


def test_light_and_dark_are_followed_at_once(visit, made):
    page = visit(made[1])
    light = room(page), page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("light => document.querySelector('#room canvas').toDataURL() !== light", arg=light[0])
    dark = room(page), page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light[1] == "rgb(255, 255, 255)" != dark[1]
    assert page.evaluate("Chart.getChart('by-ratio').options.scales.x.ticks.color") == page.evaluate("styled('faint')")


def test_the_charts_hold_the_reports_numbers(visit, made):
    page = visit(made[1])
    rows = {row["name"]: row for row in page.evaluate("page.report.rows")}
    read = "id => Chart.getChart(id).data.datasets.flatMap(({ label, data }) => data.map((dot) => ({ label, ...dot })))"
    for measure in ("ratio", "scanrefer"):
        page.select_option("#measure", measure)
        dots = {dot["name"]: dot for dot in page.evaluate(read, "by-ratio")}
        assert {"vanilla", "gap-K2-keep15", "sap-alpha0.5", "random-K1-keep15-seed0", "GAP 90%"} <= set(dots)
        for name, dot in dots.items():
            estimate = rows[name]["ratio"] if measure == "ratio" else rows[name]["scores"][measure]
            assert (dot["x"], dot["y"]) == (rows[name]["pruning_ratio"], estimate["value"])
            assert (dot["low"], dot["high"]) == (estimate["low"], estimate["high"])
    assert {dot["name"]: dot["x"] for dot in page.evaluate(read, "by-flops")}["vanilla"] == rows["vanilla"]["flops"]
    times = {dot["name"]: dot["x"] for dot in page.evaluate(read, "by-time")}
    assert times["vanilla"] == pytest.approx(1 / rows["vanilla"]["samples_per_second"])
    assert not [name for name in times if rows[name]["published"]]


def test_an_interval_is_drawn(visit, made):
    page = visit(made[1])
    page.select_option("#measure", "multi3dref")  # one of three is right
    bars = """chart => {
        const drawn = chart.canvas.toDataURL();
        chart.data.datasets.forEach(({ data }) => data.forEach((dot) => (dot.low = dot.high = null)));
        chart.update();
        return drawn !== chart.canvas.toDataURL();
    }"""
    assert page.evaluate(f"({bars})(Chart.getChart('by-ratio'))")


def test_javascript_keeps_what_python_keeps(visit, made):
    """Every question, alphas all over the range and those that a sum meets to the last bit; every ratio of GAP."""
    config, path = made
    page = visit(path)
    questions = page.evaluate("page.browser.scenes.flatMap(({ questions }) => questions)")
    assert len(questions) == 15
    rules = """question => rulesOf(question, page.browser.runs, page.browser.slots, page.methods).map((rule) => (
        { id: rule.id, positions: rule.positions, all: rule.positions.map((_, i) => [rule.kept(i), rule.ratio(i)]) }
    ))"""
    for question in questions:
        dataset, index = question["dataset"], question["index"]
        request = PlanRequest(dataset, index, Units(100, 3), load_maps(config.maps.predicted, dataset)[index])

        def objects(pruner, request=request):
            return sorted(set((pruner.plan(request).stages[0].select // 3).tolist()))

        alphas = [*torch.rand(20, dtype=torch.float64).tolist(), *question["mass"][:5], 1.0]
        for alpha in alphas:
            count = page.evaluate("([mass, alpha]) => shareCount(mass, alpha)", [question["mass"], alpha])
            assert sorted(question["order"][:count]) == objects(Sap(alpha)), alpha
        sap, gap = page.evaluate(rules, question)
        assert (sap["id"], gap["id"]) == ("sap", "gap-2") and 0.5 in sap["positions"]
        for alpha, (slots, ratio) in zip(sap["positions"], sap["all"], strict=True):
            assert sorted(slots) == objects(Sap(alpha)) and ratio == pytest.approx(100 - len(slots))
        for slots, ratio in gap["all"]:
            budget = from_ratio(ratio, 4, Units(100, 3), layer=2)
            assert budget.keep == 3 * len(slots) and sorted(slots) == objects(Gap(2, budget.keep))


def test_the_slider_shows_live_what_would_be_kept(visit, made):
    page = visit(made[1], fragment="#scanqa-0")
    before, run = room(page), kept(page)
    slider = page.locator("#slider")
    assert page.locator("#slider-value").inner_text() == "0.5" and page.is_checked("input[name=shown][value='3']")
    slider.focus()
    page.keyboard.press("End")
    assert page.locator("#slider-value").inner_text() == "1" and len(kept(page)) == 100
    assert "100 of 100 object slots" in page.locator("#would").inner_text()
    everything = room(page)
    page.keyboard.press("Home")
    assert len(kept(page)) == 1 and "99.0% of the visual tokens" in page.locator("#would").inner_text()
    assert len({before, everything, room(page)}) == 3
    assert page.is_checked("input[name=shown][value='-1']")
    page.check("input[name=shown][value='3']")  # back to what SAP's run kept
    assert kept(page) == run and room(page) == before and page.locator("#slider-value").inner_text() == "0.5"
    page.select_option("#rule", "gap-2")
    assert page.locator("#slider-name").inner_text() == "ratio"
    assert page.locator("#slider-value").inner_text() == "47.5%" and len(kept(page)) == 5
    page.focus("#slider")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#slider-value").inner_text() == "47.0%" and len(kept(page)) == 6
    page.click("#next")
    assert page.locator("#slider-value").inner_text() == "47.0%" and len(kept(page)) == 6


def test_the_slider_stays_at_its_alpha_where_each_dataset_has_one_of_its_own(visit, tmp_path):
    shutil.copytree(MINIATURE.parent, tmp_path / "files")
    config = load_config(tmp_path / "files" / "fast3d.yaml")
    own = {"scanrefer": 0.2137, "multi3dref": 0.3, "scan2cap": 0.4, "scanqa": 0.7241, "sqa3d": 0.67}
    answered_run(config, Vanilla(), right_answer)
    answered_run(config, Sap(own), right_answer)
    page = visit(write_page(config, tmp_path / "page.html"), fragment="#scanrefer-0")
    assert page.locator("#slider-value").inner_text() == "0.2137"
    page.focus("#slider")
    page.keyboard.press("Home")
    for _ in range(50):
        page.keyboard.press("ArrowRight")
    assert page.locator("#slider-value").inner_text() == "0.5"
    for _ in range(5):
        page.click("#next")
        assert page.locator("#slider-value").inner_text() == "0.5"


def test_the_browser_s_own_keys_stay_its_own(visit, made):
    page = visit(made[1])
    page.focus("#room")
    for keys, taken in (("+", True), ("Control+0", False), ("Alt+ArrowLeft", False)):
        listen = "addEventListener('keydown', event => (window.taken = event.defaultPrevented))"
        page.evaluate(listen)
        *modifiers, key = keys.split("+") if len(keys) > 1 else [keys]
        init = {"key": key, "bubbles": True, "cancelable": True, "ctrlKey": "Control" in modifiers,
                "altKey": "Alt" in modifiers}  # fmt: skip
        page.evaluate("init => document.querySelector('#room').dispatchEvent(new KeyboardEvent('keydown', init))", init)
        assert page.evaluate("window.taken") is taken, keys


def test_answers_stand_side_by_side_and_are_marked(visit, made):
    config, path = made
    page = visit(path, fragment="#sqa3d-0")
    sample = load_samples(config.data.annotations, "sqa3d")[0]
    assert page.locator("#prompt").inner_text() == sample.prompt
    rows = [row.inner_text() for row in page.locator(".answer").all()]
    assert len(rows) == 4 + 1
    assert "vanilla kept all" in rows[0] and "✓ right" in rows[0] and sample.ref_captions[0] in rows[0]
    assert "random" in rows[1] and "✗ wrong" in rows[1] and "<OBJ003>" in rows[1]
    assert "gap-K2-keep15 kept 5" in rows[2] and "✓ right" in rows[2]
    page.check("input[name=shown][value='1']")
    assert page.evaluate("[...sceneBrowser.named]") == [3]
    assert page.evaluate("sceneBrowser.room.outlines.children.length") == 1  # of what was named; SQA3D names no target
    page.goto(path.as_uri() + "#scanrefer-0")
    page.check("input[name=shown][value='1']")
    assert page.evaluate("sceneBrowser.room.outlines.children.length") == 2  # and the target's


def test_pruned_objects_are_dimmed_and_attention_is_coloured(visit, made):
    page = visit(made[1], fragment="#scanqa-0")
    looks = "sceneBrowser.room.objects.map(({ mesh }) => [mesh.material.opacity, mesh.material.color.getHexString()])"
    shown, stays = page.evaluate(looks), set(kept(page))
    assert 0 < len(stays) < 100
    for slot, (opacity, _) in enumerate(shown):
        assert (opacity > 0.5) == (slot in stays) and (opacity < 0.1) == (slot not in stays)
    order = page.evaluate("sceneBrowser.question.order")
    assert shown[order[0]][1] == page.evaluate("styled('ramp').split(' ').at(-1).slice(1)") != shown[order[-1]][1]


def test_everything_is_reached_and_done_by_keyboard(visit, made):
    page = visit(made[1])
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.id || document.activeElement.name || document.activeElement.tagName")
        )
    wanted = [
        "measure",
        "kept-run",
        "scene",
        "question",
        "previous",
        "next",
        "differ",
        "room",
        "names",
        "rule",
        "slider",
        "shown",
    ]
    assert [name for name in reached if name in wanted][: len(wanted)] == wanted
    assert "SUMMARY" in reached
    page.focus("#room")
    seen = {room(page)}
    for key in ("ArrowLeft", "ArrowUp", "+", "-"):
        page.keyboard.press(key)
        seen.add(room(page))
    assert len(seen) == 5
    page.keyboard.press("0")
    whole = room(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("0")
    assert room(page) == whole
    prompt = page.locator("#prompt").inner_text()
    page.focus("#next")
    page.keyboard.press("Enter")
    assert page.locator("#prompt").inner_text() != prompt
    page.focus("#previous")
    page.keyboard.press("Enter")
    assert page.locator("#prompt").inner_text() == prompt
    page.focus("input[name=shown]:checked")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.value") == "2" == str(page.evaluate("sceneBrowser.shown"))
    page.focus("#room")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_every_scene_and_question_opens(visit, made):
    page = visit(made[1])
    seen = set()
    for _ in range(16):
        seen.add((page.input_value("#scene"), page.locator("#prompt").inner_text()))
        page.click("#next")
    assert len(seen) == 15 and {scene for scene, _ in seen} == {"0", "1", "2"}
    page.check("#differ")
    assert 0 < page.locator("#question option").count() <= 15


def test_the_pointer_tells_what_it_is_on(visit, made):
    page = visit(made[1], fragment="#scanqa-0")
    page.locator("#room").scroll_into_view_if_needed()
    box = page.locator("#room").bounding_box()
    told = set()
    for i in range(1, 8):
        page.mouse.move(box["x"] + box["width"] * (0.3 + 0.05 * i), box["y"] + box["height"] * 0.5)
        told.add(page.locator("#pointed").inner_text())
    told.discard("")
    assert told and all("of the predicted attention" in text and text.endswith(("kept", "pruned")) for text in told)


def test_nothing_in_the_data_runs_or_becomes_html(visit, made, tmp_path):
    """HTML and control characters in labels, questions, references, answers and run names are shown as text."""
    files = tmp_path / "files"
    shutil.copytree(MINIATURE.parent, files)
    config = load_config(files / "fast3d.yaml")
    for dataset in ("scanqa", "sqa3d"):
        path = annotation_file(config.data.annotations, dataset)
        records = json.loads(path.read_text())
        write_json(path, [record | {"prompt": UGLY, "ref_captions": [UGLY]} for record in records])
    boxes = locations_file(config.data.annotations, "val")
    scenes = torch.load(boxes, weights_only=True)
    for scene in scenes.values():
        scene["objects"] = [UGLY] * len(scene["objects"])
    torch.save(scenes, boxes)
    answered_run(config, Vanilla(), lambda sample: f"{UGLY} <OBJ003>")
    answered_run(config, Sap(0.5), lambda sample: UGLY, name="<img src=x onerror='window.pwned=1'>")
    page = visit(write_page(config, tmp_path / "page.html"), fragment="#scanqa-0")
    page.click("summary >> text=Objects by attention")
    page.select_option("#names", "all")
    page.wait_for_timeout(200)
    assert page.evaluate("window.pwned") is None and page.locator("img").count() == 0
    assert page.locator("main b:not(#slider-value)").count() == 0
    shown = UGLY.replace("\x1b", "\ufffd").replace("\u202e", "\ufffd")
    assert page.locator("#prompt").inner_text() == shown
    assert shown in page.locator("#expected").inner_text() and shown in page.locator(".answer .text").first.inner_text()
    assert page.locator(".name", has_text="onerror").count() > 0
    assert page.locator(".answer .run", has_text="<img src=x").count() == 1


def test_a_run_without_maps(visit, made, tmp_path):
    files = tmp_path / "files"
    shutil.copytree(MINIATURE.parent, files)
    config = load_config(files / "fast3d.yaml")
    answered_run(config, Random(layer=1, keep=15), right_answer)
    shutil.rmtree(config.maps.predicted)
    page = visit(write_page(config, tmp_path / "page.html"), fragment="#scanqa-0")
    assert page.is_hidden("#slider-box") and page.locator(".answer").count() == 1
    assert len(kept(page)) == 5 and "no predicted maps" in page.locator("#notes").inner_text()
    assert page.is_visible("#attention-none") and page.is_visible("#kept-none")


def test_a_browser_without_3d_shows_the_rest(visit, made):
    script = """const whole = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
            return kind.startsWith("webgl") ? null : whole.call(this, kind, ...more);
        };"""
    page = visit(made[1], fragment="#scanqa-0", script=script)
    assert "draws no 3D" in page.locator("#room").inner_text() and page.locator(".answer").count() == 5
    page.focus("#slider")
    page.keyboard.press("End")
    assert len(kept(page)) == 100
    assert all("WebGL" in one for one in visit.troubles)  # three.js says so
    visit.troubles.clear()
