"""The published scorers' recorded results (tests/data/metrics, tests/data/chat_scene_preds) are met to 1e-9."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fast3d_core.benchmarks import (
    DATASETS,
    References,
    benchmark,
    meteor,
    multi3dref,
    scan2cap,
    scanrefer,
    score,
)
from fast3d_core.benchmarks.captions import CaptionScorer, bleu
from fast3d_core.benchmarks.records import Record

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data" / "metrics"
ANNOTATIONS = ROOT / "data" / "miniature" / "annotations"
MODES = sorted((ROOT / "data" / "chat_scene_preds").glob("*.json"))
TOLERANCE = 1e-9


def load(name):
    return json.loads((DATA / name).read_text("utf-8"))


def predictions(dataset):
    return load(f"preds/preds_{dataset}.json")


def records(dataset):
    return [Record(dataset, position, fields) for position, fields in enumerate(predictions(dataset))]


def assert_scores(result, expected):
    """Equal metrics, METEOR only where it was computed, and statistics that add up to the headline."""
    assert set(result.metrics) == set(expected)
    for key, value in expected.items():
        if "METEOR" in key and result.metrics[key] is None:
            continue
        assert result.metrics[key] == pytest.approx(value, abs=TOLERANCE, rel=0), key
    total = benchmark(result.dataset).headline_of(result.stats.sum(0))
    assert total == pytest.approx(result.metrics[benchmark(result.dataset).headline.key], abs=1e-12, rel=0)
    assert len(result.keys) == len(set(result.keys)) == len(result.stats)


@pytest.fixture(scope="module")
def references():
    return References(DATA / "annotations")


@pytest.mark.parametrize("dataset", DATASETS)
def test_recorded_scores(dataset, references):
    result = score(dataset, predictions(dataset), references, meteor=False)
    assert_scores(result, load("expected_scores.json")[dataset])
    assert result.samples == len(predictions(dataset))


def test_unique_multiple_lookup_from_file(tmp_path):
    for name in ("scannet_mask3d_val_attributes.pt", "scannet_val_attributes.pt"):
        shutil.copy(DATA / "annotations" / name, tmp_path)
    shutil.copy(DATA / "scanrefer_unique_multiple_lookup.json", tmp_path)
    result = score("scanrefer", predictions("scanrefer"), References(tmp_path))
    assert_scores(result, load("expected_scores.json")["scanrefer_lookup_from_file"])


def test_the_built_lookup_is_the_recorded_one(references):
    assert references.unique_multiple == load("scanrefer_unique_multiple_lookup.json")


def test_corpus_with_sos_and_eos(tmp_path):
    for name in ("scannet_mask3d_val_attributes.pt", "scannet_val_attributes.pt"):
        shutil.copy(DATA / "annotations" / name, tmp_path)
    shutil.copy(DATA / "annotations" / "scan2cap_val_corpus_sos.json", tmp_path / "scan2cap_val_corpus.json")
    result = score("scan2cap", predictions("scan2cap"), References(tmp_path), meteor=False)
    assert_scores(result, load("expected_scores.json")["scan2cap_sos_corpus"])


def test_meteor_takes_its_place_in_the_scores(references):
    reason = meteor.available()
    if reason and os.environ.get("CI") != "true":  # CI installs the extra
        pytest.skip(reason)
    result = score("scanqa", predictions("scanqa"), references)
    assert result.metrics["[scanqa] METEOR"] == pytest.approx(
        load("expected_scores.json")["scanqa"]["[scanqa] METEOR"], abs=TOLERANCE, rel=0
    )
    assert not [note for note in result.notes if "METEOR" in note]


@pytest.mark.parametrize("path", MODES, ids=lambda path: path.stem)
def test_scores_of_the_tiny_model(path):
    recorded = json.loads(path.read_text("utf-8"))
    references = References(ANNOTATIONS)
    for dataset in DATASETS:
        result = score(dataset, recorded["preds"][dataset], references, meteor=False)
        assert_scores(result, recorded["scores"][dataset])


def test_all_modes_of_the_tiny_model_are_there():
    assert len(MODES) == 14


def test_recorded_overlaps(references):
    details = load("details.json")
    for module, dataset, name in (
        (scanrefer, "scanrefer", "iou_per_sample"),
        (scan2cap, "scan2cap", "iou_per_pred"),
    ):
        found = module.overlaps(records(dataset), references)
        np.testing.assert_allclose(found, details[dataset][name], rtol=0, atol=TOLERANCE)


def test_recorded_f1_of_each_record(references):
    expected = load("details.json")["multi3dref"]["f1_25_50_per_sample"]
    np.testing.assert_allclose(
        multi3dref.f1_scores(records("multi3dref"), references), expected, rtol=0, atol=TOLERANCE
    )


@pytest.mark.parametrize("dataset", ["scanqa", "sqa3d"])
def test_recorded_caption_metrics_of_each_answer(dataset):
    details = load("details.json")[dataset]
    candidates = [texts[0] for texts in details["tokenized_preds"]]
    scores = CaptionScorer(details["tokenized_targets"]).score(candidates, meteor=False)
    np.testing.assert_allclose(bleu(scores.bleu_stats).T, details["Bleu_1234"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(scores.rouge_l, details["ROUGE_L"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(scores.cider, details["CIDEr"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("corpus", ["scan2cap", "scan2cap_sos_corpus"])
@pytest.mark.parametrize("threshold", ["25", "50"])
def test_recorded_caption_metrics_of_each_object(corpus, threshold):
    details = load("details.json")
    targets = details[corpus]["tokenized_targets"]
    candidates = details["scan2cap"][f"tokenized_preds_0{threshold}"]
    scores = CaptionScorer(list(targets.values())).score([candidates[key][0] for key in targets], meteor=False)
    expected = load("expected_scores.json")[corpus]
    for name, value in scores.metrics().items():
        if name != "METEOR":
            assert value == pytest.approx(expected[f"[scan2cap] {name}@0.{threshold}"], abs=TOLERANCE, rel=0)
    if corpus == "scan2cap":
        by_key = details["scan2cap"]["per_key"]
        for name, found in (
            ("Bleu", bleu(scores.bleu_stats)),
            ("ROUGE_L", scores.rouge_l),
            ("CIDEr", scores.cider),
        ):
            wanted = by_key[f"{name}@0.{threshold}"]
            np.testing.assert_allclose(found, [wanted[key] for key in targets], rtol=0, atol=TOLERANCE)
