"""The figure: what is drawn, how it is written, what stops it."""

import importlib.util
from xml.etree import ElementTree

import pytest

from fast3d_core.benchmarks import DATASETS
from fast3d_core.errors import DataError, UsageError
from fast3d_core.report import build_report, list_runs, load_runs
from fast3d_core.report.plot import _groups, check_plot, write_plot
from tests.report.fabricate import bernoulli, make_run


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    for seed, (name, method, mean, ratio) in enumerate(
        [("vanilla", "vanilla", 0.8, 0), ("g90", "gap", 0.7, 90), ("g35", "gap", 0.75, 35), ("s90", "sap", 0.75, 88)]
    ):
        make_run(
            folder, name, method, {d: bernoulli(mean, 60, 9 * seed + i) for i, d in enumerate(DATASETS)}, ratio=ratio
        )
    make_run(folder, "theirs", None, {d: bernoulli(0.5, 60, i) for i, d in enumerate(DATASETS)})
    return load_runs(list_runs(folder)[0])


def test_a_line_a_method_by_pruning_ratio(runs):
    report = build_report(runs, published=True, resamples=100)
    groups = _groups(report)
    assert [(key, [point.name for point in points]) for key, points in groups.items()][:3] == [
        (("vanilla", False), ["vanilla"]),
        (("gap", False), ["g35", "g90"]),
        (("sap", False), ["s90"]),
    ]
    assert ("gap", True) in groups and ("sap", True) not in groups  # the paper gives SAP's ratio as "~90%" only
    assert not any(
        "theirs" in [point.name for point in points] for points in groups.values()
    )  # no pruning ratio is known
    row = next(row for row in report.rows if row.name == "g35")
    point = groups["gap", False][0]
    assert (point.x, point.y) == (35, row.ratio.value)
    assert (point.y - point.below, point.y + point.above) == pytest.approx((row.ratio.low, row.ratio.high))


def test_svg_is_vector_with_text_and_png_is_for_print(runs, tmp_path):
    report = build_report(runs, published=True, resamples=100)
    for name in ("a.svg", "b.svg", "new/a.png"):
        check_plot(tmp_path / name)
        write_plot(tmp_path / name, report)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    texts = [t.text for t in ElementTree.parse(tmp_path / "a.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert {"visual tokens pruned (%)", "score ratio (%)", "GAP", "GAP+SAP", "GAP (published)"} <= set(texts)
    png = (tmp_path / "new" / "a.png").read_bytes()
    assert png.startswith(b"\x89PNG") and int.from_bytes(png[16:20], "big") >= 1200


def test_without_a_vanilla_run_there_is_nothing_to_plot(runs, tmp_path):
    report = build_report([run for run in runs if run.name != "vanilla"], resamples=100)
    with pytest.raises(DataError, match="nothing to plot.*--vanilla"):
        write_plot(tmp_path / "a.svg", report)
    assert not (tmp_path / "a.svg").exists()


def test_bad_files(runs, tmp_path, monkeypatch):
    for name in ("a.jpg", "figure"):
        with pytest.raises(UsageError, match=r"--plot writes \.png or \.svg"):
            check_plot(tmp_path / name)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="--plot: .* cannot be written"):
        write_plot(tmp_path / "file" / "a.svg", build_report(runs, resamples=100))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'pip install "fast3d\[plot\]"'):
        check_plot(tmp_path / "a.svg")
