"""What `fast3d convert` writes holds the same numbers, is never stale unnoticed, and is there whole or not at all."""

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fast3d_core import convert as conversion
from fast3d_core.config import load_config
from fast3d_core.convert import convert, plan_conversions
from fast3d_core.data.annotations import Scenes
from fast3d_core.data.features import FEATURES_2D, FEATURES_3D, packed_file
from fast3d_core.errors import DataError, UsageError
from fast3d_core.files.tensors import TensorFile, fingerprints, network_fingerprint
from fast3d_core.gap.checkpoint import load_gap, read_tensors
from fast3d_core.models.chat_scene.checkpoint import load_checkpoint
from fast3d_core.prepare import prepare
from tests.conftest import MINIATURE
from tests.fuzz.readers import Nobody
from tests.prepare.releases import write_releases

CPU = torch.device("cpu")


def converted(folder: Path, *what: str, to: Path | None = None) -> list[Path]:
    planned = plan_conversions(load_config(folder / "fast3d.yaml"), what, to)
    convert(planned, Nobody())
    return [one.target for one in planned]


def same_scenes(released: Scenes, packed: Scenes, names) -> bool:
    for name in names:
        a, b = released[name], packed[name]
        bits = [torch.equal(x.view(torch.int32), y.view(torch.int32)) for x, y in
                ((a.features_3d, b.features_3d), (a.features_2d, b.features_2d))]  # fmt: skip
        assert all(bits) and torch.equal(a.present, b.present), name
    return (released.width_3d, released.width_2d) == (packed.width_3d, packed.width_2d)


@pytest.mark.parametrize("objects", [100, 5])
@pytest.mark.parametrize("original_stays", [True, False])
def test_packed_features_are_the_same_to_the_bit(files, objects, original_stays):
    folder = files / "annotations"
    names = {key.rpartition("_")[0] for key in torch.load(folder / FEATURES_3D, weights_only=True)}
    released = Scenes(MINIATURE.parent / "annotations", objects)
    converted(files, "features")
    for name in (FEATURES_3D, FEATURES_2D):
        if not original_stays:
            (folder / name).unlink()
    packed = Scenes(folder, objects)
    assert same_scenes(released, packed, names) and len(names) == 3
    assert "scene0404_00" not in packed
    types = {type(features).__name__ for features in packed._features}
    assert types == {"PackedFeatures"}


def test_odd_but_readable_features(files):
    """Other number types, slots in any order, beyond the last or named twice: packed as they are read."""
    folder = files / "annotations"
    features = {f"scene0001_00_{slot}": torch.randn(8, dtype=torch.float64) * 1e-3 for slot in (7, 3, 250, 12)}
    features["scene0001_00_7"] = (torch.arange(8.0) / 3).double()
    features |= {"scene0001_00_07": torch.arange(8.0) / 3, "scene_0002_1": torch.ones(8, dtype=torch.bfloat16)}
    features |= {"scene0003_00_120": torch.ones(8), "scene0001_00_1": torch.tensor([-0.0] + [1e-45] * 7)}
    features |= {"scene0004_00_0": torch.full((8,), torch.nan)}
    for name in (FEATURES_3D, FEATURES_2D):
        torch.save(features, folder / name)
    released = Scenes(folder)
    converted(files, "features")
    packed = Scenes(folder)
    assert same_scenes(released, packed, ["scene0001_00", "scene_0002", "scene0003_00"])
    assert packed["scene0001_00"].features_3d[7].tolist() == (torch.arange(8.0) / 3).tolist()
    assert "scene0003_00" not in packed  # its only object has no slot of a hundred
    for scenes in (released, packed):
        with pytest.raises(DataError, match=r"scene0004_00_00 holds NaN"):
            _ = scenes["scene0004_00"]


def test_packed_features_are_mapped_not_read(files):
    """Twice 64 MB of features: opening takes next to no memory, a scene a little."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs Linux's /proc to see the memory of the process")
    folder = files / "annotations"
    rows = torch.ones(2000, 8192)
    for name in (FEATURES_3D, FEATURES_2D):
        torch.save({f"scene{i // 100:04}_00_{i % 100:02}": rows[i] for i in range(len(rows))}, folder / name)
    converted(files, "features")

    def memory() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    before = memory()
    scenes = Scenes(folder)
    assert scenes["scene0017_00"].features_3d.sum() == 100 * 8192
    assert memory() - before < 32 << 20


def test_stale_features_are_refused(files):
    path = files / "annotations" / FEATURES_3D
    converted(files, "features")
    about, content = path.stat(), path.read_bytes()
    os.utime(path, ns=(0, 0))
    Scenes(files / "annotations")  # copied or touched, its content tells that it is the same
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    assert path.stat().st_size == about.st_size
    with pytest.raises(
        DataError, match=rf"{packed_file(path)} was made from another {path.name} than the one beside it"
    ):
        Scenes(files / "annotations")
    converted(files, "features")
    Scenes(files / "annotations")
    path.write_bytes(content + b"x")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    with pytest.raises(DataError, match="was made from another"):
        Scenes(files / "annotations")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("slots/scene0011_00"), "it is not what `fast3d convert` writes"),
        (lambda t: t.update({"slots/scene0011_00": torch.arange(3)}), "has slots I64"),
        (lambda t: t["slots/scene0011_00"].fill_(5), "do not ascend"),
        (lambda t: t["slots/scene0011_00"].sub_(1), "do not ascend"),
        (lambda t: t["slots/scene0011_00"].add_(10**6), "do not ascend"),
        (lambda t: t.update({"features/scene0011_00": t["features/scene0011_00"].double()}), "are F64"),
        (lambda t: t.update({"features/scene0011_00": t["features/scene0011_00"][:, :5].clone()}), "has slots"),
        (lambda t: [t.update({n: v[:, :0].clone()}) for n, v in list(t.items()) if v.dim() == 2], "of 0 numbers"),
    ],
)
def test_damaged_packed_features(files, change, message):
    (path, _) = converted(files, "features")
    file = TensorFile(path, "x")
    tensors, source = {name: tensor.clone() for name, tensor in file.items()}, file.source
    change(tensors)
    conversion.write_tensors(path, tensors, {}, source)
    with pytest.raises(DataError, match=message):
        Scenes(files / "annotations")


def test_a_stranger_in_the_packed_file_s_place(files):
    path = packed_file(files / "annotations" / FEATURES_3D)
    save_file({"slots/a": torch.arange(1), "features/a": torch.ones(1, 4)}, path)
    with pytest.raises(DataError, match="it is not what `fast3d convert` writes"):
        Scenes(files / "annotations")
    with pytest.raises(UsageError, match=r"was not written by `fast3d convert`; move it away, or say --to DIR"):
        plan_conversions(load_config(files / "fast3d.yaml"))
    path.write_bytes(b"half a file")
    with pytest.raises(DataError, match="cannot be read"):
        Scenes(files / "annotations")


def test_chat_scene_s_checkpoint(files):
    (path,) = converted(files, "chat-scene")
    assert path == files / "ckpt_01_3446.safetensors"
    old, new = load_checkpoint(files / "ckpt_01_3446.pth", 4), load_checkpoint(path, 4)
    assert old.state.keys() == new.state.keys() and old.ignored == new.ignored
    assert all(torch.equal(old.state[name], new.state[name]) for name in old.state)
    assert json.loads(json.dumps(old.settings)) == new.settings and new.settings["model"]
    with pytest.raises(DataError, match="holds unexpected tensor x;"):
        conversion.write_tensors(path, {**TensorFile(path, "x"), "x": torch.ones(1)}, {})
        load_checkpoint(path, 4)


def test_tensors_that_share_their_numbers(files):
    content = torch.load(MINIATURE.parent / "gap" / "checkpoint_spatial.pth", weights_only=True)
    tensors = content["model_state_dict"]
    tensors["text_projector.weight"] = tensors["text_projector.weight"].t().contiguous().t()
    names = [name for name in tensors if tensors[name].shape == (48,)][:2]
    tensors[names[0]] = tensors[names[1]]
    torch.save(content, files / "gap" / "checkpoint_spatial.pth")
    (path,) = converted(files, "gap")
    assert all(torch.equal(value, tensors[name]) for name, value in read_tensors(path)[0].items())


def test_gap_s_checkpoint(files):
    (path,) = converted(files, "gap")
    config = load_config(files / "fast3d.yaml")
    old, new = load_gap(config, CPU), load_gap(load_config(files / "fast3d.yaml", [f"gap.checkpoint={path}"]), CPU)
    assert all(torch.equal(a, b) for a, b in zip(old.state_dict().values(), new.state_dict().values(), strict=True))
    assert network_fingerprint(path) == network_fingerprint(files / "gap" / "checkpoint_spatial.pth")


def test_settings_that_json_cannot_hold_are_left_out(files):
    state = dict(load_checkpoint(MINIATURE.parent / "ckpt_01_3446.pth", 4).state)
    nested: list = []
    for _ in range(60):
        nested = [nested, nested]  # 2**60 lists, were they written out
    for settings in ({"a": nested}, {"a": float("inf")}, {"a": torch.ones(1)}, {(1, 2): 3}):
        torch.save({"model": state, "config": settings}, files / "ckpt_01_3446.pth")
        (path,) = converted(files, "chat-scene")
        assert load_checkpoint(path, 4).settings == {}


def test_converted_files_go_by_what_they_were_made_from(files):
    released = [files / "annotations" / FEATURES_3D, files / "ckpt_01_3446.pth", files / "fast3d.yaml"]
    before = fingerprints(released)
    made = converted(files, "features", "chat-scene")
    assert fingerprints([made[0], made[2], files / "fast3d.yaml"]) == before
    released[0].unlink()
    assert fingerprints(made[:1]).items() <= before.items()


def test_what_is_done_is_not_done_again_and_originals_stay(files):
    def state():
        return {
            path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
            for path in files.rglob("*")
            if path.is_file()
        }

    before = state()
    made = converted(files)
    after = state()
    assert {path: after[path] for path in before} == before
    assert sorted(after.keys() - before.keys()) == sorted(made) and len(made) == 4
    assert converted(files) == made and state() == after
    made[1].unlink()
    assert [one.done for one in plan_conversions(load_config(files / "fast3d.yaml"))] == [True, False, True, True]
    converted(files)
    assert {path: value for path, value in state().items() if path != made[1]} == {
        path: value for path, value in after.items() if path != made[1]
    }


def test_an_interruption_leaves_nothing(files, monkeypatch):
    def broken(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", broken)
    before = sorted(files.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        converted(files)
    assert sorted(files.rglob("*")) == before


def test_a_full_disk(files, monkeypatch):
    monkeypatch.setattr("fast3d_core.files.disk.shutil.disk_usage", lambda _: type("", (), {"free": 10**8}))
    before = sorted(files.rglob("*"))
    with pytest.raises(DataError, match="are needed and 100.0 MB of the disk are free; make room"):
        converted(files)
    monkeypatch.undo()
    if os.geteuid() and sys.platform != "win32":  # root may write anywhere
        (files / "annotations").chmod(0o500)
        with pytest.raises(DataError, match="cannot be written"):
            converted(files, "features")
        (files / "annotations").chmod(0o700)
    assert sorted(files.rglob("*")) == before


def test_a_source_that_changes_meanwhile(files, monkeypatch):
    path = files / "annotations" / FEATURES_3D
    read = conversion._read

    def late(one, progress):
        found = read(one, progress)
        torch.save({}, path)
        return found

    monkeypatch.setattr(conversion, "_read", late)
    with pytest.raises(DataError, match="was changed while it was read"):
        converted(files, "features")
    assert not packed_file(path).exists()


def test_to_another_folder(files, tmp_path):
    made = converted(files, to=tmp_path / "new" / "place")
    assert {path.parent for path in made} == {tmp_path / "new" / "place"}
    assert not list(files.rglob("*feats.safetensors"))
    Scenes(files / "annotations")


def test_a_link_is_replaced_not_followed(files, tmp_path):
    (path, _) = converted(files, "features")
    elsewhere = tmp_path / "elsewhere.safetensors"
    path.rename(elsewhere)
    kept = elsewhere.read_bytes()
    path.symlink_to(elsewhere)
    released = files / "annotations" / FEATURES_3D
    torch.save(torch.load(released, weights_only=True), released)
    os.utime(released, ns=(0, 0))
    content = torch.load(released, weights_only=True)
    content["scene0011_00_00"] += 1
    torch.save(content, released)
    converted(files, "features")
    assert not path.is_symlink() and elsewhere.read_bytes() == kept


@pytest.mark.parametrize(
    ("overrides", "what", "kind", "message"),
    [
        ([], ["all"], UsageError, "there is no 'all' to convert; choose from features, chat-scene, gap"),
        (["model.checkpoint=gone.pth"], ["chat-scene"], DataError, r"model\.checkpoint .*gone\.pth does not exist"),
        (["gap.checkpoint=a.safetensors"], ["gap"], DataError, r"gap\.checkpoint .*a\.safetensors does not exist"),
        (["data.annotations=gone"], [], DataError, "data.annotations"),
    ],
)
def test_what_cannot_be_converted(files, overrides, what, kind, message):
    with pytest.raises(kind, match=message):
        plan_conversions(load_config(files / "fast3d.yaml", overrides), what)


def test_nothing_to_convert(files):
    made = converted(files)
    for path in (files / "annotations" / FEATURES_3D, files / "annotations" / FEATURES_2D):
        path.unlink()
    config = load_config(files / "fast3d.yaml", [f"model.checkpoint={made[2]}", f"gap.checkpoint={made[3]}"])
    with pytest.raises(DataError, match="there is nothing in released form to convert"):
        plan_conversions(config)
    with pytest.raises(UsageError, match=r"which is no released file but safetensors already"):
        plan_conversions(config, ["gap"])


def test_prepare_knows_packed_features(files, tmp_path):
    write_releases(tmp_path / "raw", files / "annotations")
    converted(files, "features")
    for name in (FEATURES_3D, FEATURES_2D):
        (files / "annotations" / name).unlink()
    assert not [name for name in prepare(tmp_path / "raw", files / "annotations").lacking if "feats" in name]
