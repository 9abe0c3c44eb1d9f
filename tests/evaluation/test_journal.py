import json
import os

import pytest

from fast3d_core.errors import DataError, UsageError
from fast3d_core.evaluation.journal import Journal


def journal(folder, **settings):
    about = {"method": "gap", "keep": 15, "datasets": ["scanqa"], "files": {}, "batch_size": 1}
    return Journal(folder / "run", about | settings)


def test_batches_come_back_and_a_torn_line_does_not_count(tmp_path):
    j = journal(tmp_path)
    j.open()
    assert j.next_session() == 0
    j.append(0, 0, batch=0, seconds=1.5, samples=[{"index": 0}])
    j.append(0, 1, batch=1, seconds=2.0, samples=[{"index": 1}])
    j.append(0, 0, batch=2, seconds=1.0, samples=[{"index": 2}])
    part = j.folder / "part-000-00.jsonl"
    part.write_text(part.read_text()[:-9])  # the kill came in the middle of batch 2
    assert j.batches() == {0: [{"index": 0}], 1: [{"index": 1}]}
    assert j.next_session() == 1
    j.append(1, 0, batch=2, seconds=4.0, samples=[{"index": 2}])
    assert sorted(j.batches()) == [0, 1, 2]
    assert j.seconds() == (2.0 + 4.0, 0.0)  # the slowest process of each session


def test_line_separators_inside_an_answer(tmp_path):
    """JSON leaves U+2028 and its like as they are; they must not cut a line."""
    j = journal(tmp_path)
    j.open()
    j.append(0, 0, 0, 1.0, [{"pred": "a\u2028b\u2029c\x85d"}])
    assert j.batches() == {0: [{"pred": "a\u2028b\u2029c\x85d"}]}


def test_a_start_without_answers_does_not_bind(tmp_path):
    """A command that failed before its first answer may be corrected and run again."""
    journal(tmp_path).open()
    journal(tmp_path, keep=60).open()
    journal(tmp_path, keep=60).open()


def test_other_settings_are_refused_and_named(tmp_path):
    journal(tmp_path).open()
    journal(tmp_path).append(0, 0, 0, 1.0, [])
    journal(tmp_path).open()  # the same run continues
    with pytest.raises(UsageError, match=r"other settings \(keep: 15 -> 60\); choose another --name, or --restart"):
        journal(tmp_path, keep=60).open()
    journal(tmp_path, keep=60).open(restart=True)
    assert journal(tmp_path, keep=60).batches() == {}


def test_restart_leaves_folders_that_are_no_runs_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    journal(tmp_path).open(restart=True)
    assert (tmp_path / "run" / "thesis.txt").exists()


def test_unwritable_folder(tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="cannot be written"):
        journal(tmp_path).open()


def test_full_disk(tmp_path):
    """/dev/full stands in for a disk without space."""
    j = journal(tmp_path)
    j.open()
    j.append(0, 0, 0, 1.0, [])
    (j.folder / "part-001-00.jsonl").symlink_to("/dev/full")
    with pytest.raises(DataError, match="No space left on device.*what is there is kept"):
        j.append(1, 0, 1, 1.0, [])
    (j.folder / "part-001-00.jsonl").unlink()
    assert sorted(j.batches()) == [0]


GOOD = {"batch": 0, "seconds": 1.0, "gap_seconds": 0.0, "samples": [{"index": 0}]}


@pytest.mark.parametrize(
    "line",
    [
        "[]", "3", "null", "{}", '{"batch": 0}', "[" * 5000,
        *[json.dumps(GOOD | change) for change in (
            {"batch": "0"}, {"batch": -1}, {"batch": None}, {"samples": {}}, {"samples": [3]}, {"seconds": None},
            {"seconds": -1}, {"seconds": "1"}, {"gap_seconds": [0]}, {"batch": [[[0]]]})],
        json.dumps(GOOD | {"seconds": 1e308}).replace("1e+308", "1e309"),
        json.dumps(GOOD | {"samples": [{"pred": "\ud800"}]}),
    ],
)  # fmt: skip
def test_damaged_lines_count_as_not_done(tmp_path, line):
    j = journal(tmp_path)
    j.open()
    j.append(0, 0, batch=1, seconds=1.0, samples=[{"index": 1}])
    with (j.folder / "part-000-00.jsonl").open("a") as file:
        file.write(line + "\n")
    for name in ("part-x-y.jsonl", "part-000-00-1.jsonl", "part-99999999999-00.jsonl"):
        (j.folder / name).write_text(json.dumps(GOOD) + "\n")
    assert j.batches() == {1: [{"index": 1}]} and j.seconds() == (1.0, 0.0) and j.next_session() == 1
    (j.folder / "part-001-00.jsonl").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        j.batches()
    (j.folder / "part-001-00.jsonl").rmdir()
    os.mkfifo(j.folder / "part-001-00.jsonl")  # to open it would be to wait for ever
    with pytest.raises(DataError, match="is no file"):
        j.batches()


def test_a_link_out_of_the_run_is_not_followed(tmp_path):
    j = journal(tmp_path)
    j.open()
    (tmp_path / "elsewhere").mkdir()
    (j.folder / "predictions").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="predictions is a link"):
        journal(tmp_path).open()


def test_another_programs_settings_are_left_alone(tmp_path):
    """Whether asked to restart or not: nothing of a folder that is not a run's is touched."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text('{"editor.fontSize": 12}')
    for restart in (False, True):
        with pytest.raises(UsageError, match=r"settings.json is not of a run of fast3d.*choose another --name"):
            journal(tmp_path).open(restart=restart)
    assert (tmp_path / "run" / "settings.json").read_text() == '{"editor.fontSize": 12}'


def test_temporary_files_of_predictions_go_with_the_next_command(tmp_path):
    """Also where it writes other predictions, so that no file of the same name takes their place."""
    j = journal(tmp_path)
    for restart in (False, True):
        (j.folder / "predictions").mkdir(parents=True, exist_ok=True)
        left = j.folder / "predictions" / f".scanqa.json.fast3d-{2**22 + 1}-0a1b2c3d"  # beyond Linux's process numbers
        left.touch()
        j.open(restart=restart)
        assert not left.exists()


def test_restart_removes_only_a_runs_own_files(tmp_path):
    j = journal(tmp_path)
    j.open()
    j.append(0, 0, 0, 1.0, [])
    (j.folder / "predictions").mkdir()
    ours = ("predictions/scanqa.json", "result.json", "scores.json")
    theirs = ("notes.md", "predictions/mine.json", "part-1.jsonl", "part-000-00.jsonl.bak", "src/thesis.tex")
    (j.folder / "src").mkdir()
    for name in (*ours, *theirs):
        (j.folder / name).write_text("{}")
    journal(tmp_path).open(restart=True)
    assert not any((j.folder / name).exists() for name in ours) and journal(tmp_path).batches() == {}
    assert all((j.folder / name).read_text() == "{}" for name in theirs)


def test_a_killed_restart_leaves_no_answers_to_the_next_run(tmp_path, monkeypatch):
    """Wherever removal is cut, the old answers do not count for other settings, and the next command finishes it."""
    unlink, killed_at = type(tmp_path).unlink, 0
    while True:
        j = journal(tmp_path / str(killed_at))
        j.open()
        for session in (0, 1):
            j.append(session, 0, session, 1.0, [])
        (j.folder / "result.json").write_text("{}")
        left = killed_at

        def cut(path, missing_ok=False):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            unlink(path, missing_ok=missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(type(tmp_path), "unlink", cut)
            try:
                journal(tmp_path / str(killed_at), keep=60).open(restart=True)
                break
            except KeyboardInterrupt:
                pass
        again = journal(tmp_path / str(killed_at), keep=60)
        again.open()
        assert again.batches() == {} and sorted(p.name for p in again.folder.iterdir()) == ["settings.json"]
        killed_at += 1
    assert killed_at >= 4


def test_answers_whose_settings_are_gone_are_not_taken(tmp_path):
    j = journal(tmp_path)
    j.open()
    j.append(0, 0, 0, 1.0, [])
    (j.folder / "settings.json").unlink()
    for restart in (False, True):
        with pytest.raises(UsageError, match=r"part-000-00.jsonl is there and belongs to no run.*--name"):
            journal(tmp_path).open(restart=restart)
    assert sorted(j.batches()) == [0]


@pytest.mark.parametrize("name", ["result.json", "scores.json", "predictions/scanqa.json", "part-001-00.jsonl"])
def test_files_that_are_no_runs_are_neither_taken_nor_removed(tmp_path, name):
    """Such as the scores that `fast3d score --name` wrote, or another program's predictions."""
    (tmp_path / "run" / "predictions").mkdir(parents=True)
    (tmp_path / "run" / name).write_text("mine")
    for restart in (False, True):
        with pytest.raises(UsageError, match=f"{name} is there and belongs to no run of `fast3d eval`.*--name"):
            journal(tmp_path).open(restart=restart)
    assert (tmp_path / "run" / name).read_text() == "mine" and not (tmp_path / "run" / "settings.json").exists()
