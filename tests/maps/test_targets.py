"""Extracted maps that cannot be used are refused in one line."""

from types import SimpleNamespace

import pytest
import torch

from fast3d_core import load_config
from fast3d_core.errors import DataError
from fast3d_core.maps.published import map_file
from fast3d_core.maps.store import STORE_FILE, PartInfo, TargetStore
from fast3d_core.maps.targets import load_targets


@pytest.mark.parametrize(
    ("value", "message"),
    [(torch.nan, "holds NaN or infinity"), (torch.inf, "holds NaN"), (-1.0, "below 0"), (0.0, "adds up to 0")],
)
def test_maps_of_a_store_that_are_no_attention(tmp_path, monkeypatch, value, message):
    maps = torch.ones(3, 100)
    maps[1] = value
    (tmp_path / STORE_FILE).touch()
    store = SimpleNamespace(layers=4, objects=100, has=lambda *_: True, read=lambda *_, **__: maps)
    monkeypatch.setattr(TargetStore, "open", lambda folder: store)
    with pytest.raises(DataError, match=f"val scanqa: the map of sample 1 .*{message}"):
        load_targets(load_config(), tmp_path, "val", "scanqa", 3)


def test_missing_targets_tell_how_to_record_them(tmp_path):
    (tmp_path / "infer_attn_maps_val_scanrefer.pt").touch()  # a near name is no answer
    with pytest.raises(DataError, match="has no maps of train/scanrefer; .*extract --split train --dataset scanrefer"):
        load_targets(load_config(), tmp_path, "train", "scanrefer", 3)


def test_extracted_lists_are_to_be_extracted_again(tmp_path):
    torch.save([{"index": 0, "a_map": torch.ones(100)}], map_file(tmp_path, "scanqa"))
    with pytest.raises(DataError, match="lacks 2 of 3 samples, sample 1 first; extract them again"):
        load_targets(load_config(), tmp_path, "val", "scanqa", 3)
    map_file(tmp_path, "scanqa").write_bytes(b"x")
    with pytest.raises(DataError, match="--targets: .* cannot be read|--targets: .*was not loaded"):
        load_targets(load_config(), tmp_path, "val", "scanqa", 3)


def test_maps_of_another_number_of_objects(tmp_path):
    """As `fast3d train-gap --set data.max_objects=50` meets them."""
    settings = {"layers": 4, "max_objects": 100, "shard": 256}
    TargetStore.create(tmp_path, settings, {"val/scanqa": PartInfo("a digest", 3, 3)})
    message = "holds maps of 100 objects, data.max_objects is 50; set data.max_objects to 100"
    with pytest.raises(DataError, match=message):
        load_targets(load_config(None, ["data.max_objects=50"]), tmp_path, "val", "scanqa", 3)
    torch.save([{"index": i, "a_map": torch.ones(100)} for i in range(3)], map_file(tmp_path, "scanrefer"))
    with pytest.raises(DataError, match="should hold 50 numbers, .*; is data.max_objects that of the maps"):
        load_targets(load_config(None, ["data.max_objects=50"]), tmp_path, "val", "scanrefer", 3)
