"""Random models and generated questions: sizes as named, prompts of exactly as many tokens as asked for."""

import pytest
import torch

from fast3d_core.bench.shapes import OBJECTS, QUESTIONS_A_SCENE, SHAPES, WORDS, random_subject
from fast3d_core.bench.subject import predicted_maps
from fast3d_core.errors import UsageError
from fast3d_core.maps.kind import AttentionMap
from fast3d_core.models.chat_scene.prompt import QUESTION
from fast3d_core.models.chat_scene.random_weights import random_tokenizer
from fast3d_core.pruning.alpha_search import nearest, outcome

CPU = torch.device("cpu")


def test_named_sizes():
    """LLaMA's 7B and 13B, by the number of their weights."""
    for name, billions in (("7b", 6.74), ("13b", 13.0)):
        s = SHAPES[name]
        weights = s.layers * (4 * s.hidden**2 + 3 * s.hidden * s.intermediate) + 2 * s.words * s.hidden
        assert weights / 1e9 == pytest.approx(billions, rel=0.01)


def test_prompts_are_as_long_as_asked_for(tiny):
    batch = tiny.batch(70, 3)
    assert {tiny.model.text_tokens(sample.prompt) for sample in batch.samples} == {80}
    assert len({sample.prompt for sample in batch.samples}) == 70
    prompt = tiny.model.prompt(batch.scenes[batch.samples[0].scene_id], batch.samples[0].prompt)
    assert len(prompt) == 80 + 300
    assert prompt.embeds.std(dim=-1).min() > 0  # no row of zeros
    with pytest.raises(UsageError, match=r"--text-tokens must be at least \d\d"):
        random_subject("tiny", CPU, torch.float32, 5, seed=0)


def test_the_vocabulary_of_a_full_size_model(tmp_path):
    tokenizer = random_tokenizer(tmp_path, 32000, OBJECTS, WORDS)
    assert (tokenizer.vocab_size, len(tokenizer)) == (32000, 32100)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    plain = QUESTION.format(prompt=" ".join(WORDS))
    assert tokenizer.sentencepiece.unk_id() not in tokenizer.encode(plain)
    assert tokenizer.decode(tokenizer.encode(plain)).split() == plain.split()
    assert tokenizer.decode([31999, 32007])  # what a random model answers is text, too


def test_batches_are_the_same_again_but_new_objects(tiny):
    first, again, other = tiny.batch(70, 0), tiny.batch(70, 0), tiny.batch(70, 1)
    assert first.samples == again.samples and first.samples != other.samples
    for name, scene in first.scenes.items():
        assert again.scenes[name] is not scene
        assert torch.equal(again.scenes[name].features_3d, scene.features_3d)
        assert torch.equal(again.locations[name], first.locations[name])
        assert scene.features_2d.std(dim=-1).min() > 0


def test_so_many_questions_in_a_row_are_about_a_scene(tiny):
    batches = tiny.batches(30, range(5))
    names = [sample.scene_id for batch in batches for sample in batch.samples]
    assert [names.count(name) for name in dict.fromkeys(names)] == [QUESTIONS_A_SCENE, QUESTIONS_A_SCENE, 16]
    assert len({id(scene) for batch in batches for scene in batch.scenes.values()}) == 3  # one object each


def test_a_seed_draws_another_model(tiny):
    same, other = (random_subject("tiny", CPU, torch.float32, 80, seed=seed) for seed in (0, 1))
    weights = [subject.model.llm.lm_head.weight for subject in (tiny, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert tiny.batch(2, 0).samples == same.batch(2, 0).samples != other.batch(2, 0).samples


def test_maps_let_sap_keep_as_many_objects_as_real_ones_do(tiny):
    """Many or few, from question to question, on one scene, too."""
    parts = [predicted_maps(tiny.gap, tiny.batch(32, number)).logits() for number in range(4)]
    maps = {"bench": AttentionMap("logits", torch.cat(parts))}
    (found, *_) = nearest(maps, 90)
    assert found.ratio == pytest.approx(90, abs=0.1)
    kept = outcome(maps, found.alpha).datasets["bench"]
    assert 2 <= kept.kept_p5 <= 6 and 15 <= kept.kept_p95 <= 25
    one_scene = outcome({"bench": AttentionMap("logits", parts[0])}, found.alpha).datasets["bench"]
    assert one_scene.kept_p95 - one_scene.kept_p5 > 5


def test_weights_are_made_in_their_dtype():
    model = random_subject("tiny", CPU, torch.bfloat16, 80, seed=0).model
    assert {p.dtype for p in model.llm.parameters()} == {torch.bfloat16}
    assert model.llm.model.rotary_emb.inv_freq.dtype == torch.float32
    assert model.llm.model.layers[0].mlp.up_proj.weight.float().std() == pytest.approx(0.02, rel=0.05)


def test_gap_reads_about_as_many_tokens_as_the_question_has_words(tiny):
    prompts = [sample.prompt for sample in tiny.batch(8, 0).samples]
    _, lengths = tiny.gap.tokenizer(prompts)
    for prompt, length in zip(prompts, lengths, strict=True):
        words = len(prompt.split())
        assert words + 2 <= length < 1.3 * words + 4
