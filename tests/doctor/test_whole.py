"""Reading all bytes: checksums of Hugging Face's and of archives, numbers that are none."""

import hashlib
import os
import zipfile

import torch
from safetensors.torch import load_file, save_file

from fast3d_core.data.features import FEATURES_3D
from tests.doctor.conftest import edit_torch, troubles

DEEP = {"deep": True, "methods": ["vanilla"]}


def flip(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def beside(path, etag):
    """What huggingface_hub keeps beside a folder that it downloaded."""
    folder = path.parent / ".cache" / "huggingface" / "download"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{path.name}.metadata").write_text(f"{'a' * 40}\n{etag}\n1700000000.0\n")


def test_a_changed_number_is_seen_by_checksum_only(examined, files):
    path = files / "llm" / "model.safetensors"
    beside(path, hashlib.sha256(path.read_bytes()).hexdigest())
    assert troubles(examined(**DEEP)) == []
    flip(path, -100)
    assert troubles(examined(methods=["vanilla"])) == []
    (found,) = troubles(examined(**DEEP))
    assert (found.area, found.status) == ("files", "error")
    assert "model.safetensors is not the file that Hugging Face has" in found.what


def test_the_cache_of_hugging_face(examined, files):
    """Its files are links to blobs, whose names are their checksums: git's for small files, SHA-256 for large ones."""
    path = files / "llm" / "tokenizer.model"
    content = path.read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    for name, wrong in ((git, False), (hashlib.sha256(content).hexdigest(), False), ("0" * 64, True), ("?", False)):
        blob = files / "blobs" / name
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(content)
        path.unlink()
        path.symlink_to(blob)
        assert [one.area for one in troubles(examined(**DEEP))] == ["files"] * wrong


def test_metadata_that_is_none(examined, files):
    for etag in ("", "W/abc", "é" * 64):
        beside(files / "llm" / "tokenizer.model", etag)
        found = troubles(examined(**DEEP))
        assert len(found) == (len(etag) == 64)
    kept = files / "llm" / ".cache" / "huggingface" / "download" / "tokenizer.model.metadata"
    kept.unlink()
    os.mkfifo(kept)
    assert troubles(examined(**DEEP)) == []


def test_a_flipped_bit_in_an_archive(examined, files):
    path = files / "annotations" / FEATURES_3D
    with zipfile.ZipFile(path) as archive:
        numbers = next(archive.read(part) for part in archive.infolist() if part.filename.endswith("/data/7"))
    flip(path, path.read_bytes().find(numbers))
    assert troubles(examined(methods=["vanilla"])) == []
    (found,) = troubles(examined(**DEEP))
    assert found.status == "error" and f"{FEATURES_3D} is damaged" in found.what


def test_weights_that_are_not_finite(examined, files):
    path = files / "llm" / "model.safetensors"
    state = load_file(path)
    state["model.layers.3.mlp.up_proj.weight"][4, 5] = torch.inf
    save_file(state, path, {"format": "pt"})
    assert troubles(examined(methods=["vanilla"])) == []
    (found,) = troubles(examined(**DEEP))
    assert found.what == "the LLM: model.layers.3.mlp.up_proj.weight holds NaN or infinity"


def test_a_checkpoint_that_is_not_finite(examined, files):
    def change(content):
        content["model"]["llama_model.base_model.model.lm_head.weight"][7, 7] = torch.nan

    edit_torch(files / "ckpt_01_3446.pth", change)
    assert troubles(examined(methods=["vanilla"])) == []
    (found,) = troubles(examined(**DEEP))
    assert "the checkpoint: llama_model.base_model.model.lm_head.weight holds NaN" in found.what
