import pytest
import torch

from fast3d_core.asking.rooms import Rooms, SceneObject
from fast3d_core.data.annotations import load_locations
from fast3d_core.errors import DataError, UsageError
from tests.conftest import MINIATURE

ANNOTATIONS = MINIATURE.parent / "annotations"
VAL, TRAIN = (f"scannet_mask3d_{split}_attributes.pt" for split in ("val", "train"))


def test_objects_have_labels_and_boxes():
    rooms = Rooms(ANNOTATIONS)
    assert list(rooms) == ["scene0011_00", "scene0015_00", "scene0025_00"]
    content = torch.load(ANNOTATIONS / VAL, weights_only=True)["scene0025_00"]
    objects = rooms.objects("scene0025_00")
    assert [one.slot for one in objects] == [slot for slot in range(100) if slot != 40]  # without features
    assert [one.label for one in objects] == [content["objects"][one.slot] for one in objects]
    assert objects[3].centre == pytest.approx(content["locs"][3][:3].tolist())
    assert objects[3].size == pytest.approx(content["locs"][3][3:].tolist())
    assert str(objects[3]) == f"{objects[3].label} <OBJ003>"
    assert torch.equal(
        rooms.locations("scene0025_00"), load_locations(ANNOTATIONS, "val", ["scene0025_00"])["scene0025_00"]
    )


def test_boxes_of_either_split(files):
    folder = files / "annotations"
    (folder / VAL).unlink()
    assert Rooms(folder).objects("scene0011_00")[0].label
    (folder / TRAIN).unlink()
    rooms = Rooms(folder)
    assert rooms.objects("scene0011_00")[0] == SceneObject(0)
    assert str(SceneObject(0)) == "object <OBJ000>"
    with pytest.raises(DataError, match=f"no {VAL} or {TRAIN} has boxes of scene scene0011_00"):
        rooms.locations("scene0011_00")


def test_files_that_do_not_go_together(files):
    """Fewer labels and boxes than features; then boxes that are none."""
    path = files / "annotations" / VAL
    content = torch.load(path, weights_only=True)
    content["scene0011_00"] = {"objects": ["bed", "\ud800"], "locs": torch.ones(3, 6)}
    torch.save(content, path)
    objects = Rooms(path.parent).objects("scene0011_00")
    assert [one.label for one in objects[:4]] == ["bed", "?", None, None]
    assert [one.centre for one in objects[2:4]] == [(1, 1, 1), None]
    content["scene0011_00"] = {"objects": 3, "locs": torch.full((3, 6), float("nan"))}
    torch.save(content, path)
    with pytest.raises(DataError, match="boxes of scene scene0011_00 hold NaN"):
        Rooms(path.parent).objects("scene0011_00")


def test_the_nearest_scene():
    with pytest.raises(UsageError, match="there is no scene 'scene0015_01' .*nearest are scene0015_00"):
        Rooms(ANNOTATIONS).scene("scene0015_01")
    with pytest.raises(UsageError, match="lists all 3"):
        Rooms(ANNOTATIONS).objects("kitchen")
