"""The comparison as data: ratios, pairing, order, notes and errors."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fast3d_core.benchmarks import DATASETS
from fast3d_core.errors import DataError, UsageError
from fast3d_core.report import Run, build_report, find_run, list_runs, load_runs
from tests.report.fabricate import bernoulli, make_run, stats_of

FIVE = {dataset: bernoulli(0.5, 60, seed) for seed, dataset in enumerate(DATASETS)}
FAST = {"resamples": 200}


def load(folder) -> list[Run]:
    return load_runs(list_runs(folder)[0])


def rows_by_name(report):
    return {row.name: row for row in report.rows}


def test_score_ratio_is_the_mean_over_datasets_of_method_over_vanilla(tmp_path):
    make_run(tmp_path, "vanilla", "vanilla", FIVE)
    halves = {d: (np.array(h) * (0.5 if d in ("scanrefer", "sqa3d") else 1.0)).tolist() for d, h in FIVE.items()}
    make_run(tmp_path, "gap", "gap", halves, ratio=80, flops=5e11)
    report = build_report(load(tmp_path), **FAST)
    gap, vanilla = rows_by_name(report)["gap"], rows_by_name(report)["vanilla"]
    assert report.vanilla == report.against == "vanilla" and not [n for n in report.notes if "samples" in n]
    assert gap.ratio.value == pytest.approx((50 + 100 + 100 + 100 + 50) / 5)
    assert gap.ratio.low == gap.ratio.high == pytest.approx(80)  # the same share on every resample
    assert (vanilla.ratio.value, vanilla.ratio.low, vanilla.ratio_datasets) == (100, None, 5)
    assert gap.scores["scanrefer"].value == pytest.approx(25) and gap.scores["scanrefer"].n == 60
    assert gap.scores["scanrefer"].low < 25 < gap.scores["scanrefer"].high
    assert (gap.pruning_ratio, gap.flops, gap.flops_percent, gap.samples_per_second) == (80, 5e11, 25, 20)
    assert gap.differences["scanrefer"].verdict == "worse" and gap.differences["scanrefer"].high < 0
    assert gap.differences["multi3dref"].value == 0 and gap.differences["multi3dref"].verdict == "undecided"


def test_flops_of_live_maps_count(tmp_path):
    make_run(tmp_path, "vanilla", "vanilla", FIVE, flops=2e12)
    make_run(tmp_path, "live", "sap", FIVE, flops=5e11, gap_flops=1e11)
    live = rows_by_name(build_report(load(tmp_path), **FAST))["live"]
    assert (live.flops, live.flops_percent) == (pytest.approx(6e11), pytest.approx(30))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_difference_to_itself_is_exactly_0_whatever_the_order(tmp_path_factory, hits, random):
    folder = tmp_path_factory.mktemp("runs")
    order = list(range(len(hits)))
    random.shuffle(order)
    everything = dict.fromkeys(DATASETS, hits)
    make_run(folder, "one", "vanilla", everything)
    make_run(folder, "two", "gap", everything, order=order)
    report = build_report(load(folder), **FAST)
    for name, verdict in (("one", "same"), ("two", "undecided")):
        for difference in rows_by_name(report)[name].differences.values():
            assert difference.value == pytest.approx(0, abs=1e-9) and difference.verdict == verdict
            assert (difference.low, difference.high) == ((0, 0) if len(hits) > 1 else (None, None))
    assert not [note for note in report.notes if "do not cover" in note]


def test_runs_over_different_samples_are_paired_by_key_over_the_shared_ones(tmp_path):
    hits = [1.0] * 50 + [0.0] * 50
    make_run(tmp_path, "vanilla", "vanilla", {"scanrefer": hits, "sqa3d": hits})
    make_run(tmp_path, "part", "gap", {"scanrefer": [1.0] * 40 + [0.0] * 60}, first=20)  # shares q20..q99
    report = build_report(load(tmp_path), **FAST)
    part = rows_by_name(report)["part"]
    assert part.scores["scanrefer"].value == 40 and part.scores["scanrefer"].n == 100
    assert set(part.scores) == {"scanrefer"} == set(part.differences)
    difference = part.differences["scanrefer"]  # on the shared 80: 40 hits against 30
    assert difference.n == 80 and difference.value == pytest.approx(100 * (40 - 30) / 80)
    assert difference.verdict == "better"
    assert part.ratio.value == pytest.approx(100 * 40 / 30) and part.ratio_datasets == 1
    notes = " | ".join(report.notes)
    assert "part and vanilla do not cover the same samples: part has no sqa3d; scanrefer 100 and 100, 80 of" in notes
    assert "fewer datasets for part (1 of 2)" in notes


def test_intervals_of_a_run_do_not_depend_on_the_other_runs(tmp_path):
    make_run(tmp_path, "vanilla", "vanilla", FIVE)
    make_run(tmp_path, "gap", "gap", {d: bernoulli(0.4, 60, 9) for d in DATASETS}, order=range(59, -1, -1))
    make_run(tmp_path, "sap", "sap", {d: bernoulli(0.4, 30, 9) for d in DATASETS})
    every = rows_by_name(build_report(load(tmp_path), **FAST))
    shutil.rmtree(tmp_path / "sap")
    assert rows_by_name(build_report(load(tmp_path), **FAST))["gap"] == every["gap"]
    assert rows_by_name(build_report(load(tmp_path), seed=1, **FAST))["gap"] != every["gap"]


def test_against_another_run(tmp_path):
    make_run(tmp_path, "vanilla", "vanilla", {"sqa3d": [1.0] * 60})
    make_run(tmp_path, "fastv", "fastv", {"sqa3d": [0.0] * 60})
    make_run(tmp_path, "gap", "gap", {"sqa3d": [1.0] * 30 + [0.0] * 30})
    rows = rows_by_name(build_report(load(tmp_path), against="fastv", **FAST))
    assert rows["gap"].differences["sqa3d"].value == 50 and rows["gap"].differences["sqa3d"].verdict == "better"
    assert rows["fastv"].differences["sqa3d"].verdict == "same"
    assert rows["fastv"].ratio.value == 0 and rows["gap"].ratio.value == 50


def test_without_shared_samples_there_is_no_difference(tmp_path):
    make_run(tmp_path, "vanilla", "vanilla", {"sqa3d": [1.0] * 40})
    make_run(tmp_path, "gap", "gap", {"sqa3d": [1.0] * 40}, first=1000)
    report = build_report(load(tmp_path), **FAST)
    gap = rows_by_name(report)["gap"]
    assert gap.differences == {} and gap.ratio.value is None
    assert "sqa3d 40 and 40, 0 of them the same" in " ".join(report.notes)
    with pytest.raises(DataError, match="gap and vanilla have no sample in common"):
        build_report(load(tmp_path), against="vanilla", **FAST)


def test_vanilla_is_found_or_named(tmp_path):
    make_run(tmp_path, "gap", "gap", FIVE)
    make_run(tmp_path, "theirs", None, FIVE)
    report = build_report(load(tmp_path), **FAST)
    assert report.vanilla is None and all(row.ratio.value is None for row in report.rows)
    assert any("no run is vanilla" in note and "--vanilla" in note for note in report.notes)
    assert build_report(load(tmp_path), vanilla="theirs", **FAST).rows[0].name == "theirs"
    for name in ("bf16", "fp32"):
        make_run(tmp_path, name, "vanilla", FIVE)
    report = build_report(load(tmp_path), **FAST)
    assert report.vanilla is None and any("bf16, fp32 are vanilla" in note for note in report.notes)
    named = build_report(load(tmp_path), vanilla="fp32", **FAST)
    assert [row.name for row in named.rows] == ["fp32", "bf16", "gap", "theirs"]
    assert rows_by_name(named)["theirs"].ratio.value == pytest.approx(100)
    assert rows_by_name(named)["theirs"].flops is None and rows_by_name(named)["theirs"].samples_per_second is None


def test_rows_are_in_the_order_of_the_methods_and_of_their_ratio(tmp_path):
    for name, method, ratio in [
        ("a", "sap", 90), ("b", "gap", 89), ("c", "gap", 35), ("d", "fastv", 65), ("z", "vanilla", 0),
        ("e", None, 0), ("f", "random", 35), ("g", "of_tomorrow", 10),
    ]:  # fmt: skip
        make_run(tmp_path, name, method, {"sqa3d": [1.0, 0.0]}, ratio=ratio)
    report = build_report(load(tmp_path), published=True, **FAST)
    assert [row.name for row in report.rows][:8] == ["z", "f", "d", "c", "b", "a", "e", "g"]


@pytest.mark.parametrize("zero", [[0.0] * 40, []], ids=["zero", "empty"])
def test_a_vanilla_score_of_0_or_none_has_no_ratio_and_says_so_once(tmp_path, zero):
    hits = FIVE | {"scanrefer": zero, "scanqa": zero}
    make_run(tmp_path, "vanilla", "vanilla", hits)
    make_run(tmp_path, "gap", "gap", hits)
    report = build_report(load(tmp_path), **FAST)
    undefined = [note for note in report.notes if "undefined" in note]
    if zero:
        assert undefined == ["the score ratio is undefined (-) where vanilla scores 0: scanrefer, scanqa"]
        assert [row.ratio.value for row in report.rows] == [None, None]
    else:
        assert undefined == [] and rows_by_name(report)["gap"].ratio_datasets == 3
        assert rows_by_name(report)["gap"].scores["scanqa"].n == 0
        assert rows_by_name(report)["gap"].scores["scanqa"].value is None


def test_a_single_sample_has_no_interval_and_decides_nothing(tmp_path):
    make_run(tmp_path, "vanilla", "vanilla", {"sqa3d": [1.0]})
    make_run(tmp_path, "gap", "gap", {"sqa3d": [0.0]})
    report = build_report(load(tmp_path), **FAST)
    gap = rows_by_name(report)["gap"]
    assert (gap.scores["sqa3d"].value, gap.scores["sqa3d"].low) == (0, None)
    assert (gap.ratio.value, gap.ratio.low) == (0, None)
    assert (gap.differences["sqa3d"].value, gap.differences["sqa3d"].verdict) == (-100, "undecided")
    assert any("few samples (sqa3d n=1)" in note for note in report.notes)


def test_ratio_has_no_interval_where_vanilla_is_0_on_many_resamples(tmp_path):
    make_run(tmp_path, "vanilla", "vanilla", {"sqa3d": [1.0, 0.0, 0.0]})
    make_run(tmp_path, "gap", "gap", {"sqa3d": [1.0, 1.0, 0.0]})
    ratio = rows_by_name(build_report(load(tmp_path), **FAST))["gap"].ratio
    assert ratio.value == pytest.approx(200) and (ratio.low, ratio.high) == (None, None)


def test_published_rows_are_the_papers_and_never_vanilla(tmp_path):
    make_run(tmp_path, "gap", "gap", FIVE)
    report = build_report(load(tmp_path), published=True, **FAST)
    paper = [row for row in report.rows if row.published]
    assert len(paper) == 8 and report.published == "arXiv 2507.09334" and report.vanilla is None
    vanilla = [score.value for score in paper[0].scores.values()]
    for row in paper:  # the printed ratios are the mean of the printed scores' ratios, to rounding
        scores = [score.value for score in row.scores.values()]
        assert row.ratio.value == pytest.approx(100 * np.mean(np.divide(scores, vanilla)), abs=0.02)
        assert row.flops is None and row.differences == {}
    with pytest.raises(UsageError, match="there is no run Chat-Scene"):
        build_report(load(tmp_path), vanilla="Chat-Scene", published=True, **FAST)


def test_devices_that_differ_are_noted(tmp_path):
    make_run(tmp_path, "vanilla", "vanilla", FIVE)
    make_run(tmp_path, "gap", "gap", FIVE, device="cuda: y")
    notes = build_report(load(tmp_path), **FAST).notes
    assert [n for n in notes if "samples/s are not comparable" in n and "1 x cuda: y: gap" in n]


@pytest.mark.parametrize(("option", "value"), [("resamples", 0), ("resamples", 10**7), ("seed", -1)])
def test_numbers_out_of_range(tmp_path, option, value):
    make_run(tmp_path, "gap", "gap", {"sqa3d": [1.0]})
    with pytest.raises(UsageError, match=option):
        build_report(load(tmp_path), **{option: value})


def test_no_run_at_all():
    with pytest.raises(UsageError, match="no run"):
        build_report([])


# --- finding and reading runs


def test_runs_are_found_by_name_and_by_path(tmp_path, monkeypatch):
    path = make_run(tmp_path / "runs", "gap-90", "gap", {"sqa3d": [1.0]})
    (tmp_path / "runs" / "half").mkdir()
    (tmp_path / "runs" / ".hidden").mkdir()
    assert list_runs(tmp_path / "runs") == ([path], [tmp_path / "runs" / "half"])
    assert list_runs(tmp_path / "nowhere") == ([], [])
    assert find_run(tmp_path / "runs", "gap-90") == path
    monkeypatch.chdir(tmp_path)
    assert find_run(tmp_path / "elsewhere", "runs/gap-90").resolve() == path
    for name, hint in [
        ("gap90", "did you mean gap-90?"),
        ("x", "it holds gap-90"),
        ("", "gap-90"),
        ("y" * 5000, "gap"),
    ]:
        with pytest.raises(UsageError) as caught:
            find_run(tmp_path / "runs", name)
        assert hint in str(caught.value)
    with pytest.raises(DataError, match=r"half is no complete run.*fast3d eval"):
        find_run(tmp_path / "runs", "half")


def test_runs_of_one_name_go_by_their_path_and_repeated_ones_count_once(tmp_path):
    a = make_run(tmp_path / "a", "gap", "gap", {"sqa3d": [1.0]})
    b = make_run(tmp_path / "b", "gap", "gap", {"sqa3d": [0.0]})
    assert [run.name for run in load_runs([a, b, a])] == [str(a), str(b)]
    assert [run.name for run in load_runs([a, a])] == ["gap"]


@pytest.mark.parametrize(
    "damage",
    [
        {"sqa3d": {"keys": ["q0"], "stats": [[1, 1], [0, 1]]}},
        {"sqa3d": {"keys": ["q0", "q0"], "stats": [[1, 1], [0, 1]]}},
        {"sqa3d": {"keys": ["q0"], "stats": [1]}},
        {"sqa3d": {"keys": ["q0"], "stats": [[1, float("nan")]]}},
        {"unknown": {"keys": ["q0"], "stats": [[1, 1]]}},
        {"x" * 3000: {"keys": ["q0"], "stats": [[1, 1]]}},
        {"sqa3d": {"keys": ["q0"], "stats": [[1, 1, 1]]}},
        {"sqa3d": {"keys": ["q0"], "stats": [[1]]}},
        {"sqa3d": {"keys": ["q0"], "stats": [[]]}},
        {"sqa3d": {"keys": ["q0"], "stats": 1}},
        {"sqa3d": {"keys": [], "stats": 1}},
        {"sqa3d": {"keys": ["q0"], "stats": [[1, 0]]}},
        {"sqa3d": {"keys": ["q0"], "stats": [[-1, 1]]}},
        {"sqa3d": {"keys": ["q0"], "stats": [[1e300, 1]]}},
        {"scanqa": {"keys": ["q0"], "stats": [[1, 1]]}},
        {"sqa3d": {"keys": ["q0"], "stats": [["x", 1]]}},
        None,
    ],
)
def test_damaged_runs_are_named(tmp_path, damage):
    path = make_run(tmp_path, "gap", "gap", {"sqa3d": [1.0]})
    scores = path / "scores.json"
    scores.unlink() if damage is None else scores.write_text(json.dumps(damage))
    with pytest.raises(DataError, match=r"scores\.json.*(run `fast3d eval` again|is not valid JSON)"):
        load_runs([path])


def test_a_run_of_a_benchmark_that_is_gone_is_not_called_damaged(tmp_path):
    path = make_run(tmp_path, "gap", "gap", {"sqa3d": [1.0]})
    (path / "scores.json").write_text(json.dumps({"whereabouts": {"keys": ["q0"], "stats": [[1, 1]]}}))
    with pytest.raises(DataError, match="scores of 'whereabouts', which is no benchmark that is installed; install"):
        load_runs([path])


def test_fabricated_statistics_are_scores(tmp_path):
    stats = stats_of({"scanqa": [1.0, 1.0, 0.0, 0.0], "sqa3d": [1.0, 0.0]})
    run = Run("x", tmp_path, load_runs([make_run(tmp_path, "x", "gap", {"sqa3d": [1.0]})])[0].result, stats)
    scores = build_report([run], **FAST).rows[0].scores
    assert scores["scanqa"].value == pytest.approx(50, abs=1e-3) and scores["sqa3d"].value == 50
