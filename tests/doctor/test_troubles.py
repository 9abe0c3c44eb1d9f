"""Each trouble is planted in a copy of the miniature and has to be found, where it is and as bad as it is."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentencepiece import sentencepiece_model_pb2

from fast3d_core.config import load_config
from fast3d_core.data.features import FEATURES_2D, FEATURES_3D
from fast3d_core.doctor.chat_scene import llm
from fast3d_core.files.fingerprints import file_hash, fingerprint
from fast3d_core.gap.predictor import map_sources
from tests.conftest import ROOT_DATA
from tests.doctor.conftest import edit_json, edit_torch, troubles
from tests.test_files import PAGE, POINTER

PREFIX = "llama_model.base_model.model.model."
LAST = f"{PREFIX}layers.3."
DETECTED, TRUTH = "scannet_mask3d_val_attributes.pt", "scannet_val_attributes.pt"
PREDICTED, TARGETS = "outputs/pred_attn_maps", "outputs/infer_attn_maps"


def annotations(name, change):
    return lambda files: (edit_json if name.endswith("json") else edit_torch)(files / "annotations" / name, change)


def checkpoint(change):
    return lambda files: edit_torch(files / "ckpt_01_3446.pth", change)


def maps(change, dataset="scanqa", folder=PREDICTED):
    return lambda files: edit_torch(files / folder / f"infer_attn_maps_val_{dataset}.pt", change)


def config(**changes):
    return lambda files: edit_json(files / "llm" / "config.json", lambda content: content.update(changes))


def text(path, content):
    return lambda files: (files / path).write_text(content)


def gone(path):
    return lambda files: (files / path).unlink()


def truncated(path, share=0.7):
    def plant(files):
        whole = (files / path).read_bytes()
        (files / path).write_bytes(whole[: int(share * len(whole))])

    return plant


def tokenizer(change):
    def plant(files):
        path = files / "llm" / "tokenizer.model"
        model = sentencepiece_model_pb2.ModelProto()
        model.ParseFromString(path.read_bytes())
        change(model)
        path.write_bytes(model.SerializeToString())

    return plant


# --- what is planted


def another_bos(model):
    """The pieces of <s> and </s> change places."""
    model.pieces[1].piece, model.pieces[2].piece = "</s>", "<s>"
    model.trainer_spec.bos_id, model.trainer_spec.eos_id = 2, 1


def other_letters(model):
    """As a tokeniser of another script: no piece of the alphabet, no bytes."""
    model.trainer_spec.byte_fallback = False
    for i, piece in enumerate(model.pieces):
        if piece.type in (1, 6):
            piece.piece, piece.type = f"ж{i}", 1


def another_llamas_size(files):
    """As many tokens as Vicuna's, but not the same: Mistral's has 32000, too."""
    config(vocab_size=32000)(files)

    def grow(model):
        for i in range(len(model.pieces), 32000):
            model.pieces.add(piece=f"filler{i}", score=-100.0 - i, type=1)

    tokenizer(grow)(files)


def one_layer_more(content):
    for name in [name for name in content["model"] if name.startswith(LAST)]:
        content["model"][name.replace(".3.", ".4.")] = content["model"][name]


def other_base(content):
    content["model"][f"{PREFIX}norm.weight"] = torch.full((64,), 1.3)


def several_adapters(content):
    for name in [name for name in content["model"] if ".default." in name]:
        tensor = content["model"].pop(name)
        content["model"] |= {name.replace("default", adapter): tensor for adapter in ("one", "two")}


def one_layer_less(content):
    for name in [name for name in content["model"] if name.startswith(LAST)]:
        del content["model"][name]


def of_hidden_32(content):
    """An LLM half as wide."""
    content["model"] = {
        name: tensor[:, :32].contiguous()
        if "lora_A" in name and "down" not in name and "o_proj" not in name
        else tensor
        for name, tensor in content["model"].items()
    }


def rows(count):
    def change(content):
        for name in (f"{PREFIX}embed_tokens.weight", "llama_model.base_model.model.lm_head.weight"):
            content["model"][name] = content["model"][name][:count].clone()

    return change


def nan_projector(content):
    content["model"]["object_img_proj.2.weight"][3, 4] = torch.nan


def of_another_llm(content):
    name = f"{PREFIX}embed_tokens.weight"
    content["model"][name] = torch.randn(content["model"][name].shape, generator=torch.Generator().manual_seed(1))


def without_settings(content):
    del content["config"]


def trained_with(**model):
    return checkpoint(lambda content: content["config"]["model"].update(model))


def same_features(files):
    shutil.copy(files / "annotations" / FEATURES_3D, files / "annotations" / FEATURES_2D)


def zero_features(content):
    for name, feature in content.items():
        if name.startswith("scene0015_00"):
            feature.zero_()


def repeated_qids(content):
    for i, record in enumerate(content):
        record["qid"] = f"val-scene0011-{i // 2}"


def no_gap(count):
    """Detected boxes of every scene cut to, or grown to, a number."""

    def change(content):
        for scene in content.values():
            scene["locs"] = scene["locs"].repeat(2, 1)[:count]
            scene["objects"] = (scene["objects"] * 2)[:count]

    return change


def of_other_scenes(content):
    more = {f"scene0999_{i:02}|3": ["a chair"] for i in range(20)}
    content.update(more)


def extracted_in_place(files):
    shutil.copytree(files / TARGETS, files / PREDICTED, dirs_exist_ok=True)


def ranks_empty_slots(content):
    """scene0015_00, which question 1 is about, has 87 objects; of scene0025_00, question 2, object 40 is missing."""
    content[1]["a_map"][95] = content[2]["a_map"][40] = 50.0


def by_another_network(files):
    """Maps that `fast3d predict` wrote, from a network that is not there any more."""
    sources = map_sources(load_config(files / "fast3d.yaml"), files / "annotations", "val", ["scanqa"])
    known(files, {**sources["scanqa"], "checkpoint": "1-a"})


def of_other_questions(files):
    known(files, {"annotations": "1-a"})


def known(files, entry):
    path = files / PREDICTED / "infer_attn_maps_val_scanqa.pt"
    ledger = {"val/scanqa": {**entry, "map": fingerprint(path, whole=True)}}
    (files / PREDICTED / "predicted.json").write_text(json.dumps(ledger))


def alpha_of_other_maps(files):
    names = ("scanrefer", "multi3dref", "scan2cap", "scanqa", "sqa3d")
    (files / "runs").mkdir()
    found = {"alpha": 0.21, "map_key": "a_map", "maps": dict.fromkeys(names, "1-a"), "checkpoint": None}
    (files / "runs" / "alpha.json").write_text(json.dumps(found))


def noisy_network(content):
    for name, tensor in content["model_state_dict"].items():
        if name.startswith("out_head"):
            tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)))


def wide_encoder(content):
    content.update(hidden_size=64, num_attention_heads=4)


def nan(content):
    content["scene0011_00_03"][5] = torch.nan


def wide(content):
    content.update({name: torch.cat([feature, feature]) for name, feature in content.items()})


def nan_box(content):
    content["scene0011_00"]["locs"][2, 4] = torch.nan


def part_of_a_shard(files):
    """Two .bin shards, the second one still being fetched."""
    state = load_file(files / "llm" / "model.safetensors")
    (files / "llm" / "model.safetensors").unlink()
    names = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    torch.save(dict(list(state.items())[:20]), files / "llm" / names[0])
    (files / "llm" / f"{names[1]}.incomplete").write_bytes(b"PK")
    index = {"weight_map": {name: names[i >= 20] for i, name in enumerate(state)}}
    (files / "llm" / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def with_biases(files):
    """Those of a Qwen2, in all four layers."""
    state = load_file(files / "llm" / "model.safetensors")
    projections = [name for name in state if name.split(".")[-2] in ("q_proj", "k_proj", "v_proj")]
    state |= {name.replace(".weight", ".bias"): torch.zeros(len(state[name])) for name in projections}
    save_file(state, files / "llm" / "model.safetensors", {"format": "pt"})


def of_family(model_type, **changes):
    def plant(files):
        if model_type == "qwen2":
            with_biases(files)
        config(model_type=model_type, **changes)(files)

    return plant


def lacking_a_tensor(files):
    state = load_file(files / "llm" / "model.safetensors")
    del state["model.layers.2.mlp.gate_proj.weight"]
    save_file(state, files / "llm" / "model.safetensors", {"format": "pt"})


A, C, L, T = "data.annotations", "model.checkpoint", "model.llm", "model.llm"
P, G = "maps.predicted", "gap.checkpoint"

# name: (what is planted, area, status, what is told)
TROUBLES = {
    "config-key": (text("fast3d.yaml", "model: {llms: llm}"), "config", "error", "did you mean"),
    "config-yaml": (text("fast3d.yaml", "model: ["), "config", "error", "not a valid config"),
    "config-page": (text("fast3d.yaml", PAGE), "config", "error", "config"),
    "llm-missing": (lambda files: (files / "llm").rename(files / "llama"), L, "error", "llm does not exist"),
    "llm-config": (config(model_type="gemma2"), L, "error", "model_type is 'gemma2', an LLM that fast3d does not run"),
    "llm-family": (config(model_type="qwen2"), L, "error", r"lacks tensors .*q_proj\.bias"),
    "llm-biases": (with_biases, L, "error", r"LLaMA has not: model\.layers\.0\.self_attn\.k_proj\.bias"),
    "llm-dynamic": (of_family("qwen2", rope_scaling={"type": "dynamic"}), L, "error", "rope_scaling.type is 'dynamic'"),
    "llm-longrope": (
        of_family("mistral", rope_scaling={"rope_type": "longrope"}), L, "error", "rope_scaling.rope_type is 'longrope'"
    ),
    "llm-window": (
        of_family("mistral", sliding_window=400), L, "error", r"last 400 tokens .* take up to 462"
    ),
    "llm-truncated": (truncated("llm/model.safetensors"), L, "error", "cannot be read"),
    "llm-pointer": (text("llm/model.safetensors", POINTER), L, "error", "git-LFS's pointer"),
    "llm-part": (part_of_a_shard, L, "error", "did not finish .*00002-of-00002.bin.incomplete"),
    "llm-depth": (config(num_hidden_layers=6), L, "error", r"lacks tensors .*layers\.4"),
    "llm-lacks": (lacking_a_tensor, L, "error", r"lacks tensors .*layers\.2\.mlp\.gate_proj"),
    "llm-positions": (config(max_position_embeddings=400), L, "warning", "take 463 tokens, the LLM was trained on 400"),
    "tokenizer-pointer": (text("llm/tokenizer.model", POINTER), T, "error", "git-LFS's pointer"),
    "tokenizer-truncated": (truncated("llm/tokenizer.model", 0.3), T, "error", "not a sentencepiece model"),
    "tokenizer-size": (
        tokenizer(lambda model: model.pieces.add(piece="more", score=-9.0)), T, "error", "has 561 tokens, .* 560"
    ),
    "tokenizer-bos": (tokenizer(another_bos), T, "error", "bos is token 2 in tokenizer.model, 1 in config.json"),
    "tokenizer-letters": (tokenizer(other_letters), T, "error", "does not know .*% of the questions' tokens"),
    "tokenizer-not-vicuna's": (another_llamas_size, T, "error", r"takes \d+ tokens, 45 in LLaMA's"),
    "checkpoint-page": (text("ckpt_01_3446.pth", PAGE), C, "error", "is a web page"),
    "checkpoint-truncated": (truncated("ckpt_01_3446.pth"), C, "error", "cannot be read"),
    "checkpoint-deeper": (checkpoint(one_layer_more), C, "error", r"unexpected tensors .*layers\.4"),
    "checkpoint-shallower": (checkpoint(one_layer_less), C, "error", r"lacks tensors .*layers\.3"),
    "checkpoint-hidden": (checkpoint(of_hidden_32), C, "error", r"does not fit the LLM: .* \(16, 32\), not \(16, 64\)"),
    "checkpoint-vocabulary": (checkpoint(rows(500)), C, "error", "500 token embeddings, the LLM alone has 560"),
    "checkpoint-objects": (checkpoint(rows(610)), C, "error", "50 object tokens, data.max_objects asks for 100"),
    "checkpoint-base": (checkpoint(other_base), C, "error", "another LLM than model.llm: .* model.norm.weight differs"),
    "checkpoint-wrapped": (checkpoint(several_adapters), C, "error", r"several adapters \(one, two\)"),
    "checkpoint-nan": (checkpoint(nan_projector), C, "error", "object_img_proj.2.weight holds NaN"),
    "checkpoint-llm": (checkpoint(of_another_llm), C, "error", "trained on another LLM"),
    "checkpoint-prompt": (trained_with(add_pos_emb=True), C, "warning", "trained with add_pos_emb True"),
    "checkpoint-slots": (trained_with(max_obj_num=150), C, "warning", "trained on 150 object slots"),
    "questions-missing": (gone("annotations/sqa3d_val.json"), A, "error", "sqa3d_val.json does not exist"),
    "questions-damaged": (truncated("annotations/sqa3d_val.json"), A, "error", "not valid JSON"),
    "questions-field": (
        annotations("scanqa_val.json", lambda c: c[1].pop("prompt")), A, "error", "record 1 is not a question"
    ),
    "questions-qids": (annotations("scanqa_val.json", repeated_qids), A, "warning", "scanqa: 1 qids stand for several"),
    "questions-object": (
        annotations("scanrefer_mask3d_val.json", lambda c: c[0].update(prompt="What is <OBJ120>?")),
        A, "error", "record 0 asks about object 120",
    ),
    "questions-pred-id": (
        annotations("scan2cap_mask3d_val.json", lambda c: c[0].update(pred_id=3)), A, "error", "its pred_id is 3"
    ),
    "questions-ending": (
        annotations("scanqa_val.json", lambda c: c[1].update(prompt="Where is it?")),
        A, "warning", "scanqa: 1 of 3 questions do not end with",
    ),
    "questions-unanswered": (
        annotations("sqa3d_val.json", lambda c: [record.pop("ref_captions") for record in c]),
        A, "warning", "sqa3d: the questions come without answers, as in test splits, so its scores are null",
    ),
    "questions-object-list": (
        annotations("scanqa_val.json", lambda c: c[1].update(obj_id=[3, 4])),
        A, "error", "scanqa_val.json: record 1 is not a question .obj_id: this list",
    ),
    "questions-scene": (
        annotations("scanqa_val.json", lambda c: c[2].update(scene_id="scene0404_00")),
        A, "error", "record 2 names scene scene0404_00, which has no features",
    ),
    "features-pointer": (text(f"annotations/{FEATURES_3D}", POINTER), A, "error", "git-LFS's pointer"),
    "features-truncated": (truncated(f"annotations/{FEATURES_2D}"), A, "error", "cannot be read"),
    "features-nan": (annotations(FEATURES_3D, nan), A, "error", "scene0011_00_03 holds NaN"),
    "features-zero": (annotations(FEATURES_2D, zero_features), A, "error", "all features of scene0015_00 are zero"),
    "features-same": (same_features, A, "error", "hold the same features"),
    "features-twice": (
        annotations(FEATURES_3D, lambda c: c.update({"scene0011_00_7": c["scene0011_00_08"]})),
        A, "error", "'scene0011_00_07' and 'scene0011_00_7', two features of one object",
    ),
    "features-reordered": (
        annotations(DETECTED, lambda c: c["scene0025_00"].update(obj_ids=list(range(99, -1, -1)))),
        A, "error", "obj_ids of scene scene0025_00",
    ),
    "features-width": (annotations(FEATURES_2D, wide), A, "error", r"128 \(2D\) wide, .* reads 64 and 64"),
    "boxes-fewer": (annotations(DETECTED, no_gap(60)), A, "error", "fewer boxes than objects with features in 3 of 3"),
    "boxes-more": (annotations(DETECTED, no_gap(120)), A, "warning", "3 scenes have more boxes than data.max_objects"),
    "boxes-nan": (annotations(DETECTED, nan_box), A, "error", "boxes of scene0011_00 hold NaN"),
    "boxes-scene": (
        annotations(DETECTED, lambda c: c.pop("scene0025_00")), A, "error", "scene0025_00 is not in scannet_mask3d_val"
    ),
    "truth-fewer": (
        annotations(TRUTH, lambda c: c["scene0015_00"].update(locs=c["scene0015_00"]["locs"][:0])),
        A, "error", f"scene0015_00 has 0 boxes in {TRUTH}",
    ),
    "references-type": (
        annotations("multi3dref_mask3d_val.json", lambda c: c[0].update(eval_type="st")), A, "error",
        r"multi3dref_mask3d_val.json: record 0: eval_type must be one of",
    ),
    "references-none": (
        annotations("scanqa_val.json", lambda c: c[0].update(ref_captions=[])), A, "error",
        r"scanqa_val.json: record 0: ref_captions must be",
    ),
    "corpus-key": (
        annotations("scan2cap_val_corpus.json", lambda c: c.pop(next(iter(c)))), A, "error", "is not in scan2cap_val"
    ),
    "corpus-bare": (
        annotations("scan2cap_val_corpus.json", lambda c: c.update({key: ["a chair"] for key in list(c)[:2]})),
        A, "warning", "Scan2Cap: 2 of .* captions in scan2cap_val_corpus.json are not wrapped in .*sos ... eos",
    ),
    "corpus-others": (annotations("scan2cap_val_corpus.json", of_other_scenes), A, "error", "count as empty captions"),
    "lookup-missing": (
        gone("annotations/scanrefer_unique_multiple_lookup.json"), A, "warning", "Unique and Multiple stay null"
    ),
    "lookup-object": (
        annotations("scanrefer_unique_multiple_lookup.json", lambda c: c["scene0011_00"].clear()),
        A, "error", "is not in the unique/multiple lookup",
    ),
    "maps-missing": (gone(f"{PREDICTED}/infer_attn_maps_val_sqa3d.pt"), P, "error", "sqa3d.pt does not exist"),
    "maps-fewer": (maps(lambda c: c.pop(1)), P, "error", "lacks 1 of 3 samples, sample 1 first"),
    "maps-more": (maps(lambda c: c.update({7: c[0]})), P, "error", "for another dataset: it has sample 7"),
    "maps-length": (maps(lambda c: c[1].update(a_map=torch.zeros(50))), P, "error", "should hold 100 numbers"),
    "maps-nan": (maps(lambda c: c[1]["a_map"].fill_(torch.nan)), P, "error", "sample 1 holds NaN"),
    "maps-flat": (maps(lambda c: c[2]["a_map"].fill_(1.0)), P, "error", "1 of 3 maps give all objects the same number"),
    "maps-same": (
        maps(lambda c: [entry.update(a_map=c[0]["a_map"]) for entry in c.values()]), P, "error", "the same map"
    ),
    "maps-extracted": (extracted_in_place, P, "warning", "the maps are shares of attention"),
    "maps-of-empty-slots": (maps(ranks_empty_slots), P, "warning", "2 of 3 maps rank a slot first"),
    "maps-network": (by_another_network, P, "warning", "scanqa: predicted with other files .*checkpoint"),
    "maps-questions": (of_other_questions, P, "error", "scanqa: predicted with other files"),
    "maps-ledger": (text(f"{PREDICTED}/predicted.json", "{"), P, "error", "not valid JSON"),
    "alpha": (alpha_of_other_maps, "alpha", "error", "is not the file that it was found on"),
    "gap-truncated": (truncated("gap/checkpoint_spatial.pth"), G, "warning", "cannot be read"),
    "gap-another": (
        lambda files: edit_torch(files / "gap/checkpoint_spatial.pth", noisy_network),
        G, "warning", "did not predict the maps",
    ),
    "gap-features": (annotations(FEATURES_3D, wide), G, "warning", r"checkpoint_spatial.pth reads 128 in all"),
    "gap-boxes": (annotations(DETECTED, nan_box), G, "warning", "boxes of scene scene0011_00 hold NaN"),
    "gap-encoder": (
        lambda files: edit_json(files / "gap/roberta_tiny/config.json", wide_encoder), G, "warning", "is 64 wide"
    ),
    "gap-vocabulary": (gone("gap/roberta_tiny/merges.txt"), G, "warning", "gap.text_encoder: .* lacks merges.txt"),
    "gap-padding": (
        lambda files: edit_json(files / "gap/roberta_tiny/config.json", lambda c: c.update(pad_token_id=-1)),
        G, "warning", "pad_token_id is -1",
    ),
    "targets": (maps(lambda c: c.pop(), folder=TARGETS), "maps.targets", "warning", "lacks 1 of 3 samples"),
    "leftover": (text("annotations/x.json.part", ""), "files", "warning", "did not finish"),
}  # fmt: skip


@pytest.mark.parametrize("name", TROUBLES)
def test_a_trouble_is_found(examined, files, name):
    plant, area, status, what = TROUBLES[name]
    plant(files)
    found = examined()
    assert all("\n" not in finding.what for finding in found)
    matching = [one for one in troubles(found) if one.area == area and re.search(what, one.what)]
    assert {one.status for one in matching} == {status}, [(one.area, one.what) for one in troubles(found)]
    assert matching[0].do


def test_a_file_that_a_download_does_not_help_is_to_be_saved_again(examined, files):
    checkpoint(lambda content: content.update(best=np.float64(0.5)))(files)
    (found,) = [one for one in troubles(examined(methods=["vanilla"])) if one.area == C]
    assert "numpy" in found.what and "save it again" not in found.what
    assert "save it again" in found.do and "download" not in found.do


@pytest.mark.parametrize(
    ("overrides", "change", "status", "what"),
    [
        (["model.lora_alpha=32"], None, "error", "trained with lora_alpha 16, not 32"),
        (["model.lora_alpha=32"], without_settings, "warning", "32, 16 for the released checkpoint"),
    ],
)
def test_lora_alpha(examined, files, overrides, change, status, what):
    if change:
        checkpoint(change)(files)
    (found,) = troubles(examined(*overrides, methods=["vanilla"]))
    assert (found.area, found.status) == ("model.lora_alpha", status) and what in found.what


def test_a_whole_copy_has_no_trouble(examined):
    for options in ({}, {"live": True}, {"deep": True}, {"methods": ["vanilla"]}):
        assert troubles(examined(**options)) == []


def test_nothing_is_written(examined, files):
    before = {path: path.stat().st_mtime_ns for path in files.rglob("*")}
    examined(deep=True)
    assert {path: path.stat().st_mtime_ns for path in files.rglob("*")} == before


RECORDED = json.loads((ROOT_DATA / "vicuna" / "tokens.json").read_text())


def test_probes_are_what_llama_s_own_tokenizer_gives():
    """Against ids that were recorded outside of this project, and the prompt's own text."""
    assert {one["text"]: one["ids"] for one in RECORDED["texts"]} == llm._VICUNA
    assert {"name": "tokenizer.model", "size": llm._RELEASED[0], "sha256": llm._RELEASED[1]} == RECORDED["file"]
    assert len(llm._VICUNA[llm.PREFIX]) == 45  # as the published code counts


def test_llama_s_own_tokenizer_passes(files, examined):
    """A model that spells Chat-Scene's fixed text as LLaMA's does, with the same ids."""
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString((files / "llm" / "tokenizer.model").read_bytes())
    del model.pieces[3:]
    model.trainer_spec.model_type, model.trainer_spec.vocab_size = 1, 32000
    model.trainer_spec.byte_fallback = False
    pieces = {
        i: piece for one in RECORDED["texts"] for i, piece in zip(one["ids"], one["pieces"], strict=True) if i > 2
    }
    for i in range(3, 32000):
        # The fewest pieces win, as they do where merges are made in order.
        model.pieces.add(piece=pieces.get(i, f"filler{i}"), score=-10.0 if i in pieces else -1000.0, type=1)
    (files / "llm" / "tokenizer.model").write_bytes(model.SerializeToString())
    config(vocab_size=32000)(files)
    assert told_of_the_tokenizer(examined) == [("ok", "tokenizer.model: 32000 tokens, LLaMA's own")]


def test_the_released_tokenizer_is_known_by_its_bytes(files, examined, monkeypatch):
    another_llamas_size(files)  # which the probes refuse
    path = files / "llm" / "tokenizer.model"
    monkeypatch.setattr(llm, "_RELEASED", (path.stat().st_size, file_hash(path)))
    assert told_of_the_tokenizer(examined) == [("ok", "tokenizer.model: 32000 tokens, LLaMA's own, byte for byte")]


def test_a_tokenizer_of_a_mistral_s(files, examined, monkeypatch):
    """It has as many tokens as LLaMA's, which it must not be."""
    another_llamas_size(files)
    config(model_type="mistral", sliding_window=None)(files)
    assert told_of_the_tokenizer(examined) == [
        ("ok", "tokenizer.model: 32000 tokens, of an LLM that is not known here")
    ]
    path = files / "llm" / "tokenizer.model"
    monkeypatch.setattr(llm, "_RELEASED", (path.stat().st_size, file_hash(path)))
    (found,) = [one for one in examined(methods=["vanilla"]) if "of another model" in one.what]
    assert (found.status, found.what) == (
        "error", "tokenizer.model is of another model: it is LLaMA's own, the LLM is a Mistral"
    )  # fmt: skip


@pytest.mark.parametrize("family", ["qwen2", "mistral"])
def test_other_families_have_no_trouble(files, examined, family):
    """Whose weights resemble the checkpoint's as LLaMA's do."""
    of_family(family, sliding_window=None)(files)
    found = examined(methods=["vanilla"])
    assert troubles(found) == []
    title = {"qwen2": "Qwen2", "mistral": "Mistral"}[family]
    assert any(one.area == L and one.what.startswith(f"{title}: ") for one in found)


def told_of_the_tokenizer(examined):
    return [(one.status, one.what) for one in examined(methods=["vanilla"]) if one.what.startswith("tokenizer.model: ")]


@pytest.mark.parametrize(("change", "override", "problem"), [
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "generation.beams=5", "rope_scaling.type is 'dynamic'"),
    ({}, "generation.beams=400", "generation.beams is 400, but a step takes the best 2 x beams of the LLM's 660"),
])  # fmt: skip
def test_what_the_engines_would_refuse(files, examined, change, override, problem):
    edit_json(files / "llm" / "config.json", lambda content: content.update(change))
    found = [one for one in troubles(examined(override, methods=["vanilla"])) if problem in one.what]
    assert found[0].area == "model.llm" and {one.status for one in found} == {"error"}
