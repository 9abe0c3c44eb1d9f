"""A result is read back as it was written; one that is damaged is refused before anything is made of it."""

import json

import pytest

from fast3d_core.errors import DataError
from fast3d_core.evaluation.result import load_result, load_stats, save_result
from tests.report.fabricate import make_run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, "gap", "gap", {"sqa3d": [1.0, 0.0], "scanqa": [1.0]})


def test_what_is_written_is_read(run, tmp_path):
    result, stats = load_result(run), load_stats(run)
    save_result(tmp_path / "again", result, stats)
    assert load_result(tmp_path / "again") == result
    for name in ("result.json", "scores.json"):
        assert (tmp_path / "again" / name).read_text() == (run / name).read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"name": 3}, {"name": None}, {"method": []}, {"settings": []}, {"seed": "0"}, {"seed": True},
        {"samples": {"a": 1.5}}, {"samples": []},
        {"headline": {"sqa3d": "high"}}, {"metrics": {"x": [1]}}, {"pruning": 3}, {"pruning": {}},
        {"pruning": {"ratio": 1, "ratio_present": 1, "kept_objects": [1], "kept_tokens": 1}}, {"cost": []},
        {"timing": {"seconds": "1", "samples_per_second": 1}}, {"environment": {"device": 1}}, {"notes": "none"},
        {"notes": [1]}, {"notes": None}, {"schema": "1"}, {"unknown": 1},
    ],
)  # fmt: skip
def test_damaged_results(run, change):
    path = run / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=r"result\.json is (damaged|not a result)"):
        load_result(run)


@pytest.mark.parametrize(
    "content", [[], 3, {"sqa3d": []}, {"sqa3d": {"keys": 3, "stats": []}}, {"sqa3d": {"keys": []}}]
)
def test_damaged_scores(run, content):
    (run / "scores.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"scores\.json is damaged"):
        load_stats(run)
