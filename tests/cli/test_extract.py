"""`fast3d extract` as a user runs it: resume, several processes, export, settings that changed, full disks."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from fast3d_core.benchmarks.questions import annotation_file
from fast3d_core.config import DATASETS
from fast3d_core.errors import DataError
from fast3d_core.extraction import extract as targets
from fast3d_core.files.locks import LOCK_FILE
from fast3d_core.maps import store as stores
from fast3d_core.maps.published import MAP_KEYS
from fast3d_core.maps.store import TargetStore
from tests.cli.conftest import ROOT
from tests.conftest import MINIATURE
from tests.maps.scores import load_maps

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
DEFAULT = "outputs/infer_attn_maps"


def shards(folder):
    """All that the shards of a store hold."""
    return {path.name: load_file(path) for path in sorted(folder.glob("*.safetensors"))}


def same(one, two):
    one, two = shards(one), shards(two)
    assert one.keys() == two.keys()
    for name in one:
        for key in one[name]:
            assert torch.equal(one[name][key], two[name][key]), (name, key)


def test_everything_by_default(fast3d, tmp_path):
    """Both splits of the embedded demo, to ./outputs, where `maps.targets` then is."""
    done = fast3d("extract", "--json")
    result = json.loads(done.stdout)
    assert result["folder"] == str(tmp_path / DEFAULT)
    assert list(result["parts"]) == [f"{split}/{dataset}" for split in ("train", "val") for dataset in DATASETS]
    for part in result["parts"].values():
        assert part["samples"] == 3 and part["samples_per_second"] > 0
        assert part["mass"] == pytest.approx(sum(part["mass_per_layer"]) / 4, abs=1e-4)
        assert 0.6 < part["mass"] < 0.8
    store = TargetStore.open(tmp_path / DEFAULT)
    assert all(store.has(split, dataset) for split in ("train", "val") for dataset in DATASETS)
    again = fast3d("extract")
    assert "loading the model" not in again.stderr
    assert ["val/scanqa", "3", "-"] in [line.split()[:3] for line in again.stdout.splitlines()]
    assert "30 of 30 samples were extracted before" in again.stderr
    (tmp_path / DEFAULT / "val_scanqa-00000.safetensors").unlink()
    parts = json.loads(fast3d("extract", "--split", "val", "--limit", "2", "--json").stdout)["parts"]
    assert {name: (part["samples"], part["computed"]) for name, part in parts.items()} == {
        f"val/{dataset}": (2, 2 if dataset == "scanqa" else 0) for dataset in DATASETS
    }


def test_export_is_the_published_form(fast3d, tmp_path, files):
    """Where only one reference can be drawn, the recorded maps; into the folder of the store itself."""
    config = files / "fast3d.yaml"
    for dataset in DATASETS:
        (files / DEFAULT / f"infer_attn_maps_val_{dataset}.pt").rename(tmp_path / f"infer_attn_maps_val_{dataset}.pt")
    drawn = json.loads((ROOT / "tests/data/chat_scene/extracted_info.json").read_text())
    for dataset in set(DATASETS) - {"multi3dref"}:
        path = annotation_file(files / "annotations", dataset)
        records = json.loads(path.read_text())
        for info in drawn:
            if info["dataset"] == dataset:
                references = records[info["index"]]["ref_captions"]
                fits = [r for r in references if info["caption"] in (r, r.capitalize() + ".")]
                records[info["index"]]["ref_captions"] = fits[:1]
        path.write_text(json.dumps(records))
    fast3d("extract", "-c", config, "--split", "val", "--batch-size", "2", "--export", files / DEFAULT)
    for dataset in DATASETS:
        content = torch.load(files / DEFAULT / f"infer_attn_maps_val_{dataset}.pt", weights_only=True)
        assert [list(entry) for entry in content] == [["index", *MAP_KEYS]] * 3
        assert [entry["index"] for entry in content] == [0, 1, 2]
        for key in MAP_KEYS:
            got, want = (load_maps(folder, dataset, 3, key=key) for folder in (files / DEFAULT, tmp_path))
            for i in range(3):
                assert (got[i] - want[i]).abs().max() < 1e-6
    fast3d("extract", "-c", config, "--split", "val", "--export", files / DEFAULT)  # a second time, beside them


def test_maps_of_others_are_not_overwritten(fast3d, tmp_path):
    path = tmp_path / "out" / "infer_attn_maps_val_scanqa.pt"
    path.parent.mkdir()
    path.write_bytes(b"published")
    arguments = ["extract", "--dataset", "scanqa", "--split", "val", "--export", "out"]
    done = fast3d(*arguments, check=False)
    assert done.returncode == 2 and "did not export (infer_attn_maps_val_scanqa.pt)" in done.stderr
    assert path.read_bytes() == b"published" and not (tmp_path / DEFAULT).exists()
    fast3d(*arguments, "--restart")
    fast3d(*arguments, "--limit", "2")
    assert len(load_maps(path.parent, "scanqa", 2)) == 2


def test_a_killed_run_continues(fast3d, tmp_path):
    fast3d("extract", "--set", "maps.targets=whole", "--batch-size", "2")
    command = [sys.executable, "-m", "fast3d_cli", "extract", "--set", "maps.targets=killed", "--batch-size", "2"]
    killed = tmp_path / "killed"
    for wanted in (2, 5):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and len(list(killed.glob("*.safetensors"))) < wanted:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 2 <= len(shards(killed)) < 10
    with pytest.raises(DataError, match="interrupted"):
        TargetStore.open(killed).read("val", "sqa3d", annotations=_embedded("sqa3d"), samples=3)
    fast3d("extract", "--set", "maps.targets=killed", "--batch-size", "2")
    same(tmp_path / "whole", killed)


def _embedded(dataset):
    return annotation_file(MINIATURE.parent / "annotations", dataset)


def test_two_processes_give_the_maps_of_one(fast3d, tmp_path):
    """In bf16, which depends on the batches: they are the same ones however many processes there are."""
    arguments = ["extract", "--batch-size", "2", "--set", "model.dtype=bfloat16"]
    fast3d(*arguments, "--set", "maps.targets=one")
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "-m", "fast3d_cli",
         *arguments, "--set", "maps.targets=two", "--json"],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["parts"]) == 10  # one process speaks
    assert done.stderr.count("train scanrefer") == 1
    same(tmp_path / "one", tmp_path / "two")


def test_interrupted_by_hand(fast3d, tmp_path, monkeypatch):
    real, calls = targets.record, []

    def record(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(targets, "record", record)
    done = fast3d("extract", check=False)
    assert done.returncode == 130
    assert "the same command continues where it stopped" in done.stderr
    assert len(shards(tmp_path / DEFAULT)) == 2
    fast3d("extract")
    assert len(shards(tmp_path / DEFAULT)) == 10


def test_limit_grows_and_shards_are_continued(fast3d, tmp_path, files, monkeypatch):
    """Several shards, the last one short: a larger limit completes it and leaves the others."""
    monkeypatch.setattr(stores, "SHARD", 4)
    path = _many(files, 11)
    arguments = ["extract", "-c", files / "fast3d.yaml", "--split", "val", "--dataset", "scanqa", "--batch-size", "3"]
    fast3d(*arguments, "--limit", "6")
    folder = files / DEFAULT
    first, second = (folder / f"val_scanqa-0000{i}.safetensors" for i in range(2))
    assert len(load_file(second)["index"]) == 2
    with pytest.raises(DataError, match="--limit 6"):
        TargetStore.open(folder).read("val", "scanqa", annotations=path, samples=11)
    before = first.stat().st_mtime_ns
    done = fast3d(*arguments)
    assert "11 samples, 4 of them done before" in done.stderr
    assert first.stat().st_mtime_ns == before
    maps = TargetStore.open(folder).read("val", "scanqa", annotations=path, samples=11)
    fast3d(*arguments, "--set", f"maps.targets={tmp_path / 'whole'}")
    same(folder, tmp_path / "whole")
    assert torch.equal(maps, TargetStore.open(tmp_path / "whole").read("val", "scanqa", annotations=path, samples=11))
    # A smaller limit finds all it wants.
    assert "loading the model" not in fast3d(*arguments, "--limit", "2").stderr
    # A shard that was cut short is made again.
    second.write_bytes(second.read_bytes()[:1000])
    assert "11 samples, 7 of them done before" in fast3d(*arguments).stderr
    same(folder, tmp_path / "whole")


def _many(files, samples):
    path = annotation_file(files / "annotations", "scanqa")
    records = json.loads(path.read_text())
    path.write_text(json.dumps([records[i % 3] for i in range(samples)]))
    return path


def test_answers_are_drawn_by_seed(fast3d, tmp_path, files):
    _many(files, 20)
    arguments = ["extract", "-c", files / "fast3d.yaml", "--split", "val", "--dataset", "scanqa"]

    def answers(*options, folder):
        fast3d(*arguments, *options, "--set", f"maps.targets={tmp_path / folder}")
        store = TargetStore.open(tmp_path / folder)
        return [text for shard in store.shards("val", "scanqa", 20) for text in shard.answers]

    first = answers(folder="first")
    assert "Under the sink." in first and "Below sink." in first
    assert answers("--batch-size", "3", folder="again") == first
    assert answers("--seed", "1", folder="other") != first


def test_changed_settings_are_refused(fast3d, tmp_path):
    arguments = ["extract", "--split", "val", "--dataset", "scanqa"]
    fast3d(*arguments)
    done = fast3d(*arguments, "--seed", "1", "--set", "model.dtype=bfloat16", check=False)
    assert done.returncode == 2
    assert 'seed: 0 -> 1, dtype: "float32" -> "bfloat16"' in done.stderr
    assert "--set maps.targets=DIR" in done.stderr
    assert "loading the model" not in fast3d(*arguments, "--batch-size", "1").stderr  # is no reason
    assert "loading the model" in fast3d(*arguments, "--restart").stderr
    fast3d(*arguments, "--seed", "1", "--restart")
    assert TargetStore.open(tmp_path / DEFAULT).settings["seed"] == 1


def test_changed_annotations_are_refused(fast3d, files):
    arguments = ["extract", "-c", files / "fast3d.yaml", "--split", "val"]
    fast3d(*arguments)
    path = _many(files, 4)
    done = fast3d(*arguments, check=False)
    assert done.returncode == 2 and "val/scanqa extracted with other annotations" in done.stderr
    store = TargetStore.open(files / DEFAULT)
    with pytest.raises(DataError) as error:
        store.read("val", "scanqa", annotations=path, samples=4)
    assert "--split val --dataset scanqa --restart" in str(error.value)
    done = fast3d(*arguments, "--dataset", "scanqa", "--restart")  # what the message says to do
    assert "val scanqa: 4 samples" in done.stderr
    assert TargetStore.open(files / DEFAULT).read("val", "scanqa", annotations=path, samples=4).shape == (4, 100)
    assert "loading the model" not in fast3d(*arguments).stderr  # the other four are still there


def test_full_disk_loses_nothing(fast3d, files):
    """A file size limit stands in for a full disk: store.json fits, no shard does."""
    arguments = ["extract", "-c", files / "fast3d.yaml", "--split", "val"]
    fast3d(*arguments, "--set", f"maps.targets={files / 'whole'}")
    fast3d(*arguments, "--dataset", "scanrefer")
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000)); sys.argv[0] = 'fast3d';"
        "from fast3d_cli.app import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and "cannot be written" in lines[0] and "run the same command again" in lines[0]
    assert "Traceback" not in done.stderr
    assert len(shards(files / DEFAULT)) == 1
    assert [path.name for path in (files / DEFAULT).iterdir() if path.name.startswith(".")] == [LOCK_FILE]
    fast3d(*arguments)
    same(files / DEFAULT, files / "whole")


def test_out_of_memory_says_what_to_try(fast3d, monkeypatch):
    def record(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(targets, "record", record)
    done = fast3d("extract", check=False)
    assert done.returncode == 1
    assert "out of memory at batch size 3" in done.stderr and "a smaller --batch-size, such as 1" in done.stderr


def test_attention_that_is_nan(fast3d, monkeypatch, tmp_path):
    real = targets.record

    def record(*args):
        maps = real(*args)
        maps["a_map"][1] = float("nan")
        return maps

    monkeypatch.setattr(targets, "record", record)
    done = fast3d("extract", check=False)
    assert done.returncode == 1
    assert "the attention of sample 1 is NaN" in done.stderr
    assert not shards(tmp_path / DEFAULT)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--split", "test"], 2, "--split is train, val or all, not 'test'"),
        (["--dataset", "scanqq"], 2, "there is no 'scanqq'"),
        (["--set", "model.device=cuda:99"], 2, "CUDA"),
        (["--set", "maps.targets=a_file"], 1, "a_file cannot be written"),
        (["--set", "model.checkpoint=none.pth"], 1, "none.pth does not exist"),
        (["--set", "data.annotations=nowhere"], 1, "nowhere does not exist"),
    ],
)
def test_errors(fast3d, tmp_path, arguments, code, message):
    (tmp_path / "a_file").write_text("")
    done = fast3d("extract", *arguments, check=False)
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and message in lines[0]
    assert not shards(tmp_path / DEFAULT)


def _harm(files, name):
    annotations = files / "annotations"
    features = annotations / "scannet_mask3d_videofeats.pt"
    val = annotation_file(annotations, "scanqa")
    if name == "no training annotations":
        annotation_file(annotations, "scanqa", "train").unlink()
        return "scanqa_train.json does not exist; without training annotations use --split val"
    if name == "no answer in training":
        path = annotation_file(annotations, "scan2cap", "train")
        path.write_text(path.read_text().replace('"caption"', '"answer"'))
        return "scan2cap_mask3d_train.json: record 0 has no answer"
    if name == "no references":
        val.write_text(val.read_text().replace('"ref_captions"', '"references"'))
        return "scanqa_val.json: record 0 has no reference answers"
    if name == "unknown scene":
        val.write_text(val.read_text().replace("scene0015_00", "scene0999_00"))
        return "record 1 names scene scene0999_00"
    torch.save({key: value[:32] for key, value in torch.load(features, weights_only=True).items()}, features)
    return "64 (3D) and 32 (2D) wide"


@pytest.mark.parametrize(
    "name", ["no training annotations", "no answer in training", "no references", "unknown scene", "narrow features"]
)
def test_data_errors(fast3d, files, name):
    message = _harm(files, name)
    done = fast3d("extract", "-c", files / "fast3d.yaml", check=False)
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and message in lines[0], done.stderr
    assert not shards(files / DEFAULT)


def test_help_is_quick_and_does_not_import_torch():
    code = "import sys; sys.argv = ['fast3d', 'extract', '--help']; from fast3d_cli.app import app\n"
    code += "try: app()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "--export" in done.stdout
