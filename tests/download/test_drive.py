"""Google Drive through gdown: what it gives, and what it says when it does not."""

import builtins
import os
import shutil
from pathlib import Path

import pytest

from fast3d_core.config import load_config
from fast3d_core.download import ITEMS, download
from fast3d_core.files.disk import FullDiskError
from tests.download.conftest import zipped
from tests.download.test_hub import there

HUB, *DRIVE = ITEMS["chat-scene"].sources
FIRST, SECOND = (one.id for one in DRIVE)
ZIP, FOLDER = (source.id for source in ITEMS["annotations"].sources[1:])
FAST3D = ITEMS["gap"].sources[0].id
CHECKPOINT = os.urandom(300_000)


def get(to, *names, log=lambda _: None):
    return list(download([ITEMS[name] for name in names], to, None, log))


def long(name):
    return name.ljust(28, "x")  # gdown knows ids by their length


@pytest.fixture
def fast3d_folder(drive):
    drive.drive |= {
        FAST3D: [(name, long(name)) for name in ("infer_attn_maps", "trained_gap_network", "pred_attn_maps")],
        long("infer_attn_maps"): [("infer_attn_maps_val_scanqa.pt", long("infer"))],
        long("trained_gap_network"): [("run", long("run")), ("log.txt", long("log"))],
        long("run"): [("checkpoint_best.pth", long("best")), ("checkpoint_last.pth", long("last"))],
        long("pred_attn_maps"): [("infer_attn_maps_val_scanqa.pt", long("pred"))],
        long("infer"): ("infer_attn_maps_val_scanqa.pt", b"infer"),
        long("pred"): ("infer_attn_maps_val_scanqa.pt", b"pred"),
        long("best"): ("checkpoint_best.pth", CHECKPOINT),
    }
    return drive


def test_a_file(drive, tmp_path):
    drive.drive[FIRST] = ("whatever it is called.pth", CHECKPOINT)
    assert [(o.state, o.problem) for o in get(tmp_path, "chat-scene")] == [("downloaded", None)]
    assert (tmp_path / "ckpt_01_3446.pth").read_bytes() == CHECKPOINT
    assert there(tmp_path) == ["ckpt_01_3446.pth", "cookies.txt", "fast3d.yaml"]
    drive.asked.clear()
    assert get(tmp_path, "chat-scene")[0].state == "there"
    assert all(asked["path"].startswith("/api/datasets/") for asked in drive.asked)  # Hugging Face, which may have it


def test_hugging_face_comes_first(drive, tmp_path):
    drive.repos["datasets/ZzZZCHS/Chat-Scene"] = {
        "pretrained/ckpt_01_3446.pth": CHECKPOINT, "pretrained/other.pth": b"other", "annotations/x.json": b"[]",
    }  # fmt: skip
    drive.drive[FIRST] = ("c.pth", b"Google's")
    assert [(o.state, o.problem) for o in get(tmp_path, "chat-scene")] == [("downloaded", None)]
    assert (tmp_path / "ckpt_01_3446.pth").read_bytes() == CHECKPOINT
    assert there(tmp_path) == ["ckpt_01_3446.pth", "fast3d.yaml"]
    assert load_config(tmp_path / "fast3d.yaml").model.checkpoint == tmp_path / "ckpt_01_3446.pth"


def test_folders(fast3d_folder, tmp_path):
    outcomes = get(tmp_path / "to", "attention-maps", "gap", "predicted-maps")
    assert [o.problem for o in outcomes] == [None] * 3
    config = load_config(tmp_path / "to/fast3d.yaml")
    assert (config.maps.targets / "infer_attn_maps_val_scanqa.pt").read_bytes() == b"infer"
    assert (config.maps.predicted / "infer_attn_maps_val_scanqa.pt").read_bytes() == b"pred"
    assert config.gap.checkpoint.read_bytes() == CHECKPOINT
    assert len(there(tmp_path / "to")) == 4  # with fast3d.yaml; neither logs nor leftovers


def test_goes_on_after_a_cut(drive, tmp_path):
    drive.drive[FIRST] = ("c.pth", CHECKPOINT)
    drive.cut["/uc"] = [100_000, 0, 0, 0, 0]
    (outcome,) = get(tmp_path, "chat-scene")
    assert outcome.state == "failed" and "run again" in outcome.problem and "\n" not in outcome.problem
    assert not (tmp_path / "ckpt_01_3446.pth").exists()
    drive.cut.clear()
    drive.asked.clear()
    assert [o.problem for o in get(tmp_path, "chat-scene")] == [None]
    assert drive.ranges(FIRST)[-1] == "bytes=100000-"
    assert (tmp_path / "ckpt_01_3446.pth").read_bytes() == CHECKPOINT


def test_the_next_link(drive, tmp_path):
    """Drive's page that says no has status 200."""
    drive.drive[FIRST] = (None, b'<html><p class="uc-error-subcaption">Too many users</p></html>')
    drive.drive[SECOND] = ("c.pth", CHECKPOINT)
    log = []
    assert get(tmp_path, "chat-scene", log=log.append)[0].state == "downloaded"
    assert any("refuses" in line and "trying the next source" in line for line in log)


def test_refused(drive, tmp_path):
    (outcome,) = get(tmp_path, "chat-scene")  # neither is there
    for part in (HUB.link, *(one.link for one in DRIVE), "ckpt_01_3446.pth"):
        assert part in outcome.problem
    assert "By hand" in outcome.problem and "\n" not in outcome.problem
    (outcome,) = get(tmp_path, "gap")
    assert "refuses" in outcome.problem and str(tmp_path / "outputs/gap/checkpoint_best.pth") in outcome.problem


@pytest.mark.parametrize("page", [b"", b"<html><title>all</title></html>", b"<title></title><a href='https://x'>"])
def test_a_page_that_is_not_drive_s(drive, tmp_path, page):
    for path in ("/uc", "/embeddedfolderview"):
        drive.instead[path] = page
    for outcome in get(tmp_path, "chat-scene", "gap"):
        assert "By hand" in outcome.problem and "\n" not in outcome.problem


@pytest.mark.parametrize("status", [429, 503])
def test_busy(fast3d_folder, tmp_path, status):
    fast3d_folder.answers[f"/embeddedfolderview?id={FAST3D}"] = [status]
    assert get(tmp_path, "gap")[0].state == "downloaded"


def test_put_there_by_hand(drive, tmp_path):
    target = tmp_path / "outputs/gap/checkpoint_best.pth"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"by hand")
    log = []
    assert get(tmp_path, "gap", log=log.append)[0].state == "there"
    assert any("not checked" in line for line in log)
    assert load_config(tmp_path / "fast3d.yaml").gap.checkpoint == target


def test_an_empty_file_is_in_the_way(drive, tmp_path):
    drive.drive[FIRST] = ("c.pth", CHECKPOINT)
    (tmp_path / "ckpt_01_3446.pth").touch()
    assert "is there already" in get(tmp_path, "chat-scene")[0].problem


def test_without_gdown(hub, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "gdown":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    (outcome,) = get(tmp_path, "chat-scene")
    assert 'pip install "fast3d[gdrive]"' in outcome.problem
    assert f"https://drive.google.com/file/d/{FIRST}/view" in outcome.problem
    assert str(tmp_path / "ckpt_01_3446.pth") in outcome.problem


def test_full_disk(drive, tmp_path, monkeypatch):
    """Drive tells the size when it starts."""
    drive.drive[FIRST] = ("c.pth", CHECKPOINT)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_200_000))
    assert "are needed and 100.2 MB" in get(tmp_path, "chat-scene")[0].problem


@pytest.fixture
def annotations(hub, drive):
    """Hugging Face has them not, Drive may."""
    return drive


def test_annotations_from_the_archive(annotations, tmp_path):
    annotations.drive[ZIP] = ("a.zip", zipped(annotations__scanqa_val__json=b"[]", annotations__x__y=b"y"))
    assert [o.problem for o in get(tmp_path, "annotations")] == [None]
    assert there(tmp_path / "annotations") == ["scanqa_val/json", "x/y"]


def test_a_bad_archive_then_the_folder(annotations, tmp_path):
    annotations.drive |= {
        ZIP: ("a.zip", zipped(**{"..__..__evil": b"x"})),
        FOLDER: [("scanqa_val.json", long("scanqa"))],
        long("scanqa"): ("scanqa_val.json", b"[]"),
    }
    log = []
    assert [o.problem for o in get(tmp_path / "to", "annotations", log=log.append)] == [None]
    assert any("leaves its folder" in line for line in log)
    assert there(tmp_path / "to") == ["annotations/scanqa_val.json", "fast3d.yaml"]
    assert not list(tmp_path.rglob("evil"))


def test_no_room_to_unpack_is_not_the_archive_s_fault(annotations, tmp_path, monkeypatch):
    annotations.drive[ZIP] = ("a.zip", zipped(scanqa_val=b"[]"))

    def full(*_):
        raise FullDiskError("no room")

    monkeypatch.setattr("fast3d_core.download.archives.need_space", full)
    assert get(tmp_path, "annotations")[0].problem.endswith("no room")
    assert [path.name for path in Path(tmp_path).rglob("archive.zip")]  # kept for the next run
    monkeypatch.undo()


def test_an_archive_s_files_do_not_overwrite(annotations, tmp_path):
    annotations.drive[ZIP] = ("a.zip", zipped(scanqa_val=b"[]", other=b"o"))
    mine = tmp_path / "annotations/scanqa_val"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert "another content" in get(tmp_path, "annotations")[0].problem
    assert mine.read_text() == "mine" and not (tmp_path / "annotations/other").exists()
