"""The page's data and file; what a browser makes of it is tested in test_page.py."""

import json
import re
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fast3d_core.benchmarks import References, benchmark, score
from fast3d_core.benchmarks.questions import annotation_file, load_samples
from fast3d_core.config import DATASETS, load_config
from fast3d_core.data.annotations import load_locations, locations_file
from fast3d_core.errors import DataError
from fast3d_core.files.files import write_json
from fast3d_core.gap.quality import map_quality
from fast3d_core.maps.published import map_file
from fast3d_core.maps.targets import load_targets
from fast3d_core.pruning import METHODS, Gap, Random, Sap, Vanilla
from fast3d_core.report import build_report, list_runs, load_runs
from fast3d_core.report.answers import judge, read_answers
from fast3d_core.report.colours import DARK_GROUND, LIGHT_GROUND, shades
from fast3d_core.report.html import ASSETS, SCRIPTS, build_page, to_html, write_html
from fast3d_core.report.methods import method_views
from tests.maps.scores import load_maps
from tests.report.fabricate import answered_run, make_run, right_answer


@pytest.fixture
def config(files):
    """A copy of the miniature with runs of four methods."""
    config = load_config(files / "fast3d.yaml")
    answered_run(config, Vanilla(), right_answer)
    answered_run(config, Random(layer=1, keep=15), lambda sample: "<OBJ003>.")
    answered_run(config, Gap(layer=2, keep=15), right_answer)
    answered_run(config, Sap(0.5), right_answer)
    return config


def page_of(config, scenes=20):
    runs = load_runs(list_runs(config.runs)[0])
    return build_page(config, runs, build_report(runs, resamples=100), scenes)


def data_in(html):
    """The data as a browser reads it."""
    (text,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)
    return json.loads(text)


def test_the_page_holds_the_runs_answers_and_what_they_kept(config):
    page = page_of(config)
    browser = page.browser
    assert [run.name for run in browser.runs] == [row.name for row in page.report.rows]
    by_name = {run.name: read_answers(run) for run in load_runs(list_runs(config.runs)[0])}
    samples = {dataset: load_samples(config.data.annotations, dataset) for dataset in DATASETS}
    seen = 0
    for scene in browser.scenes:
        boxes = load_locations(config.data.annotations, "val", [scene.id])[scene.id]
        assert len(scene.labels) == len(scene.boxes) and torch.allclose(
            torch.tensor(scene.boxes), boxes[: len(scene.boxes)], atol=6e-4
        )
        for question in scene.questions:
            sample = samples[question.dataset][question.index]
            assert (sample.scene_id, sample.prompt) == (scene.id, question.prompt)
            assert len(question.answers) == 4
            for answer in question.answers:
                told = by_name[browser.runs[answer.run].name][question.dataset, question.index]
                assert (answer.text, answer.kept) == (told.text, told.kept)
                seen += 1
            scores = load_maps(config.maps.predicted, question.dataset)[question.index]
            sap, gap = (
                next(a.kept for a in question.answers if browser.runs[a.run].method == m) for m in ("sap", "gap")
            )
            assert sorted(question.order[: len(sap)]) == sap and sorted(question.order[:5]) == gap
            assert scores[question.order].diff().max() <= 0
    assert seen == 4 * sum(map(len, samples.values()))
    kept = {(one.run, one.dataset): one.samples for one in page.kept}
    assert set(kept) == {("sap-alpha0.5", dataset) for dataset in DATASETS}
    for dataset in DATASETS:
        counts = [len(a.kept) for (d, _), a in by_name["sap-alpha0.5"].items() if d == dataset]
        assert [kept["sap-alpha0.5", dataset][n] for n in range(101)] == [counts.count(n) for n in range(101)]


def test_the_slider_gets_the_methods_settings(config):
    runs = {run.method: run for run in page_of(config).browser.runs}
    assert runs["sap"].alpha == dict.fromkeys(DATASETS, 0.5) and runs["sap"].layer is None
    gap = runs["gap"]
    assert (gap.layer, gap.keep) == (2, 5) and gap.pruning_layers == pytest.approx(1 - 2 / 4)
    assert runs["vanilla"].alpha is runs["vanilla"].layer is None


def test_an_answer_alone_is_judged_by_the_benchmark(config):
    """The mean over single answers is the published metric over all, but for BLEU, a corpus score."""
    references = References(config.data.annotations)
    for dataset in DATASETS:
        for text in ("<OBJ003>.", None):
            records = [s.record(text or right_answer(s)) for s in load_samples(config.data.annotations, dataset)]
            scores = [judge(dataset, record, references) for record in records]
            metrics = score(dataset, records, references, meteor=False).metrics
            if dataset != "scan2cap":
                assert sum(scores) / len(scores) == pytest.approx(metrics[benchmark(dataset).judge.key])
            assert all(0 <= one <= 1 for one in scores)
    other = {d: benchmark(d).judge.key for d in DATASETS if benchmark(d).judge != benchmark(d).headline}
    assert other == {"scanqa": "[scanqa] EM1"}


def test_attention_is_compared_where_both_maps_are(config):
    found = {one.dataset: one for one in page_of(config).agreements}
    assert list(found) == list(DATASETS)
    for dataset, one in found.items():
        maps = load_maps(config.maps.predicted, dataset)
        logits = torch.stack([maps[i] for i in range(len(maps))])
        targets = load_targets(config, config.maps.targets, "val", dataset, len(maps))
        assert one.quality == map_quality(logits, targets)
        assert len(one.predicted) == 101 and one.predicted[0] == 0 and one.predicted[-1] == pytest.approx(1, abs=1e-4)
        assert all(best >= mine - 1e-6 for best, mine in zip(one.extracted, one.predicted, strict=True))
        for n in (5, 10):
            assert one.predicted[n] == pytest.approx(one.quality.mass[n], abs=1e-5)
            assert one.extracted[n] == pytest.approx(one.quality.best_mass[n], abs=1e-5)


def test_scenes_are_bounded_and_chosen_alike(config):
    page = page_of(config, scenes=2)
    assert len(page.browser.scenes) == 2 and any("2 of 3 scenes" in note for note in page.notes)
    assert to_html(page) == to_html(page_of(config, scenes=2))
    assert not any("of 3 scenes" in note for note in page_of(config).notes)


def test_of_many_questions_the_first_of_each_dataset_go_in(config):
    path = annotation_file(config.data.annotations, "scanqa")
    (first, *rest) = json.loads(path.read_text())
    write_json(path, [first | {"prompt": f"question {i}?"} for i in range(30)] + rest)
    for name in ("vanilla", "sap-alpha0.5", "gap-K2-keep15", "random-K1-keep15-seed0"):
        shutil.rmtree(config.runs / name)
    answered_run(config, Vanilla(), right_answer)
    page = page_of(config)
    questions = [q for scene in page.browser.scenes for q in scene.questions if q.dataset == "scanqa"]
    assert [q.index for q in questions if q.prompt.startswith("question")] == [0, 1, 2, 3, 4]
    assert any("of 44 questions" in note and "--scenes" in note for note in page.notes)
    # The maps are now of another number of samples.
    assert any("scanqa" in note and "shows no attention" in note for note in page.notes)


def test_a_run_without_maps(config):
    """Nothing predicted, nothing extracted: everything else is there, and the notes say what to run."""
    shutil.rmtree(config.maps.predicted)
    page = page_of(config)
    assert all(q.order is None and q.mass is None for scene in page.browser.scenes for q in scene.questions)
    assert page.agreements == [] and len(page.browser.runs) == 4
    told = [note for note in page.notes if "no predicted maps" in note and "`fast3d predict`" in note]
    assert len(told) == 2 and all(note.startswith(", ".join(DATASETS) + ": ") for note in told)
    assert data_in(to_html(page))["browser"]["scenes"]


def test_runs_that_followed_other_maps_are_told(config):
    path = map_file(config.maps.predicted, "sqa3d")
    torch.save({i: {"a_map": torch.randn(100)} for i in range(3)}, path)
    notes = page_of(config).notes
    assert [n for n in notes if "other maps" in n and "sqa3d" in n and "sap-alpha0.5" in n]


def test_what_cannot_be_shown_is_left_out_with_a_note(config):
    make_run(config.runs, "scores-only", "gap", {"scanqa": [1.0, 0.0]})
    path = annotation_file(config.data.annotations, "scanqa")
    other = config.runs / "other"
    shutil.copytree(config.runs / "vanilla", other)
    result = json.loads((other / "result.json").read_text())
    result["settings"]["files"][path.name] = "1-other"
    write_json(other / "result.json", result | {"name": "other"})
    page = page_of(config)
    shown = [run.name for run in page.browser.runs]
    assert "other" not in shown and "scores-only" not in shown and len(shown) == 4
    assert [n for n in page.notes if n.startswith("other answered other questions")]
    assert [n for n in page.notes if n.startswith("scores-only has no answers by sample")]
    locations_file(config.data.annotations, "val").unlink()
    page = page_of(config)
    assert page.browser is None and [n for n in page.notes if n.startswith("there is no scene browser: ")]
    assert data_in(to_html(page))["browser"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"index": "x"},
        {"stages": 5},
        {"stages": [[2, ["x"]]]},
        {"stages": [[2, [-3]]]},
        {"stages": [[2, [True]]]},
        {"dataset": "../x"},
        {"pred": None},
        {"index": 10**9},
    ],
)
def test_a_damaged_journal_is_one_line(config, change):
    (part,) = (config.runs / "vanilla").glob("part-*.jsonl")
    line = json.loads(part.read_text().splitlines()[0])
    part.write_text(json.dumps(line | {"samples": [line["samples"][0] | change]}) + "\n")
    if change == {"index": 10**9}:  # which only the annotations tell
        assert page_of(config).browser is None
        return
    with pytest.raises(DataError, match="journal .*damaged.*fast3d eval"):
        page_of(config)


def test_a_run_of_another_version_shows_its_scores_alone(config):
    """Its result.json is read as ever; its journal is told of and left out."""
    (part,) = (config.runs / "vanilla").glob("part-*.jsonl")
    old = {"dataset": "scanqa", "index": 0, "pred": "y", "tokens": 400, "steps": 3, "layer": 0, "kept": None}
    part.write_text(json.dumps({"batch": 0, "seconds": 1.0, "gap_seconds": 0.0, "samples": [old]}) + "\n")
    page = page_of(config)
    assert "vanilla" in [row.name for row in page.report.rows]
    assert "vanilla" not in [run.name for run in page.browser.runs] and len(page.browser.runs) > 1
    assert [note for note in page.notes if note.startswith("vanilla is a run of another version of fast3d")]


def test_no_text_leaves_its_place_in_the_file(config):
    """HTML, places of the template, and control characters in prompts, labels and answers stay text in the JSON."""
    ugly = "</script><script>alert(1)</script>{{scripts}}<!--&amp; \x1b[2J\u202e\u2028\x00end"
    path = annotation_file(config.data.annotations, "scanqa")
    content = json.loads(path.read_text())
    write_json(path, [record | {"prompt": ugly} for record in content])
    boxes = locations_file(config.data.annotations, "val")
    scenes = torch.load(boxes, weights_only=True)
    for scene in scenes.values():
        scene["objects"] = [ugly] * len(scene["objects"])
    torch.save(scenes, boxes)
    shutil.rmtree(config.runs)
    answered_run(config, Vanilla(), lambda sample: ugly)
    html = to_html(page_of(config))
    clean = "</script><script>alert(1)</script>{{scripts}}<!--&amp; \ufffd[2J\ufffd \ufffdend"
    browser = data_in(html)["browser"]
    question = next(q for scene in browser["scenes"] for q in scene["questions"] if q["dataset"] == "scanqa")
    assert question["prompt"] == question["answers"][0]["text"] == browser["scenes"][0]["labels"][0] == clean
    assert "alert(1)</script>" not in html and html.count("<script") == html.count("</script>") == 2 + len(SCRIPTS)
    (data,) = re.findall(r'application/json">(.*?)</script>', html, re.DOTALL)
    assert all(character.isprintable() for character in data) and not set(data) & set("<>&")


def test_the_file_needs_no_network_and_has_the_licences(config, tmp_path):
    size = write_html(tmp_path / "new" / "page.html", page_of(config))
    html = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert size == len(html.encode()) < 5_000_000
    assert not re.findall(r'(?:src|href)="(?!#|data:)', html)
    assert "default-src 'none'" in html
    licences = (ASSETS / "vendor" / "LICENCES.txt").read_text()
    versions = json.loads((ASSETS / "vendor" / "package.json").read_text())["dependencies"]
    assert licences in html
    for name, version in (("three.js", versions["three"]), ("Chart.js", versions["chart.js"])):
        assert f"=== {name} {version}" in licences and "MIT" in licences
    libraries = (ASSETS / "vendor" / "libraries.min.js").read_text()
    assert versions["chart.js"] in libraries and versions["three"].split(".")[1] in libraries


def test_a_file_that_cannot_be_written_is_one_line(config, tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file" / "page.html", tmp_path):
        with pytest.raises(DataError, match="--html: .* cannot be written"):
            write_html(path, page_of(config))
    assert (tmp_path / "file").read_text() == "mine"


def _luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(colour, ground):
    a, b = sorted((_luminance(colour), _luminance(ground)))
    return (b + 0.05) / (a + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_are_readable_in_both_themes(theme):
    """WCAG 2: text has a contrast of 4.5 with what is behind it, marks and lines in charts 3."""
    css = (ASSETS / "page.css").read_text()
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w{6})\b", block)) for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    )
    colours = light | (dark if theme == "dark" else {})
    assert set(dark) >= set(light) - {"ramp"}
    for ground in ("paper", "raised"):
        for name, least in {
            **dict.fromkeys(("ink", "faint", "accent", "right", "wrong", "partly"), 4.5),
            **dict.fromkeys(("predicted", "other", "target", "named"), 3.0),
        }.items():
            assert _contrast(colours[name], colours[ground]) >= least, (name, ground)
        for method in method_views(["gone"]):
            assert _contrast(getattr(method, theme), colours[ground]) >= 3, (method, ground)
    assert colours["raised"] == {"light": LIGHT_GROUND, "dark": DARK_GROUND}[theme]


@given(st.integers(0, 0xFFFFFF))
def test_any_colour_of_a_method_can_be_told_from_the_page(number):
    own = shades(f"#{number:06x}")
    assert _contrast(own.light, LIGHT_GROUND) >= 2.99 and _contrast(own.dark, DARK_GROUND) >= 4.49
    assert own.light == f"#{number:06x}" or _contrast(f"#{number:06x}", LIGHT_GROUND) < 3


def test_methods_keep_their_looks():
    """Black is white on dark; others keep their hue; what is not installed has a name and a colour."""
    views = {one.name: one for one in method_views(["gone", None])}
    assert list(views) == [*METHODS, "gone"]
    assert (views["vanilla"].light, views["vanilla"].dark) == ("#000000", "#ebebeb")
    assert (views["sap"].title, views["sap"].light, views["sap"].marker) == ("GAP+SAP", "#009e73", "rectRot")
    assert views["gone"].title == "gone" and views["gone"].rule is None
    assert len({one.light for one in views.values()}) == len({one.dark for one in views.values()}) == len(views)
