"""The page of one question: its data, and what a browser makes of it."""

import pytest
import torch

from fast3d_core import Asker, load_config
from fast3d_core.config import DATASETS
from fast3d_core.data.annotations import locations_file
from fast3d_core.pruning import FastV, Gap, Random, Sap, Vanilla
from fast3d_core.report.asked import asked_page
from fast3d_core.report.html import to_html, write_html
from tests.conftest import MINIATURE
from tests.report.browsing import keep_screenshot, kept, room
from tests.report.test_page import UGLY

SCENE = "scene0011_00"
QUESTION = "What color is the couch next to <OBJ003>?"
METHODS = [Vanilla(), Random(1, 15), FastV(2, 15), Gap(2, 15), Sap(0.5)]


def ask(asker, question=QUESTION, methods=METHODS):
    return asked_page(asker.rooms, [(pruner, asker.ask(question, SCENE, pruner)) for pruner in methods])


@pytest.fixture(scope="module")
def asker():
    return Asker(load_config(MINIATURE))


@pytest.fixture(scope="module")
def made(asker, tmp_path_factory):
    path = tmp_path_factory.mktemp("asked") / "page.html"
    write_html(path, ask(asker))
    return path


def test_the_page_holds_what_was_answered_and_kept(asker):
    page = ask(asker)
    (scene,) = page.browser.scenes
    (question,) = scene.questions
    replies = [asker.ask(QUESTION, SCENE, pruner) for pruner in METHODS]
    assert question.prompt == replies[0].prompt and page.notes == [] and SCENE in page.title
    assert [run.name for run in page.browser.runs] == [reply.method for reply in replies]
    for answer, reply in zip(question.answers, replies, strict=True):
        slots = [one.slot for one in reply.kept]
        assert (answer.text, answer.kept) == (reply.text, None if reply.kept_tokens == 300 else slots)
        assert answer.score is None and answer.named == [one.slot for one in reply.named]
    detected = asker.rooms.detected(SCENE)
    assert scene.labels == [one.label for one in detected]
    assert scene.boxes[3] == pytest.approx([*detected[3].centre, *detected[3].size], abs=6e-4)
    assert question.targets == [scene.boxes[3]]  # the object that the question names
    (table,) = page.tables
    assert [cells[0] for cells in table.columns[0].cells] == [reply.method for reply in replies]
    titles = [column.title for column in table.columns]
    assert titles[-6:] == list(replies[0].seconds)[:-1]
    assert table.columns[titles.index("tokens kept")].cells[3] == ("15 of 300",)


def test_an_alpha_for_each_dataset_is_that_of_the_task(asker):
    methods = [Sap(dict(zip(DATASETS, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True)))]
    (run,) = ask(asker, methods=methods).browser.runs
    assert run.alpha == {"asked": methods[0].alpha["scanqa"]}


def test_without_a_map_and_without_boxes_the_notes_say_so(files):
    config = load_config(files / "fast3d.yaml")
    page = ask(Asker(config), methods=[Vanilla()])
    assert page.browser.scenes[0].questions[0].order is None and "objects have no colour" in page.notes[0]
    for split in ("val", "train"):
        locations_file(config.data.annotations, split).unlink()
    page = ask(Asker(config), "what?", methods=[Vanilla()])
    assert page.browser is None and "no room to show" in page.notes[1] and "what?" not in page.tables[0].caption
    assert "no room to show" in to_html(page)


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (1400, "dark"), (420, "light")])
def test_it_shows_the_scene_first(visit, made, width, scheme):
    page = visit(made, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.title() == page.locator("h1").inner_text() == f"fast3d ask: {SCENE}"
    assert page.locator("#prompt").inner_text().startswith(QUESTION)
    assert [one.get_attribute("id") for one in page.locator("section").all()] == ["scenes", "comparison"]
    assert page.locator("#tables tbody tr").count() == len(METHODS)
    assert page.is_hidden("#scene") and page.locator("nav").count() == 0
    answers = [one.inner_text() for one in page.locator(".answer").all()]
    assert len(answers) == len(METHODS) + 1 and "vanilla kept all" in answers[0]
    assert not any(mark in "".join(answers) for mark in ("right", "wrong", "scored"))
    keep_screenshot(page, f"ask-{scheme}-{width}")


def test_kept_objects_outlines_and_the_slider(asker, visit, made):
    page = visit(made)
    *_, gap, sap = (asker.ask(QUESTION, SCENE, pruner) for pruner in METHODS)
    assert kept(page) == sorted(one.slot for one in sap.kept)
    assert page.locator("#slider-value").inner_text() == "0.5"
    outlines, named = page.evaluate("[sceneBrowser.room.outlines.children.length, sceneBrowser.named.size]")
    assert outlines == 1 + named  # the first is around what the question names
    before = room(page)
    page.focus("#slider")
    page.keyboard.press("End")
    assert len(kept(page)) == 100 and room(page) != before
    page.select_option("#rule", "gap-2")
    assert kept(page) == sorted(one.slot for one in gap.kept)  # the slider begins where GAP was
    page.check("input[name=shown][value='0']")
    assert len(kept(page)) == 100


def test_nothing_asked_runs_or_becomes_html(files, visit, tmp_path):
    config = load_config(files / "fast3d.yaml")
    path = locations_file(config.data.annotations, "val")
    content = torch.load(path, weights_only=True)
    content[SCENE]["objects"] = [UGLY] * len(content[SCENE]["objects"])
    torch.save(content, path)
    write_html(tmp_path / "page.html", ask(Asker(config), UGLY))
    page = visit(tmp_path / "page.html")
    page.wait_for_timeout(200)
    assert page.evaluate("window.pwned") is None and page.locator("img").count() == 0
    assert page.locator("#prompt").inner_text().startswith(UGLY.replace("\x1b", "\ufffd").replace("\u202e", "\ufffd"))
