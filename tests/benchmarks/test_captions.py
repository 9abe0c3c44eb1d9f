"""The caption metrics against slow, obvious versions of themselves."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fast3d_core.benchmarks import captions
from fast3d_core.benchmarks.captions import CaptionScorer, bleu, lcs_length, meteor_note, tokenize_lists

TEXTS = st.lists(st.sampled_from("abcd"), max_size=9).map(" ".join)
SAMPLES = st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=5)


def score(samples):
    return CaptionScorer([references for _, references in samples]).score([text for text, _ in samples], meteor=False)


def grams(text, order):
    words = text.split()
    return [" ".join(words[start : start + order]) for start in range(len(words) - order + 1)]


def slow_bleu(samples):
    product, scores = 1.0, []
    for order in (1, 2, 3, 4):
        matches = total = 0
        for text, references in samples:
            total += len(grams(text, order))
            for gram in set(grams(text, order)):
                most = max(grams(reference, order).count(gram) for reference in references)
                matches += min(grams(text, order).count(gram), most)
        product *= (matches + 1e-15) / (total + 1e-9)
        scores.append(product ** (1 / order))
    length = sum(len(text.split()) for text, _ in samples)
    nearest = 0
    for text, references in samples:
        lengths = sorted(len(reference.split()) for reference in references)
        nearest += min(
            lengths, key=lambda other: abs(other - len(text.split()))
        )  # the first, so the shorter, of equals
    ratio = (length + 1e-15) / (nearest + 1e-9)
    return [value * (math.exp(1 - 1 / ratio) if ratio < 1 else 1) for value in scores]


@given(SAMPLES)
def test_bleu_equals_the_slow_one(samples):
    assert bleu(score(samples).bleu_stats.sum(0)).tolist() == pytest.approx(slow_bleu(samples), rel=1e-9, abs=1e-300)


def test_bleu_of_stacked_sums():
    stats = score([("a b c d", ["a b c d e"]), ("a", ["b", "a b"]), ("", ["c"])]).bleu_stats
    stacked = np.stack([stats.sum(0), stats[0], stats[:2].sum(0)])
    assert bleu(stacked).tolist() == [bleu(row).tolist() for row in stacked]


def slow_lcs(first, second):
    for size in range(len(first), 0, -1):
        for chosen in itertools.combinations(first, size):
            rest = iter(second)
            if all(word in rest for word in chosen):
                return size
    return 0


@given(st.lists(st.sampled_from("abc"), max_size=7), st.lists(st.sampled_from("abc"), max_size=7))
def test_longest_common_subsequence(first, second):
    assert lcs_length(first, second) == slow_lcs(first, second)


def test_rouge_takes_the_best_precision_and_the_best_recall():
    (value,) = score([("a b c d", ["a b", "a b c x y z"])]).rouge_l
    precision, recall = 3 / 4, 1
    assert value == pytest.approx(2.44 * precision * recall / (recall + 1.44 * precision))


def test_rouge_of_empty_texts_as_pycocoevalcap_has_it():
    assert score([("", [""]), ("", ["a"]), ("a", [""])]).rouge_l.tolist() == [1, 0, 0]


def slow_cider(samples):
    """Dense TF-IDF vectors over every n-gram that occurs."""
    scores = []
    for text, references in samples:
        total = 0.0
        for reference in references:
            for order in (1, 2, 3, 4):
                mine, theirs = grams(text, order), grams(reference, order)
                vocabulary = sorted({*mine, *theirs})
                rarity = np.array(
                    [
                        math.log(len(samples))
                        - math.log(max(1, sum(any(g in grams(r, order) for r in refs) for _, refs in samples)))
                        for g in vocabulary
                    ]
                )
                first = np.array([mine.count(g) for g in vocabulary]) * rarity
                second = np.array([theirs.count(g) for g in vocabulary]) * rarity
                norm = np.linalg.norm(first) * np.linalg.norm(second)
                if norm:
                    delta = len(grams(text, 2)) - len(grams(reference, 2))
                    total += np.minimum(first, second) @ second / norm * math.exp(-(delta**2) / 72)
        scores.append(10 * total / 4 / len(references))
    return scores


@settings(deadline=None)
@given(SAMPLES)
def test_cider_equals_the_slow_one(samples):
    assert score(samples).cider.tolist() == pytest.approx(slow_cider(samples), rel=1e-9, abs=1e-9)


def test_pycocoevalcap_agrees():
    bleu_scorer = pytest.importorskip("pycocoevalcap.bleu.bleu", reason="pycocoevalcap (extra meteor) is not installed")
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    random = np.random.default_rng(5)
    words = ["the", "a", "chair", "table", "is", "left", "of", "red", "window"]

    def text():
        return " ".join(random.choice(words, random.integers(0, 14)))

    samples = [(text(), [text() for _ in range(random.integers(1, 5))]) for _ in range(60)]
    truth = {index: references for index, (_, references) in enumerate(samples)}
    given_ = {index: [candidate] for index, (candidate, _) in enumerate(samples)}
    scores = score(samples)
    total, each = bleu_scorer.Bleu(4).compute_score(truth, given_, verbose=0)
    np.testing.assert_allclose(bleu(scores.bleu_stats.sum(0)), total, rtol=1e-12)
    np.testing.assert_allclose(bleu(scores.bleu_stats).T, each, rtol=1e-9)
    np.testing.assert_allclose(scores.rouge_l, Rouge().compute_score(truth, given_)[1], rtol=1e-12)
    np.testing.assert_allclose(scores.cider, Cider().compute_score(truth, given_)[1], rtol=0, atol=1e-12)


def test_tokens_come_back_in_place():
    assert tokenize_lists([["A chair.", "A table!"], ["A chair."]]) == [["a chair", "a table"], ["a chair"]]


def test_a_line_break_is_a_space():
    assert tokenize_lists([["Curtain\nblue."]]) == [["curtain blue"]]


def test_why_meteor_is_null(monkeypatch):
    monkeypatch.setattr(captions.meteor_metric, "available", lambda: "METEOR is null: there is no Java.")
    assert meteor_note(True) == "METEOR is null: there is no Java."
    assert "not asked for" in meteor_note(False)
    monkeypatch.setattr(captions.meteor_metric, "available", lambda: None)
    assert meteor_note(True) is None
