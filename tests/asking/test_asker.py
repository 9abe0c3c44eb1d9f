"""Answers of one's own questions are those of the published code, where somebody asks what it was asked."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from fast3d_core import Asker, load_config
from fast3d_core.benchmarks.wording import SHORT
from fast3d_core.errors import DataError, UsageError
from fast3d_core.gap.checkpoint import load_gap, save_gap
from fast3d_core.pruning import FastV, Gap, Random, Sap, Vanilla
from tests.conftest import MINIATURE
from tests.maps.scores import load_maps

SCENE = "scene0011_00"


@pytest.fixture(scope="module")
def asker():
    return Asker(load_config(MINIATURE))


@pytest.mark.parametrize("mode", ["vanilla", "fastv_K2_rank15", "map_gap_K2_rank15", "sap_gap_K0_alpha0.5"])
def test_recorded_answers(asker, fixture, recorded, mode):
    """The maps of the GAP modes are predicted live, by the network that predicted the recorded ones."""
    pruner, _, _ = fixture.mode(mode)
    for sample, want in list(zip(fixture.samples, recorded[mode], strict=True))[::3]:
        reply = asker.ask(sample.prompt, sample.scene_id, pruner, "plain")
        assert reply.prompt == sample.prompt
        if not mode.startswith("fastv"):  # the published decoder picks FastV's set anew at every step
            assert reply.text == want["pred"]
        slots = set(range(100)) if mode == "vanilla" else {token // 3 for token in want["prefill_kept"]}
        present = {one.slot for one in asker.rooms.objects(sample.scene_id)}
        assert {one.slot for one in reply.kept} == slots & present


def test_random_draws_anew_for_every_question(asker):
    asked = [asker.ask(text, SCENE, Random(layer=1, keep=15)).kept for text in ("what?", "where?", "what?")]
    assert asked[0] == asked[2] != asked[1]


def test_no_room_for_a_question():
    asker = Asker(load_config(MINIATURE, ["generation.max_new_tokens=4096"]))
    with pytest.raises(UsageError, match=r"generation\.max_new_tokens 4096 leaves no room"):
        asker.ask("what?", SCENE, Vanilla())


def test_what_a_reply_tells(asker, fixture):
    sample = next(s for s in fixture.samples if s.dataset == "scanqa" and s.scene_id == SCENE)
    typed = sample.prompt.removesuffix(SHORT)
    reply = asker.ask(f"  {typed} ", SCENE, Sap(0.5))
    assert (reply.prompt, reply.question, reply.scene) == (sample.prompt, f"  {typed} ", SCENE)
    assert reply.method == "sap-alpha0.5"
    scores = load_maps(asker.config.maps.predicted, "scanqa", 3)[sample.index]
    assert torch.allclose(torch.tensor(reply.attention), torch.softmax(scores, -1), atol=1e-5)
    plan = fixture.plans(Sap(0.5), asker.config.maps.predicted)[fixture.samples.index(sample)]
    assert (reply.layer, reply.layers, reply.visual, reply.kept_tokens) == (0, 4, 300, plan.stages[0].count)
    assert reply.pruned == pytest.approx(100 * (1 - plan.stages[0].count / 300))
    shares = [reply.attention[one.slot] for one in reply.kept]
    assert shares == sorted(shares, reverse=True) and sum(shares) >= 0.5
    assert list(reply.seconds) == ["gap", "plan", "prompt", "prefill", "decode", "text", "end_to_end"]
    assert reply.seconds["end_to_end"] >= reply.seconds["gap"] > 0 and not reply.reuse_scene
    whole = asker.ask(typed, SCENE, Vanilla())
    assert whole.attention is None and whole.kept == tuple(asker.rooms.objects(SCENE))
    assert whole.flops == whole.flops_unpruned and whole.pruned == 0
    by_attention = asker.ask(typed, SCENE, FastV(2, 15))
    assert by_attention.kept_tokens == 15 and by_attention.flops < by_attention.flops_unpruned


def test_an_answer_s_objects(asker, fixture, recorded):
    """Those in the text, in its order, with what the scene says of them."""
    named = next(want for want in recorded["vanilla"] if "<OBJ0" in want["pred"])
    reply = asker.ask(named["prompt"], named["scene_id"], Vanilla(), "plain")
    slots = [one.slot for one in reply.named]
    assert slots and all(f"<OBJ{slot:03}>" in reply.text for slot in slots)
    by_slot = {one.slot: one for one in asker.rooms.objects(named["scene_id"])}
    assert all(one == by_slot[one.slot] for one in reply.named if one.slot in by_slot)
    assert any(one.label for one in reply.named)


def test_random_draws_by_its_seed(asker):
    kept = [asker.ask("what?", SCENE, Random(0, 15, seed)).kept for seed in (1, 1, 2)]
    assert kept[0] == kept[1] != kept[2]


def test_scenes_read_once(fixture):
    """Answers as `eval` gives them with --reuse-scene; the second question about a scene costs less."""
    config = load_config(MINIATURE, ["eval.reuse_scene=true"])
    asker = Asker(config)
    prompts = [sample.prompt for sample in fixture.samples if sample.scene_id == SCENE][:2]
    pruner = Gap(2, 15)
    replies = [asker.ask(prompt, SCENE, pruner, "plain") for prompt in (*prompts, prompts[0])]
    plans = fixture.plans(pruner, config.maps.predicted)
    samples = [s for s in fixture.samples if s.scene_id == SCENE][:2]
    for reply, sample in zip(replies, samples, strict=False):
        place = fixture.samples.index(sample)
        prompt, plan = fixture.prompts[place], plans[place]
        (want,) = fixture.model.generate([prompt], [plan], config.generation, reuse_scene=True)
        assert reply.text == want.text and reply.reuse_scene
    assert replies[2].text == replies[0].text and replies[2].flops < replies[0].flops


@pytest.mark.parametrize(
    ("question", "scene", "message"),
    [
        ("what?", "scene0011_01", "there is no scene 'scene0011_01' .* nearest are scene0011_00"),
        ("what?", "x\x1b[31m", r"there is no scene 'x\\x1b\[31m'"),
        (" \n", SCENE, "the question is empty"),
        ("what is <OBJ999>?", SCENE, "has no object <OBJ999>; its 100 objects include .*<OBJ099>"),
        ("what is it? " * 2000, SCENE, "the question takes .* tokens .* the LLM reads"),
    ],
)
def test_bad_questions(asker, question, scene, message):
    with pytest.raises(UsageError, match=message):
        asker.ask(question, scene, Vanilla())


def test_the_longest_question(asker):
    """One token less than refused is answered."""
    longest = asker.model.llm.config.max_position_embeddings
    refused = next(n for n in range(1, longest) if _too_long(asker, "<OBJ001>" * n))
    assert asker.ask("<OBJ001>" * (refused - 1), SCENE, Sap(0.1), "plain").text is not None


def _too_long(asker, prompt):
    try:
        asker._check_length(prompt)
    except UsageError:
        return True
    return False


def test_without_gap(files):
    config = load_config(files / "fast3d.yaml")
    (files / "gap" / "checkpoint_spatial.pth").unlink()
    asker = Asker(config)
    with pytest.raises(DataError, match="gap.checkpoint in .* does not exist.*--method vanilla"):
        asker.ask("what?", SCENE, Sap(0.5))
    assert "model" not in vars(asker)  # told before the LLM is loaded
    assert asker.ask("what?", SCENE, Vanilla()).kept


def test_a_gap_network_that_overflows(files):
    path = files / "broken.safetensors"
    config = load_config(files / "fast3d.yaml")
    network = load_gap(config, torch.device("cpu"))
    save_gap(path, network, 1)
    tensors = load_file(path)
    for name in ("out_head_attn.2.weight", "out_head_attn.4.weight"):  # each is finite
        tensors[name] *= 1e25
    save_file(tensors, path, {"heads": str(network.shape.heads), "step": "1"})
    asker = Asker(replace(config, gap=replace(config.gap, checkpoint=path)))
    with pytest.raises(DataError, match="predicts NaN or infinity for scene0011_00"):
        asker.ask("what?", SCENE, Sap(0.5))
