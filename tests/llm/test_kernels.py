"""The Triton kernels against plain torch: compiled where there is a GPU, else in Triton's interpreter."""

import sys

import pytest
import torch

if sys.platform != "linux":
    pytest.skip("there is no Triton for this system", allow_module_level=True)

from fast3d_core.llm.engine import kernels, operations
from fast3d_core.llm.engine.attention import beam_attention
from fast3d_core.llm.engine.cache import Layout
from fast3d_core.llm.engine.decode import BeamAncestry
from fast3d_core.llm.engine.packing import Packing

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # tests/conftest.py asks for the interpreter


def random(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


# The interpreter multiplies matrices of bf16 as if they were whole numbers.
@pytest.fixture(params=[torch.float32, torch.bfloat16 if DEVICE == "cuda" else torch.float16], ids=str)
def dtype(request):
    return request.param


def close(got, want, dtype):
    tolerance = 2e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(got.float(), want.float(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 4, 16), (6, 2, 24), (16, 16, 64)])
def test_rotate_into(dtype, normed, heads, kv_heads, dim):
    rows = 5
    qkv = random(rows, (heads + 2 * kv_heads) * dim, dtype=dtype)
    cos, sin = random(rows, dim, dtype=dtype), random(rows, dim, dtype=dtype, seed=1)
    slot_mapping = torch.tensor([7, 0, 3, 8, 5], device=DEVICE)
    got, want = ([torch.full((9, kv_heads, dim), 9.0, dtype=dtype, device=DEVICE) for _ in range(2)] for _ in range(2))
    norms = (random(dim, dtype=dtype), random(dim, dtype=dtype, seed=2)) if normed else None
    q = kernels.rotate_into(qkv, cos, sin, *got, slot_mapping, norms, 1e-5)
    close(q, operations.rotate_into(qkv, cos, sin, *want, slot_mapping, norms, 1e-5), dtype)
    for a, b in zip(got, want, strict=True):
        close(a, b, dtype)
        untouched = [1, 2, 4, 6]
        assert (a[untouched] == 9).all()


def test_rms_norm(dtype):
    x, weight = random(3, 100, dtype=dtype), random(100, dtype=dtype)
    got = kernels.rms_norm(x, weight, 1e-5)
    close(got, operations.rms_norm(x, weight, 1e-5), dtype)


def test_gated(dtype):
    both = random(3, 2 * 1500, dtype=dtype)
    got = kernels.gated(both)
    close(got, operations.gated(both), dtype)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    ("beams", "heads", "kv_heads", "dim"), [(5, 4, 4, 16), (1, 4, 2, 24), (3, 12, 2, 64), (7, 28, 2, 16)]
)
def test_attend_beams(dtype, beams, heads, kv_heads, dim, padded):
    """Prompts of several blocks, beams that change their ancestors, a step that fills half of the room."""
    lengths, most, number, samples = [3, 150, 64, 70], 20, 11, 4
    packing = Packing(lengths, torch.device(DEVICE))
    packed, dense = (Layout(packing, most * beams, padded=way) for way in (padded, True))
    prompts = [random(sum(lengths), kv_heads, dim, dtype=dtype, seed=s) for s in (1, 2)]
    written = [random(samples, most * beams, kv_heads, dim, dtype=dtype, seed=s) for s in (3, 4)]
    q = random(samples, beams, heads, dim, dtype=dtype)
    ancestry = BeamAncestry(torch.zeros(samples, beams, most, dtype=torch.long, device=DEVICE))
    generator = torch.Generator().manual_seed(0)
    for step in range(1, number + 1):
        ancestry.grow(torch.tensor(step, device=DEVICE))
        if step < number:
            ancestry.follow(torch.randint(beams, (samples, beams), generator=generator).to(DEVICE))

    def cache(layout, prompt, new):
        rows = torch.full((layout.rows, kv_heads, dim), 1e4, dtype=dtype, device=DEVICE)
        rows[layout.slot_mapping([0] * samples, lengths)] = prompt
        for i, first in enumerate(layout.bounds[2].tolist()):
            rows[first : first + most * beams] = new[i]
        return rows

    done = torch.tensor([False, False, True, False], device=DEVICE)
    count = torch.tensor(number, device=DEVICE)
    caches = [cache(packed, prompt, new) for prompt, new in zip(prompts, written, strict=True)]
    got = kernels.attend_beams(q, *caches, *packed.bounds, ancestry.written_by, count, done)
    k, v = (dense.view(cache(dense, p, w), new=number * beams) for p, w in zip(prompts, written, strict=True))
    visible = [packing.valid[:, None].expand(-1, beams, -1), ancestry.visible(count, number)]
    want = beam_attention(q, k, v, torch.cat(visible, dim=-1), range(samples))
    close(got[~done], want[~done], dtype)
    assert (got[done] == 0).all()
