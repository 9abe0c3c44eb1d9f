"""The store of extracted maps: what is written is read back, and what does not fit is refused in one line."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fast3d_core.errors import DataError, UsageError
from fast3d_core.files.fingerprints import file_hash
from fast3d_core.maps.shards import Shard
from fast3d_core.maps.store import STORE_FILE, PartInfo, TargetStore
from fast3d_core.maps.targets import parse_layers

LAYERS, OBJECTS, SHARD, SAMPLES = 5, 7, 4, 10
SETTINGS = {"seed": 0, "layers": LAYERS, "max_objects": OBJECTS, "shard": SHARD, "files": {"llm": "1-ab"}}
PART = ("val", "scanqa")


def maps(start, stop):
    generator = torch.Generator().manual_seed(start)
    layers = {f"{key}_layers": torch.rand(stop - start, LAYERS, OBJECTS, generator=generator) for key in
              ("a_map", "a_map_ori")}  # fmt: skip
    return {**layers, "a_map": layers["a_map_layers"].mean(1), "a_map_ori": layers["a_map_ori_layers"].mean(1)}


def shard(start, stop):
    return Shard(torch.arange(start, stop), maps(start, stop), [f"Ä {i}" for i in range(start, stop)], 0.5)


class Filled:
    """A store with the maps of ten samples in three shards, and their annotations."""

    def __init__(self, folder):
        self.folder = folder / "targets"
        self.annotations = folder / "scanqa_val.json"
        self.annotations.write_text("[]")
        self.info = PartInfo(file_hash(self.annotations), SAMPLES, SAMPLES)
        self.store = TargetStore.create(self.folder, SETTINGS, {"val/scanqa": self.info})
        for number, start in enumerate(range(0, SAMPLES, SHARD)):
            self.store.write(*PART, number, shard(start, min(start + SHARD, SAMPLES)))

    def read(self, samples=SAMPLES, **options):
        return TargetStore.open(self.folder).read(*PART, annotations=self.annotations, samples=samples, **options)

    def edit(self, change):
        content = json.loads((self.folder / STORE_FILE).read_text())
        change(content)
        (self.folder / STORE_FILE).write_text(json.dumps(content))


@pytest.fixture
def filled(tmp_path):
    return Filled(tmp_path)


def test_what_is_written_is_read(filled):
    store = TargetStore.open(filled.folder)
    assert store.has(*PART) and not store.has("train", "scanqa")
    assert (store.layers, store.objects) == (LAYERS, OBJECTS)
    whole = [maps(start, min(start + SHARD, SAMPLES)) for start in range(0, SAMPLES, SHARD)]
    for key in ("a_map", "a_map_ori"):
        want = torch.cat([m[key] for m in whole])
        layers = torch.cat([m[f"{key}_layers"] for m in whole])
        assert torch.equal(filled.read(key=key), want)
        torch.testing.assert_close(filled.read(key=key, layers=range(LAYERS)), want, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(filled.read(key=key, layers=[3, 1]), layers[:, [3, 1]].mean(1), atol=1e-3, rtol=1e-3)
    assert filled.read(layers=[0]).dtype == torch.float32
    assert torch.equal(filled.read(samples=5), filled.read()[:5])
    assert [a for s in store.shards(*PART, SAMPLES) for a in s.answers] == [f"Ä {i}" for i in range(SAMPLES)]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: f.annotations.write_text("[1]"), "was extracted with other annotations"),
        (lambda f: f.annotations.unlink(), "cannot be read"),
        (lambda f: f.store.shard_path(*PART, 1).unlink(), "was interrupted"),
        (lambda f: f.store.write(*PART, 2, shard(8, 9)), "was interrupted"),
        (lambda f: f.edit(lambda c: c["parts"]["val/scanqa"].update(wanted=6)), "lacks 4 of 10 samples"),
        (lambda f: f.edit(lambda c: c["parts"].clear()), "run `fast3d extract --split val --dataset scanqa`"),
        (lambda f: f.edit(lambda c: c.update(version=2)), "of version 2"),
        (lambda f: f.edit(lambda c: c["settings"].update(layers=10**9)), "damaged"),
        (lambda f: f.edit(lambda c: c["settings"].update(layers=6)), "another type or shape"),
        (lambda f: f.edit(lambda c: c["settings"].update(max_objects=True)), "damaged"),
        (lambda f: f.edit(lambda c: c["settings"].update(shard=3)), "damaged"),
        (lambda f: f.edit(lambda c: c.update(parts=[])), "damaged"),
        (lambda f: (f.folder / STORE_FILE).write_text("{"), "is not valid JSON"),
        (lambda f: (f.folder / STORE_FILE).write_text("[]"), "damaged"),
        (lambda f: (f.folder / STORE_FILE).unlink(), "run `fast3d extract` first"),
        (lambda f: f.store.shard_path(*PART, 0).rename(f.store.shard_path(*PART, 1)), "was interrupted"),
        (lambda f: f.store.shard_path(*PART, 2).write_bytes(b"x"), "scanqa-00002.safetensors is damaged"),
        (lambda f: save_file({"a_map": torch.zeros(2, 7)}, f.store.shard_path(*PART, 2)), "is damaged"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(filled, harm, message):
    harm(filled)
    with pytest.raises(DataError) as error:
        filled.read(layers=[1])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_cut_shard_is_named_at_any_length(filled):
    path = filled.store.shard_path(*PART, 1)
    whole = path.read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert not filled.store.is_done(*PART, 1, SHARD)
        with pytest.raises(DataError, match="val_scanqa-00001.safetensors is damaged.*delete it"):
            filled.read()


@pytest.mark.parametrize(
    "metadata",
    [{"answers": "[" * 100_000}, {"answers": "[1, 2]"}, {"answers": '"ab"'}, {"seconds": "nan"}, {"seconds": "inf"}],
)
def test_a_shard_with_other_metadata_is_damaged(filled, metadata):
    path = filled.store.shard_path(*PART, 2)
    tensors = {"index": torch.arange(8, 10), **maps(8, 10)}
    save_file(tensors, path, {"answers": '["a", "b"]', "seconds": "1", **metadata})
    assert not filled.store.is_done(*PART, 2, 2)
    with pytest.raises(DataError, match="val_scanqa-00002.safetensors is damaged"):
        filled.read()


def test_a_pipe_is_no_shard(filled):
    path = filled.store.shard_path(*PART, 1)
    path.unlink()
    os.mkfifo(path)
    assert not filled.store.is_done(*PART, 1, SHARD)
    with pytest.raises(DataError, match="val_scanqa-00001.safetensors is no file"):
        filled.read()


def test_a_shard_of_other_samples_is_damaged(filled):
    filled.store.write(*PART, 1, shard(5, 9))
    with pytest.raises(DataError, match="do not begin at 4"):
        filled.read()


def test_options(filled):
    with pytest.raises(UsageError, match="layers 0 to 4"):
        filled.read(layers=[5])
    with pytest.raises(UsageError, match="--map-key"):
        filled.read(key="b_map")


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_same_settings_continue(filled):
    before = files(filled.folder)
    other = filled.folder.parent / "other.json"
    other.write_text("[2]")
    more = {"val/sqa3d": PartInfo(file_hash(other), 3, 2), "val/scanqa": PartInfo(filled.info.annotations, SAMPLES, 1)}
    store = TargetStore.create(filled.folder, json.loads(json.dumps(SETTINGS)), more)
    assert files(filled.folder) == before
    assert store.parts["val/scanqa"].wanted == SAMPLES  # a smaller --limit takes nothing away
    assert store.parts["val/sqa3d"].wanted == 2
    assert filled.read().shape == (SAMPLES, OBJECTS)


def test_other_settings_are_refused_until_restarted(filled):
    changed = {**SETTINGS, "seed": 3, "files": {"llm": "1-cd"}}
    with pytest.raises(UsageError) as error:
        TargetStore.create(filled.folder, changed, {"val/scanqa": filled.info})
    assert 'seed: 0 -> 3, files.llm: "1-ab" -> "1-cd"' in str(error.value)
    assert "--set maps.targets=DIR, or --restart" in str(error.value)
    (filled.folder / "infer_attn_maps_val_scanqa.pt").write_text("not ours to delete")
    TargetStore.create(filled.folder, changed, {"val/scanqa": filled.info}, restart=True)
    assert files(filled.folder) == ["infer_attn_maps_val_scanqa.pt", STORE_FILE]


def test_other_annotations_are_refused_until_restarted(filled):
    sqa3d = PartInfo(filled.info.annotations, 1, 1)
    TargetStore.create(filled.folder, SETTINGS, {"val/sqa3d": sqa3d}).write("val", "sqa3d", 0, shard(0, 1))
    changed = {"val/scanqa": PartInfo("0" * 64, 3, 3)}
    with pytest.raises(UsageError, match="val/scanqa extracted with other annotations.*--restart"):
        TargetStore.create(filled.folder, SETTINGS, changed)
    TargetStore.create(filled.folder, SETTINGS, changed, restart=True)
    assert files(filled.folder) == [STORE_FILE, "val_sqa3d-00000.safetensors"]  # only what was asked for
    assert set(TargetStore.open(filled.folder).parts) == {"val/scanqa", "val/sqa3d"}


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_text("{")])
def test_shards_without_a_description_are_not_trusted(filled, harm):
    harm(filled.folder / STORE_FILE)
    with pytest.raises((UsageError, DataError)):
        TargetStore.create(filled.folder, SETTINGS, {"val/scanqa": filled.info})
    TargetStore.create(filled.folder, SETTINGS, {"val/scanqa": filled.info}, restart=True)
    assert files(filled.folder) == [STORE_FILE]


def test_an_empty_store_takes_any_settings(tmp_path):
    TargetStore.create(tmp_path, SETTINGS, {"val/scanqa": PartInfo("0", 1, 1)})
    TargetStore.create(tmp_path, {**SETTINGS, "seed": 9}, {"val/sqa3d": PartInfo("0", 1, 1)})
    assert TargetStore.open(tmp_path).settings["seed"] == 9
    assert set(TargetStore.open(tmp_path).parts) == {"val/sqa3d"}


def test_parse_layers():
    assert parse_layers("all", 32) is None
    assert parse_layers("from:29", 32) == [29, 30, 31]
    assert parse_layers("from:0", 2) == [0, 1]
    assert parse_layers("3,5,8-11", 12) == [3, 5, 8, 9, 10, 11]
    assert parse_layers(" 4 - 5 , 4,0", 6) == [0, 4, 5]


@pytest.mark.parametrize(
    "text",
    ["", "al", "from:", "from:4", "from:-1", "from:1-2", "from:1,2", "4", "0-4", "2-1", "1,,2", "1;2", "-1", "1.5", "²",
     "9" * 5000, "0-99999999999"],
)  # fmt: skip
def test_parse_layers_refuses(text):
    with pytest.raises(UsageError, match="--layers") as error:
        parse_layers(text, 4)
    assert len(str(error.value)) < 200


def test_a_killed_restart_leaves_no_old_maps_to_the_next_extraction(filled, monkeypatch):
    """Wherever deletion is cut: what is left of the old maps does not count as the new ones."""
    changed = SETTINGS | {"seed": 7}
    unlink, at = Path.unlink, 0
    names = [path.name for path in shards_in(filled.folder)]
    contents = {name: (filled.folder / name).read_bytes() for name in (*names, STORE_FILE)}
    while True:
        for name, content in contents.items():
            (filled.folder / name).write_bytes(content)
        left = at

        def cut(path, missing_ok=False):
            nonlocal left
            if left == 0 and path.name in names:
                raise KeyboardInterrupt
            left -= path.name in names
            unlink(path, missing_ok=missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", cut)
            try:
                TargetStore.create(filled.folder, changed, {"val/scanqa": filled.info}, restart=True)
                break
            except KeyboardInterrupt:
                pass
        TargetStore.create(filled.folder, changed, {"val/scanqa": filled.info})
        assert shards_in(filled.folder) == []
        assert "deleting" not in (filled.folder / STORE_FILE).read_text()
        at += 1
    assert at == len(names) >= 1


def shards_in(folder):
    return sorted(folder.glob("*.safetensors"))


def test_another_programs_files_stay(tmp_path):
    """Even with --restart: a store.json that is sound and not ours, and weights that only look like shards."""
    contents = {STORE_FILE: '{"theme": "dark"}', "train_model-00001.safetensors": "mine"}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=r"store.json is not of fast3d; choose another folder"):
        TargetStore.create(tmp_path, SETTINGS, {"val/scanqa": PartInfo("1", 1, 1)}, restart=True)
    assert {name: (tmp_path / name).read_text() for name in contents} == contents
    (tmp_path / STORE_FILE).unlink()
    TargetStore.create(tmp_path, SETTINGS, {"val/scanqa": PartInfo("1", 1, 1)}, restart=True)
    assert (tmp_path / "train_model-00001.safetensors").read_text() == "mine"
