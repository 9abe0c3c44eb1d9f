"""Extraction against what the published code recorded; answers drawn by the seed alone."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from fast3d_core.benchmarks.questions import annotation_file
from fast3d_core.data.annotations import Scenes
from fast3d_core.errors import DataError
from fast3d_core.extraction.extract import answer, load_part, record
from fast3d_core.maps.published import MAP_KEYS
from fast3d_core.models.chat_scene.prompt import QUESTION
from tests.conftest import RECORDED
from tests.maps.scores import load_maps

INFO = json.loads((RECORDED / "extracted_info.json").read_text())


@pytest.fixture(scope="module")
def scenes(fixture):
    return Scenes(fixture.config.data.annotations)


def test_token_ids_are_the_recorded_ones(fixture):
    for sample, info in zip(fixture.samples, INFO, strict=True):
        assert (sample.dataset, sample.index) == (info["dataset"], info["index"])
        text = QUESTION.format(prompt=sample.prompt) + info["caption"]
        assert fixture.model.tokenizer.encode(text) == info["prompt_ids_with_caption"]
        assert fixture.model.question_rows(sample.prompt) == len(info["prompt_ids_ori"])


def test_lengths_are_the_recorded_ones(fixture, scenes):
    for sample, info in zip(fixture.samples, INFO, strict=True):
        prefix, text = fixture.model.prefix(scenes[sample.scene_id]), fixture.model.text(sample.prompt, info["caption"])
        assert len(prefix) + len(text) == info["inputs_embeds_len"]
        assert len(text) == len(info["prompt_ids_with_caption"])


@pytest.mark.parametrize("batch_size", [1, 4, 15])
def test_maps_are_the_recorded_ones(fixture, scenes, batch_size):
    answers = [info["caption"] for info in INFO]
    batches = [
        record(fixture.model, scenes, fixture.samples[i : i + batch_size], answers[i : i + batch_size])
        for i in range(0, 15, batch_size)
    ]
    maps = {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}
    for key in MAP_KEYS:
        known = {s.dataset: load_maps(fixture.config.maps.targets, s.dataset, 3, key=key) for s in fixture.samples}
        want = torch.stack([known[s.dataset][s.index] for s in fixture.samples])
        assert (maps[key] - want).abs().max() < 1e-6
        assert maps[key].sum(1).tolist() == pytest.approx([info[f"{key}_sum"] for info in INFO], abs=1e-6)
        assert maps[f"{key}_layers"].shape == (15, 4, 100)
        torch.testing.assert_close(maps[f"{key}_layers"].mean(dim=1), maps[key])


def test_recorded_answers_can_be_drawn(fixture):
    """Those that the published code drew are among those that ours draws."""
    for sample, info in zip(fixture.samples, INFO, strict=True):
        assert info["caption"] in {answer(sample, "val", seed) for seed in range(100)}


def test_answers_depend_on_the_seed_alone(fixture):
    sample = next(s for s in fixture.samples if s.dataset == "scanqa")
    samples = [replace(sample, index=i, ref_captions=("a b", "C", "d")) for i in range(300)]
    drawn = [answer(s, "val", 0) for s in samples]
    assert drawn == [answer(s, "val", 0) for s in reversed(samples)][::-1]
    assert drawn != [answer(s, "val", 1) for s in samples]
    counts = Counter(drawn)
    assert set(counts) == {"A b.", "C.", "D."}
    assert min(counts.values()) > 70
    other = [answer(replace(s, dataset="sqa3d"), "val", 0) for s in samples]
    assert drawn != other


def test_which_answer(fixture):
    sample = replace(fixture.samples[0], ref_captions=("tHe Chair",), caption="as it is")
    answers = {d: answer(replace(sample, dataset=d), "val", 0) for d in
               ("scanqa", "sqa3d", "scanrefer", "scan2cap", "multi3dref")}  # fmt: skip
    assert answers == {"scanqa": "The chair.", "sqa3d": "The chair.", "scanrefer": "tHe Chair",
                       "scan2cap": "tHe Chair", "multi3dref": ""}  # fmt: skip
    assert {answer(replace(sample, dataset=d), "train", 5) for d in answers} == {"as it is"}
    assert answer(replace(sample, dataset="multi3dref", ref_captions=()), "val", 0) == ""


@pytest.mark.parametrize(
    ("split", "dataset", "change", "message"),
    [
        ("train", "scanqa", lambda r: r.pop("caption"), "record 1 has no answer ('caption')"),
        ("val", "scanqa", lambda r: r.pop("ref_captions"), "record 1 has no reference answers"),
        ("val", "scanrefer", lambda r: r.update(ref_captions=[]), "record 1 has no reference answers"),
        ("val", "sqa3d", lambda r: r.update(ref_captions=[3]), "record 1 has a reference answer that is no text: 3"),
    ],
)
def test_records_without_an_answer(files, split, dataset, change, message):
    path = annotation_file(files / "annotations", dataset, split)
    records = json.loads(path.read_text())
    change(records[1])
    path.write_text(json.dumps(records))
    with pytest.raises(DataError) as error:
        load_part(files / "annotations", split, dataset, None, 0)
    assert message in str(error.value) and path.name in str(error.value)
    assert len(load_part(files / "annotations", split, dataset, 1, 0).samples) == 1  # the limit stops before it


def test_no_training_annotations(files):
    annotation_file(files / "annotations", "scanqa", "train").unlink()
    with pytest.raises(DataError, match="--split val"):
        load_part(files / "annotations", "train", "scanqa", None, 0)
