"""How checks are carried out: each by itself, each trouble once, what is not needed not at all."""

import builtins
import json
import shutil

import pytest

from fast3d_core.doctor import Options, examine
from fast3d_core.doctor import annotations as annotation_checks
from fast3d_core.errors import UsageError
from tests.doctor.conftest import troubles
from tests.test_files import PAGE


def test_troubles_do_not_hide_each_other(examined, files):
    """Of everything a part is broken; the healthy rest is still looked at."""
    (files / "llm" / "tokenizer.model").write_text(PAGE)
    (files / "ckpt_01_3446.pth").write_text(PAGE)
    (files / "annotations" / "scanqa_val.json").write_text("[")
    (files / "outputs" / "pred_attn_maps" / "infer_attn_maps_val_sqa3d.pt").write_text(PAGE)
    (files / "gap" / "checkpoint_spatial.pth").write_text(PAGE)
    found = examined()
    told = [(one.area, one.status) for one in troubles(found) if one.area != "not checked"]
    assert told == [
        ("model.llm", "error"),
        ("model.checkpoint", "error"),
        ("data.annotations", "error"),
        ("maps.predicted", "error"),
        ("gap.checkpoint", "warning"),
    ]
    fine = [one.what for one in found if one.status == "ok"]
    for text in ("39 tensors", "sqa3d: 3 questions", "sqa3d: all questions can be scored", "multi3dref: 3 maps"):
        assert any(text in what for what in fine), text
    wanting = {one.what.split(",")[0] for one in found if one.area == "not checked"}
    assert {"without the checkpoint", "without the tokeniser"} <= wanting


def test_a_file_that_several_checks_read_is_told_once(examined, files):
    (files / "annotations" / "scannet_mask3d_val_attributes.pt").write_text(PAGE)
    found = [one for one in troubles(examined(methods=["vanilla"])) if "attributes.pt is a web page" in one.what]
    assert len(found) == 1
    (files / "llm" / "model.safetensors").unlink()
    found = [one for one in troubles(examined(methods=["vanilla"])) if "holds no weights" in one.what]
    assert [one.area for one in found] == ["model.llm"]


def test_without_any_files(examined, files):
    for name in ("llm", "annotations", "outputs", "gap"):
        shutil.rmtree(files / name)
    (files / "ckpt_01_3446.pth").unlink()
    told = [one for one in troubles(examined()) if one.area != "not checked"]
    assert [(one.area, one.status) for one in told] == [
        ("model.llm", "error"), ("data.annotations", "error"), ("maps.predicted", "error"),
    ]  # fmt: skip


def test_a_check_that_fails_is_a_finding(examined, monkeypatch):
    def broken(case):
        raise ZeroDivisionError("division\nby zero")
        yield

    monkeypatch.setattr(annotation_checks, "boxes", broken)
    (found,) = troubles(examined())
    assert (found.area, found.status) == ("data.annotations", "error")
    assert found.what == "the check itself failed (ZeroDivisionError: division by zero)"
    monkeypatch.setenv("FAST3D_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        examined()


def test_packages_that_cannot_be_imported(examined, monkeypatch):
    """Versions are told first, without importing what they are of."""
    real = builtins.__import__

    def fails(name, *others, **more):
        if name == "fast3d_core.doctor.case":
            raise ImportError("cannot import name 'LlamaConfig' from 'transformers'")
        return real(name, *others, **more)

    monkeypatch.setattr(builtins, "__import__", fails)
    versions, found = examined()
    assert versions.status == "ok" and versions.area == "versions"
    assert found.status == "error" and "fast3d cannot be loaded (cannot import name" in found.what


@pytest.mark.parametrize("method", ["vanilla", "random", "fastv"])
def test_methods_without_maps_need_none(examined, files, method):
    shutil.rmtree(files / "outputs")
    shutil.rmtree(files / "gap")
    assert troubles(examined(methods=[method])) == []
    found = troubles(examined(methods=[method, "gap"]))
    assert [one.area for one in found if one.status == "error"] == ["maps.predicted"]


def test_answers_to_questions_need_no_boxes(examined, files):
    for path in (files / "annotations").glob("scannet_*attributes.pt"):
        path.unlink()
    assert troubles(examined("data.datasets=[scanqa, sqa3d]", methods=["vanilla"])) == []
    assert troubles(examined("data.datasets=[scanqa, scan2cap]", methods=["vanilla"]))


def test_live_maps_need_the_network_and_no_files(examined, files):
    shutil.rmtree(files / "outputs")
    assert troubles(examined(live=True)) == []
    shutil.rmtree(files / "gap")
    (found,) = [one for one in troubles(examined(live=True)) if one.area == "gap.checkpoint"]
    assert found.status == "error" and "checkpoint_spatial.pth does not exist" in found.what


def test_a_text_encoder_by_name_is_not_fetched(examined, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (found,) = troubles(examined("gap.text_encoder=nobody/no-such-encoder"))
    assert (found.area, found.status) == ("gap.checkpoint", "warning")
    assert "nobody/no-such-encoder is no folder, and not in the Hugging Face cache" in found.what


def test_a_method_that_there_is_not():
    with pytest.raises(UsageError, match="there is no method 'gapp'"):
        list(examine(Options(lambda: None, methods=["gapp"])))
    with pytest.raises(UsageError, match="--gap live means nothing to vanilla, random"):
        list(examine(Options(lambda: None, methods=["vanilla", "random"], live=True)))


def test_what_is_read_is_said(examined):
    said: list[str] = []
    examined(log=said.append, deep=True)
    assert "reading the maps of scanqa" in said
    assert any(line.startswith("reading model.safetensors (9") for line in said)


def test_findings_are_plain(examined):
    from dataclasses import asdict

    assert json.dumps([asdict(one) for one in examined()])
