"""Extracted maps that cannot be used are refused in one line."""

from types import SimpleNamespace

import pytest
import torch

from fast3d_core.config import load_config
from fast3d_core.errors import DataError
from fast3d_core.gap.inputs import load_targets
from fast3d_core.gap.maps import map_file
from fast3d_core.gap.store import STORE_FILE, TargetStore


@pytest.mark.parametrize(
    ("value", "message"),
    [(torch.nan, "holds NaN or infinity"), (torch.inf, "holds NaN"), (-1.0, "below 0"), (0.0, "adds up to 0")],
)
def test_maps_of_a_store_that_are_no_attention(tmp_path, monkeypatch, value, message):
    maps = torch.ones(3, 100)
    maps[1] = value
    (tmp_path / STORE_FILE).touch()
    store = SimpleNamespace(layers=4, has=lambda *_: True, read=lambda *_, **__: maps)
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
