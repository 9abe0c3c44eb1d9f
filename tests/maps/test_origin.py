"""Maps and their questions: what fast3d wrote is known, whatever its name is now, and only with its own questions."""

import json
import shutil

import pytest
import torch

from fast3d_core.benchmarks.questions import annotation_file
from fast3d_core.config import load_config
from fast3d_core.errors import DataError, UsageError
from fast3d_core.extraction.extract import check_export, export, extract, load_part
from fast3d_core.files.fingerprints import fingerprint
from fast3d_core.gap.predictor import predict_maps
from fast3d_core.maps.ledger import EXPORTED_FILE, PREDICTED_FILE, check_folder, write_known
from fast3d_core.maps.origin import MapOrigin, check_origin, load_known_maps, origin_of
from fast3d_core.maps.published import map_file
from fast3d_core.maps.store import TargetStore
from fast3d_core.runtime.progress import Silent

CPU = torch.device("cpu")


@pytest.fixture
def config(files, tmp_path):
    shutil.rmtree(files / "outputs")
    return load_config(files / "fast3d.yaml")


@pytest.fixture
def predicted(config):
    predict_maps(config, "val", ["scanqa", "sqa3d"], config.maps.predicted, CPU, Silent())
    return config.maps.predicted


@pytest.fixture
def exported(config, tmp_path):
    parts = [load_part(config.data.annotations, "val", "scanqa", None, 0)]
    extract(config, parts, Silent())
    export(TargetStore.open(config.maps.targets), parts, tmp_path / "exported")
    return tmp_path / "exported"


def test_what_fast3d_wrote_is_known(config, predicted, exported):
    questions = annotation_file(config.data.annotations, "scanqa")
    for folder, kind in ((predicted, "logits"), (exported, "shares")):
        origin = MapOrigin(kind, "val/scanqa", fingerprint(questions))
        assert origin_of(folder, "scanqa") == origin == check_origin(folder, "scanqa", questions)
        maps, known = load_known_maps(folder, "scanqa", questions, 3)
        assert (maps.kind, known, len(maps.scores)) == (kind, True, 3)


@pytest.mark.parametrize("ledger", [PREDICTED_FILE, EXPORTED_FILE])
def test_a_copy_under_the_name_of_another_dataset(config, predicted, exported, ledger):
    folder = predicted if ledger == PREDICTED_FILE else exported
    shutil.copy(map_file(folder, "scanqa"), map_file(folder, "sqa3d"))
    questions = annotation_file(config.data.annotations, "sqa3d")
    with pytest.raises(DataError, match=r"val_sqa3d.pt is a copy of the maps of val/scanqa; make those of val/sqa3d"):
        load_known_maps(folder, "sqa3d", questions, 3)
    assert load_known_maps(folder, "scanqa", annotation_file(config.data.annotations, "scanqa"), 3)[1]


@pytest.mark.parametrize("ledger", [PREDICTED_FILE, EXPORTED_FILE])
def test_questions_in_another_order(config, predicted, exported, ledger):
    folder = predicted if ledger == PREDICTED_FILE else exported
    questions = annotation_file(config.data.annotations, "scanqa")
    questions.write_text(json.dumps(json.loads(questions.read_text())[::-1]))
    with pytest.raises(DataError, match=r"was made of other questions than those in .*scanqa_val.json; make it again"):
        load_known_maps(folder, "scanqa", questions, 3)
    questions.unlink()  # search-alpha needs none
    assert load_known_maps(folder, "scanqa", questions)[1]


def test_what_others_made_is_not_known(config, predicted):
    """Also where it was put in the place of ours."""
    path, questions = map_file(predicted, "scanqa"), annotation_file(config.data.annotations, "scanqa")
    torch.save({i: {"a_map": torch.arange(100.0)} for i in range(3)}, path)
    assert origin_of(predicted, "scanqa") is None
    maps, known = load_known_maps(predicted, "scanqa", questions, 3)
    assert (maps.kind, known) == ("logits", False)
    (predicted / PREDICTED_FILE).write_text("{")
    assert origin_of(predicted, "sqa3d") is None


def test_the_ledger_knows_the_kind_where_numbers_do_not_tell(config, predicted):
    """Logits of a network may all be small and none below 0."""
    path, questions = map_file(predicted, "scanqa"), annotation_file(config.data.annotations, "scanqa")
    torch.save({i: {"a_map": torch.full((100,), 0.005)} for i in range(3)}, path)
    assert load_known_maps(predicted, "scanqa", questions, 3)[0].kind is None
    ledger = json.loads((predicted / PREDICTED_FILE).read_text())
    ledger["val/scanqa"]["map"] = fingerprint(path, whole=True)
    (predicted / PREDICTED_FILE).write_text(json.dumps(ledger))
    assert load_known_maps(predicted, "scanqa", questions, 3)[0].kind == "logits"


@pytest.mark.parametrize(
    "content", ["[]", "[1]", '{"val/scanqa": 5}', '{"a": {"map": 1, "part": [], "annotations": {}}}']
)
def test_a_damaged_ledger_tells_nothing(predicted, content):
    for name in (PREDICTED_FILE, EXPORTED_FILE):
        (predicted / name).write_text(content)
    assert origin_of(predicted, "scanqa") is None


def test_exports_of_before_are_replaced(config, exported):
    """Their ledger had the file's digest alone."""
    path = map_file(exported, "scanqa")
    (exported / EXPORTED_FILE).write_text(json.dumps({path.name: fingerprint(path, whole=True)}))
    parts = [load_part(config.data.annotations, "val", "scanqa", None, 0)]
    assert origin_of(exported, "scanqa") is None
    check_export(parts, exported)
    export(TargetStore.open(config.maps.targets), parts, exported)
    assert origin_of(exported, "scanqa").part == "val/scanqa"


def test_a_map_file_that_was_put_back_is_not_ours(config, predicted):
    """`predict --restart` replaced it with leave; the next `predict` has none."""
    path = map_file(predicted, "scanqa")
    ours = path.read_bytes()
    (predicted / PREDICTED_FILE).unlink()
    path.write_bytes(published := ours + b" ")
    known = {}
    write_known(predicted / PREDICTED_FILE, known, "val/scanqa", {}, path, ours)
    assert json.loads((predicted / PREDICTED_FILE).read_text()).keys() == {"val/scanqa"}
    check_folder(predicted, [("val", "scanqa")])
    path.write_bytes(published)
    with pytest.raises(UsageError, match="maps that fast3d did not write"):
        check_folder(predicted, [("val", "scanqa")])


def test_a_kind_that_fast3d_noted_is_not_talked_away(config, predicted, exported):
    questions = annotation_file(config.data.annotations, "scanqa")
    for folder, kind, wrong in ((predicted, "logits", "shares"), (exported, "shares", "logits")):
        maps, _ = load_known_maps(folder, "scanqa", questions)
        assert maps.kind == kind and len(maps.as_logits(kind).scores) == 3
        with pytest.raises(DataError, match=f"holds {kind}, as fast3d noted.*leave out --map-kind {wrong}"):
            maps.as_logits(wrong)
