"""Arithmetic on the shapes of large models, without their weights."""

from dataclasses import replace

import pytest
import torch

from fast3d_core.config import GenerationConfig
from fast3d_core.evaluation.needs import Needs
from fast3d_core.llm.cost import LlmShape
from fast3d_core.llm.engine.cache import GROWTH
from fast3d_core.plan import Plan, Stage

LLAMA_7B = LlmShape(32, 4096, 32, 32, 128, 11008, 32100)
VANILLA, SAP = Plan(300), Plan(300, [Stage(0, 30, torch.arange(30))])


@pytest.fixture(scope="module")
def needs():
    return Needs(LLAMA_7B, GenerationConfig(), 2, len)


def test_vanilla_at_batch_4_fits_a_small_gpu(needs):
    """24 GB, 64 new tokens by 5 beams, a text of 80 tokens."""
    one = needs.of(VANILLA, 80)
    assert one.rows == 380
    assert needs.weights == pytest.approx(13.5e9, rel=0.01)
    assert 13.5e9 < needs.memory([one] * 4) < 0.85 * 24e9
    assert needs.largest_batch([one], 0.85 * 24e9, 128) >= 4
    # By hand: 2 x 4096 bf16 numbers a layer for 380 prompt tokens and 5 x 63 generated ones.
    assert one.cost.kv_bytes == 32 * (380 + 5 * 63) * 2 * 4096 * 2


def test_memory_is_that_of_the_batch(needs):
    one, other = needs.of(VANILLA, 80), needs.of(SAP, 80)
    rows = 4 * 4096 + 3 * 11008
    cached = one.cost.kv_bytes + other.cost.kv_bytes
    assert needs.memory([one, other]) == needs.weights + 1.125 * cached + 490 * rows * 2
    assert needs.memory([needs.of(Plan(300, [Stage(1, 30, torch.arange(30))]), 80)]) > needs.memory(
        [other]
    )  # layer 0 sees all 300


def test_the_largest_batch_grows_with_memory_and_pruning(needs):
    vanilla, sap = ([needs.of(plan, text) for text in (60, 80)] for plan in (VANILLA, SAP))
    memories = [gigabytes * 1e9 for gigabytes in (8, 15, 17, 24, 40, 80, 1000)]
    sizes = [needs.largest_batch(vanilla, memory, 128) for memory in memories]
    assert sizes == sorted(sizes) and sizes[0] == 1 and sizes[-1] == 128
    assert len(set(sizes)) >= 5
    assert all(size in (1, 2, 4) or size % 8 == 0 for size in sizes)
    assert needs.largest_batch(sap, 24e9, 128) > needs.largest_batch(vanilla, 24e9, 128)
    for memory, size in zip(memories[1:], sizes[1:], strict=True):
        assert needs.memory([vanilla[1]] * size) <= memory  # the largest sample counts
    assert needs.largest_batch(vanilla, 1e15, 3) == 2


def test_reused_scenes_take_memory(needs):
    reusing = replace(needs, reuse_scene=True)
    one = needs.of(SAP, 80)
    more = reusing.memory([one] * 4) - needs.memory([one] * 4)
    scene = GROWTH * 380 * 32 * 2 * 4096 * 2  # 2 x 4096 bf16 numbers a layer
    assert more == 8 * scene  # those are kept at least
    assert reusing.memory([one] * 20) - needs.memory([one] * 20) == 20 * scene  # of its own each
    assert reusing.largest_batch([one], 24e9, 128) < needs.largest_batch([one], 24e9, 128)
