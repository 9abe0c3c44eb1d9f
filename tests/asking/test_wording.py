import json
import re

import pytest

from fast3d_core.asking.rooms import SceneObject
from fast3d_core.asking.wording import dataset_of, named_slots, prompt_of, tasks
from fast3d_core.benchmarks.questions import load_samples
from fast3d_core.benchmarks.wording import SHORT
from fast3d_core.errors import UsageError
from tests.conftest import MINIATURE

OBJECTS = [SceneObject(0, "bed"), SceneObject(3, "desk"), SceneObject(17, "lamp"), SceneObject(18)]


def asked(text, task="qa"):
    return prompt_of(text, task, "scene0011_00", OBJECTS)


@pytest.mark.parametrize("dataset", ["scanqa", "sqa3d"])
def test_questions_are_worded_as_in_the_released_files(dataset):
    for sample in load_samples(MINIATURE.parent / "annotations", dataset):
        typed = sample.prompt.removesuffix(SHORT)
        assert typed != sample.prompt
        assert asked(typed) == asked(f" {typed}\n") == asked(sample.prompt) == sample.prompt


def test_descriptions_are_worded_as_in_the_released_files():
    """Whatever is quoted in a released prompt gives a prompt that differs in the wording around it only."""
    for task in ("ground", "ground-all"):
        dataset = dataset_of(task)
        for sample in load_samples(MINIATURE.parent / "annotations", dataset):
            typed = re.findall(r'"(.*)"', sample.prompt)[0]
            assert f'"{typed}"' in asked(typed, task) and "ID" in asked(typed, task)
            assert asked(f"{typed}.", task) == asked(typed, task)
    released = json.loads((MINIATURE.parent / "annotations" / "scan2cap_mask3d_val.json").read_text())[0]["prompt"]
    assert asked("<OBJ000>", "caption") == asked("the bed <OBJ000>, please", "caption") == released


def test_plain_is_as_typed():
    assert asked(" Where am I? ", "plain") == "Where am I?"
    assert dataset_of("plain") == "" and list(tasks())[-1] == "plain"


@pytest.mark.parametrize(
    ("text", "task", "message"),
    [
        ("", "qa", "the question is empty"),
        (" \t\n", "plain", "the question is empty"),
        ("?", "ground", "the question is empty"),
        ("caf\udce9", "qa", "not valid UTF-8"),
        ("what is <s>here</s>?", "qa", "holds <s>, which the model reads as a control token"),
        ("is it <unk>?", "plain", "holds <unk>"),
        ("what?", "qaa", "--task is one of qa, ground, ground-all, caption, .*plain, not 'qaa'"),
        ("is <OBJ999> big?", "qa", "no object <OBJ999>; .* desk <OBJ003>, lamp <OBJ017>, object <OBJ018>"),
        ("is <OBJ001> big?", "plain", "no object <OBJ001>; its 4 objects include bed <OBJ000>, desk <OBJ003>"),
        ("<OBJ" + "9" * 5000 + ">", "qa", "has no object"),
        ("is <obj 17> big?", "qa", "write <OBJ017>, not <obj 17>"),
        ("is <OBJ17> big?", "qa", "write <OBJ017>, not <OBJ17>"),
        ("the lamp", "caption", "describes one object; name it by its number, such as lamp <OBJ017>$"),
        ("it", "caption", "such as bed <OBJ000>, desk <OBJ003>, lamp <OBJ017>$"),
        ("<OBJ017> <OBJ000>", "caption", "describes one object"),
    ],
)
def test_bad_input(text, task, message):
    with pytest.raises(UsageError, match=message):
        asked(text, task)


def test_objects_of_an_answer():
    assert named_slots("Yes. <OBJ003>, <OBJ017>, and <OBJ003>. <OBJ1>") == [3, 17]
    assert named_slots("No.") == []
