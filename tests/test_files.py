"""Files that are not what their names say, and downloads that did not finish: told before anything reads them."""

import argparse
import json
import os
import zipfile

import numpy as np
import pytest
import torch

from fast3d_core.errors import DataError
from fast3d_core.files.files import check_torch, load_json, load_torch, need, need_file, unfinished
from fast3d_core.files.pretrained import weight_files
from fast3d_core.text import shown

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:9e55\nsize 499723\n"
PAGE = "\n<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>"


@pytest.mark.parametrize(("content", "message"), [(POINTER, "is git-LFS's pointer"), (PAGE, "is a web page")])
@pytest.mark.parametrize("load", [load_torch, load_json, need_file])
def test_stand_ins(tmp_path, load, content, message):
    path = tmp_path / "ckpt.pth"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"model.checkpoint: {path} {message}"):
        load(path, "model.checkpoint")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        need_file(tmp_path, "x")


@pytest.mark.parametrize("end", [".part", ".incomplete", ".aria2", ".abc.crdownload"])
def test_a_download_that_did_not_finish_is_named(tmp_path, end):
    (tmp_path / f"ckpt.pth{end}").touch()
    with pytest.raises(DataError, match=rf"its download did not finish \(ckpt.pth{end}\)"):
        need(tmp_path / "ckpt.pth", "model.checkpoint")
    with pytest.raises(DataError, match="does not exist$"):
        need(tmp_path / "runs", "x")


def test_hidden_parts(tmp_path):
    """huggingface_hub's and our own folders do not tell what they are of, so a near name comes first."""
    hidden = tmp_path / ".cache" / "huggingface" / "download" / "xyz.incomplete"
    hidden.parent.mkdir(parents=True)
    hidden.touch()
    (tmp_path / ".download-vicuna").mkdir()
    assert unfinished(tmp_path) == [hidden, tmp_path / ".download-vicuna"]
    with pytest.raises(DataError, match="a download into this folder did not finish"):
        need(tmp_path / "tokenizer.model", "model.llm")
    (tmp_path / "tokenizer.modell").touch()
    with pytest.raises(DataError, match="did you mean tokenizer.modell"):
        need(tmp_path / "tokenizer.model", "model.llm")


def test_whole_files_pass(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    assert load_torch(tmp_path / "a.pt", "x")["a"].tolist() == [1, 1]
    (tmp_path / "a.json").write_text('{"html": "<html>"}')
    assert load_json(tmp_path / "a.json", "x") == {"html": "<html>"}
    assert unfinished(tmp_path) == []


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for load in (load_torch, load_json, need_file):
        with pytest.raises(DataError, match="is no file"):
            load(tmp_path / "pipe.json", "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[NaN]", "a number is NaN"),
        (b"[-Infinity]", "a number is -Infinity"),
        (b"[1e999]", "a number is 1e999"),
        (b"[%d]" % 2**63, "an integer has more than 64 bits"),
        (b"[%s]" % (b"9" * 10**6), "an integer has more than 64 bits"),
        (b'["\\ud800"]', "a text holds half of a surrogate pair"),
        (b'{"\\udfff": 1}', "a text holds half of a surrogate pair"),
        (b'["\xed\xa0\x80"]', "'utf-8' codec can't decode"),
        (b"[" * 200 + b"]" * 200, "nested too deeply"),
        (b"[" * 10**6, "nested too deeply"),
        (b"", "Expecting value"),
        (b"[1] 2", "Extra data"),
    ],
)
def test_json_that_is_refused(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"x: {path} is not valid JSON \\({message}") as refused:
        load_json(path, "x")
    assert len(str(refused.value)) < 300 + len(str(path))


def test_json_that_is_read(tmp_path):
    value = {"a": [2**63 - 1, -(2**63), 1.5e300, "\U0001f600", "\\ud800 spelt out", None, True], "deep": [[[[[]]]]]}
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        for encoding in ("utf-8", "utf-8-sig", "utf-16"):
            (tmp_path / "a.json").write_bytes(text.encode(encoding))
            assert load_json(tmp_path / "a.json", "x") == value


def test_tensors_come_plain(tmp_path):
    """No gradient is asked for, whatever the file says; a negated view is none of ours."""
    torch.save([torch.ones(2, requires_grad=True)], tmp_path / "a.pt")
    assert not load_torch(tmp_path / "a.pt", "x")[0].requires_grad
    torch.save([torch.imag(torch.tensor([1j]).conj())], tmp_path / "a.pt")
    with pytest.raises(DataError, match="was not loaded"):
        load_torch(tmp_path / "a.pt", "x")


@pytest.mark.parametrize("value", ["x" * 10**6, "a\nb\x1b[31m", 10**30, [1] * 10**6, {"a": 1}, None, True, 1.5])
def test_shown_is_short_and_printable(value):
    text = shown(value)
    assert len(text) < 200 and text.isprintable() and text.isascii()


@pytest.mark.parametrize(
    ("beside", "advice"),
    [
        (
            np.float64(0.5),
            r"numpy.*; load it where it was made and save it again with torch.save, numbers as float\(x\)",
        ),
        (np.arange(3), r"numpy.*; load it where it was made and save it again .* arrays as torch.from_numpy\(x\)"),
        (argparse.Namespace(lr=1), r"argparse.Namespace\); if it is your own, save it again"),
    ],
)
def test_what_lies_beside_the_weights_is_to_be_saved_otherwise(tmp_path, beside, advice):
    torch.save({"model": {"a": torch.ones(2)}, "best": beside}, tmp_path / "a.pth")
    with pytest.raises(DataError, match=advice) as refused:
        load_torch(tmp_path / "a.pth", "model.checkpoint")
    assert refused.value.do and refused.value.do not in refused.value.what


def packed_as(path, method):
    """The archive at `path`, packed by another method, beside it."""
    packed = path.with_name(f"packed-{path.name}")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", compression=method) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return packed


def test_a_deflated_file_is_read_like_torch_does(tmp_path):
    """Mapped into memory, its tensors would be what deflating made of their bytes."""
    numbers = torch.randn(1000, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    torch.save({"a": numbers}, tmp_path / "a.pth")
    packed = packed_as(tmp_path / "a.pth", zipfile.ZIP_DEFLATED)
    assert packed.stat().st_size < (tmp_path / "a.pth").stat().st_size
    for mmap in (False, True):
        assert load_torch(packed, "x", mmap=mmap)["a"].equal(numbers)
    with pytest.raises(DataError, match="is compressed; unpack it"):
        check_torch(packed, "x")  # others would map it
    check_torch(tmp_path / "a.pth", "x")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (zipfile.ZIP_DEFLATED, "it is compressed, and claims to hold more than 8 times its size; unpack it"),
        (zipfile.ZIP_BZIP2, "it is compressed in a way that torch does not read; unpack it"),
    ],
)
def test_compressed_files_that_are_refused(tmp_path, method, message):
    torch.save({"a": torch.zeros(10**5)}, tmp_path / "a.pth")
    with pytest.raises(DataError, match=f"was not loaded: {message}"):
        load_torch(packed_as(tmp_path / "a.pth", method), "x")


def test_a_missing_shard_is_named_and_the_other_one_is_no_near_name(tmp_path):
    first, second = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    (tmp_path / first).touch()
    index = {"weight_map": {"a": first, "b": second}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=f"lacks {second}, 1 of the 2 files that model.safetensors.index.json") as told:
        weight_files(tmp_path, "model.llm")
    assert first not in str(told.value)
    with pytest.raises(DataError, match="does not exist$"):
        need(tmp_path / second, "model.llm")
    (tmp_path / f"{second}.part").touch()
    with pytest.raises(DataError, match=rf"its download did not finish \({second}.part\)"):
        weight_files(tmp_path, "model.llm")


def test_scripts_find_the_reader_where_it_was():
    from fast3d_core.data import files as former
    from fast3d_core.files import files

    assert former.load_torch is files.load_torch
