import pytest
import torch

from fast3d_core.errors import DataError
from fast3d_core.maps.kind import log_shares
from fast3d_core.maps.published import map_file, read_maps
from fast3d_core.plan import Units
from fast3d_core.pruning import PlanRequest, Sap
from fast3d_core.pruning.sap import sorted_mass
from tests.conftest import MINIATURE
from tests.maps.scores import load_maps


def write(folder, content, dataset="scanqa"):
    torch.save(content, map_file(folder, dataset))
    return folder


def entries(count=3, **changes):
    return {i: {"a_map": torch.arange(100.0) + i} | changes for i in range(count)}


def test_dict_and_list_forms(tmp_path):
    """GAP writes a dict, extraction a list; a list is read by its indices, whatever its order."""
    as_dict = load_maps(write(tmp_path, entries()), "scanqa", 3)
    listed = [{"index": i, "a_map": torch.arange(100.0) + i, "a_map_ori": -torch.arange(100.0)} for i in (2, 0, 1)]
    as_list = load_maps(write(tmp_path, listed), "scanqa", 3)
    assert all(torch.equal(as_dict[i], as_list[i]) for i in range(3))
    assert load_maps(tmp_path, "scanqa", 3, key="a_map_ori")[1].tolist() == (-torch.arange(100.0)).tolist()


def test_recorded_files():
    folder = MINIATURE.parent / "outputs"
    assert len(load_maps(folder / "pred_attn_maps", "sqa3d", 3)) == 3
    assert load_maps(folder / "infer_attn_maps", "sqa3d", 3, key="a_map_ori")[2].shape == (100,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (entries(2), "lacks 1 of 3 samples"),
        (entries(5), "is for another dataset: it has sample 4, scanqa has 3 samples"),
        (entries(a_map=torch.full((100,), torch.nan)), "NaN or infinity"),
        (entries(a_map=torch.zeros(99)), r"should hold 100 numbers, one an object, not \(99,\)"),
        (entries(a_map=[0.0] * 100), "not list"),
        ({0: torch.zeros(100)}, "not an attention map file"),
        ({"a": {"a_map": torch.zeros(100)}}, "not an attention map file"),
        ([torch.zeros(100)], "not an attention map file"),
        (torch.zeros(100), "not an attention map file"),
        ([{"index": 0}], "holds no 'a_map'"),
    ],
)
def test_bad_content(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as error:
        load_maps(write(tmp_path, content), "scanqa", 3)
    assert "\n" not in str(error.value)


def test_missing_key_names_those_that_are_there(tmp_path):
    with pytest.raises(DataError, match=r"holds no 'a_map_ori' \(it has a_map\); choose with --map-key"):
        load_maps(write(tmp_path, entries()), "scanqa", 3, key="a_map_ori")


def test_missing_and_truncated_file(tmp_path):
    write(tmp_path, entries())
    with pytest.raises(DataError, match=r"val_scanrefer.pt does not exist; did you mean infer_attn_maps_val_scanqa.pt"):
        load_maps(tmp_path, "scanrefer", 3)
    path = map_file(tmp_path, "scanqa")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="cannot be read"):
        load_maps(tmp_path, "scanqa", 3)


SHARES = torch.rand(3, 100, generator=torch.Generator().manual_seed(0)) / 100


def written(folder, maps, *, listed):
    rows = {i: {"a_map": row} for i, row in enumerate(maps)}
    write(folder, [{"index": i, **row} for i, row in rows.items()] if listed else rows)
    return read_maps(folder, "scanqa", len(maps))


@pytest.mark.parametrize(("listed", "maps", "kind"), [
    (True, SHARES, "shares"),
    (True, SHARES * 40, "shares"),
    (True, SHARES - 1, "logits"),
    (False, SHARES, None),
    (False, SHARES * 40, "logits"),
    (False, SHARES - 0.001, "logits"),
    (False, torch.zeros(3, 100), "logits"),
])  # fmt: skip
def test_files_tell_the_kind(tmp_path, listed, maps, kind):
    found = written(tmp_path, maps, listed=listed)
    assert found.kind == kind
    if kind == "logits":
        assert found.as_logits().scores is found.scores
        return
    with pytest.raises(DataError, match="--map-kind shares"):
        found.as_logits()
    assert found.as_logits("logits").scores is found.scores
    shares = found.as_logits("shares").all().logits().softmax(-1)
    torch.testing.assert_close(shares, maps / maps.sum(-1, keepdim=True))


@pytest.mark.parametrize(
    ("maps", "problem"), [(SHARES - 1, "sample 0 has numbers below 0"), (SHARES * 0, "adds up to 0")]
)
def test_what_was_said_must_be_possible(tmp_path, maps, problem):
    with pytest.raises(DataError, match=problem):
        written(tmp_path, maps, listed=False).as_logits("shares")


def test_a_share_of_nothing():
    """Has a finite logarithm, and counts nothing."""
    logits = log_shares(torch.tensor([[0.0, 0.2, 0.0, 0.2], [0.0, 0.0, 1e-30, 0.0]]))
    assert logits.isfinite().all() and logits.min() == pytest.approx(-87.34, abs=0.01)
    assert sorted_mass(logits).tolist() == [[0.5, 1, 1, 1], [1, 1, 1, 1]]


def test_sap_on_shares_keeps_the_share_that_alpha_says(tmp_path):
    """Against counting; the softmax of shares, which are all alike to it, keeps about alpha of the objects."""
    maps = written(tmp_path, SHARES**4, listed=True)
    for i, logits in maps.as_logits("shares").scores.items():
        parts = (SHARES[i].double() ** 4).sort(descending=True).values
        enough = int((parts.cumsum(0) / parts.sum() < 0.5).sum()) + 1
        assert (
            Sap(0.5).plan(PlanRequest("scanqa", i, Units(100, 3), scores=logits, kind="logits")).counts(2)
            == [3 * enough] * 2
        )
        with pytest.raises(DataError, match="shares of attention"):
            Sap(0.5).plan(PlanRequest("scanqa", i, Units(100, 3), scores=maps.scores[i], kind="shares"))
        as_if = PlanRequest("scanqa", i, Units(100, 3), scores=maps.scores[i], kind="logits")
        assert Sap(0.5).plan(as_if).counts(1) == [150] and 3 * enough < 150
