import json
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast3d_core.errors import DataError, UsageError
from fast3d_core.evaluation.journal import Entry, Journal, VersionError, begun_with
from fast3d_core.files.files import parse_json


def journal(folder, **settings):
    about = {"method": "gap", "keep": 15, "datasets": ["scanqa"], "files": {}, "batch_size": 1}
    return Journal(folder / "run", about | settings)


def entry(index, **fields):
    about = {"pred": "brown", "tokens": 400, "steps": 3, "stages": ((2, (0, 1, 2)),)}
    return Entry("scanqa", index, **about | fields)


def test_batches_come_back_and_a_torn_line_does_not_count(tmp_path):
    j = journal(tmp_path)
    j.open()
    assert j.next_session() == 0
    j.append(0, 0, batch=0, seconds=1.5, samples=[entry(0)])
    j.append(0, 1, batch=1, seconds=2.0, samples=[entry(1)])
    j.append(0, 0, batch=2, seconds=1.0, samples=[entry(2)])
    part = j.folder / "part-000-00.jsonl"
    part.write_text(part.read_text()[:-9])  # the kill came in the middle of batch 2
    assert j.batches() == {0: (entry(0),), 1: (entry(1),)}
    assert j.next_session() == 1
    j.append(1, 0, batch=2, seconds=4.0, samples=[entry(2)])
    assert sorted(j.batches()) == [0, 1, 2]
    assert j.seconds() == (2.0 + 4.0, 0.0)  # the slowest process of each session


def test_line_separators_inside_an_answer(tmp_path):
    """JSON leaves U+2028 and its like as they are; they must not cut a line."""
    j = journal(tmp_path)
    j.open()
    j.append(0, 0, 0, 1.0, [entry(0, pred="a\u2028b\u2029c\x85d")])
    assert j.batches() == {0: (entry(0, pred="a\u2028b\u2029c\x85d"),)}


ENTRIES = st.builds(
    Entry,
    dataset=st.sampled_from(["scanqa", "sqa3d"]),
    index=st.integers(0, 2**62),
    pred=st.text(st.characters(exclude_categories=["Cs"])),
    tokens=st.integers(0, 10**6 - 1),
    steps=st.integers(0, 10**6 - 1),
    stages=st.lists(
        st.tuples(st.integers(0, 80), st.none() | st.lists(st.integers(0, 999)).map(tuple)), max_size=3
    ).map(tuple),
    cached=st.integers(0, 999),
    gap_flops=st.none() | st.floats(0, 1e15),
)


@given(st.lists(ENTRIES, max_size=3))
def test_entries_are_read_as_they_were_written(tmp_path_factory, entries):
    folder = tmp_path_factory.mktemp("journal")
    j = journal(folder)
    j.open()
    j.append(0, 0, 7, 1.25, entries, 0.5)
    (line,) = (j.folder / "part-000-00.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert parse_json(line)["version"] == 2
    assert j.batches() == {7: tuple(entries)} and j.seconds() == (1.25, 0.5)


def test_what_each_layer_saw():
    assert entry(0, stages=()).counts(4, 300) == [300] * 4 and entry(0, stages=()).kept is None
    staged = entry(0, stages=((1, (0, 1, 2, 5)), (3, (2,))))
    assert staged.counts(4, 300) == [300, 4, 4, 1] and staged.kept == (2,)
    assert entry(0, stages=((0, None),)).counts(2, 300) == [300, 300]


OLD = {"dataset": "scanqa", "index": 0, "pred": "y", "tokens": 400, "steps": 3, "layer": 2, "kept": [0, 1, 2]}


@pytest.mark.parametrize("version", [{}, {"version": 1}, {"version": 3}, {"version": "2"}])
def test_a_run_of_another_version_is_refused(tmp_path, version):
    """Whatever its settings; --restart removes it like any other."""
    j = journal(tmp_path)
    j.open()
    line = {**version, "batch": 0, "seconds": 1.5, "gap_seconds": 0.0, "samples": [OLD]}
    (j.folder / "part-000-00.jsonl").write_text(json.dumps(line) + "\n")
    for again in (journal(tmp_path), journal(tmp_path, keep=60)):
        with pytest.raises(VersionError, match="run of another version of fast3d.*--restart, or"):
            again.open()
    with pytest.raises(VersionError):
        begun_with(j.folder)
    journal(tmp_path).open(restart=True)
    assert journal(tmp_path).batches() == {}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"index": True}, "samples.0.index is True"), ({"index": -1}, "samples.0.index is -1"),
        ({"pred": None}, "samples.0.pred is None"), ({"steps": 1.0}, "samples.0.steps is 1.0"),
        ({"stages": [[0, [True]]]}, "samples.0.stages.0.1.0 is True"), ({"more": 1}, "samples.0.more is no field"),
        ({"tokens": 10**6}, "samples.0.tokens is 1000000"), ({"gap_flops": "1"}, "samples.0.gap_flops is '1'"),
    ],
)  # fmt: skip
def test_a_damaged_entry_is_named(tmp_path, change, field):
    j = journal(tmp_path)
    j.open()
    j.append(0, 0, 0, 1.0, [entry(0)])
    j.append(0, 0, 1, 1.0, [entry(1)])
    path = j.folder / "part-000-00.jsonl"
    first, second = path.read_text().splitlines()
    whole = json.loads(second)
    path.write_text(first + "\n" + json.dumps(whole | {"samples": [whole["samples"][0] | change]}) + "\n")
    with pytest.raises(DataError) as error:
        j.batches()
    told = str(error.value)
    assert f"the journal {path} is damaged: line 2: {field}" in told and "\n" not in told
    assert told.endswith("run `fast3d eval` again with --restart, or under another --name")


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


GOOD = {"version": 2, "batch": 0, "seconds": 1.0, "gap_seconds": 0.0, "samples": []}


@pytest.mark.parametrize(
    "line",
    [
        "[]", "3", "null", "{}", '{"batch": 0}', "[" * 5000,
        *[json.dumps(GOOD | change) for change in (
            {"batch": "0"}, {"batch": -1}, {"batch": None}, {"samples": {}}, {"samples": [3]}, {"seconds": None},
            {"seconds": -1}, {"seconds": "1"}, {"gap_seconds": [0]}, {"batch": [[[0]]]})],
        json.dumps(GOOD | {"batch": 2**63}),  # no integer of a file is longer, see `load_json`
        json.dumps(GOOD | {"seconds": 1e308}).replace("1e+308", "1e309"),
        json.dumps(GOOD | {"samples": [{"pred": "\ud800"}]}),
    ],
)  # fmt: skip
def test_damaged_lines_count_as_not_done(tmp_path, line):
    j = journal(tmp_path)
    j.open()
    j.append(0, 0, batch=1, seconds=1.0, samples=[entry(1)])
    with (j.folder / "part-000-00.jsonl").open("a") as file:
        file.write(line + "\n")
    for name in ("part-x-y.jsonl", "part-000-00-1.jsonl", "part-99999999999-00.jsonl"):
        (j.folder / name).write_text(json.dumps(GOOD) + "\n")
    assert j.batches() == {1: (entry(1),)} and j.seconds() == (1.0, 0.0) and j.next_session() == 1
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


def test_kept_is_what_the_last_stage_kept():
    """Readers of lines that know nothing of stages find it there."""
    entry = Entry("scanqa", 0, "a chair", 380, 4, ((0, (1, 2, 5)), (2, (2, 5))))
    assert entry.kept == (2, 5) and Entry("scanqa", 0, "", 380, 4, ()).kept is None
    assert replace(entry, stages=()).kept is None
