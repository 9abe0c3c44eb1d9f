import pytest
import torch

from fast3d_core.bench.measure import Machine, PeakMemory, Work, read_bytes
from fast3d_core.evaluation.estimate import Rates
from fast3d_core.llm.cost import Cost, LlmShape

CPU = torch.device("cpu")


def test_a_cpu_tells_no_peak():
    assert PeakMemory(CPU).bytes() is None


@pytest.fixture
def machine(monkeypatch):
    """100 FLOP/s, in float32 10, and 5 bytes/s."""
    speed = {torch.bfloat16: 100.0, torch.float32: 10.0}
    monkeypatch.setattr("fast3d_core.bench.measure.measure", lambda device, dtype: Rates(device, speed[dtype], 5.0))
    return Machine(CPU, torch.bfloat16)


def work(**changes):
    """Of two samples: prefill of 300 FLOPs each, steps of 50 and 150 FLOPs that read 10 and 20 bytes of cache each."""
    costs = [[Cost(300, decode, kv)] * 2 for decode, kv in ((0, 0), (50, 10), (200, 20))]
    return Work(**{"costs": costs, "scene_flops": 0, "gap_flops": 40, "llm_bytes": 15, "gap_bytes": 5, **changes})


def test_rooflines(machine):
    assert machine.prefill_roofline(work()) == pytest.approx(600 / 100)  # FLOPs
    assert machine.prefill_roofline(work(scene_flops=100)) == pytest.approx(700 / 100)
    assert machine.prefill_roofline(work(llm_bytes=50)) == pytest.approx(50 / 5)  # weights
    # Step 1: 100 FLOPs, 1 s; 15 + 20 bytes, 7 s. Step 2: 300 FLOPs, 3 s; 15 + 40 bytes, 11 s.
    assert machine.decode_roofline(work()) == pytest.approx(7 + 11)
    assert machine.gap_roofline(work()) == pytest.approx(40 / 10)
    assert machine.gap_roofline(work(gap_bytes=100)) == pytest.approx(100 / 5)
    assert machine.gap_roofline(work(gap_flops=0)) == 0  # a method without maps


def test_weights_that_a_pass_reads():
    shape = LlmShape(layers=2, hidden=8, heads=2, kv_heads=1, head_dim=4, intermediate=16, vocab=10)
    layer = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16
    assert read_bytes(shape, 2) == 2 * (2 * layer + 10 * 8)
