import json

import numpy as np
import pytest
import torch

from fast3d_core.benchmarks import References
from fast3d_core.errors import DataError


def test_boxes_are_float64_and_read_once(tmp_path):
    path = tmp_path / "scannet_mask3d_train_attributes.pt"
    torch.save({"a": {"objects": ["chair"], "locs": torch.ones(1, 6)}, "empty": {"objects": [], "locs": []}}, path)
    references = References(tmp_path, "train")
    boxes = references.instances
    assert boxes.scenes["a"].dtype == np.float64
    assert boxes.scenes["empty"].shape == (0, 6)
    assert boxes.file == path.name
    path.unlink()
    assert references.instances is boxes


@pytest.mark.parametrize(
    "content", [[1], {"a": torch.ones(2, 6)}, {"a": {"locs": torch.ones(2, 7)}}, {"a": {}}, {"a": None}]
)
def test_damaged_boxes(tmp_path, content):
    torch.save(content, tmp_path / "scannet_val_attributes.pt")
    with pytest.raises(DataError, match=r"scannet_val_attributes\.pt must hold"):
        _ = References(tmp_path).objects


def test_missing_files(tmp_path):
    references = References(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        _ = references.instances
    with pytest.raises(DataError, match="does not exist"):
        _ = references.corpus
    assert references.unique_multiple is None


@pytest.mark.parametrize("content", [[], {"a|1": "a chair"}, {"a|1": []}, {"a|1": [3]}])
def test_damaged_corpus(tmp_path, content):
    (tmp_path / "scan2cap_val_corpus.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="must hold"):
        _ = References(tmp_path).corpus


@pytest.mark.parametrize(
    "content",
    [[], {"a": 1}, {"a": {"1": 2}}, {"a": {"1": "0"}}, {"a": {"1": None}}, {"a": {"1": {}}}, {"a": {"1": {"0": [1]}}}],
)
def test_damaged_lookup(tmp_path, content):
    (tmp_path / "scanrefer_unique_multiple_lookup.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="must hold"):
        _ = References(tmp_path).unique_multiple


def test_lookup_by_description(tmp_path):
    """ScanRefer's own form has a number for each description of an object; as where built, the last counts."""
    path = tmp_path / "scanrefer_unique_multiple_lookup.json"
    path.write_text(json.dumps({"a": {"3": {"0": 0, "1": 0}, "4": {"0": 1}, "5": {"0": 0, "1": 1}, "6": 0, "7": True}}))
    references = References(tmp_path)
    assert references.unique_multiple == {"a": {"3": 0, "4": 1, "5": 1, "6": 0, "7": 1}}
    assert references.labels is None


def write_scanrefer(folder, annotations):
    (folder / "scannet").mkdir()
    (folder / "scanrefer").mkdir()
    rows = [("1", "office chair", "chair"), ("2", "chair", "chair"), ("3", "lamp", "lamp"), ("4", "tv", "television")]
    table = ["id\traw_category\tcategory\tcount\tnyu40id\teigen13id\tnyuClass\tnyu40class"]
    table += [f"{number}\t{raw}\t{raw}\t1\t1\t1\t{raw}\t{label}" for number, raw, label in rows]
    (folder / "scannet" / "scannetv2-labels.combined.tsv").write_text("\n".join(table) + "\n")
    (folder / "scanrefer" / "ScanRefer_filtered.json").write_text(json.dumps(annotations))


def test_unique_and_multiple(tmp_path):
    described = [("0", "office_chair"), ("1", "chair"), ("1", "chair"), ("2", "lamp"), ("3", "alpaca")]
    entries = [{"scene_id": "a", "object_id": index, "object_name": name} for index, name in described]
    entries += [{"scene_id": "b", "object_id": "0", "object_name": "chair"}]
    entries += [{"scene_id": "b", "object_id": "1", "object_name": "tv"}]
    write_scanrefer(tmp_path, entries)
    # A lamp and an unknown thing are both "others"; a chair described twice is one chair.
    assert References(tmp_path).unique_multiple == {"a": {"0": 1, "1": 1, "2": 1, "3": 1}, "b": {"0": 0, "1": 0}}


@pytest.mark.parametrize(
    ("spelt", "edition", "unique"), [("refridgerator", "ScanNet's own", 1), ("refrigerator", "ScanRefer's", 0)]
)
def test_the_edition_of_the_label_table(tmp_path, spelt, edition, unique):
    """In ScanNet's own a refrigerator is one of the others, as a lamp is."""
    names = ["fridge", "lamp"]
    write_scanrefer(tmp_path, [{"scene_id": "a", "object_id": i, "object_name": name} for i, name in enumerate(names)])
    with (tmp_path / "scannet" / "scannetv2-labels.combined.tsv").open("a") as table:
        table.write(f"5\tfridge\tfridge\t1\t1\t1\tfridge\t{spelt}\n")
    references = References(tmp_path)
    assert references.labels.startswith(edition)
    assert references.unique_multiple == {"a": {"0": unique, "1": unique}}


@pytest.mark.parametrize(
    "annotations", [[{"scene_id": "a"}], ["a"], [{"scene_id": "a", "object_id": "0", "object_name": 3}]]
)
def test_damaged_scanrefer_annotations(tmp_path, annotations):
    write_scanrefer(tmp_path, annotations)
    with pytest.raises(DataError, match="download them again"):
        _ = References(tmp_path).unique_multiple


@pytest.mark.parametrize(
    "locs",
    [
        torch.zeros(6), torch.zeros(1, 6, dtype=torch.int64), torch.zeros(1001, 6),
        [[0.0] * 6], None, "none", torch.zeros(0, 7),
    ],
)  # fmt: skip
def test_boxes_that_are_none(tmp_path, locs):
    torch.save({"a": {"locs": locs}}, tmp_path / "scannet_val_attributes.pt")
    with pytest.raises(DataError, match="the boxes of 'a' are no such table"):
        _ = References(tmp_path).objects


def test_boxes_of_absurd_shape(tmp_path):
    """A stride of 0 makes a table of 24 numbers as large as one likes; float64 would have filled all memory."""
    torch.save({"a": {"locs": torch.zeros(1, 6).expand(10**12, 6)}}, tmp_path / "scannet_val_attributes.pt")
    with pytest.raises(DataError, match=r"scannet_val_attributes\.pt was not loaded.*its tensors claim"):
        _ = References(tmp_path).objects
