"""Files that are not what their names say, and downloads that did not finish: told before anything reads them."""

import pytest
import torch

from fast3d_core.data.files import load_json, load_torch, need, need_file, unfinished
from fast3d_core.errors import DataError

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
